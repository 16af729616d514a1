//! What cannot go on is answered: "too big" with the MTU that fits, "time exceeded" for traceroute; within a limit.

use std::{net::IpAddr, time::Instant};

use lb_common::{
    limit,
    report::End,
    verdict::{Action, DropReason, Verdict},
};
use packets_tests::{
    Ability, Bed, Case, Counts, Frame, IN, IcmpError, OUT, Packet, Way, World, addresses::*, answer, check, service,
    tcp, udp, world,
};

const FLOWS: [(IpAddr, IpAddr); 2] = [(CLIENT4, VIP4), (CLIENT6, VIP6)];
const TAGS: [&[u16]; 3] = [&[], &[100], &[100, 200]];

fn node(of: IpAddr) -> IpAddr {
    if of.is_ipv4() { NODE4 } else { NODE6 }
}

fn web(vip: IpAddr, way: Way) -> World {
    world().with(service(vip, 80).backend(A4, way))
}

/// A TCP segment in a packet of this many bytes.
fn segment(client: IpAddr, vip: IpAddr, length: usize) -> Packet {
    let headers = if vip.is_ipv4() { 40 } else { 60 };
    let data: Vec<u8> = (0..=250).cycle().take(length - headers).collect();
    tcp(client, 40_000, vip, 80).data(&data)
}

/// The answer to a packet, back to where it came from.
fn told(packet: &Packet, error: IcmpError) -> Frame {
    answer(node(packet.source()), error, packet).frame().between(NODE_MAC, ROUTER_MAC)
}

/// A packet of `room` bytes goes this way, and one byte more is answered.
fn fits_and_no_more(way: Way, room: u16, verdict: Verdict) {
    for (client, vip) in FLOWS {
        let world = web(vip, way);
        let packet = segment(client, vip, usize::from(room) + 1);
        let expected = IcmpError::TooBig(room);
        check(TAGS.map(|tags| {
            Case::new(format!("one byte more than {room} to {vip}, tags {tags:?}"))
                .given(&world)
                .send(packet.tagged(tags))
                .expect_answer(Verdict::TooBigTold, &told(&packet, expected).tagged(tags))
        }));
        let mut bed = Bed::holding(&world);
        let before = bed.counts();
        bed.send(&segment(client, vip, room.into()).frame().bytes(), IN);
        let fitting = Counts::of_verdict(verdict).and_served(&world, A4, room.into());
        assert_eq!(bed.counts().since(&before), fitting, "{room} bytes to {vip} fit");
    }
}

#[test]
fn what_does_not_fit_the_hop_is_answered_with_the_mtu_that_fits() {
    // Overhead: IPv4 20, IPv6 40, UDP 8, GUE 4.
    for (way, room, verdict) in [
        (Way::l2(), 1500, Verdict::L2),
        (Way::l2().mtu(1400), 1400, Verdict::L2),
        (Way::l2().tagged(7).out_of(OUT), 1500, Verdict::L2),
        (Way::ipip(A4), 1480, Verdict::Ipip),
        (Way::ipip(A6), 1460, Verdict::Ipip),
        (Way::gue(A4), 1468, Verdict::Gue),
        (Way::gue(A6), 1448, Verdict::Gue),
    ] {
        fits_and_no_more(way, room, verdict);
    }
}

#[test]
fn a_used_up_ttl_is_answered_where_the_packet_would_be_sent_on() {
    for (client, vip) in FLOWS {
        for ttl in [0, 1] {
            for packet in [tcp(client, 40_000, vip, 80).ttl(ttl), tcp(client, 40_000, vip, 80).data(&[]).syn().ttl(ttl)]
            {
                check(TAGS.map(|tags| {
                    Case::new(format!("TTL {ttl} to {vip}, tags {tags:?}"))
                        .given(&web(vip, Way::gue(A4)))
                        .send(packet.tagged(tags))
                        .expect_answer(Verdict::TimeExceededTold, &told(&packet, IcmpError::TimeExceeded).tagged(tags))
                }));
            }
        }
        let packet = tcp(client, 40_000, vip, 80).ttl(1);
        let held = |way| world().with(service(vip, 80).held().backend(A4, way));
        check([
            Case::new("at its backend").given(&held(Way::local())).send(packet.clone()).expect_local(A4),
            Case::new("directed here")
                .given(&held(Way::l2()))
                .send(packet.frame().between(PEER_MAC, NODE_MAC))
                .expect_passed(Verdict::Directed),
        ]);
    }
}

#[test]
fn the_quote_holds_headers_and_data_up_to_128_bytes() {
    let options = [0, 1, 4, 0, 0, 0, 0];
    let datagram = |client, vip, bytes: usize| udp(client, 40_000, vip, 80).data(&vec![7; bytes]).ttl(1);
    let service = |vip| service(vip, 80).udp().backend(A4, Way::l2());
    let world = world().with(service(VIP4)).with(service(VIP6));
    let packets = FLOWS
        .into_iter()
        .flat_map(|(client, vip)| [0, 1, 2, 3, 4, 71, 72, 73, 80, 81, 99, 100, 101].map(|n| datagram(client, vip, n)));
    let more = [
        datagram(CLIENT4, VIP4, 0).options(&[1; 40]),
        datagram(CLIENT4, VIP4, 500).options(&[1; 4]),
        datagram(CLIENT6, VIP6, 5).extension(60, &options),
    ];
    check(packets.chain(more).map(|packet| {
        Case::new(format!("{} bytes", packet.bytes().len()))
            .given(&world)
            .send(packet.clone())
            .expect_answer(Verdict::TimeExceededTold, &told(&packet, IcmpError::TimeExceeded))
    }));
}

#[test]
fn frames_in_several_buffers_are_answered_too() {
    if !Ability::Buffers.is_there("frames_in_several_buffers_are_answered_too") {
        return;
    }
    fits_and_no_more(Way::gue(A6).mtu(9000), 8948, Verdict::Gue);
    for (client, vip) in FLOWS {
        let packet = segment(client, vip, 9000);
        check([Case::new(format!("9000 bytes to {vip}"))
            .given(&web(vip, Way::gue(A4)))
            .send(packet.tagged(&[100]))
            .expect_answer(Verdict::TooBigTold, &told(&packet, IcmpError::TooBig(1468)).tagged(&[100]))]);
    }
}

#[test]
fn ipv4_without_dont_fragment_is_answered_as_well() {
    let packet = segment(CLIENT4, VIP4, 1501);
    let mut bed = Bed::holding(&web(VIP4, Way::l2()));
    let before = bed.counts();
    let outcome = bed.send(&packet.frame().patched(6, &[0, 0]).bytes(), IN);
    assert_eq!(outcome.action, Action::Transmit as u32);
    assert_eq!(bed.counts().since(&before), Counts::of_verdict(Verdict::TooBigTold));
    // Type, code and MTU.
    assert_eq!((outcome.frame[34..36].to_vec(), outcome.frame[40..42].to_vec()), (vec![3, 4], vec![0x05, 0xdc]));
    assert_eq!(outcome.frame[42 + 6..42 + 8], [0, 0], "the quote is as it came");
}

#[test]
fn no_mtu_is_told_that_the_family_does_not_allow() {
    let small = Way::gue(A6).mtu(1300); // leaves 1248 bytes
    let (fits_ipv6, too_long) = (segment(CLIENT6, VIP6, 1280), segment(CLIENT6, VIP6, 1281));
    check([
        Case::new("the least that IPv6 allows cannot be made shorter")
            .given(&web(VIP6, small))
            .send(fits_ipv6)
            .expect_drop(DropReason::TooBig),
        Case::new("1280 is the least that is told over IPv6")
            .given(&web(VIP6, small))
            .send(too_long.clone())
            .expect_answer(Verdict::TooBigTold, &told(&too_long, IcmpError::TooBig(1280))),
        Case::new("68 is the least that is told over IPv4")
            .given(&web(VIP4, Way::l2().mtu(0)))
            .send(segment(CLIENT4, VIP4, 200))
            .expect_answer(Verdict::TooBigTold, &told(&segment(CLIENT4, VIP4, 200), IcmpError::TooBig(68))),
    ]);
}

#[test]
fn who_cannot_be_told_is_not_told() {
    let to_many = [0xff; 6];
    let multicast4: IpAddr = "224.0.0.9".parse().unwrap();
    let multicast6: IpAddr = "ff02::9".parse().unwrap();
    let unspecified: IpAddr = "::".parse().unwrap();
    let web = world().with(service(VIP4, 80).backend(A4, Way::l2())).with(service(VIP6, 80).backend(A6, Way::l2()));
    let senders = [
        ("a multicast sender", tcp(multicast4, 40_000, VIP4, 80)),
        ("a broadcast sender", tcp("255.255.255.255".parse().unwrap(), 40_000, VIP4, 80)),
        ("a loopback sender", tcp("127.0.0.1".parse().unwrap(), 40_000, VIP4, 80)),
        ("an unknown sender", tcp("0.0.0.0".parse().unwrap(), 40_000, VIP4, 80)),
        ("a multicast sender of IPv6", tcp(multicast6, 40_000, VIP6, 80)),
        ("an unknown sender of IPv6", tcp(unspecified, 40_000, VIP6, 80)),
    ];
    check(
        senders
            .map(|(name, packet)| Case::new(name).given(&web).send(packet.ttl(1)).expect_drop(DropReason::TtlExpired)),
    );
    check(FLOWS.map(|(client, vip)| {
        let frame = tcp(client, 40_000, vip, 80).ttl(1).frame().between(ROUTER_MAC, to_many);
        Case::new("a frame for everybody").given(&web).send(frame).expect_drop(DropReason::TtlExpired)
    }));
}

#[test]
fn a_node_without_an_address_of_the_family_answers_from_the_vip() {
    for (client, vip) in FLOWS {
        let mut nameless = web(vip, Way::l2());
        nameless.node.retain(|address| address.is_ipv4() != vip.is_ipv4());
        let packet = segment(client, vip, 1501);
        let expected = answer(vip, IcmpError::TooBig(1500), &packet).frame().between(NODE_MAC, ROUTER_MAC);
        check([Case::new(format!("from {vip}"))
            .given(&nameless)
            .send(packet)
            .expect_answer(Verdict::TooBigTold, &expected)]);
    }
}

#[test]
fn answers_are_limited() {
    let mut bed = Bed::holding(&web(VIP4, Way::l2()));
    let frame = tcp(CLIENT4, 40_000, VIP4, 80).ttl(1).frame().bytes();
    let sent_on = tcp(CLIENT4, 40_000, VIP4, 80).frame().bytes();
    let (before, start) = (bed.counts(), Instant::now());
    let (mut told, mut untold) = (0, 0);
    // Until the bucket was empty at least once, whatever the speed of this machine.
    while untold < 20 {
        match bed.send(&frame, IN) {
            outcome if outcome.action == Action::Transmit as u32 => told += 1,
            outcome => {
                assert!(outcome.is_dropped() && outcome.frame == frame, "{outcome:?}");
                untold += 1;
            }
        }
        assert!(told < 1_000_000, "there is no limit");
    }
    let took = u64::try_from(start.elapsed().as_nanos()).unwrap();
    assert!(told >= limit::BURST, "{told} answers are no burst");
    assert!(told <= limit::BURST + took / limit::INTERVAL + 1, "{told} answers within {took} ns");
    let counts = bed.counts().since(&before);
    let dropped = Counts::of_drop(DropReason::AnswerLimit).times(untold);
    assert_eq!(counts, Counts::of_verdict(Verdict::TimeExceededTold).times(told).and(&dropped));
    assert_eq!(bed.send(&sent_on, IN).action, Action::Transmit as u32, "what can go on goes on");
}

#[test]
fn the_dry_entry_tells_the_same() {
    let bed = Bed::holding(&web(VIP4, Way::gue(A4)));
    let end = |packet: Packet| bed.lookup(&packet.frame().bytes()).end;
    let before = bed.counts();
    assert_eq!(end(segment(CLIENT4, VIP4, 1468)), End::Verdict(Verdict::Gue as u32));
    assert_eq!(end(segment(CLIENT4, VIP4, 1469)), End::Verdict(Verdict::TooBigTold as u32));
    assert_eq!(end(tcp(CLIENT4, 40_000, VIP4, 80).ttl(1)), End::Verdict(Verdict::TimeExceededTold as u32));
    assert_eq!(bed.counts(), before);
}
