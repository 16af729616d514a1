//! ICMP errors of both families, built by `etherparse`.

use std::net::IpAddr;

use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, icmpv4, icmpv6};
use lb_common::wire::protocol;

use crate::packet::{Packet, raw};

/// An ICMP error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IcmpError {
    /// Port unreachable.
    Unreachable,
    /// Too big for a next hop of this MTU: for IPv4, fragmentation needed.
    TooBig(u16),
    /// TTL or hop limit exceeded in transit.
    TimeExceeded,
    /// The field at offset 4 is wrong.
    ParameterProblem,
}

impl IcmpError {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Unreachable, Self::TooBig(1400), Self::TimeExceeded, Self::ParameterProblem];
}

/// An error of the addresses' family that quotes these bytes.
#[must_use]
pub fn icmp_error(source: IpAddr, destination: IpAddr, error: IcmpError, quote: &[u8]) -> Packet {
    let (number, header) = match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Icmpv6Header::with_checksum(ipv6(error), source.octets(), destination.octets(), quote);
            (protocol::ICMPV6, header.expect("it fits").to_bytes().to_vec())
        }
        _ => (protocol::ICMP, Icmpv4Header::with_checksum(ipv4(error), quote).to_bytes().to_vec()),
    };
    raw(source, destination, number, &[&header, quote].concat())
}

/// The error by which a node tells the sender of `packet` that it cannot go on: it quotes up to 128 bytes.
#[must_use]
pub fn answer(node: IpAddr, error: IcmpError, packet: &Packet) -> Packet {
    let bytes = packet.bytes();
    let quote = &bytes[..(bytes.len() / 4 * 4).min(128)];
    icmp_error(node, packet.source(), error, quote).class(0xc0).identification(0)
}

fn ipv4(error: IcmpError) -> Icmpv4Type {
    match error {
        IcmpError::Unreachable => Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port),
        IcmpError::TooBig(mtu) => {
            Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu })
        }
        IcmpError::TimeExceeded => Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
        IcmpError::ParameterProblem => {
            Icmpv4Type::ParameterProblem(icmpv4::ParameterProblemHeader::PointerIndicatesError(4))
        }
    }
}

fn ipv6(error: IcmpError) -> Icmpv6Type {
    match error {
        IcmpError::Unreachable => Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port),
        IcmpError::TooBig(mtu) => Icmpv6Type::PacketTooBig { mtu: u32::from(mtu) },
        IcmpError::TimeExceeded => Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
        IcmpError::ParameterProblem => Icmpv6Type::ParameterProblem(icmpv6::ParameterProblemHeader {
            code: icmpv6::ParameterProblemCode::ErroneousHeaderField,
            pointer: 4,
        }),
    }
}
