//! Agents that follow an API: what their configuration has for it, and the objects that describe a topology.

use std::{fmt::Write, net::IpAddr, path::Path};

use netns_tests::{config::AgentConfig, scope::Scope, topology::Node};
use serde_json::{Value, json};

use crate::{ability::Ability, assets::Assets};

/// Seconds that an announced address lives without its agent: less than what tests wait for an outage to do harm.
pub const LIFETIME: u64 = 10;

/// Makes an agent take Services and peers from the API that a kubeconfig leads to. `more` are further keys of
/// `kubernetes`, `key: value` each.
#[must_use]
pub fn follow(scope: &Scope, mut config: AgentConfig, kubeconfig: &Path, more: &[&str]) -> AgentConfig {
    config.peers.clear();
    let state = scope.file(&format!("inventory-{}.json", config.node.0));
    let own = [
        format!("kubeconfig: {}", kubeconfig.display()),
        format!("stateFile: {}", state.display()),
        format!("announceLifetime: {LIFETIME}s"),
    ];
    config.extra.push_str("kubernetes:\n");
    for key in own.iter().map(String::as_str).chain(more.iter().copied()) {
        writeln!(config.extra, "  {key}").expect("writing to a string");
    }
    config
}

/// The Node object of a node.
#[must_use]
pub fn node(node: &Node) -> Value {
    let addresses: Vec<_> =
        node.addresses.iter().map(|address| json!({ "type": "InternalIP", "address": address })).collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": node.name },
        "status": {
            "addresses": addresses,
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

/// A pool of these addresses; `announce` says where they are announced.
#[must_use]
pub fn pool(name: &str, addresses: &[&str], announce: &Value) -> Value {
    json!({
        "apiVersion": "levee.dev/v1alpha1", "kind": "VipPool",
        "metadata": { "name": name },
        "spec": { "addresses": addresses, "allowExternalIPs": true, "announce": announce },
    })
}

/// An endpoint as slices have it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its address; that of its node if it is in the host's network.
    pub address: IpAddr,
    /// The node that it is on; `None` where nobody says.
    pub node: Option<String>,
    /// Takes new connections.
    pub ready: bool,
    /// Is on its way out, and serves what it has.
    pub terminating: bool,
}

impl Pod {
    /// A ready pod in the network of its node.
    #[must_use]
    pub fn on(node: &Node) -> Self {
        Self { address: node.addresses[0], node: Some(node.name.clone()), ready: true, terminating: false }
    }
}

/// The slice of a Service in the namespace `default`, with one port without a name.
#[must_use]
pub fn slice(service: &str, port: u16, pods: &[Pod]) -> Value {
    let endpoint = |pod: &Pod| {
        let serving = pod.ready || pod.terminating;
        let conditions = json!({ "ready": pod.ready, "serving": serving, "terminating": pod.terminating });
        let mut endpoint = json!({ "addresses": [pod.address], "conditions": conditions });
        if let Some(node) = &pod.node {
            endpoint["nodeName"] = json!(node);
        }
        endpoint
    };
    let endpoints: Vec<_> = pods.iter().map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("{service}-1"), "namespace": "default",
            "labels": { "kubernetes.io/service-name": service },
        },
        "endpoints": endpoints,
        "ports": [{ "name": "", "port": port, "protocol": "TCP" }],
    })
}

/// A slice in the version that the server knows: that before `v1` names the node among the topology.
#[must_use]
pub fn in_version(assets: &Assets, mut slice: Value) -> Value {
    if assets.can(Ability::Slices) {
        return slice;
    }
    slice["apiVersion"] = json!("discovery.k8s.io/v1beta1");
    for endpoint in slice["endpoints"].as_array_mut().into_iter().flatten() {
        let node = endpoint.as_object_mut().and_then(|fields| fields.remove("nodeName"));
        endpoint["topology"] = json!({ "kubernetes.io/hostname": node });
        endpoint["conditions"] = json!({ "ready": endpoint["conditions"]["ready"] });
    }
    slice
}
