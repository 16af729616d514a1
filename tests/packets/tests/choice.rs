//! Which backend a flow gets: the same from the dry entry, from every director and after any history.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::{
    addr::IpAddr16,
    report::End,
    verdict::{Action, Verdict},
};
use packets_tests::{Bed, IN, Packet, Random, Service, Way, World, addresses::*, dump, service, tcp, udp, world};

/// Flows that each test looks at.
const FLOWS: usize = 1_000;

fn backend(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

/// The way to a backend, whose number stands in the address of the next hop.
fn way(number: u8) -> Way {
    if number == 0 { Way::local() } else { Way::l2().next([2, 0, 0, 0, 9, number]) }
}

/// Services of both families and protocols on these backends; number 0 is this node.
fn serving(numbers: &[u8]) -> World {
    let on = |service: Service| {
        let service = service.held().ring(10);
        numbers.iter().fold(service, |service, number| service.backend(backend(*number), way(*number)))
    };
    [VIP4, VIP6].into_iter().flat_map(|vip| [on(service(vip, 0)), on(service(vip, 0).udp())]).fold(world(), World::with)
}

/// Random flows of both families and protocols.
fn flows() -> impl Iterator<Item = Packet> {
    let mut random = Random::new(2);
    (0..FLOWS).map(move |number| {
        let (client, vip) = if number % 2 == 0 {
            (IpAddr::from(random.bytes::<4>()), VIP4)
        } else {
            (IpAddr::from(random.bytes::<16>()), VIP6)
        };
        let (from, to) = (random.port(), random.port());
        if number % 4 < 2 { tcp(client, from, vip, to) } else { udp(client, from, vip, to) }
    })
}

/// Number of the backend that the live program sends a flow to.
fn live(bed: &mut Bed, flow: &Packet) -> u8 {
    let outcome = bed.send(&flow.frame().bytes(), IN);
    if outcome.is_passed() {
        0
    } else {
        assert_eq!(outcome.action, Action::Transmit as u32, "{flow:?}: {outcome:?}");
        outcome.frame[5]
    }
}

/// Number of the backend that the dry entry names for a flow.
fn dry(bed: &Bed, flow: &Packet) -> u8 {
    let report = bed.lookup(&flow.frame().bytes());
    let mut having = bed
        .state()
        .services
        .values()
        .filter(|service| service.index + 1 == report.service)
        .flat_map(|service| &service.backends)
        .filter(|(_, state)| state.id.bits() == report.backend);
    let ((address, _), _) = having.next().unwrap_or_else(|| panic!("{flow:?}: {report:?}"));
    let number =
        (0..=u8::MAX).find(|number| IpAddr16::from(backend(*number)) == *address).expect("every backend has a number");
    let verdict = if number == 0 { Verdict::Local } else { Verdict::L2 };
    assert_eq!(report.end, End::Verdict(verdict as u32), "{flow:?}");
    number
}

/// What the live program chooses for every flow.
fn choices(bed: &mut Bed) -> Vec<u8> {
    flows().map(|flow| live(bed, &flow)).collect()
}

#[test]
fn the_dry_entry_names_the_backend_that_packets_go_to() {
    let mut bed = Bed::holding(&serving(&[0, 1, 2, 3, 4]));
    let mut seen = BTreeMap::<u8, u32>::new();
    for flow in flows() {
        let named = dry(&bed, &flow);
        assert_eq!(named, live(&mut bed, &flow), "{flow:?}");
        *seen.entry(named).or_default() += 1;
    }
    assert_eq!(seen.len(), 5, "every backend takes part: {seen:?}");
}

#[test]
fn looking_up_changes_no_byte_of_any_map() {
    let mut bed = Bed::holding(&serving(&[0, 1, 2]));
    for flow in flows().take(20) {
        let _ = live(&mut bed, &flow); // so that no counter is zero by chance
    }
    let before = dump(bed.pins());
    let inside = tcp(CLIENT4, 40_000, VIP4, 80);
    let others = [
        packets_tests::ipip(PEER4, NODE4, &inside),
        packets_tests::ipip(STRANGER4, NODE4, &inside),
        tcp(CLIENT4, 40_000, STRANGER4, 80),
        packets_tests::echo_request(CLIENT4, VIP4),
        packets_tests::raw(CLIENT4, VIP4, 47, &[0; 64]),
        udp(CLIENT4, 40_000, VIP4, 80).fragment(9, true),
    ];
    for flow in flows().chain(others) {
        let _ = bed.lookup(&flow.frame().bytes());
    }
    let after = dump(bed.pins());
    for (map, entries) in &before {
        assert!(after[map] == *entries, "{map} is not as it was");
    }
    let _ = live(&mut bed, &inside);
    let changed: Vec<_> =
        dump(bed.pins()).into_iter().filter(|(map, entries)| before[map] != *entries).map(|(map, _)| map).collect();
    assert_eq!(changed, ["BACKEND_COUNTERS", "SERVICE_COUNTERS", "VERDICTS"], "a packet is seen");
}

#[test]
fn every_director_chooses_the_same_whatever_it_has_been_through() {
    let mut fresh = Bed::holding(&serving(&[1, 2, 3, 4, 5]));
    let expected = choices(&mut fresh);
    let mut moved = Bed::holding(&serving(&[5, 9, 1]));
    for numbers in [&[8, 7, 6, 5][..], &[4], &[], &[3, 9, 2], &[2, 1, 4, 3, 5, 6], &[5, 4, 3, 2, 1]] {
        moved.apply(&serving(numbers));
    }
    // When the old flows are gone; until then they stay where they were, which `tracking.rs` is about.
    moved.pass(u64::MAX / 2, None);
    let scan = moved.scan();
    moved.pass(1, Some(&scan));
    let ids = |bed: &Bed| -> Vec<u32> {
        let services = bed.state().services.values();
        services.flat_map(|service| service.backends.values().map(|backend| backend.id.bits())).collect()
    };
    assert_ne!(ids(&fresh), ids(&moved), "the histories left no trace: the test proves nothing");
    assert_eq!(choices(&mut moved), expected);
}

#[test]
fn a_director_on_the_other_side_of_the_link_chooses_the_same_for_the_same_backends() {
    // What is local here is a hop there: ways do not count, identities do.
    let mut here = Bed::holding(&serving(&[0, 1, 2]));
    let mut there = world();
    for service in serving(&[]).services {
        let ways = [(0, Way::l2().next([2, 0, 0, 0, 9, 0])), (1, Way::local()), (2, way(2))];
        there =
            there.with(ways.into_iter().fold(service, |service, (number, way)| service.backend(backend(number), way)));
    }
    let mut there = Bed::holding(&there);
    for flow in flows() {
        let chosen = live(&mut here, &flow);
        let outcome = there.send(&flow.frame().bytes(), IN);
        let chosen_there = if outcome.is_passed() { 1 } else { outcome.frame[5] };
        assert_eq!(chosen, chosen_there, "{flow:?}");
    }
}

#[test]
fn another_secret_gives_another_mapping() {
    let world = serving(&[1, 2, 3, 4]);
    let mut bed = Bed::holding(&world);
    let before = choices(&mut bed);
    bed.apply(&world.secret([0x5a; 16]));
    let after = choices(&mut bed);
    let same = before.iter().zip(&after).filter(|(a, b)| a == b).count();
    assert!((150..350).contains(&same), "{same} of {FLOWS} flows kept their backend; one in four would by chance");
}

#[test]
fn flows_spread_evenly_over_three_backends() {
    let mut bed = Bed::holding(&serving(&[1, 2, 3]));
    let mut shares = BTreeMap::<u8, u32>::new();
    for chosen in choices(&mut bed) {
        *shares.entry(chosen).or_default() += 1;
    }
    // Six standard deviations of a fair choice are 90 flows.
    assert!(shares.len() == 3 && shares.values().all(|share| (243..=423).contains(share)), "{shares:?}");
}

#[test]
fn every_port_of_a_flow_counts_and_the_payload_does_not() {
    let mut bed = Bed::holding(&serving(&[1, 2, 3, 4]));
    let flow = tcp(CLIENT4, 40_000, VIP4, 80);
    let chosen = live(&mut bed, &flow);
    for packet in [flow.clone().data(b"x"), flow.clone().syn(), flow.clone().ttl(9), flow.options(&[1; 4])] {
        assert_eq!(live(&mut bed, &packet), chosen, "{packet:?}");
    }
    let seen = |packets: &mut dyn Iterator<Item = Packet>, bed: &mut Bed| {
        let mut seen: Vec<u8> = packets.map(|packet| live(bed, &packet)).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    };
    let by_source = seen(&mut (1..100).map(|port| tcp(CLIENT4, port, VIP4, 80)), &mut bed);
    let by_destination = seen(&mut (1..100).map(|port| tcp(CLIENT4, 40_000, VIP4, port)), &mut bed);
    assert_eq!((by_source, by_destination), (vec![1, 2, 3, 4], vec![1, 2, 3, 4]));
}
