//! The flow hash by another implementation of SipHash-1-3.

use std::{hash::Hasher, net::IpAddr};

use siphasher::sip::SipHasher13;

use crate::{packet::Packet, world::World};

/// The hash of the flow that a packet belongs to: SipHash-1-3 of source, destination, source port, destination port and
/// protocol.
#[must_use]
pub fn flow_hash(world: &World, packet: &Packet) -> u64 {
    let mut message = Vec::new();
    for address in [packet.source(), packet.destination()] {
        match address {
            IpAddr::V4(address) => message.extend(address.octets()),
            IpAddr::V6(address) => message.extend(address.octets()),
        }
    }
    let (source_port, destination_port) = packet.ports();
    message.extend(source_port.to_be_bytes());
    message.extend(destination_port.to_be_bytes());
    message.push(packet.protocol());
    let mut hasher = SipHasher13::new_with_key(&world.secret);
    hasher.write(&message);
    hasher.finish()
}
