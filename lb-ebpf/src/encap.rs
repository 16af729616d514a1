//! Rewrites of the frame: link-layer header, IP-in-IP and GUE headers, and their removal. The caller passes what the
//! maps said.

use lb_common::{
    addr::{IpAddr16, WireWord},
    hash::FlowHash,
    maps::backends::{Hop, Mode},
    parse::{Bytes, Network, Payload},
    verdict::{DropReason, Verdict},
    wire::{eth, gue, ipv4, ipv6, protocol, udp},
};

use crate::packet::Packet;

/// Bits of the traffic class that are the DSCP. The ECN bits of an outer header are left at zero ("compatibility mode",
/// RFC 6040 section 4.1), since what a router would write there is not carried back into the inner header.
const DSCP: u8 = 0xfc;

/// Makes the frame ready to leave by its hop, in the hop's mode.
#[inline(always)]
pub fn forward(packet: &mut Packet, network: &Network, hop: &Hop, hash: FlowHash) -> Result<Verdict, DropReason> {
    match hop.mode {
        mode if mode == Mode::L2 as u8 => {
            let ethertype = if network.is_ipv4 { eth::IPV4 } else { eth::IPV6 };
            reframe::<0>(packet, network, hop, ethertype)?;
            Ok(Verdict::L2)
        }
        mode if mode == Mode::Ipip4 as u8 => {
            let l3 = reframe::<{ ipv4::LEN }>(packet, network, hop, eth::IPV4)?;
            outer_ipv4(packet, l3, network, hop, inner_protocol(network), ipv4::LEN)?;
            Ok(Verdict::Ipip)
        }
        mode if mode == Mode::Ipip6 as u8 => {
            let l3 = reframe::<{ ipv6::LEN }>(packet, network, hop, eth::IPV6)?;
            outer_ipv6(packet, l3, network, hop, inner_protocol(network), hash, 0)?;
            Ok(Verdict::Ipip)
        }
        mode if mode == Mode::Gue4 as u8 => {
            const HEADERS: usize = ipv4::LEN + udp::LEN + gue::LEN;
            let l3 = reframe::<HEADERS>(packet, network, hop, eth::IPV4)?;
            outer_ipv4(packet, l3, network, hop, protocol::UDP, HEADERS)?;
            gue(packet, l3 + ipv4::LEN, network, hash)?;
            Ok(Verdict::Gue)
        }
        mode if mode == Mode::Gue6 as u8 => {
            const HEADERS: usize = ipv6::LEN + udp::LEN + gue::LEN;
            let l3 = reframe::<HEADERS>(packet, network, hop, eth::IPV6)?;
            outer_ipv6(packet, l3, network, hop, protocol::UDP, hash, udp::LEN + gue::LEN)?;
            gue(packet, l3 + ipv6::LEN, network, hash)?;
            Ok(Verdict::Gue)
        }
        _ => Err(DropReason::NextHopUnknown),
    }
}

/// Makes the frame ready to leave by its hop in a GUE tunnel with the mark of a second chance, whatever the hop's mode.
#[inline(always)]
pub fn forward_marked(
    packet: &mut Packet,
    network: &Network,
    hop: &Hop,
    port: u16,
    chance: u8,
) -> Result<(), DropReason> {
    const HEADERS: usize = udp::LEN + gue::MARKED_LEN;
    let length = network.length as u16 + HEADERS as u16; // `reframe` checks it against the MTU
    let to = hop.tunnel_destination.words();
    let at = if hop.tunnel_destination == IpAddr16::v4(to[3]) {
        let l3 = reframe::<{ ipv4::LEN + HEADERS }>(packet, network, hop, eth::IPV4)?;
        outer_ipv4(packet, l3, network, hop, protocol::UDP, ipv4::LEN + HEADERS)?;
        l3 + ipv4::LEN
    } else {
        let l3 = reframe::<{ ipv6::LEN + HEADERS }>(packet, network, hop, eth::IPV6)?;
        let class = network.traffic_class & DSCP;
        let outer = ipv6::outer(hop.tunnel_source.words(), to, protocol::UDP, class, u32::from(port), length);
        packet.write_words(l3, outer)?;
        l3 + ipv6::LEN
    };
    packet.write_words(at, udp::header(port, gue::PORT, length))?;
    packet.write_words(at + udp::LEN, gue::marked(inner_protocol(network), chance))
}

/// The verdict of a packet that leaves in this mode.
#[inline(always)]
pub const fn verdict(mode: u8) -> Verdict {
    match Mode::from_value(mode) {
        Mode::Unknown | Mode::Local => Verdict::Local,
        Mode::L2 => Verdict::L2,
        Mode::Ipip4 | Mode::Ipip6 => Verdict::Ipip,
        Mode::Gue4 | Mode::Gue6 => Verdict::Gue,
    }
}

/// All bits of the length of the headers that are stripped, and of the offset of what they carry: bounds that the
/// verifier does not derive from the difference and the sum of offsets.
const STRIPPED: usize = 0x3f;
const INNER: usize = 0x7f;
const _: () = assert!(ipv6::LEN + udp::LEN + gue::LEN <= STRIPPED);
const _: () = assert!(eth::MAX_LEN + ipv6::LEN + udp::LEN + gue::LEN <= INNER);
/// Longest packet that fits the hop with its tunnel header around it, bytes.
#[inline(always)]
pub const fn room(hop: &Hop) -> u16 {
    let headers = match Mode::from_value(hop.mode) {
        Mode::Unknown | Mode::Local | Mode::L2 => 0,
        Mode::Ipip4 => ipv4::LEN,
        Mode::Ipip6 => ipv6::LEN,
        Mode::Gue4 => ipv4::LEN + udp::LEN + gue::LEN,
        Mode::Gue6 => ipv6::LEN + udp::LEN + gue::LEN,
    };
    hop.mtu.saturating_sub(headers as u16)
}

/// Takes a tunnel header off: the link-layer header moves up to the inner network header.
#[inline(always)]
pub fn strip(packet: &mut Packet, outer_l3: usize, payload: &Payload) -> Result<(), DropReason> {
    let by = (payload.l3 - outer_l3) & STRIPPED;
    let macs: [WireWord; 3] = packet.words(0).ok_or(DropReason::NotLinear)?;
    if outer_l3 > eth::LEN {
        let [tag] = packet.words(eth::LEN - 2).ok_or(DropReason::NotLinear)?;
        packet.write_words(by + eth::LEN - 2, [tag])?;
    }
    if outer_l3 > eth::LEN + eth::VLAN_LEN {
        let [tag] = packet.words(eth::LEN + eth::VLAN_LEN - 2).ok_or(DropReason::NotLinear)?;
        packet.write_words(by + eth::LEN + eth::VLAN_LEN - 2, [tag])?;
    }
    let ethertype = if payload.is_ipv4 { eth::IPV4 } else { eth::IPV6 };
    packet.write((payload.l3 - 2) & INNER, ethertype.to_be_bytes())?;
    packet.write_words(by, macs)?;
    packet.grow(-(by as isize))
}

/// Counts the hop in the packet, makes room for `HEADERS` bytes of tunnel headers and writes the link-layer header that
/// the hop wants. Returns the offset behind it.
#[inline(always)]
fn reframe<const HEADERS: usize>(
    packet: &mut Packet,
    network: &Network,
    hop: &Hop,
    ethertype: u16,
) -> Result<usize, DropReason> {
    if network.length as usize + HEADERS > usize::from(hop.mtu) {
        return Err(DropReason::TooBig);
    }
    count_hop(packet, network)?;
    if hop.vlan == 0 {
        packet.grow((eth::LEN + HEADERS) as isize - network.l3 as isize)?;
        packet.write_words(0, hop.macs)?;
        packet.write(eth::LEN - 2, ethertype.to_be_bytes())?;
        Ok(eth::LEN)
    } else {
        packet.grow((eth::LEN + eth::VLAN_LEN + HEADERS) as isize - network.l3 as isize)?;
        packet.write_words(0, hop.macs)?;
        packet.write(eth::LEN - 2, eth::VLAN.to_be_bytes())?;
        packet.write_words(eth::LEN, [eth::tag(hop.vlan, ethertype)])?;
        Ok(eth::LEN + eth::VLAN_LEN)
    }
}

/// Decrements TTL or hop limit.
#[inline(always)]
fn count_hop(packet: &mut Packet, network: &Network) -> Result<(), DropReason> {
    if network.is_ipv4 {
        let at = network.l3 + 8;
        let [word] = packet.words(at).ok_or(DropReason::NotLinear)?;
        packet.write_words(at, [ipv4::decremented(word)])
    } else {
        packet.write_byte(network.l3 + 7, network.ttl.wrapping_sub(1))
    }
}

#[inline(always)]
const fn inner_protocol(network: &Network) -> u8 {
    if network.is_ipv4 { protocol::IPV4 } else { protocol::IPV6 }
}

/// Writes the outer IPv4 header; `headers` counts all tunnel headers, this one included.
#[inline(always)]
fn outer_ipv4(
    packet: &mut Packet,
    l3: usize,
    network: &Network,
    hop: &Hop,
    protocol: u8,
    headers: usize,
) -> Result<(), DropReason> {
    let length = network.length as u16 + headers as u16; // `reframe` checked it against the MTU
    let (source, destination) = (hop.tunnel_source.last(), hop.tunnel_destination.last());
    packet.write_words(l3, ipv4::outer(source, destination, protocol, network.traffic_class & DSCP, length))
}

/// Writes the outer IPv6 header; `headers` counts the tunnel headers behind it.
#[inline(always)]
fn outer_ipv6(
    packet: &mut Packet,
    l3: usize,
    network: &Network,
    hop: &Hop,
    next_header: u8,
    hash: FlowHash,
    headers: usize,
) -> Result<(), DropReason> {
    let length = network.length as u16 + headers as u16; // `reframe` checked it against the MTU
    let (source, destination) = (hop.tunnel_source.words(), hop.tunnel_destination.words());
    let class = network.traffic_class & DSCP;
    packet.write_words(l3, ipv6::outer(source, destination, next_header, class, hash.flow_label(), length))
}

/// Writes the UDP and GUE headers.
#[inline(always)]
fn gue(packet: &mut Packet, at: usize, network: &Network, hash: FlowHash) -> Result<(), DropReason> {
    let length = network.length as u16 + (udp::LEN + gue::LEN) as u16; // `reframe` checked it against the MTU
    packet.write_words(at, udp::header(hash.entropy_port(), gue::PORT, length))?;
    packet.write_words(at + udp::LEN, [gue::header(inner_protocol(network))])
}
