//! The nodes behind a port of a Service: a node takes flows for the ready endpoints that are on it, each counts once.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use crate::model::{
    Backend, ClusterNode, ClusterService, Inventory, IpFamily, Shared,
    inventory::{Endpoint, EndpointSlice, ServicePort, TrafficPolicy},
};

/// The nodes of a cluster, by name and by address.
#[derive(Debug)]
pub struct Nodes<'a> {
    by_name: &'a BTreeMap<String, ClusterNode>,
    by_address: HashMap<IpAddr, &'a str>,
}

/// What stands behind a port.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// Nodes in the order of their addresses, with the number of their ready endpoints as weight.
    pub backends: Vec<Backend>,
    /// No ready endpoint is on a node that takes flows, and some are elsewhere.
    pub elsewhere: bool,
}

impl Found {
    /// Whether anybody takes new flows.
    pub fn takes_flows(&self) -> bool {
        self.backends.iter().any(|backend| backend.weight > 0)
    }
}

impl<'a> Nodes<'a> {
    /// The nodes of this inventory.
    pub fn of(inventory: &'a Inventory) -> Self {
        let addresses = |(name, node): (&'a String, &'a ClusterNode)| {
            node.internal.iter().map(move |address| (*address, name.as_str()))
        };
        Self { by_name: &inventory.nodes, by_address: inventory.nodes.iter().flat_map(addresses).collect() }
    }

    /// The address by which a node is a backend, the same for VIPs of both families; whether it takes new flows.
    fn backend(&self, name: &str) -> Option<(IpAddr, bool)> {
        let node = self.by_name.get(name)?;
        Some((*node.internal.first()?, !node.is_excluded()))
    }

    /// The node that an endpoint is on, by its name or, without one, by its address.
    fn of_endpoint<'e>(&self, address: IpAddr, endpoint: &'e Endpoint) -> Option<&'e str>
    where
        'a: 'e,
    {
        endpoint.node.as_ref().map(|node| node.as_str()).or_else(|| self.by_address.get(&address).copied())
    }

    /// Every node that takes flows of Services.
    fn all(&self) -> impl Iterator<Item = IpAddr> {
        self.by_name
            .keys()
            .filter_map(|name| self.backend(name))
            .filter(|(_, takes)| *takes)
            .map(|(address, _)| address)
    }
}

/// Finds what stands behind a port for VIPs of a family.
pub fn find(
    service: &ClusterService,
    port: &ServicePort,
    family: IpFamily,
    slices: &[Shared<EndpointSlice>],
    nodes: &Nodes<'_>,
) -> Found {
    let mut found = Found::default();
    let mut weights: BTreeMap<IpAddr, u16> = BTreeMap::new();
    for (node, is_ready) in endpoints(service, port, family, slices, nodes).into_values() {
        let backend = node.and_then(|node| nodes.backend(node));
        let (address, takes) = match backend {
            Some(backend) => backend,
            None => {
                found.elsewhere |= is_ready;
                continue;
            }
        };
        found.elsewhere |= is_ready && !takes;
        let weight = weights.entry(address).or_default();
        *weight = (*weight + u16::from(is_ready && takes)).min(1000);
    }
    if weights.values().any(|weight| *weight > 0) {
        found.elsewhere = false;
    } else if found.elsewhere && service.external_policy == TrafficPolicy::Cluster {
        weights.extend(nodes.all().map(|address| (address, 1)));
    }
    let backend = |(address, weight)| Backend { address, port: port.port, weight };
    found.backends = weights.into_iter().map(backend).collect();
    found
}

/// Endpoints that have flows or may have some, each once whatever slices it is in: node and whether it takes new ones.
fn endpoints<'e>(
    service: &ClusterService,
    port: &ServicePort,
    family: IpFamily,
    slices: &'e [Shared<EndpointSlice>],
    nodes: &Nodes<'e>,
) -> BTreeMap<IpAddr, (Option<&'e str>, bool)> {
    let mut endpoints: BTreeMap<IpAddr, (Option<&str>, bool)> = BTreeMap::new();
    let has_port = |slice: &&Shared<EndpointSlice>| {
        slice.ports.iter().any(|one| one.name == port.name && one.protocol == port.protocol)
    };
    for endpoint in slices.iter().filter(has_port).flat_map(|slice| &slice.endpoints) {
        let Some(address) = endpoint.addresses.first().filter(|address| IpFamily::of(**address) == family) else {
            continue;
        };
        let is_ready = endpoint.ready || (service.publish_not_ready && !endpoint.terminating);
        if !is_ready && !endpoint.serving {
            continue;
        }
        let entry = endpoints.entry(*address).or_default();
        entry.0 = entry.0.max(nodes.of_endpoint(*address, endpoint));
        entry.1 |= is_ready;
    }
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixtures::*;

    const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

    /// Last bytes of the backends' addresses with their weights.
    fn found(inventory: &Inventory, service: &ClusterService, slices: &[EndpointSlice]) -> (Vec<(String, u16)>, bool) {
        let slices: Vec<_> = slices.iter().cloned().map(Shared::new).collect();
        let found = find(service, &service.ports[0], IpFamily::Ipv4, &slices, &Nodes::of(inventory));
        let backend = |backend: &Backend| (backend.address.to_string(), backend.weight);
        (found.backends.iter().map(backend).collect(), found.elsewhere)
    }

    fn backends(expected: &[(u8, u16)]) -> Vec<(String, u16)> {
        expected.iter().map(|(last, weight)| (format!("10.0.0.{last}"), *weight)).collect()
    }

    #[test]
    fn a_node_weighs_as_many_as_its_ready_endpoints() {
        let slices = [
            slice("a", vec![endpoint("10.244.1.1", "n1"), endpoint("10.244.1.2", "n1")]),
            slice("b", vec![endpoint("10.244.2.1", "n2"), endpoint("10.244.1.2", "n1"), endpoint("fd00:244::1", "n3")]),
        ];
        let expected = (backends(&[(1, 2), (2, 1)]), false);
        assert_eq!(found(&inventory(), &service(1, &[]), &slices), expected, "n3 has one of the other family only");
    }

    #[test]
    fn what_ends_keeps_its_flows_and_what_is_not_ready_has_none() {
        let not_ready = Endpoint { ready: false, serving: false, ..endpoint("10.244.3.1", "n3") };
        let slices = [slice(
            "a",
            vec![endpoint("10.244.1.1", "n1"), ending("10.244.1.2", "n1"), ending("10.244.2.1", "n2"), not_ready],
        )];
        assert_eq!(found(&inventory(), &service(1, &[]), &slices), (backends(&[(1, 1), (2, 0)]), false));
        let published = ClusterService { publish_not_ready: true, ..service(1, &[]) };
        let expected = backends(&[(1, 1), (2, 0), (3, 1)]);
        assert_eq!(found(&inventory(), &published, &slices), (expected, false));
    }

    #[test]
    fn ports_are_matched_by_name_and_protocol() {
        let slices = [slice("a", vec![endpoint("10.244.1.1", "n1")])];
        let mut other = service(1, &[]);
        for changed in [port("https", "TCP", 80), port("http", "UDP", 80), port("", "TCP", 80)] {
            other.ports = vec![changed];
            assert_eq!(found(&inventory(), &other, &slices), (Vec::new(), false), "{:?}", other.ports);
        }
    }

    #[test]
    fn an_excluded_node_keeps_its_flows_only() {
        let mut inventory = inventory();
        inventory.nodes.get_mut("n1").unwrap().labels.insert(EXCLUDED.to_owned(), String::new());
        let slices = [slice("a", vec![endpoint("10.244.1.1", "n1"), endpoint("10.244.2.1", "n2")])];
        assert_eq!(found(&inventory, &service(1, &[]), &slices), (backends(&[(1, 0), (2, 1)]), false));
    }

    #[test]
    fn every_node_forwards_to_endpoints_elsewhere_if_the_policy_allows() {
        let mut inventory = inventory();
        inventory.nodes.get_mut("n1").unwrap().labels.insert(EXCLUDED.to_owned(), String::new());
        let local = service(1, &[]);
        let cluster = ClusterService { external_policy: TrafficPolicy::Cluster, ..local.clone() };
        for (endpoint, kept) in [
            (endpoint("203.0.113.9", ""), &[][..]),
            (endpoint("10.244.1.1", "n1"), &[(1, 0)][..]),
            (endpoint("10.244.9.1", "gone"), &[][..]),
        ] {
            let slices = [slice("a", vec![endpoint])];
            assert_eq!(found(&inventory, &local, &slices), (backends(kept), true));
            let expected = backends(&[kept, &[(2, 1), (3, 1)]].concat());
            assert_eq!(found(&inventory, &cluster, &slices), (expected, true));
        }
    }

    #[test]
    fn endpoints_without_a_node_are_found_by_the_nodes_address() {
        let slices = [slice("by hand", vec![endpoint("10.0.0.2", ""), endpoint("203.0.113.9", "")])];
        assert_eq!(found(&inventory(), &service(1, &[]), &slices), (backends(&[(2, 1)]), false));
    }
}
