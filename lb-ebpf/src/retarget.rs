//! Servers on another port than the service's: what is delivered here gets their port as its destination. Nothing is
//! remembered of a flow: the way back is a table of its own (`egress`).
#![expect(unsafe_code, reason = "the verifier knows global functions by the names that the linker sees")]

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    checksum,
    parse::{self, Bytes, Network, Transport},
    verdict::DropReason,
    wire::{icmp, protocol, tcp, udp},
};

use crate::{
    extensions::{self, MAX_L3, MAX_L4},
    maps,
    packet::Packet,
};

/// Gives the packet for `service` at `l3` its servers' port.
///
/// # Errors
/// Why it is to be dropped: its headers cannot be rewritten.
#[inline(always)]
pub fn to_server(packet: &Packet, service: u32, l3: usize, is_ipv4: bool) -> Result<(), DropReason> {
    let place = l3 as u32 | if is_ipv4 { IS_IPV4 } else { 0 };
    match levee_retarget(packet.context(), place, service) {
        0 => Ok(()),
        reason => Err(DropReason::from_index(reason - 1).unwrap_or(DropReason::NotLinear)),
    }
}

/// Beside the offset of a network header: it is one of IPv4.
const IS_IPV4: u32 = 1 << 8;
const _: () = assert!(MAX_L3 < IS_IPV4 as usize);

/// As [`to_server`]; one plus the reason to drop, or 0. A global function: the verifier looks at it once and not once per
/// way to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn levee_retarget(ctx: *mut xdp_md, place: u32, service: u32) -> u32 {
    let mut packet = Packet::linear(ctx);
    let (l3, is_ipv4) = (place as usize & MAX_L3, place & IS_IPV4 != 0);
    match maps::target_port(service) {
        0 => 0,
        port => match rewrite(&mut packet, l3, is_ipv4, port) {
            Ok(()) => 0,
            Err(reason) => reason as u32 + 1,
        },
    }
}

#[inline(always)]
fn rewrite(packet: &mut Packet, l3: usize, is_ipv4: bool, port: u16) -> Result<(), DropReason> {
    let network = parse::network(packet, l3, is_ipv4).ok_or(DropReason::Truncated)?;
    let transport = extensions::transport(packet, &network)?;
    let l4 = transport.l4 & MAX_L4;
    if transport.is_fragment && !begins(packet, &network, &transport)? {
        return Ok(()); // its ports went before it
    }
    match transport.protocol {
        protocol::TCP => exchange(packet, l4 + tcp::DESTINATION, l4 + tcp::CHECKSUM, port),
        protocol::UDP => exchange_udp(packet, l4, port),
        protocol::ICMP | protocol::ICMPV6 => rewrite_quote(packet, l4, is_ipv4, port),
        _ => Ok(()),
    }
}

/// Whether a fragment has the ports.
#[inline(always)]
fn begins(packet: &Packet, network: &Network, transport: &Transport) -> Result<bool, DropReason> {
    let at = transport.fragment_words(network);
    parse::fragment(packet, at, network.is_ipv4).map(|fragment| fragment.is_first).ok_or(DropReason::Truncated)
}

/// Replaces the port at `at` and what it adds to the checksum at `sum` (RFC 1624).
#[inline(always)]
fn exchange(packet: &mut Packet, at: usize, sum: usize, port: u16) -> Result<(), DropReason> {
    let old: [u8; 2] = packet.read(at).ok_or(DropReason::Fragment)?;
    let check: [u8; 2] = packet.read(sum).ok_or(DropReason::Fragment)?;
    let check = checksum::updated(u16::from_be_bytes(check), u16::from_be_bytes(old), port);
    packet.write(sum, check.to_be_bytes())?;
    packet.write(at, port.to_be_bytes())
}

/// As [`exchange`], for UDP: a checksum of 0 is none, and one that comes to 0 is sent as its other form (RFC 768).
#[inline(always)]
fn exchange_udp(packet: &mut Packet, l4: usize, port: u16) -> Result<(), DropReason> {
    let (at, sum) = (l4 + udp::DESTINATION, l4 + udp::CHECKSUM);
    let check: [u8; 2] = packet.read(sum).ok_or(DropReason::Fragment)?;
    if check == [0, 0] {
        return packet.write(at, port.to_be_bytes());
    }
    exchange(packet, at, sum, port)?;
    match packet.read(sum) {
        Some([0, 0]) => packet.write(sum, [0xff, 0xff]),
        _ => Ok(()),
    }
}

/// An error about a reply quotes it as it left, with the service's port as its source: the server knows it by its own.
/// The checksum of what is quoted stays: nobody could verify it, since the quote is cut off.
#[inline(always)]
fn rewrite_quote(packet: &mut Packet, l4: usize, is_ipv4: bool, port: u16) -> Result<(), DropReason> {
    let quoted = parse::network(packet, l4 + icmp::LEN, is_ipv4).ok_or(DropReason::BadQuote)?;
    let transport = parse::transport(packet, &quoted)?;
    exchange(packet, transport.l4 & MAX_L4, l4 + icmp::CHECKSUM, port)
}
