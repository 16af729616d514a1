//! What the program has to know of this node and of the other directors.

use std::net::IpAddr;

use lb_common::{
    addr::IpAddr16,
    hash::mac_bit,
    maps::{addresses::AddressEntry, settings::Settings},
};

use super::{decide::Inputs, state::TargetState};
use crate::model::{MacAddr, Network};

/// Enters this node's addresses, the peers, and how their frames are known.
pub(super) fn enter(inputs: &Inputs<'_>, target: &mut TargetState) {
    for address in &inputs.desired.node.addresses {
        *target.addresses.entry((*address).into()).or_default() |= AddressEntry::NODE;
    }
    for (id, peer) in (1..).zip(&inputs.desired.peers) {
        for address in &peer.addresses {
            target.peers.insert((*address).into(), id);
            if let Some(mac) = neighbour(inputs.network, *address) {
                target.peer_macs.insert(mac.0, id);
            }
        }
    }
    let node = [true, false].map(|is_ipv4| {
        let own = inputs.desired.node.addresses.iter().find(|address| address.is_ipv4() == is_ipv4);
        own.map_or_else(IpAddr16::default, |address| (*address).into())
    });
    target.settings = Settings { hash_key: inputs.hash_key, peer_macs: [0; 8], node };
    for mac in target.peer_macs.keys() {
        let bit = mac_bit(mac) as usize;
        target.settings.peer_macs[bit / 64] |= 1 << (bit % 64);
    }
}

/// The link-layer address of a node on the same link.
fn neighbour(network: &Network, address: IpAddr) -> Option<MacAddr> {
    network.next_hops.get(&address).filter(|way| way.on_link())?.mac
}
