//! Routes: the way to one address, and the routes that hold the VIPs.

use std::{collections::BTreeSet, net::IpAddr};

use futures::{StreamExt, TryStreamExt, stream};
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType, RouteVia},
};

use super::{Client, LOOPBACK_INDEX, NetlinkError};

/// Marks the routes that hold a VIP: `ip route show table local proto 76`. No daemon uses this number.
const HELD_PROTOCOL: u8 = 76;

/// Metric of the routes that hold a VIP, so that they stand beside the kernel's own (metric 0) and not in its place.
const HELD_METRIC: u32 = 7600;

/// The table with the addresses that this node answers for.
const TABLE_LOCAL: u8 = 255;

/// Lookups under way at once. Their answers wait in the socket's buffer: 32 need less than 64 KiB of its 208 KiB.
const LOOKUPS_AT_ONCE: usize = 32;

/// Where a route leads.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Hop {
    /// Index of the interface.
    pub interface: u32,
    /// The router; `None` when the address is on the link itself.
    pub gateway: Option<IpAddr>,
}

/// Looks `addresses` up in the kernel's tables; `None` where there is no way or the address is this node's own.
pub(super) async fn hops(
    client: &Client,
    addresses: BTreeSet<IpAddr>,
) -> Result<Vec<(IpAddr, Option<Hop>)>, NetlinkError> {
    let lookups = addresses.into_iter().map(|address| async move { Ok((address, hop(client, address).await?)) });
    stream::iter(lookups).buffered(LOOKUPS_AT_ONCE).try_collect().await
}

async fn hop(client: &Client, address: IpAddr) -> Result<Option<Hop>, NetlinkError> {
    let mut request = RouteMessage::default();
    request.header.address_family = family(address);
    request.header.destination_prefix_length = host_prefix(address);
    request.attributes.push(RouteAttribute::Destination(address.into()));
    match client.get(&format!("look up the route to {address}"), RouteNetlinkMessage::GetRoute(request)).await {
        Ok(Some(RouteNetlinkMessage::NewRoute(answer))) => Ok(parse_hop(&answer)),
        Ok(_) => Ok(None),
        // Unreachable, prohibited, blackhole: each has an error number of its own.
        Err(NetlinkError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_hop(message: &RouteMessage) -> Option<Hop> {
    if message.header.kind != RouteType::Unicast {
        return None; // local: this node's own; the rest leads nowhere
    }
    let (mut interface, mut gateway) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some((*address).into()),
            _ => {}
        }
    }
    Some(Hop { interface: interface?, gateway })
}

/// The prefix whose lookups a route event can change; `None` if it cannot be told.
pub(super) fn prefix(message: &RouteMessage) -> Option<IpNet> {
    let default: IpAddr = match message.header.address_family {
        AddressFamily::Inet => [0; 4].into(),
        AddressFamily::Inet6 => [0; 16].into(),
        _ => return None,
    };
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => Some(ip(address)),
        _ => None,
    });
    IpNet::new(destination.unwrap_or(Some(default))?, message.header.destination_prefix_length).ok()
}

/// The route that holds `vip`: `local VIP/32 dev lo table local proto 76 metric 7600`.
pub(crate) fn held_route(vip: IpAddr) -> RouteMessage {
    let mut message = held_header(family(vip));
    message.header.destination_prefix_length = host_prefix(vip);
    message.header.scope = if vip.is_ipv4() { RouteScope::Host } else { RouteScope::Universe };
    message.attributes = vec![
        RouteAttribute::Destination(vip.into()),
        RouteAttribute::Oif(LOOPBACK_INDEX),
        RouteAttribute::Priority(HELD_METRIC),
    ];
    message
}

/// The request for all routes that hold a VIP of one family; the kernel filters.
pub(crate) fn held_dump_request(family: AddressFamily) -> RouteMessage {
    held_header(family)
}

fn held_header(family: AddressFamily) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = TABLE_LOCAL;
    message.header.protocol = RouteProtocol::Other(HELD_PROTOCOL);
    message.header.kind = RouteType::Local;
    message
}

/// The VIP that a route holds; `None` for every route that the agent did not add.
pub(crate) fn held_address(message: &RouteMessage) -> Option<IpAddr> {
    let header = &message.header;
    let ours = header.table == TABLE_LOCAL
        && header.kind == RouteType::Local
        && header.protocol == RouteProtocol::Other(HELD_PROTOCOL)
        && message.attributes.contains(&RouteAttribute::Priority(HELD_METRIC))
        && message.attributes.contains(&RouteAttribute::Oif(LOOPBACK_INDEX));
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    })?;
    (ours && header.destination_prefix_length == host_prefix(destination)).then_some(destination)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

pub(super) const fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

const fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.kind = kind;
        message.attributes = attributes;
        message
    }

    #[test]
    fn only_a_unicast_route_with_an_interface_is_a_way() {
        let oif = RouteAttribute::Oif(3);
        let gateway: IpAddr = [10, 0, 0, 1].into();
        let gateway6: IpAddr = "fe80::1".parse().unwrap();
        let hop = |gateway| Some(Hop { interface: 3, gateway });
        let cases = [
            (route(RouteType::Unicast, vec![oif.clone()]), hop(None)),
            (route(RouteType::Unicast, vec![oif.clone(), RouteAttribute::Gateway(gateway.into())]), hop(Some(gateway))),
            (route(RouteType::Unicast, vec![oif.clone(), RouteAttribute::Via(gateway6.into())]), hop(Some(gateway6))),
            (route(RouteType::Unicast, vec![]), None),
            (route(RouteType::Local, vec![oif.clone()]), None),
            (route(RouteType::Broadcast, vec![oif.clone()]), None),
            (route(RouteType::Unreachable, vec![oif.clone()]), None),
            (route(RouteType::BlackHole, vec![oif]), None),
        ];
        for (message, expected) in cases {
            assert_eq!(parse_hop(&message), expected, "{message:?}");
        }
    }

    #[test]
    fn a_held_route_is_recognized_and_no_other() {
        for vip in ["192.0.2.10", "2001:db8::10"] {
            let vip: IpAddr = vip.parse().unwrap();
            assert_eq!(held_address(&held_route(vip)), Some(vip));

            let mut kernels = held_route(vip);
            kernels.header.protocol = RouteProtocol::Kernel;
            let mut other_metric = held_route(vip);
            other_metric.attributes.pop();
            let mut subnet = held_route(vip);
            subnet.header.destination_prefix_length = 24;
            let mut other_table = held_route(vip);
            other_table.header.table = 254;
            for message in [kernels, other_metric, subnet, other_table] {
                assert_eq!(held_address(&message), None, "{message:?}");
            }
        }
    }

    #[test]
    fn an_event_without_destination_is_the_default_route() {
        let mut message = route(RouteType::Unicast, vec![]);
        assert_eq!(prefix(&message), Some("0.0.0.0/0".parse().unwrap()));
        message.header.address_family = AddressFamily::Inet6;
        assert_eq!(prefix(&message), Some("::/0".parse().unwrap()));
        message.header.address_family = AddressFamily::Mpls;
        assert_eq!(prefix(&message), None);
    }
}
