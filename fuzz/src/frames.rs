//! Frames to begin with, by name: one for every way that the packet path can take.

use std::net::{IpAddr, Ipv4Addr};

use lb_common::wire::protocol;
use packets_tests::{
    Frame, IcmpError, Packet, addresses::*, arp, echo_request, gue, gue_with_header, icmp_error, ipip, marked_gue, raw,
    tcp, udp,
};

use crate::world::{OPEN4, RANGED4, RANGED6};

/// Each with its name.
pub fn frames() -> Vec<(String, Vec<u8>)> {
    let mut frames = Vec::new();
    for family in [Family::V4, Family::V6] {
        let mut add = |name: &str, frame: Frame| frames.push((format!("{}-{name}", family.name()), frame.bytes()));
        for (name, packet) in flows(family).into_iter().chain(messages(family)).chain(tunnels(family)) {
            add(name, packet.frame());
        }
        add("tagged", family.tcp().tagged(&[7]));
        add("tagged-twice", family.udp().tagged(&[7, 8]));
        add("from-peer", family.tcp().frame().between(PEER_MAC, NODE_MAC));
        add("padded", family.udp().data(&[1]).frame().padded(20));
        add("to-many", family.tcp().ttl(1).frame().between(ROUTER_MAC, [0xff; 6]));
    }
    frames.extend(of_one_family().into_iter().map(|(name, frame)| (name.to_owned(), frame.bytes())));
    frames
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        self.pick("ipv4", "ipv6")
    }

    fn pick<T>(self, v4: T, v6: T) -> T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }

    fn client(self) -> IpAddr {
        self.pick(CLIENT4, CLIENT6)
    }

    fn vip(self) -> IpAddr {
        self.pick(VIP4, VIP6)
    }

    fn tcp(self) -> Packet {
        tcp(self.client(), 40_000, self.vip(), 80)
    }

    fn udp(self) -> Packet {
        udp(self.client(), 40_001, self.vip(), 53)
    }
}

fn flows(of: Family) -> Vec<(&'static str, Packet)> {
    let ranged = of.pick(RANGED4, RANGED6);
    let pieces = of.udp().data(&[7; 64]).fragments(77, 32);
    vec![
        ("tcp", of.tcp()),
        ("tcp-syn", of.tcp().syn().tcp_options(&[2, 4, 5, 180])),
        ("tcp-finish", of.tcp().finish()),
        ("tcp-reset", of.tcp().reset()),
        ("tcp-other-port", tcp(of.client(), 40_000, of.vip(), 81)),
        ("tcp-other-client", tcp(of.pick(STRANGER4, STRANGER6), 1, of.vip(), 80)),
        ("udp", of.udp()),
        ("udp-long", of.udp().data(&[1; 1200])),
        ("udp-too-long", of.udp().data(&[1; 1500])),
        ("ttl-1", of.tcp().ttl(1)),
        ("ttl-0", of.udp().ttl(0)),
        ("ranged", tcp(of.client(), 40_000, ranged, 80)),
        ("ranged-denied", tcp(of.pick(IpAddr::V4(Ipv4Addr::new(1, 2, 3, 4)), VIP6), 40_000, ranged, 80)),
        ("fragment-first", pieces[0].clone()),
        ("fragment-later", pieces[1].clone()),
        ("fragment-unknown", of.udp().identification(78).piece(5, true)),
        ("fragment-short", raw(of.client(), of.vip(), protocol::TCP, &[0; 8]).piece(0, true)),
        ("other-protocol", raw(of.client(), of.vip(), 47, &[7; 32])),
        ("not-ours", tcp(of.client(), 40_000, of.pick(STRANGER4, STRANGER6), 80)),
    ]
}

fn messages(of: Family) -> Vec<(&'static str, Packet)> {
    let reply = tcp(of.vip(), 80, of.client(), 40_000);
    let names = ["unreachable", "too-big", "time-exceeded", "parameter-problem"];
    let error = |error, packet: &Packet| icmp_error(of.pick(STRANGER4, STRANGER6), of.vip(), error, &packet.bytes());
    let mut messages: Vec<_> =
        names.into_iter().zip(IcmpError::ALL).map(|(name, kind)| (name, error(kind, &reply))).collect();
    messages.extend([
        ("echo", echo_request(of.client(), of.vip())),
        ("echo-not-ours", echo_request(of.client(), of.pick(STRANGER4, STRANGER6))),
        ("error-udp", error(IcmpError::Unreachable, &udp(of.vip(), 53, of.client(), 40_001))),
        ("error-echo", error(IcmpError::Unreachable, &raw(of.vip(), of.client(), 47, &[7; 16]))),
        ("error-elsewhere", error(IcmpError::Unreachable, &tcp(of.client(), 1, of.vip(), 80))),
        ("error-fragment", error(IcmpError::Unreachable, &reply.clone().piece(0, true))),
        ("error-short", icmp_error(of.client(), of.vip(), IcmpError::TooBig(1400), &reply.bytes()[..24])),
        ("error-ttl-1", error(IcmpError::TimeExceeded, &reply).ttl(1)),
    ]);
    messages
}

fn tunnels(of: Family) -> Vec<(&'static str, Packet)> {
    let (peer, node) = (of.pick(PEER4, PEER6), of.pick(NODE4, NODE6));
    let error = icmp_error(CLIENT4, VIP4, IcmpError::TooBig(1400), &tcp(VIP4, 80, CLIENT4, 40_000).bytes());
    vec![
        ("ipip-of-ipv4", ipip(peer, node, &Family::V4.tcp())),
        ("ipip-of-ipv6", ipip(peer, node, &Family::V6.tcp())),
        ("gue-of-ipv4", gue(peer, node, 50_000, &Family::V4.udp())),
        ("gue-of-ipv6", gue(peer, node, 50_000, &tcp(CLIENT6, 1, RANGED6, 80))),
        ("gue-of-error", gue(peer, node, 50_000, &error)),
        ("gue-of-echo", gue(peer, node, 50_000, &echo_request(CLIENT4, VIP4))),
        ("gue-of-fragment", gue(peer, node, 50_000, &Family::V4.udp().fragment(5, false))),
        ("gue-marked-of-ipv4", marked_gue(peer, node, 50_000, b'c', &Family::V4.tcp())),
        ("gue-marked-of-ipv6", marked_gue(peer, node, 50_000, b'j', &tcp(CLIENT6, 1, RANGED6, 80))),
        ("gue-marked-too-often", marked_gue(peer, node, 50_000, b'k', &Family::V4.tcp())),
        ("gue-bad", gue_with_header(peer, node, 50_000, [0x40, 4, 0, 1], &Family::V4.tcp())),
        ("ipip-of-stranger", ipip(of.pick(STRANGER4, STRANGER6), node, &Family::V4.tcp())),
        ("ipip-elsewhere", ipip(peer, of.pick(STRANGER4, STRANGER6), &Family::V4.tcp())),
        ("ipip-unmatched", ipip(peer, node, &tcp(CLIENT4, 1, VIP4, 81))),
    ]
}

fn of_one_family() -> Vec<(&'static str, Frame)> {
    let vip = match VIP4 {
        IpAddr::V4(vip) => vip,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let sctp = [&40_000_u16.to_be_bytes()[..], &38_412_u16.to_be_bytes(), &[0; 24]].concat();
    let authentication = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    vec![
        ("arp-request", arp(1, vip)),
        ("arp-answer", arp(2, vip)),
        ("arp-not-ours", arp(1, Ipv4Addr::new(192, 0, 2, 1))),
        ("ethernet-other", Frame::new(0x88cc, &[2, 7, 4, 2, 0, 0, 0, 0, 1, 4, 2, 5, 49, 6, 2, 0, 120, 0, 0])),
        ("ethernet-three-tags", Family::V4.tcp().tagged(&[1, 2, 3])),
        ("ipv4-options", Family::V4.tcp().options(&[1; 40]).frame()),
        ("ipv4-sctp", raw(CLIENT4, OPEN4, protocol::SCTP, &sctp).frame()),
        ("ipv4-any-port", udp(CLIENT4, 40_000, OPEN4, 9).frame()),
        ("ipv4-no-backend", tcp(CLIENT4, 40_000, OPEN4, 443).frame()),
        ("ipv4-passed", tcp(CLIENT4, 40_000, OPEN4, 444).frame()),
        ("ipv4-echo-not-held", echo_request(CLIENT4, OPEN4).frame()),
        ("ipv4-ihl-0", Family::V4.tcp().frame().patched(0, &[0x40])),
        ("ipv4-length-65535", Family::V4.tcp().frame().patched(2, &[255, 255])),
        ("ipv6-length-65535", Family::V6.tcp().frame().patched(4, &[255, 255])),
        ("ipv6-neighbour", raw(CLIENT6, VIP6, protocol::ICMPV6, &[135, 0, 0, 0, 0, 0, 0, 0]).frame()),
        (
            "ipv6-extensions",
            Family::V6
                .udp()
                .extension(protocol::HOP_BY_HOP, &[0, 1, 4, 0, 0, 0, 0])
                .extension(51, &authentication)
                .frame(),
        ),
        ("ipv6-atomic-fragment", Family::V6.udp().extension(protocol::FRAGMENT, &[0, 0, 0, 0, 0, 0, 9]).frame()),
    ]
}
