//! Services that admit some sources only.

use std::net::IpAddr;

use lb_agent::plan::MapOp;
use lb_common::{
    maps::sources::SourceRange,
    verdict::{DropReason, Verdict},
};
use packets_tests::{
    Bed, Case, Frame, IN, Packet, SIZES, Service, Way, World, addresses::*, check, gue, service, tcp, udp, world,
};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn sent_on(packet: &Packet) -> Frame {
    packet.clone().ttl(63).frame().between(NODE_MAC, NEXT_MAC)
}

/// A service of either family whose backend is on the link.
fn on_link(vip: IpAddr) -> Service {
    service(vip, 80).backend(if vip.is_ipv4() { A4 } else { A6 }, Way::l2())
}

/// Services with these ranges, and one of each family without, on port 81.
fn ranged(ranges: &[(&str, u8)]) -> World {
    [VIP4, VIP6].into_iter().fold(world(), |world, vip| {
        let (family, open) = if vip.is_ipv4() { (A4, B4) } else { (A6, B6) };
        let service = ranges.iter().fold(on_link(vip), |service, (address, length)| service.from(ip(address), *length));
        world.with(service.backend(family, Way::l2())).with(self::service(vip, 81).backend(open, Way::l2()))
    })
}

/// Whether a packet from this address is admitted.
fn case(world: &World, source: &str, is_admitted: bool) -> Case {
    let source = ip(source);
    let (vip, backend) = if source.is_ipv4() { (VIP4, A4) } else { (VIP6, A6) };
    let packet = tcp(source, 40_000, vip, 80).syn();
    let case = Case::new(format!("from {source}")).given(world).send(packet.clone());
    if is_admitted {
        case.expect_tx(Verdict::L2, backend, &sent_on(&packet))
    } else {
        case.expect_drop(DropReason::SourceDenied)
    }
}

#[test]
fn only_sources_within_a_range_are_admitted() {
    let world = ranged(&[("203.0.113.0", 29), ("198.18.0.7", 32), ("2001:db8:c::", 48), ("2001:db8:d::7", 128)]);
    check([
        case(&world, "203.0.113.0", true),
        case(&world, "203.0.113.7", true),
        case(&world, "203.0.113.8", false),
        case(&world, "203.0.112.255", false),
        case(&world, "198.18.0.7", true),
        case(&world, "198.18.0.6", false),
        case(&world, "2001:db8:c::7", true),
        case(&world, "2001:db8:c:ffff:ffff:ffff:ffff:ffff", true),
        case(&world, "2001:db8:b:ffff::1", false),
        case(&world, "2001:db8:d::7", true),
        case(&world, "2001:db8:d::6", false),
    ]);
}

#[test]
fn a_range_of_one_family_admits_nobody_of_the_other() {
    check([
        case(&ranged(&[("::", 0)]), "2001:db8::1", true),
        case(&ranged(&[("::", 0)]), "203.0.113.7", false),
        case(&ranged(&[("::", 0)]), "::ffff:203.0.113.7", true),
        case(&ranged(&[("0.0.0.0", 0)]), "203.0.113.7", true),
        case(&ranged(&[("0.0.0.0", 0)]), "2001:db8::1", false),
        case(&ranged(&[("0.0.0.0", 0)]), "::ffff:203.0.113.7", false),
    ]);
}

#[test]
fn the_ranges_of_a_service_are_not_those_of_another() {
    let world = ranged(&[("192.0.2.0", 24), ("2001:db8:1::", 48)]);
    let cases = [(CLIENT4, VIP4, B4), (CLIENT6, VIP6, B6)].into_iter().flat_map(|(client, vip, open)| {
        let packet = tcp(client, 40_000, vip, 81);
        [
            Case::new("a service with ranges")
                .given(&world)
                .send(tcp(client, 40_000, vip, 80))
                .expect_drop(DropReason::SourceDenied),
            Case::new("one without").given(&world).send(packet.clone()).expect_tx(Verdict::L2, open, &sent_on(&packet)),
        ]
    });
    check(cases);
}

#[test]
fn a_denied_source_is_denied_whatever_state_the_service_is_in() {
    let base = |vip| service(vip, 80).from(ip("192.0.2.0"), 24);
    let packet = || tcp(CLIENT4, 40_000, VIP4, 80);
    let denied =
        |name: &str, world: &World| Case::new(name).given(world).send(packet()).expect_drop(DropReason::SourceDenied);
    check([
        denied("no backend", &world().with(base(VIP4))),
        denied("the backend is here", &world().with(base(VIP4).held().backend(NODE4, Way::local()))),
        denied("no way known", &world().with(base(VIP4).backend(A4, Way::unknown()))),
        denied("a tunnel", &world().with(base(VIP4).backend(A4, Way::gue(A4)))),
    ]);
}

#[test]
fn fragments_of_a_denied_source_are_denied() {
    let world =
        [VIP4, VIP6].into_iter().fold(world(), |world, vip| world.with(on_link(vip).udp().from(ip("192.0.2.0"), 24)));
    let cases = [(CLIENT4, VIP4), (CLIENT6, VIP6)].into_iter().flat_map(|(client, vip)| {
        let fragments = udp(client, 40_000, vip, 80).data(&[0; 1_000]).fragments(1, 400);
        let world = world.clone();
        fragments.into_iter().map(move |fragment| {
            Case::new(format!("to {vip}")).given(&world).send(fragment).expect_drop(DropReason::SourceDenied)
        })
    });
    check(cases);
}

#[test]
fn a_terminator_leaves_the_question_to_the_director() {
    let world = world().with(service(VIP4, 80).held().from(ip("192.0.2.0"), 24).backend(NODE4, Way::local()));
    let inner = tcp(CLIENT4, 40_000, VIP4, 80);
    check([Case::new("a tunnel from a director")
        .given(&world)
        .send(gue(PEER4, NODE4, 50_000, &inner))
        .expect_stripped(&inner.frame())]);
}

#[test]
fn ranges_come_go_and_change_with_the_plan_and_are_adopted() {
    let mut bed = Bed::new();
    let near = || world().with(on_link(VIP4).from(ip("192.0.2.0"), 24));
    let client = || world().with(on_link(VIP4).from(ip("203.0.113.0"), 24));
    let both = || world().with(on_link(VIP4).from(ip("192.0.2.0"), 24).from(ip("203.0.113.0"), 24));
    let open = || world().with(on_link(VIP4));
    let frame = tcp(CLIENT4, 40_000, VIP4, 80).frame().bytes();
    let steps = [
        (open(), true, 0),
        (near(), false, 1),
        (both(), true, 2),
        (client(), true, 1),
        (near(), false, 1),
        (open(), true, 0),
        (near(), false, 1),
        (world(), true, 0),
        (client(), true, 1),
    ];
    for (at, (world, is_admitted, entries)) in steps.into_iter().enumerate() {
        bed.apply(&world);
        assert_eq!(!bed.send(&frame, IN).is_dropped(), is_admitted, "step {at}");
        let read = bed.kernel().state().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            read.source_ranges.values().map(std::collections::BTreeSet::len).sum::<usize>(),
            entries,
            "step {at}"
        );
        assert_eq!(read.source_ranges, bed.state().source_ranges, "step {at}");
    }
}

#[test]
fn as_many_ranges_fit_as_the_map_has_room_for() {
    let mut bed = Bed::new();
    for last in 0..SIZES.source_ranges {
        let address = IpAddr::from([10, 0, 0, u8::try_from(last).expect("few")]);
        bed.perform(&MapOp::SourceRange { service: 0, range: SourceRange::new(address, 32) });
    }
}
