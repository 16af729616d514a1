//! ICMP for VIPs: errors go where their flow goes, echo requests end where the VIP is held.

use std::{collections::BTreeSet, net::IpAddr};

use lb_common::verdict::{DropReason, Verdict};
use packets_tests::{
    Bed, Case, Frame, IN, IcmpError, MacBytes, OUT, Packet, Way, World, addresses::*, check, echo_request, flow_hash,
    gue, icmp_error, ipip, raw, service, tcp, udp, world,
};

const FLOWS: [(IpAddr, IpAddr); 2] = [(CLIENT4, VIP4), (CLIENT6, VIP6)];
const TAGS: [&[u16]; 3] = [&[], &[100], &[100, 200]];

/// A router on the client's side.
fn router(of: IpAddr) -> IpAddr {
    let address = if of.is_ipv4() { "198.18.0.1" } else { "2001:db8:a::1" };
    address.parse().expect("an address")
}

fn backend_of(vip: IpAddr) -> IpAddr {
    if vip.is_ipv4() { A4 } else { A6 }
}

/// TCP port 80 of both VIPs, each with one backend.
fn web(way: impl Fn(IpAddr) -> Way) -> World {
    [VIP4, VIP6]
        .into_iter()
        .fold(world(), |world, vip| world.with(service(vip, 80).backend(backend_of(vip), way(backend_of(vip)))))
}

/// What the VIP sends to the client.
fn reply(client: IpAddr, vip: IpAddr) -> Packet {
    tcp(vip, 80, client, 40_000)
}

/// The header and 8 bytes of a packet.
fn shortest(packet: &Packet) -> Vec<u8> {
    packet.bytes()[..if packet.source().is_ipv4() { 28 } else { 48 }].to_vec()
}

/// An error about a reply of the VIP.
fn error(vip: IpAddr, error: IcmpError, quote: &[u8]) -> Packet {
    icmp_error(router(vip), vip, error, quote)
}

fn sent_on(packet: &Packet) -> Frame {
    packet.clone().ttl(63).frame().between(NODE_MAC, NEXT_MAC)
}

#[test]
fn errors_of_every_kind_go_to_the_flows_backend() {
    let world = web(|_| Way::l2());
    check(FLOWS.into_iter().flat_map(|(client, vip)| IcmpError::ALL.map(|kind| (client, vip, kind))).flat_map(
        |(client, vip, kind)| {
            let world = &world;
            TAGS.map(move |tags| {
                let packet = error(vip, kind, &shortest(&reply(client, vip)));
                Case::new(format!("{kind:?} to {vip}, tags {tags:?}")).given(world).send(packet.tagged(tags)).expect_tx(
                    Verdict::L2,
                    backend_of(vip),
                    &sent_on(&packet),
                )
            })
        },
    ));
}

#[test]
fn errors_take_the_tunnel_of_their_flow() {
    for (client, vip) in FLOWS {
        let packet = error(vip, IcmpError::TooBig(1400), &reply(client, vip).bytes());
        let inner = packet.clone().ttl(63);
        for to in [A4, A6] {
            let from = if to.is_ipv4() { NODE4 } else { NODE6 };
            let world = |way| world().with(service(vip, 80).backend(to, way));
            // The entropy is that of the flow, so that the error cannot overtake it by much.
            let hash = flow_hash(&world(Way::l2()), &tcp(client, 40_000, vip, 80));
            let entropy = u16::try_from(0xc000 | (hash & 0x3fff)).unwrap();
            let label = u32::try_from(hash & 0xf_ffff).unwrap();
            let framed = |packet: Packet| packet.flow_label(label).frame().between(NODE_MAC, NEXT_MAC);
            check([
                Case::new(format!("{vip} by ipip to {to}"))
                    .given(&world(Way::ipip(to)))
                    .send(packet.clone())
                    .expect_tx(Verdict::Ipip, to, &framed(ipip(from, to, &inner))),
                Case::new(format!("{vip} by gue to {to}")).given(&world(Way::gue(to))).send(packet.clone()).expect_tx(
                    Verdict::Gue,
                    to,
                    &framed(gue(from, to, entropy, &inner)),
                ),
                Case::new(format!("{vip} by another interface"))
                    .given(&world(Way::l2().out_of(OUT)))
                    .send(packet.clone())
                    .expect_redirect(Verdict::L2, to, &sent_on(&packet)),
            ]);
        }
    }
}

#[test]
fn an_error_goes_wherever_its_flow_goes() {
    const MACS: [MacBytes; 2] = [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2]];
    let between_two = |vip: IpAddr, udp: bool| {
        let (a, b) = if vip.is_ipv4() { (A4, B4) } else { (A6, B6) };
        let service = service(vip, 80).backend(a, Way::l2().next(MACS[0])).backend(b, Way::l2().next(MACS[1]));
        if udp { service.udp() } else { service }
    };
    let services = [(VIP4, false), (VIP4, true), (VIP6, false), (VIP6, true)];
    let world = services.into_iter().fold(world(), |world, (vip, udp)| world.with(between_two(vip, udp)));
    let mut bed = Bed::holding(&world);
    for (client, vip) in FLOWS {
        for transport in [tcp, udp] {
            let mut met = BTreeSet::new();
            for port in 40_000..40_100 {
                let flow = bed.send(&transport(client, port, vip, 80).frame().bytes(), IN);
                let packet = error(vip, IcmpError::TooBig(1400), &shortest(&transport(vip, 80, client, port)));
                let error = bed.send(&packet.frame().bytes(), IN);
                let mac = MACS.into_iter().find(|mac| flow.frame.starts_with(mac)).unwrap();
                assert_eq!(error.frame, packet.ttl(63).frame().between(NODE_MAC, mac).bytes(), "{client} {port} {vip}");
                assert_eq!(error.action, flow.action);
                met.insert(mac);
            }
            assert_eq!(met.len(), MACS.len(), "both backends have flows");
        }
    }
}

#[test]
fn an_error_ends_where_its_flow_ends() {
    let case = |name: &str| Case::new(name.to_owned());
    for (client, vip) in FLOWS {
        let packet = error(vip, IcmpError::TooBig(1400), &shortest(&reply(client, vip)));
        let one = |way| world().with(service(vip, 80).held().backend(A4, way));
        let unheld = world().with(service(vip, 80).backend(A4, Way::local()));
        let from_peer = packet.frame().between(PEER_MAC, NODE_MAC);
        check([
            case("on this node").given(&one(Way::local())).send(packet.clone()).expect_local(A4),
            case("on this node, not held").given(&unheld).send(packet.clone()).expect_drop(DropReason::NotHeld),
            case("directed").given(&one(Way::l2())).send(from_peer).expect_passed(Verdict::Directed),
            case("no way").given(&one(Way::unknown())).send(packet.clone()).expect_drop(DropReason::NextHopUnknown),
            case("another port")
                .given(&one(Way::l2()))
                .send(error(vip, IcmpError::TooBig(1400), &shortest(&tcp(vip, 81, client, 40_000))))
                .expect_drop(DropReason::NoService),
            case("TTL used up: errors are not answered")
                .given(&one(Way::l2()))
                .send(packet.clone().ttl(1))
                .expect_drop(DropReason::TtlExpired),
            case("too long: errors are not answered")
                .given(&one(Way::l2().mtu(60)))
                .send(error(vip, IcmpError::TooBig(1400), &reply(client, vip).bytes()))
                .expect_drop(DropReason::TooBig),
        ]);
    }
}

#[test]
fn quotes_with_options_extension_headers_and_first_fragments_are_read() {
    let world = web(|_| Way::l2());
    let fragment_header = |offset: u16, more: u16| {
        let [high, low] = (offset << 3 | more).to_be_bytes();
        [0, high, low, 0, 0, 0, 9]
    };
    let options = [0, 1, 4, 0, 0, 0, 0];
    let good = [
        ("IPv4 options", VIP4, reply(CLIENT4, VIP4).options(&[1; 8])),
        ("all IPv4 options", VIP4, reply(CLIENT4, VIP4).options(&[1; 40])),
        ("the first fragment of IPv4", VIP4, reply(CLIENT4, VIP4).fragment(0, true)),
        ("an extension header", VIP6, reply(CLIENT6, VIP6).extension(60, &options)),
        ("two extension headers", VIP6, reply(CLIENT6, VIP6).extension(0, &options).extension(60, &options)),
        ("the first fragment of IPv6", VIP6, reply(CLIENT6, VIP6).extension(44, &fragment_header(0, 1))),
    ];
    let bad = [
        ("a later fragment of IPv4", VIP4, reply(CLIENT4, VIP4).fragment(100, false)),
        ("a later fragment of IPv6", VIP6, reply(CLIENT6, VIP6).extension(44, &fragment_header(100, 1))),
        (
            "seven extension headers",
            VIP6,
            (0..7).fold(reply(CLIENT6, VIP6), |packet, _| packet.extension(60, &options)),
        ),
        ("another's packet", VIP4, tcp(STRANGER4, 80, CLIENT4, 40_000)),
        ("another's IPv6 packet", VIP6, tcp(STRANGER6, 80, CLIENT6, 40_000)),
        ("the client's packet", VIP4, tcp(CLIENT4, 40_000, VIP4, 80)),
    ];
    check(
        good.map(|(name, vip, quoted)| {
            let packet = error(vip, IcmpError::TooBig(1400), &quoted.bytes());
            Case::new(name).given(&world).send(packet.clone()).expect_tx(
                Verdict::L2,
                backend_of(vip),
                &sent_on(&packet),
            )
        })
        .into_iter()
        .chain(bad.map(|(name, vip, quoted)| {
            let packet = error(vip, IcmpError::TooBig(1400), &quoted.bytes());
            Case::new(name).given(&world).send(packet).expect_drop(DropReason::BadQuote)
        })),
    );
}

#[test]
fn a_quote_that_is_cut_off_is_dropped_at_every_length() {
    let world = web(|_| Way::l2());
    check(FLOWS.into_iter().flat_map(|(client, vip)| {
        let (quote, world) = (shortest(&reply(client, vip)), &world);
        (0..quote.len()).map(move |length| {
            let packet = error(vip, IcmpError::Unreachable, &quote[..length]);
            // Padding is no part of the packet.
            let frame = if length % 2 == 0 { packet.frame() } else { packet.frame().padded(64) };
            Case::new(format!("{length} bytes quoted, to {vip}"))
                .given(world)
                .send(frame)
                .expect_drop(DropReason::BadQuote)
        })
    }));
}

#[test]
fn an_error_that_is_cut_off_is_dropped() {
    let world = web(|_| Way::l2());
    let whole = error(VIP4, IcmpError::Unreachable, &shortest(&reply(CLIENT4, VIP4))).frame();
    let length = |bytes: u16| whole.clone().patched(2, &bytes.to_be_bytes());
    check([
        Case::new("inside the ICMP header").given(&world).send(length(27)).expect_drop(DropReason::Truncated),
        Case::new("longer than the frame").given(&world).send(length(500)).expect_drop(DropReason::Truncated),
        Case::new("behind the ICMP header").given(&world).send(length(28)).expect_drop(DropReason::BadQuote),
    ]);
}

#[test]
fn icmp_for_other_addresses_is_not_ours() {
    let world = web(|_| Way::l2());
    check([(CLIENT4, VIP4, STRANGER4), (CLIENT6, VIP6, STRANGER6)].into_iter().flat_map(|(client, vip, other)| {
        IcmpError::ALL
            .map(|kind| {
                let packet = icmp_error(router(vip), other, kind, &reply(client, vip).bytes());
                Case::new(format!("{kind:?} to {other}")).given(&world).send(packet).expect_untouched()
            })
            .into_iter()
            .chain([Case::new(format!("an echo request to {other}"))
                .given(&world)
                .send(echo_request(client, other))
                .expect_untouched()])
    }));
}

#[test]
fn a_tunneled_error_is_stripped_where_the_vip_is_held() {
    for (client, vip) in FLOWS {
        let inner = error(vip, IcmpError::TooBig(1400), &shortest(&reply(client, vip)));
        let held = world().with(service(vip, 80).held().backend(A4, Way::local()));
        let unheld = world().with(service(vip, 80).backend(A4, Way::l2()));
        let other = error(vip, IcmpError::TooBig(1400), &shortest(&tcp(vip, 81, client, 40_000)));
        let tunnels =
            |inner: &Packet| [ipip(PEER4, NODE4, inner), gue(PEER4, NODE4, 50_000, inner), ipip(PEER6, NODE6, inner)];
        check(
            tunnels(&inner)
                .map(|outer| Case::new("held").given(&held).send(outer).expect_stripped(&inner.frame()))
                .into_iter()
                .chain(
                    tunnels(&inner)
                        .map(|outer| Case::new("not held").given(&unheld).send(outer).expect_drop(DropReason::NotHeld)),
                )
                .chain(tunnels(&other).map(|outer| {
                    Case::new("another port").given(&held).send(outer).expect_drop(DropReason::NoService)
                })),
        );
    }
}

#[test]
fn an_echo_request_ends_where_the_vip_is_held() {
    for (client, vip) in FLOWS {
        let held = world().with(service(vip, 80).held().backend(A4, Way::l2()));
        let unheld = world().with(service(vip, 80).backend(A4, Way::l2()));
        let echo = echo_request(client, vip);
        // Its answer met a router as well.
        let about = error(vip, IcmpError::TooBig(1400), &echo_request(vip, client).bytes());
        for tags in TAGS {
            check([
                Case::new("held").given(&held).send(echo.tagged(tags)).expect_passed(Verdict::Icmp),
                Case::new("not held").given(&unheld).send(echo.tagged(tags)).expect_drop(DropReason::EchoNotHeld),
                Case::new("an error, held").given(&held).send(about.tagged(tags)).expect_passed(Verdict::Icmp),
                Case::new("an error").given(&unheld).send(about.tagged(tags)).expect_drop(DropReason::EchoNotHeld),
            ]);
        }
        let outer = gue(PEER4, NODE4, 50_000, &echo);
        check([
            Case::new("through a tunnel, held").given(&held).send(outer.clone()).expect_stripped(&echo.frame()),
            Case::new("through a tunnel").given(&unheld).send(outer).expect_drop(DropReason::EchoNotHeld),
        ]);
    }
    let held = world().with(service(VIP4, 80).held().backend(A4, Way::l2()));
    check(
        [
            Case::new("the first fragment").given(&held).send(echo_request(CLIENT4, VIP4).fragment(0, true)),
            Case::new("a later fragment").given(&held).send(raw(CLIENT4, VIP4, 1, &[0; 32]).fragment(100, false)),
        ]
        .map(|case| case.expect_passed(Verdict::Icmp)),
    );
}

#[test]
fn other_icmp_for_a_vip_is_dropped() {
    let held = world()
        .with(service(VIP4, 80).held().backend(A4, Way::l2()))
        .with(service(VIP6, 80).held().backend(A6, Way::l2()));
    let message = |client, vip, number, first| raw(client, vip, number, &[&[first][..], &[0; 63]].concat());
    // Echo reply, source quench, redirect, timestamp; echo reply, multicast listener query, router advertisement, redirect.
    let v4 = [0, 4, 5, 13].map(|first| message(CLIENT4, VIP4, 1, first));
    let v6 = [129, 130, 134, 137].map(|first| message(CLIENT6, VIP6, 58, first));
    check(v4.into_iter().chain(v6).map(|packet| {
        Case::new(format!("{packet:?}")).given(&held).send(packet).expect_drop(DropReason::IcmpUnwanted)
    }));
    check([135, 136].map(|first| {
        let packet = message(CLIENT6, VIP6, 58, first);
        Case::new("neighbour discovery").given(&held).send(packet).expect_passed(Verdict::Icmp)
    }));
    check([
        Case::new("ICMPv6 over IPv4")
            .given(&held)
            .send(message(CLIENT4, VIP4, 58, 128))
            .expect_drop(DropReason::NoService),
        Case::new("ICMP over IPv6").given(&held).send(message(CLIENT6, VIP6, 1, 8)).expect_drop(DropReason::NoService),
    ]);
}
