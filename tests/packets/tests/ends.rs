//! How packets for a VIP end that are not simply sent on: other ports, other protocols, faults, and backends out of reach.

use std::net::{IpAddr, Ipv4Addr};

use lb_common::verdict::{DropReason, Verdict};
use packets_tests::{
    Bed, Case, Counts, Frame, IN, OUT, Packet, Way, World, addresses::*, arp, check, raw, service, tcp, udp, world,
};

const FLOWS: [(IpAddr, IpAddr); 2] = [(CLIENT4, VIP4), (CLIENT6, VIP6)];

/// TCP port 80 of both VIPs, each with a backend on the link.
fn web() -> World {
    world().with(service(VIP4, 80).backend(A4, Way::l2())).with(service(VIP6, 80).backend(A6, Way::l2()))
}

fn backend_of(vip: IpAddr) -> IpAddr {
    if vip.is_ipv4() { A4 } else { A6 }
}

fn sent_on(packet: &Packet) -> Frame {
    packet.clone().ttl(63).frame().between(NODE_MAC, NEXT_MAC)
}

#[test]
fn what_is_for_none_of_a_vips_services_is_dropped() {
    check(FLOWS.into_iter().flat_map(|(client, vip)| {
        [
            ("another port", tcp(client, 40_000, vip, 22)),
            ("another protocol's port", udp(client, 40_000, vip, 80)),
            ("port 0", tcp(client, 40_000, vip, 0)),
            ("SCTP", raw(client, vip, 132, &[0; 32])),
            ("GRE", raw(client, vip, 47, &[0; 32])),
            ("ESP", raw(client, vip, 50, &[0; 32])),
            ("IP in IP", raw(client, vip, 4, &[0x45; 32])),
        ]
        .map(|(name, packet)| {
            Case::new(format!("{name} of {vip}")).given(&web()).send(packet).expect_drop(DropReason::NoService)
        })
    }));
}

#[test]
fn what_is_for_none_of_a_vips_services_passes_if_the_service_says_so() {
    let world = world()
        .with(service(VIP4, 80).passing_unmatched().backend(A4, Way::l2()))
        .with(service(VIP6, 80).passing_unmatched().backend(A6, Way::l2()));
    check(FLOWS.into_iter().flat_map(|(client, vip)| {
        let matched = tcp(client, 40_000, vip, 80);
        [
            ("another port", tcp(client, 40_000, vip, 22)),
            ("another protocol's port", udp(client, 40_000, vip, 80)),
            ("SCTP", raw(client, vip, 132, &[0; 32])),
        ]
        .map(|(name, packet)| {
            Case::new(format!("{name} of {vip}")).given(&world).send(packet).expect_passed(Verdict::Unmatched)
        })
        .into_iter()
        .chain([Case::new(format!("the port of a service of {vip}"))
            .given(&world)
            .send(matched.clone())
            .expect_tx(Verdict::L2, backend_of(vip), &sent_on(&matched))])
    }));
}

#[test]
fn port_zero_takes_every_port_but_those_with_a_service_of_their_own() {
    let world = world()
        .with(service(VIP4, 0).backend(A4, Way::l2()))
        .with(service(VIP4, 443).backend(B4, Way::gue(B4)))
        .with(service(VIP4, 53).udp().backend(A6, Way::l2()));
    let any_port = [1, 80, 442, 444, 65_535].map(|port| {
        let packet = tcp(CLIENT4, 40_000, VIP4, port);
        let expected = sent_on(&packet);
        Case::new(format!("TCP port {port}")).given(&world).send(packet).expect_tx(Verdict::L2, A4, &expected)
    });
    let exact = tcp(CLIENT4, 40_000, VIP4, 443);
    let hash = packets_tests::flow_hash(&world, &exact);
    let entropy = u16::try_from(0xc000 | (hash & 0x3fff)).unwrap();
    let expected = packets_tests::gue(NODE4, B4, entropy, &exact.clone().ttl(63));
    check(
        any_port.into_iter().chain([
            Case::new("the port of its own").given(&world).send(exact).expect_tx(
                Verdict::Gue,
                B4,
                &expected.frame().between(NODE_MAC, NEXT_MAC),
            ),
            Case::new("UDP has no port zero here")
                .given(&world)
                .send(udp(CLIENT4, 40_000, VIP4, 54))
                .expect_drop(DropReason::NoService),
        ]),
    );
}

#[test]
fn arp_for_a_vip_is_dropped_and_other_arp_passes() {
    let (IpAddr::V4(vip), other) = (VIP4, Ipv4Addr::new(192, 0, 2, 1)) else { unreachable!("VIP4 is an IPv4 address") };
    let cases = [&[][..], &[100], &[100, 200]].map(|tags| {
        [
            Case::new(format!("a request for a VIP, tags {tags:?}"))
                .given(&web())
                .send(arp(1, vip).tagged(tags))
                .expect_drop(DropReason::Arp),
            Case::new(format!("a request for another address, tags {tags:?}"))
                .given(&web())
                .send(arp(1, other).tagged(tags))
                .expect_untouched(),
            Case::new(format!("an answer to a VIP, tags {tags:?}"))
                .given(&web())
                .send(arp(2, vip).tagged(tags))
                .expect_untouched(),
        ]
    });
    check(cases.into_iter().flatten());
}

#[test]
fn more_extension_headers_than_are_followed_are_dropped() {
    let options = [0, 1, 4, 0, 0, 0, 0];
    let with =
        |count: usize| (0..count).fold(tcp(CLIENT6, 40_000, VIP6, 80), |packet, _| packet.extension(60, &options));
    let six = with(6);
    check([
        Case::new("six are followed").given(&web()).send(six.clone()).expect_tx(Verdict::L2, A6, &sent_on(&six)),
        Case::new("seven are not").given(&web()).send(with(7)).expect_drop(DropReason::ExtensionHeaders),
    ]);
}

#[test]
fn header_lengths_that_cannot_be_are_dropped() {
    let (v4, v6) = (tcp(CLIENT4, 40_000, VIP4, 80).frame(), tcp(CLIENT6, 40_000, VIP6, 80));
    let v6_extended = v6.extension(60, &[0, 1, 4, 0, 0, 0, 0]).frame();
    let ihl = |ihl: u8| v4.clone().patched(0, &[0x40 | ihl]);
    let total = |length: u16| v4.clone().patched(2, &length.to_be_bytes());
    let payload = |length: u16| v6_extended.clone().patched(4, &length.to_be_bytes());
    let cases = [
        ("IHL 0", ihl(0), DropReason::BadIpv4Header),
        ("IHL 4", ihl(4), DropReason::BadIpv4Header),
        ("total length 0", total(0), DropReason::BadIpv4Header),
        ("total length 19", total(19), DropReason::BadIpv4Header),
        ("total length 20: no TCP header", total(20), DropReason::Truncated),
        ("total length 39: half a TCP header", total(39), DropReason::Truncated),
        ("longer than the frame", total(500), DropReason::Truncated),
        ("payload length 7: half an extension header", payload(7), DropReason::BadIpv6Header),
        ("payload length 8: no TCP header", payload(8), DropReason::Truncated),
        ("payload length 27: half a TCP header", payload(27), DropReason::Truncated),
        ("a payload longer than the frame", payload(500), DropReason::Truncated),
    ];
    check(cases.map(|(name, frame, reason)| Case::new(name).given(&web()).send(frame).expect_drop(reason)));
}

#[test]
fn a_service_without_a_backend_drops() {
    let packet = tcp(CLIENT4, 40_000, VIP4, 80);
    check([
        Case::new("no backend at all")
            .given(&world().with(service(VIP4, 80)))
            .send(packet.clone())
            .expect_drop(DropReason::NoBackend),
        Case::new("none that takes flows")
            .given(&world().with(service(VIP4, 80).held().idle_backend(A4, Way::l2())))
            .send(packet)
            .expect_drop(DropReason::NoBackend),
    ]);
}

#[test]
fn a_backend_that_is_out_of_reach_drops() {
    let packet = tcp(CLIENT4, 40_000, VIP4, 80);
    let mut no_devices = world().with(service(VIP4, 80).backend(A4, Way::l2().out_of(OUT)));
    no_devices.devices.clear();
    check([
        Case::new("the next hop is not known")
            .given(&world().with(service(VIP4, 80).backend(A4, Way::unknown())))
            .send(packet.clone())
            .expect_drop(DropReason::NextHopUnknown),
        Case::new("the backend is this node, which does not hold the VIP")
            .given(&world().with(service(VIP4, 80).backend(NODE4, Way::local())))
            .send(packet.clone())
            .expect_drop(DropReason::NotHeld),
        Case::new("the interface is not in the device map")
            .given(&no_devices)
            .send(packet.clone())
            .expect_late_drop(DropReason::NoDevice, &sent_on(&packet)),
    ]);
}

#[test]
fn an_id_that_names_nobody_any_more_drops() {
    use lb_agent::plan::MapOp;
    let mut bed = Bed::holding(&web());
    let key = service(VIP4, 80).key();
    let id = bed.state().services[&key].backends.values().next().unwrap().id;
    bed.perform(&MapOp::ForgetBackend { index: id.index(), generation: id.generation() });
    let before = bed.counts();
    let outcome = bed.send(&tcp(CLIENT4, 40_000, VIP4, 80).frame().bytes(), IN);
    assert!(outcome.is_dropped(), "{outcome:?}");
    assert_eq!(bed.counts().since(&before), Counts::of_drop(DropReason::StaleBackend));
}
