//! The packet that an ICMP error quotes: which flow did the error meet?
//!
//! An error is sent to the source of the packet it is about. One that is addressed to a VIP quotes a reply of the VIP,
//! and its flow is that of the packets in the other direction: from the client to the VIP.

use crate::{
    addr::{Be16, IpAddr16, WireWord},
    hash::Tuple,
    maps::services::VipKey,
    parse::{self, Bytes, Network},
    wire::{ipv6, protocol},
};

/// Bytes of the transport header that every error quotes (RFC 792).
const TRANSPORT: usize = 8;

/// What is quoted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Quote {
    /// A packet of this flow.
    Flow(Tuple),
    /// A packet without ports.
    Other,
    /// Nothing that left from the VIP and can be read: cut off, faulty, from elsewhere, or a fragment without ports.
    Bad,
}

/// Reads the packet that is quoted at offset `l3` of a frame whose packet ends at offset `end`. It has to come from `vip`.
#[must_use]
#[inline(always)]
pub fn read<B: Bytes + ?Sized>(frame: &B, l3: usize, end: usize, is_ipv4: bool, vip: &IpAddr16) -> Quote {
    flow(frame, l3, end, is_ipv4, vip).unwrap_or(Quote::Bad)
}

#[inline(always)]
fn flow<B: Bytes + ?Sized>(frame: &B, l3: usize, end: usize, is_ipv4: bool, vip: &IpAddr16) -> Option<Quote> {
    let network = parse::network(frame, l3, is_ipv4).filter(|network| network.source == *vip)?;
    let transport = parse::transport(frame, &network).ok()?;
    if transport.l4 + TRANSPORT > end {
        return None;
    }
    if !parse::has_ports(transport.protocol) {
        return Some(Quote::Other);
    }
    if transport.is_fragment && !is_first(frame, &network)? {
        return None;
    }
    let [ports, _]: [WireWord; TRANSPORT / 4] = frame.words(transport.l4)?;
    let [vip_high, vip_low, client_high, client_low] = ports.to_ne_bytes();
    let to = VipKey::new(*vip, Be16::from_wire([vip_high, vip_low]), transport.protocol);
    let source_port = Be16::from_wire([client_high, client_low]);
    Some(Quote::Flow(Tuple::new(network.destination, source_port, to)))
}

/// Whether a fragment is the one that has the ports. Behind other extension headers none counts as such.
#[inline(always)]
fn is_first<B: Bytes + ?Sized>(frame: &B, network: &Network) -> Option<bool> {
    if network.is_ipv4 {
        let [word] = frame.words(network.l3 + 4)?;
        return Some(u32::from_be(word) & 0x1fff == 0);
    }
    let [word] = frame.words(network.l3 + ipv6::LEN)?;
    Some(network.next == protocol::FRAGMENT && u32::from_be(word) & 0xfff8 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: [u8; 4] = [192, 0, 2, 10];
    const CLIENT: [u8; 4] = [203, 0, 113, 7];

    /// An IPv4 header and the first eight bytes behind it.
    fn ipv4(protocol: u8, source: [u8; 4], fragment: u16, options: &[u8]) -> Vec<u8> {
        let [high, low] = fragment.to_be_bytes();
        let first = 0x45 + u8::try_from(options.len() / 4).unwrap();
        let fixed = [first, 0, 5, 0xdc, 0, 1, high, low, 63, protocol, 0, 0];
        [&fixed[..], &source, &CLIENT, options, &[0x19, 0x2b, 0x9c, 0x40, 1, 2, 3, 4]].concat()
    }

    fn vip() -> IpAddr16 {
        core::net::IpAddr::from(VIP).into()
    }

    fn read_all(packet: &[u8]) -> Quote {
        read(packet, 0, packet.len(), true, &vip())
    }

    #[test]
    fn a_quoted_reply_names_the_flow_from_the_client() {
        let wanted = |protocol| {
            let to = VipKey::new(vip(), Be16::new(6443), protocol);
            let source = core::net::IpAddr::from(CLIENT).into();
            Quote::Flow(Tuple::new(source, Be16::new(40_000), to))
        };
        for (name, packet) in [
            ("plain", ipv4(6, VIP, 0x4000, &[])),
            ("with options", ipv4(6, VIP, 0x4000, &[1; 12])),
            ("with all options", ipv4(6, VIP, 0, &[1; 40])),
            ("the first fragment", ipv4(6, VIP, 0x2000, &[])),
        ] {
            assert_eq!(read_all(&packet), wanted(6), "{name}");
        }
        assert_eq!(read_all(&ipv4(17, VIP, 0, &[])), wanted(17));
    }

    #[test]
    fn what_names_no_flow_is_told_apart() {
        assert_eq!(read_all(&ipv4(1, VIP, 0, &[])), Quote::Other);
        for (name, packet) in [
            ("from the client", ipv4(6, CLIENT, 0, &[])),
            ("a later fragment", ipv4(6, VIP, 1, &[])),
            ("a header of 16 bytes", [&[0x44][..], &ipv4(6, VIP, 0, &[])[1..]].concat()),
        ] {
            assert_eq!(read_all(&packet), Quote::Bad, "{name}");
        }
    }

    #[test]
    fn a_quote_of_any_length_is_bad_or_whole() {
        let packet = ipv4(6, VIP, 0, &[1; 8]);
        for length in 0..packet.len() {
            assert_eq!(read_all(&packet[..length]), Quote::Bad, "{length} bytes");
            // The frame goes on, but not the packet.
            assert_eq!(read(&packet[..], 0, length, true, &vip()), Quote::Bad, "{length} bytes");
        }
    }
}
