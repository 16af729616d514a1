//! Frames read once more, from the RFCs and not by the parser under test: what the model of the program decides on.

use lb_common::{addr::IpAddr16, verdict::DropReason, wire::protocol};

/// Extension headers that are followed.
const MOST_EXTENSIONS: usize = lb_common::wire::ipv6::MAX_EXTENSIONS;

/// An IP packet by its fixed header.
#[derive(Clone, Copy, Debug)]
pub struct Ip {
    pub is_ipv4: bool,
    pub source: IpAddr16,
    pub destination: IpAddr16,
    pub l3: usize,
    pub header: usize,
    /// Of header and payload, bytes.
    pub length: usize,
    pub next: u8,
    pub ttl: u8,
    /// Offset in units of eight bytes, and whether more follow: of IPv4 only.
    fragment: (u16, bool),
}

/// What follows the IP header and its options.
#[derive(Clone, Copy, Debug)]
pub struct Transport {
    pub protocol: u8,
    pub l4: usize,
    pub end: usize,
    pub fragment: Option<Fragment>,
}

/// A fragment that is not the whole datagram.
#[derive(Clone, Copy, Debug)]
pub struct Fragment {
    pub identification: u32,
    pub offset: u16,
}

/// Two bytes, the first one the higher.
pub fn be16(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?))
}

fn be32(frame: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?))
}

/// EtherType behind up to two tags, and where the packet begins.
pub fn link(frame: &[u8]) -> Option<(u16, usize)> {
    (14..=22).step_by(4).find_map(|l3| match be16(frame, l3 - 2) {
        Some(0x8100 | 0x88a8) => None,
        Some(ethertype) => Some(Some((ethertype, l3))),
        None => Some(None),
    })?
}

/// The IPv4 address in four bytes of a frame.
pub fn address(frame: &[u8], at: usize) -> Option<IpAddr16> {
    let mut bytes = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];
    bytes[12..].copy_from_slice(frame.get(at..at + 4)?);
    Some(IpAddr16::from_bytes(bytes))
}

fn long_address(frame: &[u8], at: usize) -> Option<IpAddr16> {
    Some(IpAddr16::from_bytes(frame.get(at..at + 16)?.try_into().ok()?))
}

/// The packet at `l3`.
pub fn ip(frame: &[u8], l3: usize, is_ipv4: bool) -> Option<Ip> {
    let fixed = frame.get(l3..l3 + if is_ipv4 { 20 } else { 40 })?;
    let payload = usize::from(be16(fixed, if is_ipv4 { 2 } else { 4 })?);
    let word = if is_ipv4 { be16(fixed, 6)? } else { 0 };
    Some(Ip {
        is_ipv4,
        source: if is_ipv4 { address(fixed, 12)? } else { long_address(fixed, 8)? },
        destination: if is_ipv4 { address(fixed, 16)? } else { long_address(fixed, 24)? },
        l3,
        header: if is_ipv4 { usize::from(fixed[0] & 15) * 4 } else { 40 },
        length: if is_ipv4 { payload } else { payload + 40 },
        next: fixed[if is_ipv4 { 9 } else { 6 }],
        ttl: fixed[if is_ipv4 { 8 } else { 7 }],
        fragment: (word & 0x1fff, word & 0x2000 != 0),
    })
}

impl Ip {
    /// An IPv4 fragment that is not the whole datagram.
    pub const fn is_fragment(&self) -> bool {
        self.fragment.0 != 0 || self.fragment.1
    }

    /// Offset of an IPv4 fragment in units of eight bytes.
    pub const fn fragment_offset(&self) -> u16 {
        self.fragment.0
    }

    const fn end(&self) -> usize {
        self.l3 + self.length
    }
}

/// Whether a header is one in front of the transport.
pub const fn is_extension(number: u8) -> bool {
    matches!(number, 0 | 43 | 44 | 51 | 60)
}

/// The transport of a packet.
pub fn transport(frame: &[u8], ip: &Ip) -> Result<Transport, DropReason> {
    let mut found = Transport { protocol: ip.next, l4: ip.l3 + ip.header, end: ip.end(), fragment: None };
    if ip.is_ipv4 {
        if ip.header < 20 || ip.header > ip.length {
            return Err(DropReason::BadIpv4Header);
        }
        let identification = be16(frame, ip.l3 + 4).ok_or(DropReason::Truncated)?;
        let fragment = Fragment { identification: identification.into(), offset: ip.fragment.0 };
        return Ok(Transport { fragment: ip.is_fragment().then_some(fragment), ..found });
    }
    let mut headers = 0;
    while is_extension(found.protocol) && found.fragment.is_none() {
        if headers == MOST_EXTENSIONS {
            return Err(DropReason::ExtensionHeaders);
        }
        headers += 1;
        let [next, units, high, low] = be32(frame, found.l4).ok_or(DropReason::Truncated)?.to_be_bytes();
        let place = u16::from_be_bytes([high, low]);
        let length = match found.protocol {
            protocol::FRAGMENT => 8,
            protocol::AUTHENTICATION => 4 * (usize::from(units) + 2),
            _ => 8 * (usize::from(units) + 1),
        };
        // Offset above three bits, the lowest of which says that more follow.
        if found.protocol == protocol::FRAGMENT && place & 0xfff9 != 0 {
            // Whoever cannot read the identification cannot know the fragment either.
            let identification = be32(frame, found.l4 + 4).unwrap_or(0);
            found.fragment = Some(Fragment { identification, offset: place >> 3 });
        }
        found = Transport { protocol: next, l4: found.l4 + length, ..found };
    }
    if found.l4 > found.end { Err(DropReason::BadIpv6Header) } else { Ok(found) }
}

/// Bytes of a transport header that has ports; `None` for other protocols.
pub const fn port_header(number: u8) -> Option<usize> {
    match number {
        protocol::TCP => Some(20),
        protocol::UDP => Some(8),
        protocol::SCTP => Some(12),
        _ => None,
    }
}

/// What is inside a tunnel.
pub struct Carried {
    pub l3: usize,
    pub is_ipv4: bool,
    pub is_understood: bool,
}

/// What a packet carries if it is a tunnel of a director: without options, and whole.
pub fn carried(frame: &[u8], ip: &Ip) -> Option<Carried> {
    if ip.is_ipv4 && (ip.header != 20 || ip.is_fragment()) {
        return None;
    }
    let l4 = ip.l3 + ip.header;
    match ip.next {
        4 => Some(Carried { l3: l4, is_ipv4: true, is_understood: true }),
        41 => Some(Carried { l3: l4, is_ipv4: false, is_understood: true }),
        17 if be16(frame, l4 + 2)? == 6080 => {
            let l3 = l4 + 12;
            let is_marked = matches!(frame.get(l3..l3 + 4), Some([b'L', b'V', b'2', b'c'..=b'j']));
            match be32(frame, l4 + 8)? {
                0x0004_0000 => Some(Carried { l3, is_ipv4: true, is_understood: true }),
                0x0029_0000 => Some(Carried { l3, is_ipv4: false, is_understood: true }),
                // A word of private data: the mark of a second chance.
                0x0104_0000 if is_marked => Some(Carried { l3: l3 + 4, is_ipv4: true, is_understood: true }),
                0x0129_0000 if is_marked => Some(Carried { l3: l3 + 4, is_ipv4: false, is_understood: true }),
                header if is_marked && header & 0xff00_ffff == 0x0100_0000 => None,
                _ => match frame.get(l3)? >> 4 {
                    4 => Some(Carried { l3, is_ipv4: true, is_understood: false }),
                    6 => Some(Carried { l3, is_ipv4: false, is_understood: false }),
                    _ => None,
                },
            }
        }
        _ => None,
    }
}
