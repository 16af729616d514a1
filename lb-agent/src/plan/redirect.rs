//! Servers on other ports than their service's, and connections of this node's own processes.

use std::net::IpAddr;

use lb_common::{
    addr::Be16,
    hash::{self, HashKey},
    maps::{
        addresses::AddressEntry,
        services::VipKey,
        translations::{Endpoint, MAX_BACKENDS},
    },
};

use super::{decide::Inputs, state::TargetState};
use crate::model::{Backend, Node, Service};

/// Enters what is rewritten and translated for a service whose VIPs are entered; `takes` says which backends take flows.
pub(super) fn enter(inputs: &Inputs<'_>, target: &mut TargetState, service: &Service, takes: &[bool]) {
    let node = &inputs.desired.node;
    let servers = service.target_port(node);
    for vip in &service.vips {
        let key = |port: u16| VipKey::new((*vip).into(), Be16::new(port), service.protocol.number());
        let translation = translation(service, takes, *vip, node, &inputs.hash_key);
        for port in &service.ports {
            if let Some(servers) = servers {
                target.rewrites.insert(key(servers), Be16::new(*port));
                *target.addresses.entry((*vip).into()).or_default() |= AddressEntry::REWRITTEN;
            }
            if !translation.is_empty() {
                target.translations.insert(key(*port), translation.clone());
            }
        }
    }
}

/// Where connections of this node's own processes to `vip` go: to the server on this node if it takes flows, else to up to
/// [`MAX_BACKENDS`] of the backends that do, which each node chooses for itself. None if the service does not ask for it,
/// or if no backend of the VIP's family takes flows.
fn translation(service: &Service, takes: &[bool], vip: IpAddr, node: &Node, key: &HashKey) -> Vec<Endpoint> {
    if !service.connect_translation {
        return Vec::new();
    }
    let taking = service.backends.iter().zip(takes).filter(|(_, takes)| **takes).map(|(backend, _)| backend);
    let mut taking: Vec<&Backend> = taking.filter(|backend| backend.address.is_ipv4() == vip.is_ipv4()).collect();
    if let Some(own) = taking.iter().copied().find(|backend| node.addresses.contains(&backend.address)) {
        return vec![endpoint(own)];
    }
    if taking.len() > MAX_BACKENDS {
        let share = |backend: &&Backend| hash::bytes(key, format!("{} {}", node.name, backend.address).as_bytes());
        taking.sort_by_cached_key(share);
        taking.truncate(MAX_BACKENDS);
    }
    let mut endpoints: Vec<Endpoint> = taking.into_iter().map(endpoint).collect();
    endpoints.sort_unstable();
    endpoints
}

fn endpoint(backend: &Backend) -> Endpoint {
    Endpoint { address: backend.address.into(), port: Be16::new(backend.port), pad: 0 }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;
    use crate::model::{Delivery, HoldWhen, MssClamp, Protocol, RingSize};

    const KEY: HashKey = HashKey { k0: 1, k1: 2 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn node(name: &str) -> Node {
        Node { name: name.to_owned(), addresses: vec![ip("10.0.0.1"), ip("fd00::1")] }
    }

    fn service(backends: &[&str]) -> Service {
        Service {
            name: "api".to_owned(),
            vips: vec![ip("192.0.2.10")],
            ports: vec![8443],
            protocol: Protocol::Tcp,
            delivery: Delivery::Auto,
            ring_size: RingSize::DEFAULT,
            backends: backends.iter().map(|text| Backend { address: ip(text), port: 6443, weight: 1 }).collect(),
            probe: None,
            flow_timeout: Protocol::Tcp.flow_timeout(),
            affinity: None,
            slow_start: Duration::ZERO,
            source_ranges: Vec::new(),
            drop_unmatched: true,
            mss_clamp: MssClamp::Off,
            hold: HoldWhen::Trusted,
            connect_translation: true,
            second_chance: true,
            local_first: false,
        }
    }

    fn translated(backends: &[&str], takes: &[bool], vip: &str) -> Vec<String> {
        let found = translation(&service(backends), takes, ip(vip), &node("a"), &KEY);
        found.iter().map(|to| format!("{} {}", IpAddr::from(to.address), to.port.get())).collect()
    }

    #[test]
    fn a_connection_goes_to_the_own_server_while_that_takes_flows() {
        let backends = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
        assert_eq!(translated(&backends, &[true; 3], "192.0.2.10"), ["10.0.0.1 6443"]);
        assert_eq!(translated(&backends, &[false, true, true], "192.0.2.10"), ["10.0.0.2 6443", "10.0.0.3 6443"]);
        assert_eq!(translated(&backends, &[false, false, true], "192.0.2.10"), ["10.0.0.3 6443"]);
        assert!(translated(&backends, &[false; 3], "192.0.2.10").is_empty());
    }

    #[test]
    fn a_connection_stays_in_its_family() {
        let backends = ["10.0.0.2", "fd00::2"];
        assert_eq!(translated(&backends, &[true; 2], "192.0.2.10"), ["10.0.0.2 6443"]);
        assert_eq!(translated(&backends, &[true; 2], "2001:db8::10"), ["fd00::2 6443"]);
        assert!(translated(&backends[..1], &[true], "2001:db8::10").is_empty());
    }

    #[test]
    fn without_being_asked_for_nothing_is_translated() {
        let silent = Service { connect_translation: false, ..service(&["10.0.0.2"]) };
        assert!(translation(&silent, &[true], ip("192.0.2.10"), &node("a"), &KEY).is_empty());
    }

    #[test]
    fn nodes_choose_different_ones_of_many() {
        let names: Vec<String> = (2..=21).map(|last| format!("10.0.0.{last}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let of = |name: &str| translation(&service(&names), &[true; 20], ip("192.0.2.10"), &node(name), &KEY);
        assert_eq!(of("a"), of("a"));
        assert_eq!(of("a").len(), MAX_BACKENDS);
        let all: BTreeSet<_> = (0..40).flat_map(|number| of(&format!("node-{number}"))).collect();
        assert_eq!(all.len(), 20, "every backend is chosen by some of 40 nodes");
    }

    #[test]
    fn the_port_of_the_own_server_is_the_target() {
        let with = |ports: &[u16], backends: &[&str]| Service { ports: ports.to_vec(), ..service(backends) };
        assert_eq!(with(&[8443], &["10.0.0.1", "10.0.0.2"]).target_port(&node("a")), Some(6443));
        assert_eq!(with(&[6443], &["10.0.0.1"]).target_port(&node("a")), None, "the same port");
        assert_eq!(with(&[8443], &["10.0.0.2"]).target_port(&node("a")), None, "no server here");
        assert_eq!(with(&[0], &["10.0.0.1"]).target_port(&node("a")), None, "every port");
    }
}
