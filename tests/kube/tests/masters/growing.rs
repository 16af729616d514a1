//! Twenty nodes join one after the other, as the API tells their agents, while clients go on.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::ensure;
use kube_tests::{
    access::Keys,
    follow::{self, Pod, follow, pool, slice},
    masters::PATIENCE,
    place::Place,
    stub::{Settings, Stub},
};
use netns_tests::{
    agent::Agent,
    cluster::{Cluster, PORT},
    config::AgentConfig,
    observe::inspect,
    routes::wait_for_route,
    routing::Suite,
    scope::{Scope, sweep},
    topology::Fabric,
    traffic::{LongLived, Stream, Tally, burst},
    wait,
};
use serde_json::{Value, json};

use crate::turn;

/// Nodes in the end, and those that are there when the clients come.
const NODES: u8 = 20;
const FIRST: usize = 2;
/// Addresses of two Services with the same pods (RFC 5737): one is announced by the first nodes, the other by all.
const BY_FIRST: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 20));
const BY_ALL: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));
/// The label of nodes that announce the first.
const ENTRY: &str = "levee.dev/entry";
/// The router's address on the client's link, where the API is.
const API: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
/// Limit of a request: a connection that a busy machine serves late is not lost.
const LIMIT: Duration = Duration::from_secs(10);
/// Time between two new connections.
const PERIOD: Duration = Duration::from_millis(50);
/// Connections that stay open, the port of the first, and time between two requests on each.
const OPEN: u16 = 60;
const FIRST_PORT: u16 = 20_000;
const PULSE: Duration = Duration::from_millis(500);
/// Connections that find out who serves.
const BURST: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_nodes_join_under_traffic_and_nothing_is_lost() {
    let _turn = turn().await;
    sweep();
    let mut cluster = Cluster::build(Scope::new().unwrap(), Fabric::Routed, NODES, &[BY_FIRST, BY_ALL]).unwrap();
    cluster.start_servers().unwrap();
    cluster.start_routing(Suite::Bird, Suite::Bird).unwrap();
    let keys = Keys::new(&cluster.scope).unwrap();
    let place = Place::inside(&cluster.topology.router, API);
    let stub = Stub::start(&cluster.scope, &keys, &place, Settings::default()).unwrap();
    make_service(&stub, "first", BY_FIRST, &json!({ "nodeSelector": { ENTRY: "" } }));
    make_service(&stub, "all", BY_ALL, &json!({}));
    for node in 0..FIRST {
        join(&mut cluster, &stub, &keys, node).await;
    }

    let clients = [BY_FIRST, BY_ALL].map(|vip| cluster.client(vip, LIMIT).unwrap());
    let [_, by_all] = &clients;
    let open = clients.each_ref().map(|client| LongLived::open(&cluster.runtime, client, OPEN, FIRST_PORT, PULSE));
    let streams = clients.each_ref().map(|client| Stream::start(&cluster.runtime, client.clone(), PERIOD));
    for node in FIRST..usize::from(NODES) {
        join(&mut cluster, &stub, &keys, node).await;
    }
    let last = Tally::of(&burst(&cluster.runtime, by_all, BURST, 8).await);
    assert_eq!((last.failed(), last.answers.len()), (0, usize::from(NODES)), "{last:?}");
    for stream in streams {
        let joining = Tally::of(&stream.stop().await);
        assert_eq!(joining.failed(), 0, "{joining:?}");
        eprintln!("{} connections while {NODES} nodes joined", joining.answered());
    }
    for (open, vip) in open.into_iter().zip([BY_FIRST, BY_ALL]) {
        let lives = open.close().await;
        let broken: Vec<_> = lives.iter().filter(|life| life.broken.is_some() || life.answered < 10).collect();
        assert!(broken.is_empty(), "{} of {OPEN} by {vip}: {broken:?}", broken.len());
    }
}

/// A Service, its address and the pool of that.
fn make_service(stub: &Stub, name: &str, vip: IpAddr, announce: &Value) {
    let of_pool = format!("/apis/levee.dev/v1alpha1/vippools/{name}");
    stub.put(&of_pool, pool(name, &[&format!("{vip}/32")], announce)).unwrap();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "levee.dev/levee", "externalIPs": [vip],
            "ports": [{ "port": PORT, "protocol": "TCP" }],
        },
    });
    stub.put(&format!("/api/v1/namespaces/default/services/{name}"), service).unwrap();
}

/// A node is made known, its agent starts, and then a pod is ready there. Returns when all agents give it connections and
/// the router sends it some.
async fn join(cluster: &mut Cluster, stub: &Stub, keys: &Keys, node: usize) {
    let one = &cluster.topology.nodes[node];
    let mut known = follow::node(one);
    if node < FIRST {
        known["metadata"]["labels"] = json!({ ENTRY: "" });
    }
    stub.put(&format!("/api/v1/nodes/{}", one.name), known).unwrap();
    let file = format!("{}.kubeconfig", one.name);
    let kubeconfig = stub.access().kubeconfig(&cluster.scope, &file, &keys.admin).unwrap();
    let mut config = AgentConfig::for_node(&cluster.scope, &cluster.topology, node).unwrap();
    "capacities: {ringSlots: 65536, flows: 4096}\n".clone_into(&mut config.extra);
    // The pods are servers in their node's network, and there is no kube-proxy.
    let config = follow(&cluster.scope, config, &kubeconfig, &["secondChance: true"]);
    let mut agent = Agent::start(&cluster.scope, &one.netns, &config).unwrap();
    agent.wait_ready(PATIENCE).await.unwrap();
    cluster.agents.push(agent);

    let pods: Vec<_> = cluster.topology.nodes[..=node].iter().map(Pod::on).collect();
    for service in ["first", "all"] {
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/{service}-1");
        stub.put(&path, slice(service, PORT, &pods)).unwrap();
    }
    let look = || async {
        for agent in &cluster.agents {
            let services = inspect(agent)?.services;
            let all = services.iter().flat_map(|service| &service.backends);
            let serving = all.filter(|one| one.in_ring && one.hop.mode != "unknown").count();
            ensure!(serving == 2 * (node + 1), "{serving} of two times {} backends", node + 1);
        }
        Ok(())
    };
    wait::until(&format!("all to send to node {node}"), PATIENCE, look).await.unwrap();
    let router = &cluster.topology.router;
    wait_for_route(router, BY_ALL, node + 1, PATIENCE).await.unwrap();
    wait_for_route(router, BY_FIRST, FIRST.min(node + 1), PATIENCE).await.unwrap();
}
