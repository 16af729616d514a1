//! Constructed objects for the tests of this module.

use std::{net::IpAddr, time::Duration};

use super::room::Room;
use crate::model::{
    AnnouncePolicy, AnnouncerKind, ClusterAccess, ClusterNode, ClusterPool, ClusterService, Inventory, IpFamily,
    KubernetesSettings, ObjectName, Pool,
    inventory::{Endpoint, EndpointPort, EndpointSlice, FamilyPolicy, Ingress, ServicePort},
};

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn node(internal: &[&str]) -> ClusterNode {
    ClusterNode { internal: internal.iter().copied().map(ip).collect(), ready: true, ..ClusterNode::default() }
}

/// A pool that is announced over loopback.
pub fn pool(ranges: &[&str]) -> Pool {
    Pool {
        addresses: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        namespaces: Vec::new(),
        service_selector: Default::default(),
        priority: 0,
        auto_assign: true,
        avoid_buggy_ips: false,
        allow_external_ips: false,
        announce: AnnouncePolicy { announcers: vec![AnnouncerKind::Loopback], ..AnnouncePolicy::default() },
    }
}

/// A pool that no controller has judged yet.
pub fn offered(created: i64, spec: Pool) -> ClusterPool {
    ClusterPool {
        uid: format!("uid-{created}"),
        created,
        deleting: false,
        spec: Some(spec),
        last_good: None,
        is_judged: false,
    }
}

/// A Service of our class with these ingress addresses and the port `http`, 80/TCP.
pub fn service(created: i64, ingress: &[&str]) -> ClusterService {
    ClusterService {
        uid: format!("uid-{created}"),
        created,
        is_load_balancer: true,
        load_balancer_class: Some("levee.dev/levee".to_owned()),
        external_policy: crate::model::inventory::TrafficPolicy::Local,
        families: vec![IpFamily::Ipv4, IpFamily::Ipv6],
        family_policy: FamilyPolicy::PreferDualStack,
        ports: vec![port("http", "TCP", 80)],
        ingress: ingress.iter().map(|ip| given(ip)).collect(),
        ..ClusterService::default()
    }
}

pub fn given(ip: &str) -> Ingress {
    Ingress { ip: Some(ip.to_owned()), hostname: None, ip_mode: Some("VIP".to_owned()) }
}

pub fn port(name: &str, protocol: &str, port: u16) -> ServicePort {
    ServicePort { name: name.to_owned(), protocol: protocol.to_owned(), port }
}

/// A slice with the port `http` and these endpoints.
pub fn slice(name: &str, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let port = EndpointPort { name: "http".to_owned(), protocol: "TCP".to_owned(), port: 8080 };
    EndpointSlice { name: name.to_owned(), ports: vec![port], endpoints }
}

/// A ready endpoint.
pub fn endpoint(address: &str, node: &str) -> Endpoint {
    let node = (!node.is_empty()).then(|| node.to_owned().into());
    Endpoint { addresses: vec![ip(address)], ready: true, serving: true, terminating: false, node }
}

/// An endpoint that ends and still serves.
pub fn ending(address: &str, node: &str) -> Endpoint {
    Endpoint { ready: false, terminating: true, ..endpoint(address, node) }
}

/// Three nodes and a pool 192.0.2.0/24, 2001:db8::/64.
pub fn inventory() -> Inventory {
    let mut inventory = Inventory::default();
    for last in 1..=3 {
        inventory.nodes.insert(format!("n{last}"), node(&[&format!("10.0.0.{last}"), &format!("fd00::{last}")]));
    }
    inventory.pools.insert("pool".to_owned(), offered(0, pool(&["192.0.2.0/24", "2001:db8::/64"])));
    inventory
}

/// Adds a Service with its slices.
pub fn add(inventory: &mut Inventory, name: &str, service: ClusterService, slices: Vec<EndpointSlice>) {
    let name = ObjectName::new("ns", name);
    inventory.services.insert(name.clone(), service.into());
    inventory.slices.insert(name, slices.into_iter().map(Into::into).collect());
}

/// `kubernetes` as it is by default, for node `n1`.
pub fn settings() -> KubernetesSettings {
    KubernetesSettings {
        local_first: false,
        second_chance: false,
        access: ClusterAccess { kubeconfig: None, servers: Vec::new(), state_file: "/dev/null".into() },
        max_snapshot_age: Duration::from_secs(3600),
        class: "levee.dev/levee".to_owned(),
        default_class: false,
        services: true,
        reserved: Vec::new(),
        lifetime: Duration::from_secs(30),
        node_name: "n1".to_owned(),
        peers_from_nodes: true,
    }
}

/// Room for more than any test has.
pub fn room() -> Room {
    Room { services: 1000, backends: 10_000, ring_slots: 1 << 24, addresses: 1000, source_ranges: 1000, peers: 100 }
}
