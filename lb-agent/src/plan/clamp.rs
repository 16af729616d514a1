//! The largest segment that a server here may ask its clients for, so that what they send fits the tunnels that bring it.

use std::net::IpAddr;

use lb_common::wire::{gue, ipv4, ipv6, tcp, udp};

use crate::model::{Delivery, DesiredState, MssClamp, Network, Protocol, Service};

/// Bound for the MSS of what leaves from `vip`, in bytes; 0 for none.
///
/// The directors' links are taken to have the MTU of this node's own link towards them.
#[must_use]
pub fn mss(desired: &DesiredState, network: &Network, service: &Service, vip: IpAddr) -> u16 {
    if service.protocol != Protocol::Tcp {
        return 0;
    }
    match service.mss_clamp {
        MssClamp::Off => 0,
        MssClamp::To(bytes) => bytes,
        MssClamp::Auto => {
            let backends = service.backends.iter().map(|backend| backend.address);
            let own = backends.filter(|address| desired.node.addresses.contains(address));
            own.filter_map(|own| fitting(desired, network, service.delivery, own, vip)).min().unwrap_or(0)
        }
    }
}

/// What fits the tunnels to this node's address `own`; `None` if there are none.
fn fitting(desired: &DesiredState, network: &Network, delivery: Delivery, own: IpAddr, vip: IpAddr) -> Option<u16> {
    let outer = if own.is_ipv4() { ipv4::LEN } else { ipv6::LEN };
    let overhead = match delivery {
        Delivery::Local | Delivery::L2 => return None,
        Delivery::Ipip => outer,
        Delivery::Gue | Delivery::Auto => outer + udp::LEN + gue::LEN,
    };
    let headers = overhead + if vip.is_ipv4() { ipv4::LEN } else { ipv6::LEN } + tcp::LEN;
    let directors = desired.peers.iter().flat_map(|peer| &peer.addresses).filter(|a| a.is_ipv4() == own.is_ipv4());
    let ways = directors.filter_map(|address| network.next_hops.get(address));
    let tunnels = ways.filter(|way| delivery != Delivery::Auto || !way.on_link());
    let mtu = tunnels.filter_map(|way| network.interfaces.get(&way.interface)).map(|interface| interface.mtu).min()?;
    let room = mtu.saturating_sub(u32::try_from(headers).ok()?);
    u16::try_from(room).ok().filter(|room| *room >= MssClamp::LEAST)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::model::{Backend, HoldWhen, Interface, InterfaceKind, MacAddr, NextHop, Node, Peer, RingSize};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// For a node with the addresses 10.0.0.1 and fd00::1 and one peer over a link of this MTU, behind a router if its
    /// address has a 9.
    fn clamped(delivery: Delivery, clamp: MssClamp, mtu: u32, own: &str, peer: &str, vip: &str) -> u16 {
        let service = Service {
            name: "api".to_owned(),
            vips: vec![ip(vip)],
            ports: vec![6443],
            protocol: Protocol::Tcp,
            delivery,
            ring_size: RingSize::DEFAULT,
            backends: vec![Backend { address: ip(own), port: 6443, weight: 1 }],
            probe: None,
            flow_timeout: Protocol::Tcp.flow_timeout(),
            affinity: None,
            slow_start: Duration::ZERO,
            source_ranges: Vec::new(),
            drop_unmatched: true,
            mss_clamp: clamp,
            hold: HoldWhen::Trusted,
            connect_translation: false,
            second_chance: true,
            local_first: false,
        };
        let desired = DesiredState {
            node: Node { name: "a".to_owned(), addresses: vec![ip("10.0.0.1"), ip("fd00::1")] },
            peers: vec![Peer { name: "b".to_owned(), addresses: vec![ip(peer)] }],
            services: Vec::new(),
            announcements: Vec::new(),
        };
        let gateway = |text: &str| text.contains("9").then(|| ip("10.0.0.254"));
        let way = NextHop { interface: 2, gateway: gateway(peer), mac: None };
        let interface = Interface {
            index: 2,
            name: "eth0".to_owned(),
            mtu,
            mac: MacAddr([2; 6]),
            up: true,
            kind: InterfaceKind::Ethernet,
        };
        let network = Network {
            interfaces: BTreeMap::from([(2, interface)]),
            next_hops: BTreeMap::from([(ip(peer), way)]),
            ..Network::default()
        };
        mss(&desired, &network, &service, ip(vip))
    }

    #[test]
    fn what_fits_the_tunnel_is_the_bound() {
        let auto = |delivery, own, peer, vip| clamped(delivery, MssClamp::Auto, 1500, own, peer, vip);
        let (v4, v6) = ("192.0.2.10", "2001:db8::10");
        assert_eq!(auto(Delivery::Ipip, "10.0.0.1", "10.0.9.2", v4), 1500 - 20 - 40);
        assert_eq!(auto(Delivery::Ipip, "10.0.0.1", "10.0.9.2", v6), 1500 - 20 - 60);
        assert_eq!(auto(Delivery::Ipip, "fd00::1", "fd00:9::2", v4), 1500 - 40 - 40);
        assert_eq!(auto(Delivery::Gue, "10.0.0.1", "10.0.9.2", v4), 1500 - 32 - 40);
        assert_eq!(auto(Delivery::Gue, "fd00::1", "fd00:9::2", v6), 1500 - 52 - 60);
        assert_eq!(auto(Delivery::Auto, "10.0.0.1", "10.0.9.2", v4), 1500 - 32 - 40);
    }

    #[test]
    fn without_a_tunnel_there_is_no_bound() {
        let auto = |delivery, own, peer| clamped(delivery, MssClamp::Auto, 1500, own, peer, "192.0.2.10");
        assert_eq!(auto(Delivery::Auto, "10.0.0.1", "10.0.0.2"), 0, "directors on the link rewrite MAC addresses");
        assert_eq!(auto(Delivery::L2, "10.0.0.1", "10.0.0.2"), 0);
        assert_eq!(auto(Delivery::Gue, "10.0.0.3", "10.0.9.2"), 0, "no server here");
        assert_eq!(auto(Delivery::Gue, "fd00::1", "10.0.9.2"), 0, "no director of that family");
    }

    #[test]
    fn the_configuration_has_the_last_word() {
        let with = |clamp| clamped(Delivery::Gue, clamp, 1500, "10.0.0.1", "10.0.9.2", "192.0.2.10");
        assert_eq!((with(MssClamp::Off), with(MssClamp::To(1200))), (0, 1200));
        assert_eq!(clamped(Delivery::Gue, MssClamp::Auto, 400, "10.0.0.1", "10.0.9.2", "192.0.2.10"), 0, "absurd MTU");
    }
}
