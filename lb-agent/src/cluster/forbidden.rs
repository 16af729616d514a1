//! Addresses that are somebody's in the cluster and therefore no Service's.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

use super::spans::Spans;
use crate::model::inventory::{ClusterNode, ClusterService, ObjectName};

/// Addresses that no Service may have, and whose they are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Forbidden<'a> {
    addresses: HashMap<IpAddr, Owner<'a>>,
    /// There can be many, but of few lengths.
    networks: HashMap<IpNet, Owner<'a>>,
    lengths: BTreeSet<u8>,
}

/// Whose an address is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Owner<'a> {
    Node(&'a str),
    Pods(&'a str),
    Service(&'a ObjectName),
    Configuration,
}

impl<'a> Forbidden<'a> {
    /// Addresses of nodes and their pods, cluster addresses of Services, and what the configuration reserves.
    #[must_use]
    pub fn of(
        nodes: impl IntoIterator<Item = (&'a String, &'a ClusterNode)>,
        services: impl IntoIterator<Item = (&'a ObjectName, &'a ClusterService)>,
        reserved: &[IpNet],
    ) -> Self {
        let mut all = Self::default();
        reserved.iter().for_each(|network| all.add_network(*network, Owner::Configuration));
        for (name, node) in nodes {
            for address in node.internal.iter().chain(&node.external) {
                all.addresses.entry(*address).or_insert(Owner::Node(name));
            }
            node.pod_cidrs.iter().for_each(|network| all.add_network(*network, Owner::Pods(name)));
        }
        for (name, service) in services {
            for address in &service.cluster_ips {
                all.addresses.entry(*address).or_insert(Owner::Service(name));
            }
        }
        all
    }

    /// Whose the address is, in words that follow "is"; `None` if nobody's.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<String> {
        let (found, owner) = self.find(address)?;
        Some(match owner {
            Owner::Node(name) => format!("an address of node {name}"),
            Owner::Pods(name) => format!("in {found}, the pods of node {name}"),
            Owner::Service(name) => format!("the cluster address of Service {name}"),
            Owner::Configuration => format!("in {found}, which the configuration reserves"),
        })
    }

    /// All of them.
    #[must_use]
    pub fn spans(&self) -> Spans {
        let single = self.addresses.keys().map(|address| IpNet::from(*address));
        Spans::of_networks(self.networks.keys().copied().chain(single))
    }

    fn add_network(&mut self, network: IpNet, owner: Owner<'a>) {
        self.lengths.insert(network.prefix_len());
        self.networks.entry(network.trunc()).or_insert(owner);
    }

    fn find(&self, address: IpAddr) -> Option<(IpNet, Owner<'a>)> {
        if let Some(owner) = self.addresses.get(&address) {
            return Some((IpNet::from(address), *owner));
        }
        let around = |length: &u8| IpNet::new(address, *length).ok().map(|network| network.trunc());
        self.lengths.iter().filter_map(around).find_map(|network| Some((network, *self.networks.get(&network)?)))
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
        let (n1, dns) = ("n1".to_owned(), ObjectName::new("kube-system", "dns"));
        let forbidden = Forbidden::of([(&n1, &node)], [(&dns, &service)], &["192.0.2.0/30".parse().unwrap()]);
        let cases = [
            ("10.0.0.1", Some("an address of node n1")),
            ("2001:db8::1", Some("an address of node n1")),
            ("10.244.0.77", Some("in 10.244.0.0/24, the pods of node n1")),
            ("10.96.0.10", Some("the cluster address of Service kube-system/dns")),
            ("192.0.2.3", Some("in 192.0.2.0/30, which the configuration reserves")),
            ("192.0.2.4", None),
        ];
        for (address, owner) in cases {
            assert_eq!(forbidden.owner(ip(address)).as_deref(), owner, "{address}");
            assert_eq!(forbidden.spans().contains(ip(address)), owner.is_some(), "{address}");
        }
    }
}
