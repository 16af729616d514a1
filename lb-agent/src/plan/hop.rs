//! The way to a backend, as it stands in the maps and in words.

use std::net::IpAddr;

use lb_common::{
    addr::IpAddr16,
    maps::backends::{Hop, Mode},
    wire::eth,
};

use super::decide::Inputs;
use crate::model::{Backend, Delivery, InterfaceKind, Service};

/// How packets to a backend leave this node, and the same in words.
pub(super) fn hop(inputs: &Inputs<'_>, service: &Service, backend: &Backend, is_local: bool) -> (Hop, String) {
    if is_local {
        return (Hop { mode: Mode::Local as u8, ..Hop::default() }, "on this node".to_owned());
    }
    let unknown = |why: String| (Hop::default(), why);
    let Some(way) = inputs.network.next_hops.get(&backend.address) else {
        return unknown(format!("no route to {}", backend.address));
    };
    let Some(interface) = inputs.network.interfaces.get(&way.interface) else {
        return unknown(format!("the route to {} names an interface that is gone", backend.address));
    };
    let (device, vlan) = match interface.kind {
        InterfaceKind::Ethernet => (interface.index, 0),
        InterfaceKind::Vlan { parent, id } => (parent, id),
        InterfaceKind::Loopback | InterfaceKind::Other => {
            return unknown(format!("{} is no Ethernet interface: packets cannot leave by it", interface.name));
        }
    };
    let Some(mode) = mode(service.delivery, way.on_link(), backend.address) else {
        return unknown(format!("delivery l2, but {} is behind a router", backend.address));
    };
    let Some(mac) = way.mac else {
        let neighbour = way.gateway.unwrap_or(backend.address);
        return unknown(format!("{neighbour} on {} has not answered ARP or neighbour discovery yet", interface.name));
    };
    let source = inputs.desired.node.addresses.iter().find(|address| address.is_ipv4() == backend.address.is_ipv4());
    let hop = Hop {
        // Wherever it is, a tunnel leads there: a packet's second chance takes it.
        tunnel_destination: backend.address.into(),
        tunnel_source: source.copied().map_or_else(IpAddr16::default, Into::into),
        macs: eth::addresses(mac.0, interface.mac.0),
        interface: device,
        vlan,
        mtu: u16::try_from(interface.mtu).unwrap_or(u16::MAX),
        mode: mode as u8,
        pad: [0; 3],
    };
    (hop, format!("{} through {} to {mac}", mode.label(), interface.name))
}

/// The mode of a delivery; `None` if the way does not allow it.
fn mode(delivery: Delivery, on_link: bool, backend: IpAddr) -> Option<Mode> {
    match (delivery, on_link) {
        (Delivery::L2, false) => None,
        (Delivery::L2 | Delivery::Auto, true) => Some(Mode::L2),
        (Delivery::Ipip, _) => Some(if backend.is_ipv4() { Mode::Ipip4 } else { Mode::Ipip6 }),
        (Delivery::Gue | Delivery::Auto | Delivery::Local, _) => {
            Some(if backend.is_ipv4() { Mode::Gue4 } else { Mode::Gue6 })
        }
    }
}
