//! Which address a Service may have, whichever field asks for it (CVE-2020-8554: `externalIPs` of anybody draw the
//! traffic of any address).

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use thiserror::Error;

use crate::model::{ClusterService, Inventory, ObjectName, Pool, inventory::Labels};

/// The rules of one state of a cluster, but for the addresses that other Services have.
#[derive(Debug)]
pub struct Admission<'a> {
    /// In the order in which they are asked: priority, then name.
    pools: Vec<(&'a str, &'a Pool)>,
    /// Whose each node's address is.
    nodes: HashMap<IpAddr, &'a str>,
    pod_ranges: Prefixes<&'a str>,
    reserved: Prefixes<()>,
    taken: &'a BTreeSet<IpAddr>,
}

/// Which field of a Service asks for an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Asked {
    /// `status.loadBalancer.ingress`, `spec.loadBalancerIP` or the annotation: given, or to be given, by the controller.
    LoadBalancer,
    /// `spec.externalIPs`.
    ExternalIp,
}

/// Why an address is refused to a Service.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Refusal {
    /// No packet from elsewhere can be for it.
    #[error("{0} is no address that others can reach; choose a unicast address")]
    Unusable(IpAddr),
    /// It is a node's own.
    #[error("{address} is an address of node {node}; choose one that no node has")]
    Node {
        /// The address.
        address: IpAddr,
        /// The node.
        node: String,
    },
    /// It is of the range of a node's pods.
    #[error("{address} is in the range {range} of the pods of node {node}; choose another")]
    Pods {
        /// The address.
        address: IpAddr,
        /// The range.
        range: IpNet,
        /// The node.
        node: String,
    },
    /// `kubernetes.reserved` has it.
    #[error("{address} is in {range}, which `kubernetes.reserved` keeps; choose another")]
    Reserved {
        /// The address.
        address: IpAddr,
        /// The prefix of the configuration.
        range: IpNet,
    },
    /// It is the control plane's, or of a service of the configuration.
    #[error("{0} is a VIP of the configuration (the control plane's, or of a service there); choose another")]
    Configured(IpAddr),
    /// It is the cluster IP of a Service.
    #[error("{address} is the cluster IP of Service {service}; choose another")]
    ClusterIp {
        /// The address.
        address: IpAddr,
        /// The Service.
        service: ObjectName,
    },
    /// No pool has it.
    #[error("{0} is in no VipPool; add it to one, or choose an address of one")]
    NoPool(IpAddr),
    /// A pool has it, but is not for this Service.
    #[error("{address} is in VipPool {pool}, which {why}")]
    NotForIt {
        /// The address.
        address: IpAddr,
        /// The first pool that has it.
        pool: String,
        /// Why it is not for this Service.
        why: String,
    },
}

impl<'a> Admission<'a> {
    /// The rules of this inventory. `taken` are the VIPs of the configuration, `reserved` its prefixes.
    #[must_use]
    pub fn new(inventory: &'a Inventory, reserved: &[IpNet], taken: &'a BTreeSet<IpAddr>) -> Self {
        let mut pools: Vec<_> = inventory.pools.iter().map(|(name, pool)| (name.as_str(), pool)).collect();
        pools.sort_by_key(|(name, pool)| (std::cmp::Reverse(pool.priority), *name));
        let mut nodes = HashMap::new();
        let mut pod_ranges = Prefixes::default();
        for (name, node) in &inventory.nodes {
            for address in node.internal.iter().chain(&node.external) {
                nodes.entry(*address).or_insert(name.as_str());
            }
            node.pod_cidrs.iter().for_each(|range| pod_ranges.add(*range, name.as_str()));
        }
        let mut kept = Prefixes::default();
        reserved.iter().for_each(|range| kept.add(*range, ()));
        Self { pools, nodes, pod_ranges, reserved: kept, taken }
    }

    /// The pool whose address a Service may have.
    ///
    /// # Errors
    /// Why it may not.
    pub fn admit(
        &self,
        name: &ObjectName,
        service: &ClusterService,
        address: IpAddr,
        asked: Asked,
    ) -> Result<&'a Pool, Refusal> {
        self.reserved_by_others(address)?;
        let containing =
            self.pools.iter().filter(|(_, pool)| pool.addresses.iter().any(|range| range.contains(address)));
        let mut first = None;
        for (pool_name, pool) in containing {
            match objection(pool, name, &service.labels, asked) {
                None => return Ok(pool),
                Some(why) => {
                    first.get_or_insert(Refusal::NotForIt { address, pool: (*pool_name).to_owned(), why });
                }
            }
        }
        Err(first.unwrap_or(Refusal::NoPool(address)))
    }

    /// Refuses what is in use outside of pools.
    fn reserved_by_others(&self, address: IpAddr) -> Result<(), Refusal> {
        if is_unusable(address) {
            return Err(Refusal::Unusable(address));
        }
        if self.taken.contains(&address) {
            return Err(Refusal::Configured(address));
        }
        if let Some(node) = self.nodes.get(&address) {
            return Err(Refusal::Node { address, node: (*node).to_owned() });
        }
        if let Some((range, node)) = self.pod_ranges.find(address) {
            return Err(Refusal::Pods { address, range, node: (*node).to_owned() });
        }
        self.reserved.find(address).map_or(Ok(()), |(range, ())| Err(Refusal::Reserved { address, range }))
    }
}

/// Why a pool is not for a Service; `None` if it is.
fn objection(pool: &Pool, name: &ObjectName, labels: &Labels, asked: Asked) -> Option<String> {
    if !pool.namespaces.is_empty() && !pool.namespaces.contains(&name.namespace) {
        return Some(format!("is for the namespaces {} only", pool.namespaces.join(", ")));
    }
    if let Some((key, value)) = pool.service_selector.iter().find(|(key, value)| labels.get(*key) != Some(value)) {
        return Some(format!("is for Services with the label {key}={value} only"));
    }
    if asked == Asked::ExternalIp && !pool.allow_external_ips {
        return Some("does not give addresses to `externalIPs`; set `allowExternalIPs` there if it should".to_owned());
    }
    None
}

/// Whether no packet from another host can be for this address.
fn is_unusable(address: IpAddr) -> bool {
    let is_special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    is_special
        || match address {
            IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local() || v4.octets()[0] == 0,
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
        }
}

/// Prefixes, found by an address of theirs. There are many of them, but of few lengths.
#[derive(Debug)]
struct Prefixes<T> {
    of: HashMap<IpNet, T>,
    lengths: BTreeSet<u8>,
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { of: HashMap::new(), lengths: BTreeSet::new() }
    }
}

impl<T> Prefixes<T> {
    fn add(&mut self, range: IpNet, value: T) {
        self.lengths.insert(range.prefix_len());
        self.of.entry(range.trunc()).or_insert(value);
    }

    fn find(&self, address: IpAddr) -> Option<(IpNet, &T)> {
        let around = |length: &u8| IpNet::new(address, *length).ok().map(|net| net.trunc());
        self.lengths.iter().filter_map(around).find_map(|net| Some((net, self.of.get(&net)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::fixtures::{ip, node, pool},
        model::ClusterNode,
    };

    fn inventory() -> Inventory {
        let mut inventory = Inventory::default();
        let n1 = ClusterNode {
            external: vec![ip("198.51.100.1")],
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd00:244::/64".parse().unwrap()],
            ..node(&["10.0.0.1", "fd00::1"])
        };
        inventory.nodes.insert("n1".to_owned(), n1);
        inventory.pools.insert("all".to_owned(), pool(&["192.0.2.0/28", "10.0.0.0/8", "fd00::/16", "198.51.100.0/24"]));
        let team = Pool {
            namespaces: vec!["team".to_owned()],
            service_selector: Labels::from([("tier".to_owned(), "web".to_owned())]),
            allow_external_ips: true,
            ..pool(&["192.0.2.64/28"])
        };
        inventory.pools.insert("team".to_owned(), team);
        inventory
    }

    fn asked(namespace: &str, tier: &str, address: &str, asked: Asked) -> String {
        let inventory = inventory();
        let taken = BTreeSet::from([ip("192.0.2.9")]);
        let admission = Admission::new(&inventory, &["10.96.0.0/12".parse().unwrap()], &taken);
        let labels = Labels::from([("tier".to_owned(), tier.to_owned())]);
        let service = ClusterService { labels, ..ClusterService::default() };
        match admission.admit(&ObjectName::new(namespace, "s"), &service, ip(address), asked) {
            Ok(pool) => format!("of {}", pool.addresses[0]),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn an_address_has_to_be_in_a_pool_for_this_service() {
        use Asked::{ExternalIp, LoadBalancer};
        for (namespace, tier, address, field, expected) in [
            ("x", "web", "192.0.2.3", LoadBalancer, "of 192.0.2.0-192.0.2.15"),
            (
                "x",
                "web",
                "192.0.2.16",
                LoadBalancer,
                "192.0.2.16 is in no VipPool; add it to one, or choose an address of one",
            ),
            ("team", "web", "192.0.2.65", LoadBalancer, "of 192.0.2.64-192.0.2.79"),
            ("team", "web", "192.0.2.65", ExternalIp, "of 192.0.2.64-192.0.2.79"),
            (
                "x",
                "web",
                "192.0.2.65",
                LoadBalancer,
                "192.0.2.65 is in VipPool team, which is for the namespaces team only",
            ),
            (
                "team",
                "db",
                "192.0.2.65",
                LoadBalancer,
                "192.0.2.65 is in VipPool team, which is for Services with the label tier=web only",
            ),
            (
                "x",
                "web",
                "192.0.2.3",
                ExternalIp,
                "192.0.2.3 is in VipPool all, which does not give addresses to `externalIPs`; set `allowExternalIPs` there if it should",
            ),
        ] {
            assert_eq!(asked(namespace, tier, address, field), expected);
        }
    }

    #[test]
    fn a_pool_gives_no_address_that_is_in_use() {
        for (address, expected) in [
            ("10.0.0.1", "10.0.0.1 is an address of node n1; choose one that no node has"),
            ("fd00::1", "fd00::1 is an address of node n1; choose one that no node has"),
            ("198.51.100.1", "198.51.100.1 is an address of node n1; choose one that no node has"),
            ("10.244.1.255", "10.244.1.255 is in the range 10.244.1.0/24 of the pods of node n1; choose another"),
            ("fd00:244::9", "fd00:244::9 is in the range fd00:244::/64 of the pods of node n1; choose another"),
            ("10.111.255.1", "10.111.255.1 is in 10.96.0.0/12, which `kubernetes.reserved` keeps; choose another"),
            (
                "192.0.2.9",
                "192.0.2.9 is a VIP of the configuration (the control plane's, or of a service there); choose another",
            ),
            ("127.0.0.1", "127.0.0.1 is no address that others can reach; choose a unicast address"),
            ("fe80::1", "fe80::1 is no address that others can reach; choose a unicast address"),
        ] {
            assert_eq!(asked("x", "web", address, Asked::LoadBalancer), expected);
        }
        assert_eq!(asked("x", "web", "10.244.2.1", Asked::LoadBalancer), "of 192.0.2.0-192.0.2.15");
    }

    #[test]
    fn the_pool_of_the_highest_priority_decides_how_an_address_is_announced() {
        let mut inventory = Inventory::default();
        for (name, priority) in [("b", 0), ("a", 0), ("c", 5)] {
            let namespaces = vec!["x".to_owned(), name.to_owned()];
            inventory.pools.insert(name.to_owned(), Pool { priority, namespaces, ..pool(&["192.0.2.0/24"]) });
        }
        let taken = BTreeSet::new();
        let admission = Admission::new(&inventory, &[], &taken);
        let of = |namespace| {
            let name = ObjectName::new(namespace, "s");
            let pool = admission.admit(&name, &ClusterService::default(), ip("192.0.2.1"), Asked::LoadBalancer);
            pool.unwrap().namespaces[1].clone()
        };
        assert_eq!(["x", "a", "b"].map(of), ["c", "a", "b"]);
    }
}
