use proptest::prelude::*;

use super::*;
use crate::wire::gue;

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

fn frame(tags: &[u16], ethertype: u16, rest: &[u8]) -> Vec<u8> {
    let mut frame = MACS.to_vec();
    for tag in tags {
        frame.extend(eth::VLAN.to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(rest);
    frame
}

fn bytes(words: &[WireWord]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// An IPv6 packet of these bytes behind the fixed header.
fn ipv6_packet(next_header: u8, payload_length: u16, rest: &[u8]) -> Vec<u8> {
    [&bytes(&ipv6::outer([1; 4], [2; 4], next_header, 0, 0, payload_length)), rest].concat()
}

/// The transport of a packet that begins with its network header.
fn transport_of(packet: &[u8], is_ipv4: bool) -> Result<Transport, DropReason> {
    transport(packet, &network(packet, 0, is_ipv4).unwrap())
}

#[test]
fn up_to_two_tags_are_followed() {
    for (tags, l3) in [(&[][..], 14), (&[100][..], 18), (&[100, 200][..], 22)] {
        assert_eq!(link(&frame(tags, eth::IPV4, &[])[..]), Some(Link { ethertype: eth::IPV4, l3 }));
    }
    assert_eq!(link(&frame(&[1, 2, 3], eth::IPV4, &[0; 64])[..]), None);
    assert_eq!(link(&MACS[..]), None);
}

#[test]
fn options_move_the_transport_header() {
    let mut packet = bytes(&ipv4::outer(1, 2, protocol::TCP, 0, 60));
    packet[0] = 0x46;
    let expected = Transport { protocol: protocol::TCP, l4: 24, end: 60, is_fragment: false };
    assert_eq!(transport_of(&packet, true), Ok(expected));
}

#[test]
fn impossible_ipv4_lengths_are_refused() {
    for (first, total) in [(0x44, 60), (0x40, 60), (0x4f, 59), (0x45, 19)] {
        let mut packet = bytes(&ipv4::outer(1, 2, protocol::TCP, 0, total));
        packet[0] = first;
        assert_eq!(transport_of(&packet, true), Err(DropReason::BadIpv4Header));
    }
}

#[test]
fn extension_headers_are_followed_to_the_transport() {
    let hop_by_hop = [protocol::DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0];
    let destination = [protocol::AUTHENTICATION, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let authentication = [protocol::UDP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let rest = [&hop_by_hop[..], &destination, &authentication, &[0; 8]].concat();
    let expected = Transport { protocol: protocol::UDP, l4: 40 + 8 + 16 + 12, end: 40 + 44, is_fragment: false };
    assert_eq!(transport_of(&ipv6_packet(protocol::HOP_BY_HOP, 44, &rest), false), Ok(expected));
}

#[test]
fn more_extension_headers_than_followed_are_a_reason() {
    let chain = [protocol::DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0].repeat(ipv6::MAX_EXTENSIONS + 1);
    let packet = ipv6_packet(protocol::DESTINATION_OPTIONS, 500, &chain);
    assert_eq!(transport_of(&packet, false), Err(DropReason::ExtensionHeaders));
}

#[test]
fn the_longest_extension_headers_are_followed_to_their_end() {
    let header = |next, rest: usize| [&[next, 255][..], &vec![0; rest]].concat();
    let chain =
        [header(protocol::ROUTING, 2046).repeat(ipv6::MAX_EXTENSIONS - 1), header(protocol::TCP, 2046), vec![0; 20]]
            .concat();
    let length = ipv6::MAX_EXTENSIONS * 2048;
    let packet = ipv6_packet(protocol::ROUTING, u16::try_from(length + 20).unwrap(), &chain);
    let expected = Transport { protocol: protocol::TCP, l4: 40 + length, end: 60 + length, is_fragment: false };
    assert_eq!(transport_of(&packet, false), Ok(expected));
}

#[test]
fn extension_headers_longer_than_the_payload_are_a_reason() {
    let rest = [&[protocol::TCP, 3, 0, 0, 0, 0, 0, 0][..], &[0; 64]].concat();
    let packet = ipv6_packet(protocol::HOP_BY_HOP, 8, &rest);
    assert_eq!(transport_of(&packet, false), Err(DropReason::BadIpv6Header));
}

#[test]
fn an_atomic_fragment_is_whole_and_any_other_is_not() {
    for (offset, is_fragment) in [([0, 0], false), ([0, 1], true), ([0, 8], true), ([0, 6], false)] {
        let rest = [&[protocol::UDP, 0, offset[0], offset[1], 0, 0, 0, 1][..], &[0; 8]].concat();
        let transport = transport_of(&ipv6_packet(protocol::FRAGMENT, 16, &rest), false).unwrap();
        assert_eq!((transport.protocol, transport.is_fragment), (protocol::UDP, is_fragment));
    }
}

#[test]
fn ports_are_read_only_from_a_packet_that_is_whole() {
    for (protocol, header, kind) in [(protocol::TCP, 20, Kind::Segment), (protocol::UDP, 8, Kind::Datagram)] {
        for (claimed, there, is_whole) in [
            (header, header, true),
            (header, header + 6, true), // padding of the link
            (header - 1, header, false),
            (header, header - 1, false),
            (header + 10, header + 10, true),
            (header + 10, header + 9, false),
        ] {
            let payload = [0x9c, 0x40, 0, 80].into_iter().chain([0; 40]).take(there);
            let packet = ipv6_packet(protocol, u16::try_from(claimed).unwrap(), &payload.collect::<Vec<_>>());
            let found = transport_of(&packet, false).and_then(|transport| ports(&packet[..], &transport));
            let expected = if is_whole {
                Ok(Ports { source: Be16::new(40_000), destination: Be16::new(80), kind })
            } else {
                Err(DropReason::Truncated)
            };
            assert_eq!(found, expected, "{claimed} bytes claimed, {there} there");
        }
    }
}

/// An IPv4 packet of these bytes behind a header with this word of identification, flags and offset.
fn ipv4_fragment(word: u32, number: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ipv4::LEN + rest.len()).unwrap();
    let mut packet = [&bytes(&ipv4::outer(1, 2, number, 0, length)), rest].concat();
    packet[4..8].copy_from_slice(&word.to_be_bytes());
    packet
}

fn ipv6_fragment(word: u32, number: u8, rest: &[u8]) -> Vec<u8> {
    let header = [&[number, 0xff], &word.to_be_bytes()[2..], &[1, 2, 3, 4]].concat();
    ipv6_packet(protocol::FRAGMENT, u16::try_from(8 + rest.len()).unwrap(), &[&header, rest].concat())
}

#[test]
fn fragments_tell_their_datagram_and_whether_they_begin_it() {
    let found = |packet: &[u8], is_ipv4| {
        let network = network(packet, 0, is_ipv4).unwrap();
        let transport = transport(packet, &network).unwrap();
        assert!(transport.is_fragment);
        fragment(packet, transport.fragment_words(&network), is_ipv4).unwrap()
    };
    for (flags, is_first) in [(0x2000, true), (0x2001, false), (0x1fff, false), (0xa000, true)] {
        let packet = ipv4_fragment(0xabcd_0000 | flags, protocol::UDP, &[0; 8]);
        assert_eq!(found(&packet, true), Fragment { identification: wire_word([0xab, 0xcd, 0, 0]), is_first });
    }
    for (word, is_first) in [(1, true), (7, true), (8, false), (0xfff8, false), (0xfff9, false)] {
        let packet = ipv6_fragment(word, protocol::UDP, &[0; 8]);
        assert_eq!(found(&packet, false), Fragment { identification: wire_word([1, 2, 3, 4]), is_first });
    }
}

#[test]
fn a_first_fragment_has_to_hold_its_transport_header() {
    let ports = [0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let read = |number, length: usize| {
        let packet = ipv4_fragment(0x2000, number, &ports[..length]);
        first_fragment(&packet[..], &transport_of(&packet, true).unwrap())
    };
    for (number, enough) in [(protocol::TCP, 20), (protocol::UDP, 8), (protocol::SCTP, 12)] {
        assert_eq!(read(number, enough), Ok((Be16::new(40_000), Be16::new(80))));
        assert_eq!(read(number, enough - 1), Err(DropReason::Fragment));
    }
    assert_eq!(read(47, 24), Err(DropReason::NoService));
    let hidden = ipv6_fragment(1, protocol::DESTINATION_OPTIONS, &ports);
    let hidden = first_fragment(&hidden[..], &transport_of(&hidden, false).unwrap());
    assert_eq!(hidden, Err(DropReason::ExtensionHeaders));
}

#[test]
fn sctp_has_ports_behind_a_header_of_twelve_bytes() {
    let packet = |rest: &[u8]| {
        bytes(&ipv4::outer(1, 2, protocol::SCTP, 0, 20 + rest.len() as u16))
            .into_iter()
            .chain(rest.iter().copied())
            .collect::<Vec<_>>()
    };
    let ports_of = |packet: Vec<u8>| ports(&packet[..], &transport_of(&packet, true).unwrap());
    assert_eq!(
        ports_of(packet(&[0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0])),
        Ok(Ports { source: Be16::new(40_000), destination: Be16::new(80), kind: Kind::Datagram })
    );
    assert_eq!(ports_of(packet(&[0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0])), Err(DropReason::Truncated));
}

#[test]
fn tunnels_are_told_from_other_payloads() {
    let understood = |l3, is_ipv4| Some(Payload::new(l3, is_ipv4));
    assert_eq!(tunnel(&[][..], protocol::IPV4, 34), understood(34, true));
    assert_eq!(tunnel(&[][..], protocol::IPV6, 34), understood(34, false));
    assert_eq!(tunnel(&[][..], protocol::TCP, 34), None);
    let gue =
        |port, header: [u8; 4], first| [&bytes(&udp::header(50_000, port, 100))[..], &header, &[first; 20]].concat();
    assert_eq!(tunnel(&gue(gue::PORT, gue::header(4).to_ne_bytes(), 0x45)[..], protocol::UDP, 0), understood(12, true));
    assert_eq!(
        tunnel(&gue(gue::PORT, gue::header(41).to_ne_bytes(), 0x60)[..], protocol::UDP, 0),
        understood(12, false)
    );
    assert_eq!(tunnel(&gue(53, gue::header(4).to_ne_bytes(), 0x45)[..], protocol::UDP, 0), None);
    // A control message, a checksum flag, an unknown version.
    for header in [[0x20, 4, 0, 0], [0, 4, 0x80, 0], [0x40, 4, 0, 0]] {
        assert!(!tunnel(&gue(gue::PORT, header, 0x45)[..], protocol::UDP, 0).unwrap().is_understood);
    }
}

proptest! {
    #[test]
    fn no_frame_makes_the_parser_panic_or_read_outside(bytes in prop::collection::vec(any::<u8>(), 0..200), tagged in any::<bool>(), v6 in any::<bool>()) {
        let mut bytes = bytes;
        if bytes.len() > 18 {
            let ethertype = if v6 { eth::IPV6 } else { eth::IPV4 }.to_be_bytes();
            let at = if tagged { bytes[12..14].copy_from_slice(&eth::VLAN.to_be_bytes()); 16 } else { 12 };
            bytes[at..at + 2].copy_from_slice(&ethertype);
        }
        let Some(link) = link(&bytes[..]) else { return Ok(()) };
        let Some(network) = network(&bytes[..], link.l3, !v6) else { return Ok(()) };
        if let Ok(transport) = transport(&bytes[..], &network) {
            prop_assert!(transport.l4 >= link.l3 + 20);
            prop_assert!(transport.l4 <= network.l3 + network.length as usize);
            if ports(&bytes[..], &transport).is_ok() {
                prop_assert!(transport.l4 + 8 <= bytes.len());
            }
            if transport.is_fragment {
                prop_assert!(fragment(&bytes[..], transport.fragment_words(&network), !v6).is_some());
                let _ = first_fragment(&bytes[..], &transport);
            }
            let _ = tunnel(&bytes[..], transport.protocol, transport.l4);
        }
    }
}

#[test]
fn the_flags_of_a_segment_tell_its_kind() {
    for (flags, kind) in [
        (0x02, Kind::Syn),
        (0xc2, Kind::Syn), // with ECN (RFC 3168)
        (0x12, Kind::Segment),
        (0x10, Kind::Segment),
        (0x11, Kind::Fin),
        (0x19, Kind::Fin),
        (0x04, Kind::Reset),
        (0x14, Kind::Reset),
    ] {
        let mut header = [0; 20];
        header[13] = flags;
        let packet = ipv6_packet(protocol::TCP, 20, &header);
        let found = transport_of(&packet, false).and_then(|transport| ports(&packet[..], &transport));
        assert_eq!(found.unwrap().kind, kind, "{flags:#x}");
    }
}
