//! ICMP: errors that belong to flows, and the errors that this node sends itself. Off the common path, in functions with
//! a stack of their own.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    addr::{Be16, IpAddr16, WireWord},
    checksum,
    hash::Tuple,
    maps::services::VipKey,
    parse::{Bytes, Network, Transport},
    quote::{self, Quote},
    tracking::Kind,
    verdict::DropReason,
    wire::{eth, icmp, ipv4, ipv6, protocol},
};

use crate::{
    decide::{Class, Flow},
    extensions::{MAX_L3, MAX_L4},
    packet::Packet,
};

/// Longest quote in an error that is sent, bytes. It holds the longest IPv4 header and the ports.
const QUOTE: usize = 128;
/// Traffic class of an error: "internetwork control" (RFC 1812 section 4.3.2.5).
const CONTROL: u8 = 0xc0;
/// The smallest MTU that IPv6 allows, bytes (RFC 8200 section 5).
const IPV6_MTU: u16 = 1280;

/// What a packet whose transport is ICMP or ICMPv6 is to a VIP.
#[inline(always)]
pub fn class(packet: &Packet, network: &Network, transport: &Transport) -> Result<Class, DropReason> {
    if network.is_ipv4 != (transport.protocol == protocol::ICMP) {
        return Ok(Class::Other);
    }
    if transport.is_fragment {
        return Ok(Class::Echo); // no error is that long
    }
    let [word] = packet.words(transport.l4).ok_or(DropReason::Truncated)?;
    let [message_type, ..] = word.to_ne_bytes();
    if transport.l4 + icmp::LEN > transport.end || !packet.reaches(transport.end) {
        return Err(DropReason::Truncated);
    }
    match icmp::kind(network.is_ipv4, message_type) {
        icmp::Kind::Error => {}
        icmp::Kind::Echo => return Ok(Class::Echo),
        icmp::Kind::Neighbour => return Ok(Class::Neighbour),
        icmp::Kind::Other => return Err(DropReason::IcmpUnwanted),
    }
    let family = if network.is_ipv4 { IS_IPV4 } else { 0 };
    let quoted = levee_quote(packet.context(), network.l3 as u32 | family, transport.l4 as u32, transport.end as u32);
    match quoted as u8 {
        FLOW => {}
        OTHER => return Ok(Class::Echo),
        _ => return Err(DropReason::BadQuote),
    }
    let client = if network.is_ipv4 {
        packet.words(transport.l4 + icmp::LEN + 16).map(|[address]| IpAddr16::v4(address))
    } else {
        packet.words(transport.l4 + icmp::LEN + 24).map(IpAddr16::v6)
    };
    let [_, protocol, _, _, vip_high, vip_low, client_high, client_low] = quoted.to_le_bytes();
    let to = VipKey::new(network.destination, Be16::from_wire([vip_high, vip_low]), protocol);
    let source_port = Be16::from_wire([client_high, client_low]);
    let tuple = Tuple::new(client.ok_or(DropReason::Truncated)?, source_port, to);
    Ok(Class::Flow(Flow { tuple, kind: Kind::Error }))
}

/// First byte of what [`levee_quote`] returns.
const FLOW: u8 = 0;
const OTHER: u8 = 1;
const BAD: u8 = 2;

/// Beside the offset of a network header: it is one of IPv4. What the frame says counts, not the version in the header.
const IS_IPV4: u32 = 1 << 8;
const _: () = assert!(MAX_L3 < IS_IPV4 as usize);

/// Reads what the error at `l4` in the packet at `l3` ([`IS_IPV4`] beside it) quotes. Bytes of the result, the lowest first: what it is, the
/// protocol, two of zero, the port of the VIP and that of the client as they are on the wire.
///
/// A global function: the verifier looks at it once and not once per way to it.
#[unsafe(no_mangle)]
#[inline(never)]
#[expect(unsafe_code, reason = "the verifier knows global functions by the names that the linker sees")]
pub extern "C" fn levee_quote(ctx: *mut xdp_md, l3: u32, l4: u32, end: u32) -> u64 {
    let is_ipv4 = l3 & IS_IPV4 != 0;
    let (packet, l3, l4) = (Packet::linear(ctx), l3 as usize & MAX_L3, l4 as usize & MAX_L4);
    let vip = if is_ipv4 {
        packet.words(l3 + 16).map(|[address]| IpAddr16::v4(address))
    } else {
        packet.words(l3 + 24).map(IpAddr16::v6)
    };
    let Some(vip) = vip else { return u64::from(BAD) };
    match quote::read(&packet, l4 + icmp::LEN, end as usize, is_ipv4, &vip) {
        Quote::Flow(tuple) => {
            let ([a, b], [c, d]) = (tuple.to.port.wire(), tuple.source_port.wire());
            u64::from_le_bytes([FLOW, tuple.to.protocol, 0, 0, a, b, c, d])
        }
        Quote::Other => u64::from(OTHER),
        Quote::Bad => u64::from(BAD),
    }
}

/// Turns a packet into an error to its sender that says "too big", with this MTU, or (MTU 0) "time exceeded". It comes
/// from the address of its family in `node`; where that is zero, from the VIP. False if the sender cannot or may not be
/// told: the packet is to be dropped.
#[inline(always)]
pub fn answer(packet: &mut Packet, network: &Network, mtu: u16, node: &[IpAddr16; 2]) -> bool {
    let place = network.l3 as u64 | u64::from(if network.is_ipv4 { IS_IPV4 } else { 0 });
    let numbers = packet.length() as u64 & 0xffff_ffff | u64::from(mtu) << 32 | place << 48;
    let [a, b, c, d] = node[1].words().map(u64::from);
    levee_answer(packet.context(), numbers, node[0].last(), a | b << 32, c | d << 32) == 1
}

/// As [`answer`]: `numbers` holds the length of the frame, in bits 32..48 the MTU and above them where the network
/// header is, with [`IS_IPV4`]; `ipv4`, `high` and
/// `low` hold the node's addresses. 1 for true. A global function, as [`levee_quote`] is.
#[unsafe(no_mangle)]
#[inline(never)]
#[expect(unsafe_code, reason = "as above")]
pub extern "C" fn levee_answer(ctx: *mut xdp_md, numbers: u64, ipv4: WireWord, high: u64, low: u64) -> u32 {
    let mut packet = Packet::linear(ctx);
    let (length, mtu) = (numbers as u32 as usize, (numbers >> 32) as u16);
    let node = Node { ipv4, ipv6: [high as u32, (high >> 32) as u32, low as u32, (low >> 32) as u32] };
    let place = (numbers >> 48) as u32;
    let is_ipv4 = place & IS_IPV4 != 0;
    let answered = match place as usize & MAX_L3 {
        eth::LEN => answer_at::<{ eth::LEN }>(&mut packet, is_ipv4, length, mtu, &node),
        ONE_TAG => answer_at::<ONE_TAG>(&mut packet, is_ipv4, length, mtu, &node),
        eth::MAX_LEN => answer_at::<{ eth::MAX_LEN }>(&mut packet, is_ipv4, length, mtu, &node),
        _ => None,
    };
    u32::from(answered.is_some())
}

/// Where this node's errors come from; zero where it has no address of the family.
struct Node {
    ipv4: WireWord,
    ipv6: [WireWord; 4],
}

/// Offset of the network header behind one VLAN tag.
const ONE_TAG: usize = eth::LEN + eth::VLAN_LEN;

#[inline(always)]
fn answer_at<const L3: usize>(packet: &mut Packet, is_ipv4: bool, length: usize, mtu: u16, node: &Node) -> Option<()> {
    let [to] = packet.words(0)?;
    if to.to_ne_bytes()[0] & 1 == 1 {
        return None; // a frame for many would be answered by many
    }
    if is_ipv4 { answer_ipv4::<L3>(packet, length, mtu, node) } else { answer_ipv6::<L3>(packet, length, mtu, node) }
}

#[inline(always)]
fn answer_ipv4<const L3: usize>(packet: &mut Packet, length: usize, mtu: u16, node: &Node) -> Option<()> {
    const HEADERS: usize = ipv4::LEN + icmp::LEN;
    let header = ipv4::Header(packet.words(L3)?);
    let [first, ..] = header.source().to_ne_bytes();
    if first == 0 || first == 127 || first >= 224 || header.fragment_offset() != 0 {
        return None; // RFC 1122 section 3.2.2
    }
    let (size, sum) = sum_quote::<L3>(packet, usize::from(header.total_length()))?;
    let error = if mtu == 0 { icmp::Error::time_exceeded(true) } else { icmp::Error::too_big(true, mtu) };
    let check = checksum::fold_long(sum + checksum::sum(&error.header(0)));
    let source = if node.ipv4 == 0 { header.destination() } else { node.ipv4 };
    turn_back::<L3, HEADERS>(packet, length, size)?;
    let total = (HEADERS + size) as u16;
    packet.write_words(L3, ipv4::outer(source, header.source(), protocol::ICMP, CONTROL, total)).ok()?;
    packet.write_words(L3 + ipv4::LEN, error.header(check)).ok()
}

#[inline(always)]
fn answer_ipv6<const L3: usize>(packet: &mut Packet, length: usize, mtu: u16, node: &Node) -> Option<()> {
    const HEADERS: usize = ipv6::LEN + icmp::LEN;
    let header = ipv6::Header(packet.words(L3)?);
    let source = header.source();
    if source[0].to_ne_bytes()[0] == 0xff || source == [0; 4] {
        return None; // RFC 4443 section 2.4 (e.6)
    }
    let whole = ipv6::LEN + usize::from(header.payload_length());
    let error = if mtu == 0 {
        icmp::Error::time_exceeded(false)
    } else if whole <= usize::from(IPV6_MTU) {
        return None; // no sender makes it shorter
    } else {
        icmp::Error::too_big(false, if mtu < IPV6_MTU { IPV6_MTU } else { mtu })
    };
    let from = if node.ipv6 == [0; 4] { header.destination() } else { node.ipv6 };
    let (size, sum) = sum_quote::<L3>(packet, whole)?;
    let payload = (icmp::LEN + size) as u16;
    // The pseudo-header of RFC 8200 section 8.1.
    let sum = sum + checksum::sum(&from) + checksum::sum(&source) + u64::from(payload) + u64::from(protocol::ICMPV6);
    let check = checksum::fold_long(sum + checksum::sum(&error.header(0)));
    turn_back::<L3, HEADERS>(packet, length, size)?;
    packet.write_words(L3, ipv6::outer(from, source, protocol::ICMPV6, CONTROL, 0, payload)).ok()?;
    packet.write_words(L3 + ipv6::LEN, error.header(check)).ok()
}

/// Length of the quote of a packet of `length` bytes, a multiple of four, and the sum of its words.
#[inline(always)]
fn sum_quote<const L3: usize>(packet: &Packet, length: usize) -> Option<(usize, u64)> {
    let size = if length > QUOTE { QUOTE } else { length & !3 };
    let mut sum = 0;
    for at in 0..QUOTE / 4 {
        if at * 4 >= size {
            break;
        }
        let word: [WireWord; 1] = packet.words(L3 + at * 4)?;
        sum += checksum::sum(&word);
    }
    Some((size, sum))
}

/// Cuts the packet off behind its first `size` bytes, makes room for `HEADERS` bytes in front of it, and addresses the
/// frame to where it came from, with the same tags.
#[inline(always)]
fn turn_back<const L3: usize, const HEADERS: usize>(packet: &mut Packet, length: usize, size: usize) -> Option<()> {
    packet.cut(length.wrapping_sub(L3 + size)).ok()?;
    packet.grow(HEADERS as isize).ok()?;
    let macs = packet.words(HEADERS)?;
    packet.write_words(0, eth::swapped(macs)).ok()?;
    let ethertype = packet.read(HEADERS + L3 - 2)?;
    packet.write(L3 - 2, ethertype).ok()?;
    if L3 > eth::LEN {
        let tag: [WireWord; 1] = packet.words(HEADERS + eth::LEN - 2)?;
        packet.write_words(eth::LEN - 2, tag).ok()?;
    }
    if L3 > eth::LEN + eth::VLAN_LEN {
        let tag: [WireWord; 1] = packet.words(HEADERS + eth::LEN + eth::VLAN_LEN - 2)?;
        packet.write_words(eth::LEN + eth::VLAN_LEN - 2, tag).ok()?;
    }
    Some(())
}
