//! Tunnels that end on this node, and packets that another director on the link has sent here.

use std::net::IpAddr;

use lb_common::{
    hash::filter_bit,
    verdict::{DropReason, Verdict},
};
use packets_tests::{
    Case, Packet, Way, World, addresses::*, check, echo_request, gue, gue_with_header, ipip, raw, service, tcp, udp,
    world,
};

/// Puts a packet into a tunnel between two nodes, each named by the last part of its addresses.
type Tunnel = fn(Ends, &Packet) -> Packet;
type Ends = [(IpAddr, IpAddr); 2];

const FROM_PEER: Ends = [(PEER4, NODE4), (PEER6, NODE6)];
const FROM_STRANGER: Ends = [(STRANGER4, NODE4), (STRANGER6, NODE6)];
const ELSEWHERE: Ends = [(PEER4, STRANGER4), (PEER6, STRANGER6)];

const TUNNELS: [(&str, Tunnel); 4] = [
    ("ipip over IPv4", |[(from, to), _], packet| ipip(from, to, packet)),
    ("ipip over IPv6", |[_, (from, to)], packet| ipip(from, to, packet)),
    ("gue over IPv4", |[(from, to), _], packet| gue(from, to, 50_000, packet)),
    ("gue over IPv6", |[_, (from, to)], packet| gue(from, to, 50_000, packet)),
];

/// Both VIPs, held, with backends on this node and elsewhere.
fn holding() -> World {
    [VIP4, VIP6]
        .into_iter()
        .flat_map(|vip| [service(vip, 80), service(vip, 80).udp()])
        .map(|service| service.held().backend(A4, Way::gue(A4)).backend(NODE4, Way::local()))
        .fold(world(), World::with)
}

/// The same, held by other nodes only.
fn not_holding() -> World {
    [VIP4, VIP6]
        .into_iter()
        .flat_map(|vip| [service(vip, 80), service(vip, 80).udp()])
        .map(|service| service.backend(A4, Way::gue(A4)))
        .fold(world(), World::with)
}

fn packets() -> [Packet; 4] {
    [
        tcp(CLIENT4, 40_000, VIP4, 80).ttl(63),
        udp(CLIENT4, 40_000, VIP4, 80).ttl(63),
        tcp(CLIENT6, 40_000, VIP6, 80).ttl(63),
        udp(CLIENT6, 40_000, VIP6, 80).ttl(63),
    ]
}

fn what(tunnel: &str, packet: &Packet) -> String {
    format!("{} protocol {} in {tunnel}", packet.destination(), packet.protocol())
}

/// A case per tunnel and packet.
fn each(ends: Ends, packets: &[Packet], case: impl Fn(Case, Packet, &Packet) -> Case) {
    check(TUNNELS.iter().flat_map(|(name, tunnel)| {
        packets
            .iter()
            .map(|packet| case(Case::new(what(name, packet)), tunnel(ends, packet), packet))
            .collect::<Vec<_>>()
    }));
}

#[test]
fn a_tunnel_from_a_peer_is_stripped_to_the_packet_it_carries() {
    for tags in [&[][..], &[100], &[100, 200]] {
        each(FROM_PEER, &packets(), |case, outer, inner| {
            case.given(&holding()).send(outer.tagged(tags)).expect_stripped(&inner.tagged(tags))
        });
    }
}

#[test]
fn ports_of_no_service_in_a_tunnel_are_dropped() {
    let packets = [tcp(CLIENT4, 40_000, VIP4, 81), udp(CLIENT6, 40_000, VIP6, 81)];
    each(FROM_PEER, &packets, |case, outer, _| case.given(&holding()).send(outer).expect_drop(DropReason::NoService));
}

#[test]
fn icmp_in_a_tunnel_is_stripped() {
    let packets = [echo_request(CLIENT4, VIP4), echo_request(CLIENT6, VIP6)];
    each(FROM_PEER, &packets, |case, outer, inner| case.given(&holding()).send(outer).expect_stripped(&inner.frame()));
}

#[test]
fn another_protocol_in_a_tunnel_is_dropped() {
    let packets = [raw(CLIENT4, VIP4, 132, &[0; 32]), raw(CLIENT6, VIP6, 47, &[0; 32])];
    each(FROM_PEER, &packets, |case, outer, _| case.given(&holding()).send(outer).expect_drop(DropReason::NoService));
}

#[test]
fn options_and_extension_headers_of_the_packet_inside_are_kept() {
    let packets = [
        tcp(CLIENT4, 40_000, VIP4, 80).options(&[1, 1, 1, 0]),
        tcp(CLIENT6, 40_000, VIP6, 80).extension(60, &[0, 1, 4, 0, 0, 0, 0]),
    ];
    each(FROM_PEER, &packets, |case, outer, inner| case.given(&holding()).send(outer).expect_stripped(&inner.frame()));
}

#[test]
fn a_tunnel_from_somebody_unknown_is_dropped() {
    each(FROM_STRANGER, &packets(), |case, outer, _| {
        case.given(&holding()).send(outer).expect_drop(DropReason::UnknownPeer)
    });
}

#[test]
fn a_tunnel_between_others_is_not_ours() {
    each(ELSEWHERE, &packets(), |case, outer, _| case.given(&holding()).send(outer).expect_untouched());
}

#[test]
fn a_tunnel_that_carries_something_else_is_not_ours() {
    let packets = [tcp(CLIENT4, 40_000, STRANGER4, 80), udp(CLIENT6, 40_000, STRANGER6, 80)];
    for ends in [FROM_PEER, FROM_STRANGER] {
        each(ends, &packets, |case, outer, _| case.given(&holding()).send(outer).expect_untouched());
    }
}

#[test]
fn a_tunnel_to_a_node_that_does_not_hold_the_vip_is_dropped() {
    each(FROM_PEER, &packets(), |case, outer, _| {
        case.given(&not_holding()).send(outer).expect_drop(DropReason::NotHeld)
    });
}

#[test]
fn an_outer_header_with_options_or_in_fragments_is_no_directors() {
    let inner = tcp(CLIENT4, 40_000, VIP4, 80);
    let outer = ipip(PEER4, NODE4, &inner);
    check([
        Case::new("options").given(&holding()).send(outer.clone().options(&[1, 1, 1, 0])).expect_untouched(),
        Case::new("a first fragment").given(&holding()).send(outer.fragment(0, true)).expect_untouched(),
    ]);
}

#[test]
fn a_gue_header_that_is_not_understood_is_a_reason_to_drop() {
    let headers = [
        ("variant 1", [0x40, 4, 0, 0]),
        ("a control message", [0x20, 4, 0, 0]),
        ("extension fields", [0x01, 4, 0, 0]),
        ("flags", [0, 4, 0x80, 0]),
        ("more flags", [0, 4, 0, 1]),
        ("another payload", [0, 47, 0, 0]),
    ];
    let inner = tcp(CLIENT4, 40_000, VIP4, 80);
    check(headers.into_iter().flat_map(|(name, header)| {
        FROM_PEER.map(|(from, to)| {
            Case::new(format!("{name} over {from}"))
                .given(&holding())
                .send(gue_with_header(from, to, 50_000, header, &inner))
                .expect_drop(DropReason::BadTunnel)
        })
    }));
}

#[test]
fn udp_to_another_port_is_no_tunnel() {
    let inner = tcp(CLIENT4, 40_000, VIP4, 80).bytes();
    let outer = udp(PEER4, 50_000, NODE4, 6081).data(&[&[0, 4, 0, 0], &inner[..]].concat());
    check([Case::new("port 6081").given(&holding()).send(outer).expect_untouched()]);
}

#[test]
fn a_tunnel_is_stripped_though_the_nodes_address_shares_the_filter_bit_of_a_vip() {
    let bit = filter_bit(&VIP4.into());
    let node = (0..=u32::MAX)
        .map(|bits| IpAddr::V4(bits.into()))
        .find(|address| *address != VIP4 && filter_bit(&(*address).into()) == bit)
        .unwrap();
    let mut world = holding();
    world.node.push(node);
    let inner = tcp(CLIENT4, 40_000, VIP4, 80);
    check([
        Case::new("a tunnel to that address")
            .given(&world)
            .send(ipip(PEER4, node, &inner))
            .expect_stripped(&inner.frame()),
        Case::new("anything else to that address")
            .given(&world)
            .send(tcp(CLIENT4, 40_000, node, 80))
            .expect_untouched(),
    ]);
}

#[test]
fn what_a_peer_on_the_link_sent_on_is_delivered_here() {
    let flows = [(CLIENT4, PEER4, VIP4, A4), (CLIENT6, PEER6, VIP6, A6)];
    check(flows.into_iter().flat_map(|(client, peer, vip, backend)| {
        let held = world().with(service(vip, 80).held().backend(backend, Way::l2()));
        let not_held = world().with(service(vip, 80).backend(backend, Way::l2()));
        let out_of_reach = world().with(service(vip, 80).held().backend(backend, Way::unknown()));
        let (packet, own) = (tcp(client, 40_000, vip, 80), tcp(peer, 40_000, vip, 80));
        let sent_on = |packet: &Packet| packet.clone().ttl(63).frame().between(NODE_MAC, NEXT_MAC);
        let from_peer = |packet: &Packet| packet.frame().between(PEER_MAC, NODE_MAC);
        [
            Case::new("a client's packet from a peer is not sent on")
                .given(&held)
                .send(from_peer(&packet))
                .expect_passed(Verdict::Directed),
            Case::new("nor behind tags")
                .given(&held)
                .send(from_peer(&packet).tagged(&[100, 200]))
                .expect_passed(Verdict::Directed),
            Case::new("nor at its last hop")
                .given(&held)
                .send(from_peer(&packet.clone().ttl(1)))
                .expect_passed(Verdict::Directed),
            Case::new("nor does it matter how this node would have reached its own choice")
                .given(&out_of_reach)
                .send(from_peer(&packet))
                .expect_passed(Verdict::Directed),
            Case::new("without the VIP it is dropped")
                .given(&not_held)
                .send(from_peer(&packet))
                .expect_drop(DropReason::NotHeld),
            Case::new("a peer's own packet is sent on").given(&held).send(from_peer(&own)).expect_tx(
                Verdict::L2,
                backend,
                &sent_on(&own),
            ),
            Case::new("a client's packet from the router is sent on").given(&held).send(packet.clone()).expect_tx(
                Verdict::L2,
                backend,
                &sent_on(&packet),
            ),
        ]
    }));
}
