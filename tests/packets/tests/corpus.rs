//! Frames cut at every offset: what is not for a VIP passes byte for byte, what is for one is never sent on cut.

use std::net::{IpAddr, Ipv4Addr};

use lb_common::{
    verdict::{Action, DropReason, Verdict},
    wire::protocol,
};
use packets_tests::{
    Bed, Counts, Frame, IN, Packet, Random, Way, World, addresses::*, arp, echo_request, every, gue, gue_with_header,
    ipip, raw, service, tcp, udp, world,
};

/// Shortest frame that the kernel runs a program on, bytes.
const SHORTEST: usize = 14;

fn serving() -> World {
    [VIP4, VIP6]
        .into_iter()
        .flat_map(|vip| [service(vip, 80), service(vip, 80).udp()])
        .map(|service| service.held().backend(A4, Way::gue(A4)))
        .fold(world(), World::with)
}

/// Packets of every kind that a node carries for others, of both families.
fn foreign_packets() -> Vec<(&'static str, Packet)> {
    let v4 = (CLIENT4, STRANGER4, PEER4, NODE4);
    let v6 = (CLIENT6, STRANGER6, PEER6, NODE6);
    [v4, v6]
        .into_iter()
        .flat_map(|(client, other, peer, node)| {
            let inner = tcp(client, 40_000, other, 80);
            let vxlan = [&[8, 0, 0, 0, 0, 0, 1, 0][..], &inner.frame().bytes()].concat();
            [
                ("TCP", tcp(client, 40_000, other, 80)),
                ("TCP to this node", tcp(client, 40_000, node, 22)),
                ("UDP", udp(client, 40_000, other, 53)),
                ("ICMP", echo_request(client, other)),
                ("SCTP", raw(client, other, 132, &[7; 32])),
                ("GRE", raw(client, other, 47, &[7; 32])),
                ("ESP", raw(client, other, 50, &[7; 32])),
                ("VXLAN", udp(peer, 40_000, node, 4789).data(&vxlan)),
                ("IPIP between others", ipip(client, other, &inner)),
                ("IPIP of another kind to this node", ipip(peer, node, &inner)),
                ("GUE between others", gue(client, other, 50_000, &inner)),
                ("GUE of another kind to this node", gue(peer, node, 50_000, &inner)),
                ("GUE not understood to this node", gue_with_header(peer, node, 50_000, [0x40, 4, 0, 1], &inner)),
                ("a tunnel for a VIP between others", ipip(peer, other, &for_vip())),
            ]
        })
        .chain([
            ("options", tcp(CLIENT4, 40_000, STRANGER4, 80).options(&[1; 40])),
            ("a first fragment", udp(CLIENT4, 40_000, STRANGER4, 80).fragment(0, true)),
            ("a later fragment", udp(CLIENT4, 40_000, STRANGER4, 80).fragment(9, false)),
            (
                "extension headers",
                tcp(CLIENT6, 40_000, STRANGER6, 80)
                    .extension(0, &[0, 1, 4, 0, 0, 0, 0])
                    .extension(44, &[0, 0, 1, 0, 0, 0, 9]),
            ),
        ])
        .collect()
}

fn for_vip() -> Packet {
    tcp(CLIENT4, 40_000, VIP4, 80)
}

/// Frames that are not IP packets, or not well-formed.
fn foreign_frames() -> Vec<(&'static str, Frame)> {
    let other = tcp(CLIENT4, 40_000, STRANGER4, 80).frame();
    let other6 = tcp(CLIENT6, 40_000, STRANGER6, 80).frame();
    let to_vip = for_vip().frame();
    vec![
        ("an ARP request", arp(1, Ipv4Addr::new(192, 0, 2, 1))),
        ("an ARP answer", arp(2, Ipv4Addr::new(198, 51, 100, 10))),
        ("LLDP", Frame::new(0x88cc, &[2, 7, 4, 2, 0, 0, 0, 0, 1, 4, 2, 5, 49, 6, 2, 0, 120, 0, 0])),
        ("a frame with its length for a type", Frame::new(38, &[0x42; 38])),
        ("MPLS", Frame::new(0x8847, &[0, 1, 0x41, 64, 0x45, 0, 0, 40])),
        ("PPPoE", Frame::new(0x8864, &[0x11; 40])),
        ("an 802.1ad tag", other.clone().tagged(&[200]).service_tagged(100)),
        ("three tags", other.clone().tagged(&[1, 2, 3])),
        ("three tags before a VIP", to_vip.tagged(&[1, 2, 3])),
        ("a VIP under another EtherType", Frame::new(0x86dc, &for_vip().bytes())),
        ("IHL 0", other.clone().patched(0, &[0x40])),
        ("IHL 15", other.clone().patched(0, &[0x4f])),
        ("version 5", other.clone().patched(0, &[0x55])),
        ("total length 0", other.clone().patched(2, &[0, 0])),
        ("total length 65535", other.patched(2, &[255, 255])),
        ("payload length 0", other6.clone().patched(4, &[0, 0])),
        ("payload length 65535", other6.patched(4, &[255, 255])),
    ]
}

/// Sends a frame cut at every offset from the shortest on; it has to pass as it is, and nothing may be counted.
fn passes_at_every_cut(bed: &mut Bed, name: &str, frame: &[u8]) {
    let before = bed.counts();
    for length in (SHORTEST..=frame.len()).step_by(every()) {
        let cut = &frame[..length];
        let outcome = bed.send(cut, IN);
        assert!(outcome.is_passed(), "{name} cut to {length} bytes: {outcome:?}");
        assert_eq!(outcome.frame, cut, "{name} cut to {length} bytes");
    }
    let counted = bed.counts().since(&before);
    assert!(counted.is_empty(), "{name}: counted {counted}");
}

#[test]
fn what_is_not_for_a_vip_passes_untouched_wherever_it_is_cut() {
    let mut bed = Bed::holding(&serving());
    for (name, packet) in foreign_packets() {
        for tags in [&[][..], &[100], &[100, 200]] {
            passes_at_every_cut(&mut bed, name, &packet.tagged(tags).bytes());
        }
    }
    for (name, frame) in foreign_frames() {
        passes_at_every_cut(&mut bed, name, &frame.bytes());
    }
}

#[test]
fn random_bytes_pass_untouched() {
    let mut bed = Bed::holding(&serving());
    let mut random = Random::new(1);
    let before = bed.counts();
    for round in (0..3_000_u32).step_by(every()) {
        let mut frame = random.bytes::<96>();
        // Two of three look like IP from the outside, behind a tag or not.
        match round % 6 {
            0 => frame[12..14].copy_from_slice(&[0x08, 0x00]),
            1 => frame[12..14].copy_from_slice(&[0x86, 0xdd]),
            2 => frame[12..18].copy_from_slice(&[0x81, 0, 0, 1, 0x08, 0x00]),
            3 => frame[12..18].copy_from_slice(&[0x81, 0, 0, 1, 0x86, 0xdd]),
            _ => {}
        }
        let outcome = bed.send(&frame, IN);
        assert!(outcome.is_passed() && outcome.frame == frame, "round {round}: {outcome:?}");
    }
    let counted = bed.counts().since(&before);
    assert!(counted.is_empty(), "counted {counted}");
}

/// A VIP's packet, and how many bytes of it have to be there for the program to know whose it is.
fn vip_packets() -> Vec<(&'static str, Packet, usize)> {
    let authentication = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    vec![
        ("TCP over IPv4", tcp(CLIENT4, 40_000, VIP4, 80), 20),
        ("UDP over IPv4", udp(CLIENT4, 40_000, VIP4, 80), 20),
        ("TCP over IPv6", tcp(CLIENT6, 40_000, VIP6, 80), 40),
        ("UDP over IPv6", udp(CLIENT6, 40_000, VIP6, 80), 40),
        ("IPv4 options", tcp(CLIENT4, 40_000, VIP4, 80).options(&[1; 40]), 20),
        (
            "IPv6 extension headers",
            udp(CLIENT6, 40_000, VIP6, 80)
                .extension(protocol::HOP_BY_HOP, &[0, 1, 4, 0, 0, 0, 0])
                .extension(protocol::AUTHENTICATION, &authentication),
            40,
        ),
        ("IPIP", ipip(PEER4, NODE4, &tcp(CLIENT4, 40_000, VIP4, 80)), 40),
        ("IPIP of IPv6", ipip(PEER4, NODE4, &tcp(CLIENT6, 40_000, VIP6, 80)), 60),
        ("IPIP over IPv6", ipip(PEER6, NODE6, &udp(CLIENT4, 40_000, VIP4, 80)), 60),
        ("GUE", gue(PEER4, NODE4, 50_000, &tcp(CLIENT4, 40_000, VIP4, 80)), 52),
        ("GUE over IPv6", gue(PEER6, NODE6, 50_000, &udp(CLIENT6, 40_000, VIP6, 80)), 92),
    ]
}

#[test]
fn what_is_for_a_vip_is_never_sent_on_cut() {
    let mut bed = Bed::holding(&serving());
    for (name, packet, known_from) in vip_packets() {
        for tags in [&[][..], &[100], &[100, 200]] {
            let frame = packet.tagged(tags);
            let (bytes, known_from) = (frame.bytes(), frame.l3() + known_from);
            for length in (SHORTEST..bytes.len()).step_by(every()) {
                let before = bed.counts();
                let outcome = bed.send(&bytes[..length], IN);
                let counted = bed.counts().since(&before);
                let (action, expected) = if length < known_from {
                    (Action::Pass, Counts::of_verdict(Verdict::NotOurs))
                } else {
                    (Action::Drop, Counts::of_drop(DropReason::Truncated))
                };
                let what = format!("{name}, tags {tags:?}, cut to {length} of {} bytes", bytes.len());
                assert_eq!(outcome.action, action as u32, "{what}: counted {counted}");
                assert_eq!(outcome.frame, bytes[..length], "{what}");
                assert_eq!(counted, expected, "{what}: counted {counted}");
            }
            let outcome = bed.send(&bytes, IN);
            assert!(!outcome.is_dropped() && outcome.frame != bytes, "{name} whole: {outcome:?}");
        }
    }
}

#[test]
fn an_arp_request_for_a_vip_that_is_cut_passes() {
    let mut bed = Bed::holding(&serving());
    let IpAddr::V4(vip) = VIP4 else { unreachable!("VIP4 is an IPv4 address") };
    let request = arp(1, vip).bytes();
    passes_at_every_cut(&mut bed, "an ARP request", &request[..request.len() - 1]);
    assert!(bed.send(&request, IN).is_dropped());
}
