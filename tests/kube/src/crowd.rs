//! A cluster of any size at the stand-in, for what has to stay cheap at size: Services with an address and one slice each,
//! on nodes that need not exist.

use std::net::Ipv4Addr;

use anyhow::{Result, anyhow};
use netns_tests::config::AgentConfig;
use serde_json::{Value, json};

use crate::{follow::pool, stub::Stub};

/// Namespace of the Services.
pub const NAMESPACE: &str = "crowd";
/// Port of the Services.
pub const PORT: u16 = 8080;
/// The addresses of the pool.
const POOL: &str = "100.64.0.0/16";
const FIRST_VIP: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const FIRST_NODE: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
const FIRST_POD: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
/// Slots of the ring of a Service's port.
const SLOTS: u32 = 4096;

/// How large it is.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Services, at most 65,000.
    pub services: u32,
    /// Endpoints of each, fewer by two than there are nodes.
    pub endpoints: u32,
    /// Nodes that they are on.
    pub nodes: u32,
}

impl Crowd {
    /// Makes the nodes, the pool, the Services and their slices.
    ///
    /// # Errors
    /// If the stand-in refuses an object.
    pub fn fill(&self, stub: &Stub) -> Result<()> {
        for number in 0..self.nodes {
            put(stub, &format!("/api/v1/nodes/{}", node_name(number)), node(number))?;
        }
        put(stub, "/apis/levee.dev/v1alpha1/vippools/crowd", pool("crowd", &[POOL], &json!({})))?;
        for number in 0..self.services {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/services/{}", service_name(number));
            put(stub, &path, service(number))?;
            self.place(stub, number, 0)?;
        }
        Ok(())
    }

    /// Moves one endpoint of a Service to another node, another one each round (from 1).
    ///
    /// # Errors
    /// If the stand-in refuses the slice.
    pub fn place(&self, stub: &Stub, service: u32, round: u32) -> Result<()> {
        let name = slice_name(service);
        put(stub, &slice_path(service), self.slice(&name, service, round))
    }

    /// What an agent's maps need to hold it, as keys of its configuration.
    #[must_use]
    pub fn with_capacities(&self, mut config: AgentConfig) -> AgentConfig {
        let services = self.services + 8;
        config.extra.push_str(&format!(
            "capacities: {{services: {services}, backends: {}, ringSlots: {}, addresses: {services}, peers: {}}}\n",
            services * (self.endpoints + 1),
            services * SLOTS,
            self.nodes + 64,
        ));
        config
    }

    fn slice(&self, name: &str, service: u32, round: u32) -> Value {
        let others = self.nodes - self.endpoints;
        let endpoint = |index: u32| {
            let moved = if index == 0 && round > 0 { self.endpoints + round % others } else { index };
            let pod = service * self.endpoints + index;
            json!({
                "addresses": [address(FIRST_POD, pod)],
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "nodeName": node_name((service + moved) % self.nodes),
                "targetRef": { "kind": "Pod", "namespace": NAMESPACE, "name": format!("{}-7c9d8b6f5-{pod:06}", service_name(service)) },
            })
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": name, "namespace": NAMESPACE,
                "labels": { "kubernetes.io/service-name": service_name(service) },
            },
            "endpoints": (0..self.endpoints).map(endpoint).collect::<Vec<_>>(),
            "ports": [{ "name": "http", "port": PORT, "protocol": "TCP" }],
        })
    }
}

/// The address of a Service.
#[must_use]
pub fn vip(service: u32) -> Ipv4Addr {
    address(FIRST_VIP, service)
}

/// The path of the slice of a Service.
#[must_use]
pub fn slice_path(service: u32) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/{}", slice_name(service))
}

/// Makes or replaces an object.
///
/// # Errors
/// If the stand-in refuses it.
pub fn put(stub: &Stub, path: &str, object: Value) -> Result<()> {
    stub.put(path, object).map_err(|failure| anyhow!("{path}: {failure:?}"))
}

fn service_name(number: u32) -> String {
    format!("service-{number:05}")
}

fn slice_name(service: u32) -> String {
    format!("{}-x7k2p", service_name(service))
}

fn node_name(number: u32) -> String {
    format!("crowd-{number:03}")
}

fn address(first: Ipv4Addr, number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(first.to_bits() + number)
}

fn node(number: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": node_name(number), "labels": { "kubernetes.io/os": "linux", "kubernetes.io/hostname": node_name(number) } },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": address(FIRST_NODE, number) }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

fn service(number: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": service_name(number), "namespace": NAMESPACE },
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "levee.dev/levee", "externalTrafficPolicy": "Local",
            "clusterIP": address(Ipv4Addr::new(10, 96, 0, 1), number),
            "clusterIPs": [address(Ipv4Addr::new(10, 96, 0, 1), number)],
            "ipFamilies": ["IPv4"],
            "ports": [{ "name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP" }],
        },
        "status": { "loadBalancer": { "ingress": [{ "ip": vip(number), "ipMode": "VIP" }] } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_puts_one_endpoint_on_a_node_without_one() {
        let crowd = Crowd { services: 7, endpoints: 3, nodes: 5 };
        let nodes = |round| {
            let slice = crowd.slice("s", 4, round);
            let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
            endpoints.iter().map(|one| one["nodeName"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(nodes(0), ["crowd-004", "crowd-000", "crowd-001"]);
        assert_eq!(nodes(1), ["crowd-003", "crowd-000", "crowd-001"]);
        assert_eq!(nodes(2), ["crowd-002", "crowd-000", "crowd-001"]);
    }
}
