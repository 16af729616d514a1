//! Frames to flows: the parser that the kernel program, the host tests and the fuzz targets share.
//!
//! It reads through [`Bytes`] and judges nothing before it is asked to: [`link`] and [`network`] tell whether a frame can be for a VIP; only then do [`transport`] and [`ports`] follow options and extension headers, whose
//! faults are reasons to drop.

use crate::{
    addr::{Be16, IpAddr16, WireWord, wire_word},
    tracking::Kind,
    verdict::DropReason,
    verifier::forget,
    wire::{eth, ipv4, ipv6, protocol, sctp, tcp, udp},
};

mod tunnel;

pub use tunnel::{Payload, tunnel};

/// A frame that can be read at any offset.
pub trait Bytes {
    /// Copies `N` bytes from `offset` on; `None` if the frame ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Copies `4 * N` bytes from `offset` on, four to a word; `None` if the frame ends before.
    fn words<const N: usize>(&self, offset: usize) -> Option<[WireWord; N]>;

    /// Whether the frame has at least `length` bytes, those beyond the reach of `read` included.
    fn reaches(&self, length: usize) -> bool;
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[WireWord; N]> {
        let bytes = self.get(offset..offset.checked_add(4 * N)?)?;
        Some(core::array::from_fn(|word| wire_word(core::array::from_fn(|i| bytes[word * 4 + i]))))
    }

    fn reaches(&self, length: usize) -> bool {
        length <= self.len()
    }
}

/// What lies above the link layer, and where.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// EtherType behind the tags.
    pub ethertype: u16,
    /// Offset of the network header: 14, 18 or 22.
    pub l3: usize,
}

/// All bits of the offset of a network header behind tags. It is forgotten, so that what the verifier proves for tagged
/// frames holds for untagged ones too.
const TAGGED: usize = 0x1f;
const _: () = assert!(eth::MAX_LEN <= TAGGED);

/// Finds the network header behind at most two VLAN tags. `None`: too short, or more tags.
#[inline(always)]
pub fn link<B: Bytes + ?Sized>(frame: &B) -> Option<Link> {
    let ethertype = u16::from_be_bytes(frame.read(eth::LEN - 2)?);
    if !eth::is_tag(ethertype) {
        return Some(Link { ethertype, l3: eth::LEN });
    }
    let ethertype = u16::from_be_bytes(frame.read(eth::LEN + 2)?);
    if !eth::is_tag(ethertype) {
        return Some(Link { ethertype, l3: forget::<TAGGED>(eth::LEN + eth::VLAN_LEN) });
    }
    let ethertype = u16::from_be_bytes(frame.read(eth::LEN + eth::VLAN_LEN + 2)?);
    if eth::is_tag(ethertype) { None } else { Some(Link { ethertype, l3: forget::<TAGGED>(eth::MAX_LEN) }) }
}

/// An IP packet as its fixed header tells it, not judged yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    /// Source address.
    pub source: IpAddr16,
    /// Destination address.
    pub destination: IpAddr16,
    /// Offset of the network header.
    pub l3: usize,
    /// Length of the network header in bytes, as IPv4 claims it (0..=60); 40 for IPv6.
    pub header_length: usize,
    /// Length of header and payload in bytes; for IPv6 up to 65575.
    pub length: u32,
    /// IANA protocol number of what follows the header: the transport, or an IPv6 extension header.
    pub next: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// IPv4 or IPv6.
    pub is_ipv4: bool,
    /// An IPv4 fragment that is not the whole datagram.
    pub is_fragment: bool,
}

/// Reads the fixed IP header at `l3`; `None` if the frame is too short.
#[inline(always)]
pub fn network<B: Bytes + ?Sized>(frame: &B, l3: usize, is_ipv4: bool) -> Option<Network> {
    if is_ipv4 {
        let header = ipv4::Header(frame.words(l3)?);
        Some(Network {
            source: IpAddr16::v4(header.source()),
            destination: IpAddr16::v4(header.destination()),
            l3,
            header_length: header.length(),
            length: u32::from(header.total_length()),
            next: header.protocol(),
            ttl: header.ttl(),
            traffic_class: header.traffic_class(),
            is_ipv4,
            is_fragment: header.is_fragment(),
        })
    } else {
        let header = ipv6::Header(frame.words(l3)?);
        Some(Network {
            source: IpAddr16::v6(header.source()),
            destination: IpAddr16::v6(header.destination()),
            l3,
            header_length: ipv6::LEN,
            length: ipv6::LEN as u32 + u32::from(header.payload_length()),
            next: header.next_header(),
            ttl: header.hop_limit(),
            traffic_class: header.traffic_class(),
            is_ipv4,
            is_fragment: false,
        })
    }
}

/// Where the transport header is, and which.
///
/// In this order a reason to drop lies beside the offsets and not over the half of one, when there is the one or the
/// other: the verifier of Linux 6.1 loses the bounds of a value that is put together from halves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct Transport {
    /// IANA protocol number.
    pub protocol: u8,
    /// Whether the packet is a fragment that is not the whole datagram.
    pub is_fragment: bool,
    /// Offset of its header.
    pub l4: usize,
    /// Offset of the end of the packet, as its network header claims it.
    pub end: usize,
}

/// Finds the transport header behind IPv4 options or at most [`ipv6::MAX_EXTENSIONS`] IPv6 extension headers.
///
/// # Errors
/// [`DropReason::BadIpv4Header`] if the header is shorter than 20 bytes or longer than the packet,
/// [`DropReason::Truncated`] if the frame ends inside an extension header, [`DropReason::ExtensionHeaders`] if there
/// are more than are followed, [`DropReason::BadIpv6Header`] if they are longer than the packet.
#[inline(always)]
pub fn transport<B: Bytes + ?Sized>(frame: &B, network: &Network) -> Result<Transport, DropReason> {
    let end = network.l3 + network.length as usize;
    let l4 = network.l3 + network.header_length;
    let first = Transport { protocol: network.next, l4, end, is_fragment: network.is_fragment };
    if network.is_ipv4 {
        // RFC 791 section 3.1
        if network.header_length < ipv4::LEN || l4 > end { Err(DropReason::BadIpv4Header) } else { Ok(first) }
    } else {
        let transport = if is_extension(first.protocol) { behind_extensions(frame, first)? } else { first };
        if transport.l4 > end { Err(DropReason::BadIpv6Header) } else { Ok(transport) }
    }
}

/// The transport behind at least one extension header.
#[inline(always)]
fn behind_extensions<B: Bytes + ?Sized>(frame: &B, first: Transport) -> Result<Transport, DropReason> {
    let l4 = match u16::try_from(first.l4) {
        Ok(l4) if l4 <= FARTHEST_FIRST => l4,
        _ => return Err(DropReason::Truncated), // no frame has its first extension header there
    };
    let mut at = Position { protocol: first.protocol, is_fragment: 0, l4 };
    match walk(frame, &mut at) {
        Walk::DONE => {}
        Walk::TRUNCATED => return Err(DropReason::Truncated),
        _ => return Err(DropReason::ExtensionHeaders),
    }
    let l4 = usize::from(at.l4) & REACH;
    Ok(Transport { protocol: at.protocol, l4, end: first.end, is_fragment: at.is_fragment != 0 })
}

/// Where a walk along extension headers has come to.
///
/// It is handed over in memory, in parts of a word: as with [`forget`], the verifier follows the rest of the program once
/// and not once for every chain of headers.
#[repr(C, align(4))]
struct Position {
    /// IANA protocol number of the header at `l4`.
    protocol: u8,
    /// 1 behind the header of a fragment that is not the whole datagram, else 0.
    is_fragment: u8,
    /// Offset in the frame.
    l4: u16,
}

/// How a walk ended: numbers, since the verifier wants every byte of a larger result written on every path.
struct Walk;

impl Walk {
    const DONE: u32 = 0;
    const TRUNCATED: u32 = 1;
    const TOO_MANY: u32 = 2;
}

/// All bits of an offset that a walk can come to.
const REACH: usize = 0x3fff;
/// Where a walk can begin without leaving `REACH`: a header is at most 256 units of 8 bytes long.
const FARTHEST_FIRST: u16 = 0x0fff;
const _: () = assert!(FARTHEST_FIRST as usize + ipv6::MAX_EXTENSIONS * 256 * 8 <= REACH);

/// Follows extension headers (RFC 8200 section 4) to the transport or to a fragment, whose later parts have no header
/// to follow. An atomic fragment (RFC 6946) counts as whole.
#[inline(never)] // few packets have them
fn walk<B: Bytes + ?Sized>(frame: &B, at: &mut Position) -> u32 {
    for _ in 0..ipv6::MAX_EXTENSIONS {
        let Some([header]) = frame.words(usize::from(at.l4) & REACH) else {
            return Walk::TRUNCATED;
        };
        let [next, units, offset, flags] = header.to_ne_bytes();
        let length = match at.protocol {
            protocol::FRAGMENT => ipv6::FRAGMENT_LEN as u16,
            protocol::AUTHENTICATION => (u16::from(units) + 2) * 4, // RFC 4302 section 2.2
            _ => (u16::from(units) + 1) * 8,
        };
        // Offset and "more" flag, without the reserved bits.
        let is_fragment = at.protocol == protocol::FRAGMENT && (offset != 0 || flags & 0xf9 != 0);
        *at = Position { protocol: next, is_fragment: u8::from(is_fragment), l4: at.l4 + length };
        if is_fragment || !is_extension(next) {
            return Walk::DONE;
        }
    }
    Walk::TOO_MANY
}

/// Whether a protocol number names an extension header that is followed: one of a set, tested without a branch for each.
#[must_use]
#[inline(always)]
pub const fn is_extension(number: u8) -> bool {
    const SET: u64 = 1 << protocol::HOP_BY_HOP
        | 1 << protocol::ROUTING
        | 1 << protocol::FRAGMENT
        | 1 << protocol::AUTHENTICATION
        | 1 << protocol::DESTINATION_OPTIONS;
    number < 64 && SET >> number & 1 == 1
}

/// What a transport header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ports {
    /// Source port.
    pub source: Be16,
    /// Destination port.
    pub destination: Be16,
    /// What the packet tells about its flow.
    pub kind: Kind,
}

/// Ports of a TCP, UDP or SCTP packet, and what it tells about its flow.
///
/// # Errors
/// [`DropReason::Truncated`] if the packet ends before the transport header does, or the frame before the packet does.
#[inline(always)]
pub fn ports<B: Bytes + ?Sized>(frame: &B, transport: &Transport) -> Result<Ports, DropReason> {
    let (ports, kind) = if transport.protocol == protocol::TCP {
        let header: [WireWord; tcp::WORDS] = frame.words(transport.l4).ok_or(DropReason::Truncated)?;
        (header[0], tcp::kind(header[3]))
    } else {
        let header: [WireWord; udp::WORDS] = frame.words(transport.l4).ok_or(DropReason::Truncated)?;
        (header[0], Kind::Datagram)
    };
    if transport.l4 + header_length(transport.protocol) > transport.end || !frame.reaches(transport.end) {
        return Err(DropReason::Truncated);
    }
    let (source, destination) = split(ports);
    Ok(Ports { source, destination, kind })
}

#[inline(always)]
const fn split(ports: WireWord) -> (Be16, Be16) {
    let [s0, s1, d0, d1] = ports.to_ne_bytes();
    (Be16::from_wire([s0, s1]), Be16::from_wire([d0, d1]))
}

/// Length of a transport header that has ports, without its options.
#[inline(always)]
const fn header_length(number: u8) -> usize {
    match number {
        protocol::TCP => tcp::LEN,
        protocol::SCTP => sctp::LEN,
        _ => udp::LEN,
    }
}

/// What a fragment says of the datagram it belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fragment {
    /// Identification as it is on the wire; IPv4's 16 bits are followed by 16 bits of zero.
    pub identification: WireWord,
    /// Whether the datagram begins with this fragment.
    pub is_first: bool,
}

impl Transport {
    /// Offset of the words that tell a fragment's place: in the IPv4 header, or the fragment header in front of `l4`.
    #[must_use]
    #[inline(always)]
    pub const fn fragment_words(&self, network: &Network) -> usize {
        // The mask changes nothing, but the verifier would think of offsets below 0.
        if network.is_ipv4 { network.l3 + 4 } else { self.l4.wrapping_sub(ipv6::FRAGMENT_LEN) & REACH }
    }
}

/// Reads which fragment a packet is; `at` is its [`Transport::fragment_words`]. `None` if the frame is too short.
#[inline(always)]
pub fn fragment<B: Bytes + ?Sized>(frame: &B, at: usize, is_ipv4: bool) -> Option<Fragment> {
    if is_ipv4 {
        let [word] = frame.words(at)?;
        let word = u32::from_be(word);
        Some(Fragment { identification: (word & 0xffff_0000).to_be(), is_first: word & 0x1fff == 0 })
    } else {
        let [word, identification] = frame.words(at)?;
        Some(Fragment { identification, is_first: u32::from_be(word) & 0xfff8 == 0 })
    }
}

/// Ports of a first fragment. It has to hold the whole transport header: a shorter one comes from nobody but attackers
/// (RFC 1858 section 3, RFC 7112 section 5). Extension headers behind the fragment header are not followed.
///
/// # Errors
/// [`DropReason::Fragment`] if it is shorter, [`DropReason::Truncated`] as [`transport`],
/// [`DropReason::ExtensionHeaders`] if there are such, [`DropReason::NoService`] if the protocol has no ports.
#[inline(always)]
pub fn first_fragment<B: Bytes + ?Sized>(frame: &B, at: &Transport) -> Result<(Be16, Be16), DropReason> {
    if !has_ports(at.protocol) {
        return Err(if is_extension(at.protocol) { DropReason::ExtensionHeaders } else { DropReason::NoService });
    }
    if at.l4 + header_length(at.protocol) > at.end {
        return Err(DropReason::Fragment);
    }
    let [ports] = frame.words(at.l4).ok_or(DropReason::Truncated)?;
    Ok(split(ports))
}

/// Whether a transport protocol is one that services have.
#[must_use]
#[inline(always)]
pub const fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP)
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
