//! The parser: whatever the bytes, nothing panics, and what is found lies where it is said to.

use lb_common::{
    addr::IpAddr16,
    parse::{self, Bytes, Link, Network, Payload},
    quote::{self, Quote},
    verdict::DropReason,
    wire::{eth, icmp, ipv4, ipv6},
};

/// Parses a frame in every way that the packet path does.
///
/// # Panics
/// If an invariant does not hold.
pub fn parser(frame: &[u8]) {
    reads_agree(frame);
    let Some(link) = parse::link(frame) else {
        let is_short = frame.len() < eth::MAX_LEN;
        assert!(is_short || is_tagged(frame, 0) && is_tagged(frame, 1) && is_tagged(frame, 2), "no link layer");
        return;
    };
    link_is_right(frame, link);
    // Whatever the EtherType says: a tunnel may say otherwise.
    for is_ipv4 in [true, false] {
        if let Some(network) = network_at(frame, link.l3, is_ipv4)
            && let Some(payload) = packet(frame, &network)
        {
            inner(frame, &payload);
        }
    }
}

/// Bytes and words come from the same places, and nothing from behind the end.
fn reads_agree(frame: &[u8]) {
    for offset in [0, 1, frame.len().saturating_sub(4), frame.len().saturating_sub(3), frame.len(), usize::MAX] {
        let (bytes, words): (Option<[u8; 4]>, Option<[u32; 1]>) = (frame.read(offset), frame.words(offset));
        assert_eq!(bytes.map(u32::from_ne_bytes), words.map(|[word]| word), "at {offset} of {}", frame.len());
        assert_eq!(bytes.is_some(), offset.checked_add(4).is_some_and(|end| frame.reaches(end)));
    }
}

/// Whether the tag with this number, from the outside, is one.
fn is_tagged(frame: &[u8], number: usize) -> bool {
    let at = eth::LEN - 2 + number * eth::VLAN_LEN;
    matches!(frame.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8]))
}

fn link_is_right(frame: &[u8], link: Link) {
    let tags = (0..3).take_while(|number| is_tagged(frame, *number)).count();
    assert!(tags <= 2 && link.l3 == eth::LEN + tags * eth::VLAN_LEN && link.l3 <= frame.len(), "{link:?}");
    assert_eq!(link.ethertype.to_be_bytes(), frame[link.l3 - 2..link.l3]);
    // Without its tags it is the same packet, nearer to the beginning.
    let bare = [&frame[..eth::LEN - 2], &frame[link.l3 - 2..]].concat();
    assert_eq!(parse::link(&bare[..]), Some(Link { l3: eth::LEN, ..link }));
}

/// The packet at `l3`, which has to be there just if its fixed header is.
fn network_at(frame: &[u8], l3: usize, is_ipv4: bool) -> Option<Network> {
    let network = parse::network(frame, l3, is_ipv4);
    let fixed = if is_ipv4 { ipv4::LEN } else { ipv6::LEN };
    assert_eq!(network.is_some(), frame.len() >= l3 + fixed, "a header at {l3} of {}", frame.len());
    let network = network?;
    assert_eq!((network.l3, network.is_ipv4), (l3, is_ipv4));
    let (source, destination) = if is_ipv4 { (12, 16) } else { (8, 24) };
    let width = if is_ipv4 { 4 } else { 16 };
    let tail = |address: IpAddr16| address.bytes()[16 - width..].to_vec();
    assert_eq!(tail(network.source), frame[l3 + source..][..width]);
    assert_eq!(tail(network.destination), frame[l3 + destination..][..width]);
    // The fixed header alone tells as much.
    assert_eq!(parse::network(&frame[..l3 + fixed], l3, is_ipv4), Some(network));
    Some(network)
}

/// Follows a packet to its ports, its fragment, its quote; returns what it carries if it is a tunnel.
fn packet(frame: &[u8], network: &Network) -> Option<Payload> {
    let transport = match parse::transport(frame, network) {
        Ok(transport) => transport,
        Err(reason) => {
            let expected = match reason {
                DropReason::BadIpv4Header => network.is_ipv4,
                DropReason::BadIpv6Header | DropReason::Truncated | DropReason::ExtensionHeaders => !network.is_ipv4,
                _ => false,
            };
            assert!(expected, "{reason:?} of {network:?}");
            return None;
        }
    };
    assert!(network.l3 + network.header_length <= transport.l4 && transport.l4 <= transport.end, "{transport:?}");
    assert_eq!(transport.end, network.l3 + network.length as usize);
    assert!(!parse::is_extension(transport.protocol) || transport.is_fragment || network.is_ipv4, "{transport:?}");
    let ports = parse::ports(frame, &transport);
    if let Ok(ports) = ports {
        let words = [ports.source.wire(), ports.destination.wire()].concat();
        assert_eq!(words, frame[transport.l4..transport.l4 + 4]);
        assert!(transport.end <= frame.len(), "ports of a packet that is cut");
        // What lies behind the packet does not count, and without a part of it it is cut.
        assert_eq!(parse::transport(&frame[..transport.end], network), Ok(transport));
        assert_eq!(parse::ports(&frame[..transport.end], &transport), Ok(ports));
        assert_eq!(parse::ports(&frame[..transport.end - 1], &transport), Err(DropReason::Truncated));
    }
    if transport.is_fragment {
        let at = transport.fragment_words(network);
        assert!(at + 4 <= transport.l4 && transport.end >= transport.l4, "a fragment header at {at}: {transport:?}");
        if let Some(fragment) = parse::fragment(frame, at, network.is_ipv4) {
            let first = parse::first_fragment(frame, &transport);
            assert!(first.is_err() || transport.l4 + 4 <= frame.len(), "{fragment:?}: {first:?}");
            if let (Ok(first), Ok(whole)) = (first, ports) {
                assert_eq!(first, (whole.source, whole.destination));
            }
        }
    }
    quoted(frame, transport.l4 + icmp::LEN, transport.end, network);
    let payload = parse::tunnel(frame, network.next, network.l3 + network.header_length)?;
    assert!(payload.l3 >= network.l3 + network.header_length);
    Some(payload)
}

/// What an error for this packet's destination quotes there.
fn quoted(frame: &[u8], l3: usize, end: usize, network: &Network) {
    let read = |frame: &[u8], end| quote::read(frame, l3, end, network.is_ipv4, &network.destination);
    let quote = read(frame, end);
    if quote == Quote::Bad {
        return;
    }
    let inner = parse::network(frame, l3, network.is_ipv4).expect("it was read");
    assert_eq!(inner.source, network.destination, "it has to come from the VIP");
    let transport = parse::transport(frame, &inner).expect("it was followed");
    assert!(transport.l4 + 8 <= end, "{transport:?} within {end}");
    assert_eq!(read(frame, transport.l4 + 7), Quote::Bad, "eight bytes are needed");
    let Quote::Flow(tuple) = quote else { return };
    assert!(parse::has_ports(tuple.to.protocol) && tuple.to.protocol == transport.protocol);
    assert_eq!((tuple.source, tuple.to.address), (inner.destination, inner.source));
    let words = [tuple.to.port.wire(), tuple.source_port.wire()].concat();
    assert_eq!(words, frame[transport.l4..transport.l4 + 4], "the VIP's port comes first");
    assert_eq!(read(&frame[..transport.l4 + 8], transport.l4 + 8), quote, "eight bytes suffice");
}

fn inner(frame: &[u8], payload: &Payload) {
    if let Some(network) = network_at(frame, payload.l3, payload.is_ipv4) {
        packet(frame, &network);
    }
}
