//! Addresses that are somebody's in the cluster and therefore no Service's.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::spans::Spans;
use crate::model::inventory::{ClusterNode, ClusterService, ObjectName};

/// Addresses that no Service may have, and whose they are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Forbidden {
    networks: Vec<(IpNet, String)>,
    addresses: BTreeMap<IpAddr, String>,
    spans: Spans,
}

impl Forbidden {
    /// Addresses of nodes and their pods, cluster addresses of Services, and what the configuration reserves.
    #[must_use]
    pub fn of<'a>(
        nodes: impl IntoIterator<Item = (&'a String, &'a ClusterNode)>,
        services: impl IntoIterator<Item = (&'a ObjectName, &'a ClusterService)>,
        reserved: &[IpNet],
    ) -> Self {
        let mut networks: Vec<_> = reserved
            .iter()
            .map(|network| (*network, format!("in {network}, which the configuration reserves")))
            .collect();
        let mut addresses = BTreeMap::new();
        for (name, node) in nodes {
            for address in node.internal.iter().chain(&node.external) {
                addresses.insert(*address, format!("an address of node {name}"));
            }
            networks.extend(node.pod_cidrs.iter().map(|cidr| (*cidr, format!("in {cidr}, the pods of node {name}"))));
        }
        for (name, service) in services {
            for address in &service.cluster_ips {
                addresses.insert(*address, format!("the cluster address of Service {name}"));
            }
        }
        let single = addresses.keys().map(|address| IpNet::from(*address));
        let spans = Spans::of_networks(networks.iter().map(|(network, _)| *network).chain(single));
        Self { networks, addresses, spans }
    }

    /// Whose the address is, in words that follow "is"; `None` if nobody's.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&str> {
        if !self.spans.contains(address) {
            return None;
        }
        let network = || self.networks.iter().find(|(network, _)| network.contains(&address)).map(|(_, owner)| owner);
        self.addresses.get(&address).or_else(network).map(String::as_str)
    }

    /// All of them.
    #[must_use]
    pub const fn spans(&self) -> &Spans {
        &self.spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_named() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let node = ClusterNode {
            internal: vec![ip("10.0.0.1")],
            external: vec![ip("2001:db8::1")],
            pod_cidrs: vec!["10.244.0.0/24".parse().unwrap()],
            ..ClusterNode::default()
        };
        let service = ClusterService { cluster_ips: vec![ip("10.96.0.10")], ..ClusterService::default() };
        let forbidden = Forbidden::of(
            [(&"n1".to_owned(), &node)],
            [(&ObjectName::new("kube-system", "dns"), &service)],
            &["192.0.2.0/30".parse().unwrap()],
        );
        let cases = [
            ("10.0.0.1", Some("an address of node n1")),
            ("2001:db8::1", Some("an address of node n1")),
            ("10.244.0.77", Some("in 10.244.0.0/24, the pods of node n1")),
            ("10.96.0.10", Some("the cluster address of Service kube-system/dns")),
            ("192.0.2.3", Some("in 192.0.2.0/30, which the configuration reserves")),
            ("192.0.2.4", None),
        ];
        for (address, owner) in cases {
            assert_eq!(forbidden.owner(ip(address)), owner, "{address}");
        }
    }
}
