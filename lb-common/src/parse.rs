//! Frames to flows: the parser that the kernel program, the host tests and the fuzz targets share.
//!
//! It reads through [`Bytes`] and judges nothing before it is asked to: [`link`] and [`network`] tell whether a frame can be for a VIP; only then do [`transport`] and [`ports`] follow options and extension headers, whose
//! faults are reasons to drop.

use crate::{
    addr::{Be16, IpAddr16, WireWord, wire_word},
    verdict::DropReason,
    wire::{eth, gue, ipv4, ipv6, protocol, tcp, udp},
};

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

/// Finds the network header behind at most two VLAN tags. `None`: too short, or more tags.
#[inline(always)]
pub fn link<B: Bytes + ?Sized>(frame: &B) -> Option<Link> {
    let ethertype = u16::from_be_bytes(frame.read(eth::LEN - 2)?);
    if !eth::is_tag(ethertype) {
        return Some(Link { ethertype, l3: eth::LEN });
    }
    let ethertype = u16::from_be_bytes(frame.read(eth::LEN + 2)?);
    if !eth::is_tag(ethertype) {
        return Some(Link { ethertype, l3: eth::LEN + eth::VLAN_LEN });
    }
    let ethertype = u16::from_be_bytes(frame.read(eth::LEN + eth::VLAN_LEN + 2)?);
    if eth::is_tag(ethertype) { None } else { Some(Link { ethertype, l3: eth::MAX_LEN }) }
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
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transport {
    /// IANA protocol number.
    pub protocol: u8,
    /// Offset of its header.
    pub l4: usize,
    /// Offset of the end of the packet, as its network header claims it.
    pub end: usize,
    /// Whether the packet is a fragment that is not the whole datagram.
    pub is_fragment: bool,
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
        let transport = walk(frame, first)?;
        if transport.l4 > end { Err(DropReason::BadIpv6Header) } else { Ok(transport) }
    }
}

/// Follows extension headers (RFC 8200 section 4). An atomic fragment (RFC 6946) counts as whole.
#[inline(always)]
fn walk<B: Bytes + ?Sized>(frame: &B, mut at: Transport) -> Result<Transport, DropReason> {
    for _ in 0..ipv6::MAX_EXTENSIONS {
        if !is_extension(at.protocol) {
            return Ok(at);
        }
        let [header] = frame.words(at.l4).ok_or(DropReason::Truncated)?;
        let header = header.to_ne_bytes();
        let units = usize::from(header[1]);
        let length = match at.protocol {
            protocol::FRAGMENT => 8,
            protocol::AUTHENTICATION => (units + 2) * 4, // RFC 4302 section 2.2
            _ => (units + 1) * 8,
        };
        // Offset and "more" flag, without the reserved bits.
        at.is_fragment = at.protocol == protocol::FRAGMENT && (header[2] != 0 || header[3] & 0xf9 != 0);
        at.protocol = header[0];
        at.l4 += length;
        if at.is_fragment {
            return Ok(at); // later fragments have no header to follow
        }
    }
    if is_extension(at.protocol) { Err(DropReason::ExtensionHeaders) } else { Ok(at) }
}

/// Whether a protocol number names an extension header that is followed.
#[must_use]
#[inline(always)]
pub const fn is_extension(number: u8) -> bool {
    matches!(
        number,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::DESTINATION_OPTIONS
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
    )
}

/// Source and destination port of a TCP or UDP packet.
///
/// # Errors
/// [`DropReason::Truncated`] if the packet ends before the transport header does, or the frame before the packet does.
#[inline(always)]
pub fn ports<B: Bytes + ?Sized>(frame: &B, transport: &Transport) -> Result<(Be16, Be16), DropReason> {
    let (ports, length) = if transport.protocol == protocol::TCP {
        let header: [WireWord; tcp::WORDS] = frame.words(transport.l4).ok_or(DropReason::Truncated)?;
        (header[0], tcp::LEN)
    } else {
        let header: [WireWord; udp::WORDS] = frame.words(transport.l4).ok_or(DropReason::Truncated)?;
        (header[0], udp::LEN)
    };
    if transport.l4 + length > transport.end || !frame.reaches(transport.end) {
        return Err(DropReason::Truncated);
    }
    let [s0, s1, d0, d1] = ports.to_ne_bytes();
    Ok((Be16::from_wire([s0, s1]), Be16::from_wire([d0, d1])))
}

/// What a tunnel packet carries, and where.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Payload {
    /// Offset of the inner network header.
    pub l3: usize,
    /// IPv4 or IPv6.
    pub is_ipv4: bool,
    /// Whether the tunnel header between is one that this version understands.
    pub is_understood: bool,
}

/// The inner packet of a packet whose transport is an IP-in-IP or GUE tunnel; `None` if it is no tunnel.
///
/// A UDP packet to the GUE port whose header is not understood is taken for one that carries what its first nibble
/// says, so that its reason to drop can be counted if that is for a VIP.
#[inline(always)]
pub fn tunnel<B: Bytes + ?Sized>(frame: &B, transport: u8, l4: usize) -> Option<Payload> {
    match transport {
        protocol::IPV4 => Some(Payload { l3: l4, is_ipv4: true, is_understood: true }),
        protocol::IPV6 => Some(Payload { l3: l4, is_ipv4: false, is_understood: true }),
        protocol::UDP => {
            if u16::from_be_bytes(frame.read(l4 + 2)?) != gue::PORT {
                return None;
            }
            let l3 = l4 + udp::LEN + gue::LEN;
            let [header] = frame.words(l4 + udp::LEN)?;
            match gue::payload(header) {
                Some(protocol::IPV4) => Some(Payload { l3, is_ipv4: true, is_understood: true }),
                Some(protocol::IPV6) => Some(Payload { l3, is_ipv4: false, is_understood: true }),
                _ => {
                    let [first] = frame.read(l3)?;
                    match first >> 4 {
                        4 => Some(Payload { l3, is_ipv4: true, is_understood: false }),
                        6 => Some(Payload { l3, is_ipv4: false, is_understood: false }),
                        _ => None,
                    }
                }
            }
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
