//! Neighbours: who has which link-layer address, and how the kernel is made to find out.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};

use super::{Client, NetlinkError, links::mac, routes::family};
use crate::model::MacAddr;

/// A neighbour by interface and address.
pub(super) type Key = (u32, IpAddr);

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Neighbour {
    /// How sure the kernel is.
    pub trust: Trust,
    /// Link-layer address, where there is one and `trust` is not [`Trust::None`].
    pub mac: Option<MacAddr>,
}

/// How far an entry can be believed, and so how soon to ask again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trust {
    /// Confirmed, being confirmed, or set by hand: nothing to do.
    Fresh,
    /// Known, but not confirmed for a while.
    Stale,
    /// Unanswered so far, or no more answered.
    None,
}

impl Trust {
    fn of(state: NeighbourState) -> Self {
        match state {
            // Delay and probe: the kernel is asking already.
            NeighbourState::Reachable
            | NeighbourState::Permanent
            | NeighbourState::Noarp
            | NeighbourState::Delay
            | NeighbourState::Probe => Self::Fresh,
            NeighbourState::Stale => Self::Stale,
            _ => Self::None,
        }
    }
}

/// Reads an entry; `None` for what is no neighbour of IPv4 or IPv6 (a bridge's forwarding entry, a proxy).
pub(super) fn parse(message: &NeighbourMessage) -> Option<(Key, Neighbour)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut address, mut link_layer) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(value)) => address = Some(IpAddr::from(*value)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(value)) => address = Some(IpAddr::from(*value)),
            NeighbourAttribute::LinkLayerAddress(bytes) => link_layer = mac(bytes),
            _ => {}
        }
    }
    let trust = Trust::of(message.header.state);
    let mac = link_layer.filter(|_| trust != Trust::None);
    Some(((message.header.ifindex, address?), Neighbour { trust, mac }))
}

/// Every neighbour of both families.
pub(super) async fn neighbours(client: &Client) -> Result<Vec<(Key, Neighbour)>, NetlinkError> {
    let mut neighbours = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = NeighbourMessage::default();
        request.header.family = family;
        let answers = client.dump("list the neighbours", RouteNetlinkMessage::GetNeighbour(request)).await?;
        neighbours.extend(answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(message) => parse(message),
            _ => None,
        }));
    }
    Ok(neighbours)
}

/// Makes the kernel resolve a neighbour by ARP or NDP, as a packet to it would (`ip neigh replace .. nud none use`).
///
/// An entry that is stale is confirmed, one that failed is asked for again, a missing one is made. Never for permanent
/// entries: from kernel 5.16 on the request takes their permanence away.
pub(super) async fn resolve(client: &Client, (interface, address): Key) -> Result<(), NetlinkError> {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = interface;
    message.header.state = NeighbourState::None;
    message.header.flags = NeighbourFlags::Use;
    message.attributes.push(NeighbourAttribute::Destination(match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    }));
    let action = format!("resolve the neighbour {address} on interface {interface}");
    client.change(&action, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_counts_only_while_the_entry_stands() {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let cases = [
            (NeighbourState::Reachable, Trust::Fresh, Some(mac)),
            (NeighbourState::Permanent, Trust::Fresh, Some(mac)),
            (NeighbourState::Noarp, Trust::Fresh, Some(mac)),
            (NeighbourState::Delay, Trust::Fresh, Some(mac)),
            (NeighbourState::Probe, Trust::Fresh, Some(mac)),
            (NeighbourState::Stale, Trust::Stale, Some(mac)),
            (NeighbourState::Incomplete, Trust::None, None),
            (NeighbourState::Failed, Trust::None, None),
            (NeighbourState::None, Trust::None, None),
        ];
        for (state, trust, expected) in cases {
            let mut message = NeighbourMessage::default();
            message.header.ifindex = 2;
            message.header.state = state;
            message.attributes = vec![
                NeighbourAttribute::Destination(NeighbourAddress::Inet([192, 0, 2, 1].into())),
                NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
            ];
            let neighbour = Neighbour { trust, mac: expected };
            assert_eq!(parse(&message), Some(((2, IpAddr::from([192, 0, 2, 1])), neighbour)), "{state}");
        }
    }

    #[test]
    fn a_forwarding_entry_of_a_bridge_is_no_neighbour() {
        let mut message = NeighbourMessage::default();
        message.attributes = vec![NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1])];
        assert_eq!(parse(&message), None);
    }
}
