//! A node with nothing wrong, which tests make worse.

use std::collections::{BTreeMap, BTreeSet};

use super::{AgentFacts, Facts, InterfaceFacts, Sysctls, System};
use crate::{
    examples,
    model::{Interface, InterfaceKind, MacAddr, Network, NextHop, network::InterfaceAddress},
    netlink::{XdpMode, XdpOnLink},
};

/// An address of `eth0` with its prefix.
pub fn on_eth0(net: &str) -> InterfaceAddress {
    InterfaceAddress { interface: 2, net: net.parse().unwrap() }
}

/// Node 1 of the examples.
pub fn healthy() -> Facts {
    let mut maps = examples::inspection();
    maps.maps.retain(|map| !map.is_nearly_full());
    maps.services[0].backends[2].hop.mtu = Some(9_000);
    let mut status = examples::status();
    status.backends.retain(|backend| backend.health == "healthy");
    let interface = InterfaceFacts {
        name: "eth0".to_owned(),
        programs: Ok(vec![XdpOnLink { mode: XdpMode::Driver, program_id: 77 }]),
        linked: Ok(77),
        offloads: Ok(BTreeSet::from(["tx-scatter-gather".to_owned()])),
        is_veth: false,
        driver: Some("ixgbe".to_owned()),
        sysctls: sysctls(),
    };
    Facts {
        system: System { version: (6, 1), has_btf: true, jit: Ok(1) },
        agent: AgentFacts {
            presence: examples::presence(true),
            status: Ok(status),
            capabilities_of: "the agent (process 4711)".to_owned(),
            capabilities: Ok(1 << 12 | 1 << 38 | 1 << 39),
        },
        bpffs: ("/sys/fs/bpf/levee".into(), Ok(true)),
        maps: Ok(maps),
        network: Ok(network()),
        interfaces: vec![interface],
        announced: Ok(vec![("192.0.2.10".parse().unwrap(), 9)]),
        sysctls: sysctls(),
        routed: None,
    }
}

fn network() -> Network {
    let eth0 = Interface {
        index: 2,
        name: "eth0".to_owned(),
        mac: MacAddr([2, 0, 0, 0, 0, 2]),
        mtu: 1500,
        up: true,
        kind: InterfaceKind::Ethernet,
    };
    let way = NextHop { interface: 2, gateway: None, mac: Some(MacAddr([2, 0, 0, 0, 0, 1])) };
    let wanted = ["10.0.2.2", "10.0.3.2", "2001:db8:3::2"];
    Network {
        interfaces: BTreeMap::from([(2, eth0)]),
        addresses: vec![on_eth0("10.0.1.2/24")],
        next_hops: wanted.into_iter().map(|address| (address.parse().unwrap(), way)).collect(),
    }
}

fn sysctls() -> Sysctls {
    Sysctls { rp_filter: Ok(0), arp_announce: Ok(0), arp_ignore: Ok(0), forwarding4: Ok(0), forwarding6: Ok(0) }
}
