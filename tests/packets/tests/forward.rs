//! Every delivery, both families and protocols, every depth of tags.

use std::net::IpAddr;

use lb_common::verdict::Verdict;
use packets_tests::{
    Ability, BESIDE, Case, Frame, IN, IcmpError, OUT, Packet, Way, World, addresses::*, answer, check, flow_hash, gue,
    ipip, service, tcp, udp, world,
};

/// A service of each family and protocol, all on port 80, with one backend.
fn serving(backend: IpAddr, way: Way) -> [(World, Packet); 4] {
    let flows = [(CLIENT4, VIP4), (CLIENT6, VIP6)];
    let [v4, v6] = flows.map(|(client, vip)| {
        let tcp_service = service(vip, 80).backend(backend, way);
        let udp_service = service(vip, 80).udp().backend(backend, way);
        [
            (world().with(tcp_service), tcp(client, 40_000, vip, 80)),
            (world().with(udp_service), udp(client, 40_000, vip, 80)),
        ]
    });
    let [v4_tcp, v4_udp] = v4;
    let [v6_tcp, v6_udp] = v6;
    [v4_tcp, v4_udp, v6_tcp, v6_udp]
}

/// What the frame is like that leaves, given the packet before.
type Leaving = fn(&World, &Packet) -> Packet;

fn by_l2(_: &World, packet: &Packet) -> Packet {
    packet.clone().ttl(63)
}

fn by_ipip4(_: &World, packet: &Packet) -> Packet {
    ipip(NODE4, A4, &packet.clone().ttl(63)).class(packet.traffic_class() & 0xfc)
}

fn by_ipip6(world: &World, packet: &Packet) -> Packet {
    let label = u32::try_from(flow_hash(world, packet) & 0xf_ffff).expect("few bits");
    ipip(NODE6, A6, &packet.clone().ttl(63)).class(packet.traffic_class() & 0xfc).flow_label(label)
}

fn entropy(world: &World, packet: &Packet) -> u16 {
    let port = u16::try_from(0xc000 | (flow_hash(world, packet) & 0x3fff)).expect("few bits");
    assert!(port >= 49_152, "{port} is no ephemeral port");
    port
}

fn by_gue4(world: &World, packet: &Packet) -> Packet {
    gue(NODE4, A4, entropy(world, packet), &packet.clone().ttl(63)).class(packet.traffic_class() & 0xfc)
}

fn by_gue6(world: &World, packet: &Packet) -> Packet {
    let label = u32::try_from(flow_hash(world, packet) & 0xf_ffff).expect("few bits");
    gue(NODE6, A6, entropy(world, packet), &packet.clone().ttl(63))
        .class(packet.traffic_class() & 0xfc)
        .flow_label(label)
}

fn deliveries() -> [(&'static str, Verdict, IpAddr, Way, Leaving); 5] {
    [
        ("l2", Verdict::L2, A4, Way::l2(), by_l2),
        ("ipip over IPv4", Verdict::Ipip, A4, Way::ipip(A4), by_ipip4),
        ("ipip over IPv6", Verdict::Ipip, A6, Way::ipip(A6), by_ipip6),
        ("gue over IPv4", Verdict::Gue, A4, Way::gue(A4), by_gue4),
        ("gue over IPv6", Verdict::Gue, A6, Way::gue(A6), by_gue6),
    ]
}

fn leaving(packet: &Packet, tag: u16) -> Frame {
    let frame = packet.frame().between(NODE_MAC, NEXT_MAC);
    if tag == 0 { frame } else { frame.tagged(&[tag]) }
}

fn what(packet: &Packet) -> String {
    let family = if packet.source().is_ipv4() { 4 } else { 6 };
    format!("IPv{family} protocol {}", packet.protocol())
}

#[test]
fn every_delivery_rewrites_as_its_specification_says() {
    let mut cases = Vec::new();
    for (name, verdict, backend, way, rewritten) in deliveries() {
        for tag_out in [0, 300] {
            for tags_in in [&[][..], &[100], &[100, 200]] {
                for (world, packet) in serving(backend, way.tagged(tag_out)) {
                    let packet = packet.class(0xb8 | 1); // expedited forwarding, ECT(1)
                    let name = format!("{name}, {}, tags {tags_in:?} in, {tag_out} out", what(&packet));
                    let expected = leaving(&rewritten(&world, &packet), tag_out);
                    cases.push(
                        Case::new(name)
                            .given(&world)
                            .send(packet.tagged(tags_in))
                            .expect_tx(verdict, backend, &expected),
                    );
                }
            }
        }
    }
    check(cases);
}

#[test]
fn a_way_out_by_another_interface_is_a_redirect() {
    check(deliveries().into_iter().flat_map(|(name, verdict, backend, way, rewritten)| {
        serving(backend, way.out_of(OUT)).map(|(world, packet)| {
            let expected = leaving(&rewritten(&world, &packet), 0);
            Case::new(format!("{name}, {}", what(&packet)))
                .given(&world)
                .send(packet)
                .expect_redirect(verdict, backend, &expected)
        })
    }));
}

#[test]
fn a_backend_on_this_node_gets_packets_as_they_came() {
    let flows = [(CLIENT4, VIP4), (CLIENT6, VIP6)];
    check(flows.into_iter().flat_map(|(client, vip)| {
        [&[][..], &[100], &[100, 200]].map(|tags| {
            let packet = tcp(client, 40_000, vip, 80).ttl(1); // the last hop
            Case::new(format!("to {vip}, tags {tags:?}"))
                .given(&world().with(service(vip, 80).held().backend(NODE4, Way::local())))
                .send(packet.tagged(tags))
                .expect_local(NODE4)
        })
    }));
}

#[test]
fn a_zero_udp_checksum_stays_zero() {
    check(deliveries().into_iter().flat_map(|(name, verdict, backend, way, rewritten)| {
        [(CLIENT4, VIP4), (CLIENT6, VIP6)].map(|(client, vip)| {
            let world = world().with(service(vip, 53).udp().backend(backend, way));
            let packet = udp(client, 40_000, vip, 53).without_checksum();
            let expected = leaving(&rewritten(&world, &packet), 0);
            Case::new(format!("{name}, {}", what(&packet)))
                .given(&world)
                .send(packet)
                .expect_tx(verdict, backend, &expected)
        })
    }));
}

#[test]
fn every_ttl_is_decremented_with_the_right_checksum() {
    check((2..=255).map(|ttl| {
        let packet = tcp(CLIENT4, 40_000, VIP4, 80).ttl(ttl);
        Case::new(format!("TTL {ttl}"))
            .given(&world().with(service(VIP4, 80).backend(A4, Way::l2())))
            .send(packet.clone())
            .expect_tx(Verdict::L2, A4, &leaving(&packet.ttl(ttl - 1), 0))
    }));
}

#[test]
fn every_traffic_class_is_copied_without_its_ecn_bits() {
    let (_, verdict, backend, way, rewritten) = deliveries()[3];
    check((0..=255).step_by(5).map(|class| {
        let world = world().with(service(VIP4, 80).backend(backend, way));
        let packet = tcp(CLIENT4, 40_000, VIP4, 80).class(class);
        let expected = leaving(&rewritten(&world, &packet), 0);
        Case::new(format!("traffic class {class:#04x}"))
            .given(&world)
            .send(packet)
            .expect_tx(verdict, backend, &expected)
    }));
}

#[test]
fn what_lies_behind_a_short_packet_is_no_part_of_it() {
    check(deliveries().into_iter().map(|(name, verdict, backend, way, rewritten)| {
        let world = world().with(service(VIP4, 80).backend(backend, way));
        let packet = tcp(CLIENT4, 40_000, VIP4, 80).data(b"");
        let expected = leaving(&rewritten(&world, &packet), 0).padded(6);
        Case::new(name).given(&world).send(packet.frame().padded(6)).expect_tx(verdict, backend, &expected)
    }));
}

#[test]
fn a_packet_in_several_buffers_goes_on_whole() {
    if !Ability::Buffers.is_there("a_packet_in_several_buffers_goes_on_whole") {
        return;
    }
    check(deliveries().into_iter().flat_map(|(name, verdict, backend, way, rewritten)| {
        serving(backend, way.mtu(9000)).map(|(world, packet)| {
            let packet = packet.data(&[0x5a; 8001]);
            let expected = leaving(&rewritten(&world, &packet), 0);
            Case::new(format!("{name}, {}", what(&packet)))
                .given(&world)
                .send(packet)
                .expect_tx(verdict, backend, &expected)
        })
    }));
}

#[test]
fn options_and_extension_headers_go_on_with_the_packet() {
    let hop_by_hop = (0, vec![0, 1, 4, 0, 0, 0, 0]);
    let routing = (43, vec![1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let authentication = (51, vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let destination = (60, vec![0, 1, 4, 0, 0, 0, 0]);
    let atomic_fragment = (44, vec![0, 0, 0, 0, 0, 0, 9]);
    let chains = [
        vec![hop_by_hop.clone()],
        vec![atomic_fragment.clone()],
        vec![hop_by_hop, destination.clone(), routing, atomic_fragment, authentication, destination],
    ];
    let v4 = [&[1, 1, 1, 0][..], &[7; 40]].map(|options| tcp(CLIENT4, 40_000, VIP4, 80).options(options));
    let v6 = chains.map(|chain| {
        chain.into_iter().fold(tcp(CLIENT6, 40_000, VIP6, 80), |packet, (number, rest)| packet.extension(number, &rest))
    });
    check(v4.into_iter().chain(v6).enumerate().flat_map(|(number, packet)| {
        deliveries().map(|(name, verdict, backend, way, rewritten)| {
            let world = world().with(service(packet.destination(), 80).backend(backend, way));
            let expected = leaving(&rewritten(&world, &packet), 0);
            Case::new(format!("packet {number} by {name}"))
                .given(&world)
                .send(packet.clone())
                .expect_tx(verdict, backend, &expected)
        })
    }));
}

#[test]
fn a_packet_as_long_as_the_mtu_goes_and_one_byte_more_is_too_big() {
    use lb_common::verdict::DropReason;
    check(
        deliveries()
            .into_iter()
            .flat_map(|(name, verdict, backend, way, rewritten)| {
                serving(backend, way).map(move |(_, packet)| (name, verdict, backend, way, rewritten, packet))
            })
            .flat_map(|(name, verdict, backend, way, rewritten, packet)| {
                let of = |mtu: usize| {
                    let service =
                        service(packet.destination(), 80).backend(backend, way.mtu(u16::try_from(mtu).unwrap()));
                    world().with(if packet.protocol() == 17 { service.udp() } else { service })
                };
                let length = rewritten(&of(1500), &packet).bytes().len();
                let expected = leaving(&rewritten(&of(1500), &packet), 0);
                let longer = Case::new(format!("{name}, {}, too big", what(&packet)))
                    .given(&of(length - 1))
                    .send(packet.clone());
                let room = IcmpError::TooBig(u16::try_from(packet.bytes().len() - 1).unwrap().max(68)); // RFC 791
                [
                    Case::new(format!("{name}, {}, fits", what(&packet)))
                        .given(&of(length))
                        .send(packet.clone())
                        .expect_tx(verdict, backend, &expected),
                    if packet.source().is_ipv4() {
                        let told = answer(NODE4, room, &packet);
                        longer.expect_answer(Verdict::TooBigTold, &told.frame().between(NODE_MAC, ROUTER_MAC))
                    } else {
                        longer.expect_drop(DropReason::TooBig) // shorter than any IPv6 link's MTU
                    },
                ]
            }),
    );
}

#[test]
fn the_interface_a_packet_came_in_by_is_where_it_leaves_by_only_if_the_hop_says_so() {
    let world = world().with(service(VIP4, 80).backend(A4, Way::l2().out_of(IN)));
    let packet = tcp(CLIENT4, 40_000, VIP4, 80).syn();
    let expected = leaving(&packet.clone().ttl(63), 0);
    check([Case::new("the same interface").given(&world).send(packet).expect_tx(Verdict::L2, A4, &expected)]);
}

#[test]
fn a_packet_that_came_in_by_another_interface_is_redirected_to_the_hops() {
    if !Ability::Context.is_there("a_packet_that_came_in_by_another_interface_is_redirected_to_the_hops") {
        return;
    }
    let packet = tcp(CLIENT4, 40_000, VIP4, 80).syn();
    let expected = leaving(&packet.clone().ttl(63), 0);
    let case = |name: &str, interface: u32| {
        let world = world().with(service(VIP4, 80).backend(A4, Way::l2().out_of(OUT)));
        Case::new(name).given(&world).by(interface).send(packet.clone())
    };
    check([
        case("in by the hop's interface", OUT).expect_tx(Verdict::L2, A4, &expected),
        case("in by one beside", BESIDE).expect_redirect(Verdict::L2, A4, &expected),
    ]);
}
