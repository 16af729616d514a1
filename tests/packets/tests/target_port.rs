//! Servers on another port than the service's: what is delivered here gets their port, what they send gets the service's.

use std::net::{IpAddr, SocketAddr};

use lb_common::verdict::Verdict;
use packets_tests::{
    Bed, Case, Counts, Frame, IN, IcmpError, Packet, Way, World, addresses::*, check, gue, icmp_error, ipip, service,
    sockets, tcp, udp, world,
};

/// Port of the services, which clients know.
const PORT: u16 = 8443;
/// Port of their servers.
const TARGET: u16 = 6443;
/// `TC_ACT_UNSPEC`: the next program, or the stack, decides.
const GO_ON: u32 = u32::MAX;

const FAMILIES: [(IpAddr, IpAddr, IpAddr, IpAddr); 2] = [(CLIENT4, VIP4, NODE4, PEER4), (CLIENT6, VIP6, NODE6, PEER6)];
const TAGS: [&[u16]; 3] = [&[], &[100], &[100, 200]];

/// TCP and UDP services of both families with their backends there: on this node or not, the VIPs are held.
fn serving(way: Way) -> World {
    [(VIP4, NODE4), (VIP6, NODE6)].into_iter().fold(world(), |world, (vip, node)| {
        let on = |port, udp: bool| {
            let service = service(vip, port).held();
            let service = if udp { service.udp() } else { service };
            service.backend(if udp { other(node) } else { node }, way)
        };
        world
            .with(on(PORT, false).target_port(TARGET))
            .with(on(PORT, true).target_port(TARGET))
            .with(on(80, false).mss(0))
    })
}

/// Another address for the backend of UDP: tables name the service by its backend.
fn other(node: IpAddr) -> IpAddr {
    if node.is_ipv4() { A4 } else { A6 }
}

/// Only the services on other ports, TCP.
fn only_tcp(way: Way) -> World {
    FAMILIES.into_iter().fold(world(), |world, (_, vip, node, _)| {
        world.with(service(vip, PORT).held().backend(node, way).target_port(TARGET))
    })
}

type Kind = (&'static str, fn(IpAddr, u16, IpAddr, u16) -> Packet);

/// Packets of every kind that have ports, made for two ends.
fn kinds() -> Vec<Kind> {
    vec![
        ("a segment", |s, sp, d, dp| tcp(s, sp, d, dp)),
        ("a SYN with options", |s, sp, d, dp| tcp(s, sp, d, dp).syn().tcp_options(&[2, 4, 5, 0xb4])),
        ("a FIN", |s, sp, d, dp| tcp(s, sp, d, dp).finish()),
        ("a reset", |s, sp, d, dp| tcp(s, sp, d, dp).reset().data(&[])),
        ("a segment behind options or extension headers", |s, sp, d, dp| {
            let packet = tcp(s, sp, d, dp);
            if s.is_ipv4() { packet.options(&[1; 12]) } else { packet.extension(60, &[0, 1, 4, 0, 0, 0, 0]) }
        }),
    ]
}

#[test]
fn what_is_for_this_node_gets_the_port_of_its_servers() {
    let world = only_tcp(Way::local());
    let mut cases = Vec::new();
    for (client, vip, node, _) in FAMILIES {
        for (name, kind) in kinds() {
            for tags in TAGS {
                let (came, given) = (kind(client, 40_000, vip, PORT), kind(client, 40_000, vip, TARGET));
                let case = Case::new(format!("{name} to {vip}, tags {tags:?}")).given(&world);
                cases.push(case.send(came.tagged(tags)).expect_local_as(node, &given.tagged(tags)));
            }
        }
    }
    check(cases);
}

#[test]
fn what_another_director_sent_here_gets_it_too() {
    let world = only_tcp(Way::l2());
    let mut cases = Vec::new();
    for (client, vip, node, peer) in FAMILIES {
        for (name, kind) in kinds() {
            let (came, given) = (kind(client, 40_000, vip, PORT), kind(client, 40_000, vip, TARGET));
            for tags in TAGS {
                let from_peer = |packet: &Packet| packet.tagged(tags).between(PEER_MAC, NODE_MAC);
                let case = Case::new(format!("{name} to {vip} from a peer, tags {tags:?}")).given(&world);
                cases.push(case.send(from_peer(&came)).expect_passed_as(Verdict::Directed, &from_peer(&given)));
                for (outer, tunnel) in [
                    ("ipip", ipip(peer, node, &came)),
                    ("gue", gue(peer, node, 50_000, &came)),
                    ("ipip of the other family", ipip_across(vip, &came)),
                ] {
                    let case = Case::new(format!("{name} to {vip} by {outer}, tags {tags:?}")).given(&world);
                    cases.push(case.send(tunnel.tagged(tags)).expect_stripped(&given.tagged(tags)));
                }
            }
        }
    }
    check(cases);
}

/// In a tunnel of the family that the packet does not have.
fn ipip_across(vip: IpAddr, packet: &Packet) -> Packet {
    if vip.is_ipv4() { ipip(PEER6, NODE6, packet) } else { ipip(PEER4, NODE4, packet) }
}

#[test]
fn what_goes_elsewhere_keeps_its_port() {
    let world = only_tcp(Way::l2());
    check(FAMILIES.into_iter().map(|(client, vip, node, _)| {
        let packet = tcp(client, 40_000, vip, PORT);
        let sent = packet.clone().ttl(63).frame().between(NODE_MAC, NEXT_MAC);
        Case::new(format!("to {vip}")).given(&world).send(packet).expect_tx(Verdict::L2, node, &sent)
    }));
}

#[test]
fn a_datagram_keeps_a_right_checksum_or_none() {
    let world = serving(Way::local());
    let mut cases = Vec::new();
    for (client, vip, node, _) in FAMILIES {
        let to = |port| udp(client, 40_000, vip, port);
        // RFC 768: a checksum that comes to zero is sent as all ones.
        let data = (0..=u16::MAX).map(u16::to_be_bytes).find(|data| {
            let bytes = to(TARGET).data(data).bytes();
            bytes.ends_with(&[[0xff, 0xff], *data].concat())
        });
        let data = data.expect("one of all words");
        for (name, came, given) in [
            ("with a checksum", to(PORT), to(TARGET)),
            ("with one that comes to zero", to(PORT).data(&data), to(TARGET).data(&data)),
            ("without", to(PORT).without_checksum(), to(TARGET).without_checksum()),
        ] {
            let case = Case::new(format!("{name} to {vip}")).given(&world);
            cases.push(case.send(came).expect_local_as(other(node), &given.frame()));
        }
    }
    check(cases);
}

#[test]
fn the_first_fragment_gets_the_port_and_the_others_have_none() {
    for (client, vip, _, _) in FAMILIES {
        let mut bed = Bed::holding(&serving(Way::local()));
        let pieces = |port| udp(client, 40_000, vip, port).data(&[0x5a; 3_000]).fragments(77, 1_200);
        let (came, given) = (pieces(PORT), pieces(TARGET));
        assert_eq!(
            came[1..].iter().map(Packet::bytes).collect::<Vec<_>>(),
            given[1..].iter().map(Packet::bytes).collect::<Vec<_>>()
        );
        for (number, (came, given)) in came.iter().zip(&given).enumerate() {
            let outcome = bed.send(&came.frame().bytes(), IN);
            assert!(outcome.is_passed(), "fragment {number} to {vip}");
            assert_eq!(outcome.frame, given.frame().bytes(), "fragment {number} to {vip}");
        }
    }
}

/// A reply as it left, quoted up to `length` bytes, and the same quote with the servers' port: the rest of it stays.
fn quotes(client: IpAddr, vip: IpAddr, length: usize) -> (Vec<u8>, Vec<u8>) {
    let reply = tcp(vip, PORT, client, 40_000).bytes();
    let quote = reply[..length.min(reply.len())].to_vec();
    let mut changed = quote.clone();
    let at = if vip.is_ipv4() { 20 } else { 40 };
    changed[at..at + 2].copy_from_slice(&TARGET.to_be_bytes());
    (quote, changed)
}

#[test]
fn an_error_about_a_reply_names_the_port_that_the_server_knows() {
    let world = only_tcp(Way::local());
    let mut cases = Vec::new();
    for (client, vip, node, _) in FAMILIES {
        let router: IpAddr = if vip.is_ipv4() { [198, 18, 0, 1].into() } else { "2001:db8:a::1".parse().unwrap() };
        for kind in IcmpError::ALL {
            for length in [if vip.is_ipv4() { 28 } else { 48 }, 1_000] {
                let (quote, changed) = quotes(client, vip, length);
                let (came, given) = (icmp_error(router, vip, kind, &quote), icmp_error(router, vip, kind, &changed));
                let case = Case::new(format!("{kind:?} to {vip} quoting {length} bytes")).given(&world);
                cases.push(case.send(came).expect_local_as(node, &given.frame()));
            }
        }
    }
    check(cases);
}

/// Every slot belonged to a node elsewhere and belongs to this one now.
fn come_here() -> Bed {
    let holding = |here: bool| {
        FAMILIES.into_iter().fold(world(), |world, (_, vip, node, _)| {
            let service = service(vip, PORT).held().target_port(TARGET);
            let (own, far) = (Way::local(), Way::gue(A4));
            world.with(if here {
                service.backend(node, own).idle_backend(A4, far)
            } else {
                service.backend(A4, far).idle_backend(node, own)
            })
        })
    };
    let mut bed = Bed::holding(&holding(false));
    bed.apply(&holding(true));
    bed
}

#[test]
fn a_connection_of_a_server_here_is_found_by_its_port() {
    let mut bed = come_here();
    for (client, vip, node, peer) in FAMILIES {
        sockets::own(&[vip, client]);
        let (listener, socket) = sockets::pair(SocketAddr::new(client, 40_000), SocketAddr::new(vip, TARGET));
        socket.connect(&SocketAddr::new(vip, TARGET).into()).unwrap();
        let accepted = listener.accept().unwrap();

        let mut send = |port| {
            let before = bed.counts();
            let outcome = bed.send(&gue(peer, node, 50_000, &tcp(client, port, vip, PORT)).frame().bytes(), IN);
            (outcome, bed.counts().since(&before))
        };
        let (outcome, counts) = send(40_000);
        assert_eq!(counts, Counts::of_verdict(Verdict::Terminated), "{vip}");
        assert_eq!(outcome.frame, tcp(client, 40_000, vip, TARGET).frame().bytes());
        let (outcome, counts) = send(40_001);
        assert_eq!(counts, Counts::of_verdict(Verdict::SecondChance), "{vip}");
        let inner = tcp(client, 40_001, vip, PORT).ttl(63).bytes();
        assert!(outcome.frame.ends_with(&inner), "what goes on keeps the service's port");
        drop(accepted);
    }
}

/// What leaves as something else.
fn leaves_as(bed: &mut Bed, name: &str, packet: &Packet, expected: &Packet) {
    for tags in TAGS {
        let frame = |packet: &Packet| -> Frame { packet.tagged(tags) };
        let outcome = bed.leave(&frame(packet).bytes());
        assert_eq!(outcome.action, GO_ON, "{name}, tags {tags:?}");
        assert_eq!(outcome.frame, frame(expected).bytes(), "{name}, tags {tags:?}");
    }
}

#[test]
fn what_servers_send_from_their_port_leaves_from_the_services() {
    let mut bed = Bed::holding(&serving(Way::local()));
    for (client, vip, ..) in FAMILIES {
        for (name, kind) in kinds().into_iter().take(4) {
            leaves_as(&mut bed, name, &kind(vip, TARGET, client, 40_000), &kind(vip, PORT, client, 40_000));
        }
        let from = |port| udp(vip, port, client, 40_000);
        leaves_as(&mut bed, "a datagram", &from(TARGET), &from(PORT));
        leaves_as(&mut bed, "one without", &from(TARGET).without_checksum(), &from(PORT).without_checksum());
        let zero = (0..=u16::MAX)
            .map(u16::to_be_bytes)
            .find(|data| from(PORT).data(data).bytes().ends_with(&[[0xff, 0xff], *data].concat()));
        let data = zero.expect("one of all words");
        leaves_as(&mut bed, "one whose sum is zero", &from(TARGET).data(&data), &from(PORT).data(&data));
        let pieces = |port| from(port).data(&[0x5a; 3_000]).fragments(78, 1_200);
        for (came, given) in pieces(TARGET).iter().zip(&pieces(PORT)) {
            leaves_as(&mut bed, "a fragment", came, given);
        }
    }
    let v4 = |port| tcp(VIP4, port, CLIENT4, 40_000).options(&[1; 12]);
    leaves_as(&mut bed, "a segment behind options", &v4(TARGET), &v4(PORT));
}

#[test]
fn what_others_send_leaves_as_it_is() {
    let mut bed = Bed::holding(&serving(Way::local()));
    for (client, vip, node, _) in FAMILIES {
        for (name, packet) in [
            ("from a service without another port", tcp(vip, 80, client, 40_000)),
            ("from the service's port", tcp(vip, PORT, client, 40_000)),
            ("from the node itself", tcp(node, TARGET, client, 40_000)),
            ("to the VIP", tcp(client, TARGET, vip, TARGET)),
        ] {
            leaves_as(&mut bed, name, &packet, &packet);
        }
    }
    let short = tcp(VIP4, TARGET, CLIENT4, 40_000).frame().bytes();
    // Without its checksum nothing is rewritten; the kernel makes no shorter packet.
    for length in 34..14 + 20 + 18 {
        assert_eq!(bed.leave(&short[..length]).frame, short[..length], "{length} bytes");
    }
}

#[test]
fn port_and_segment_size_are_rewritten_together() {
    let mss = |bytes: u16| [&[2, 4][..], &bytes.to_be_bytes()].concat();
    for (client, vip, node, _) in FAMILIES {
        let service = service(vip, PORT).held().mss(1_408).backend(node, Way::local()).target_port(TARGET);
        let mut bed = Bed::holding(&world().with(service));
        let syn_ack = |port, size| tcp(vip, port, client, 40_000).data(&[]).syn_ack().tcp_options(&mss(size));
        leaves_as(&mut bed, "both", &syn_ack(TARGET, 1_460), &syn_ack(PORT, 1_408));
        leaves_as(&mut bed, "the port alone", &syn_ack(TARGET, 1_400), &syn_ack(PORT, 1_400));
    }
}

#[test]
fn without_the_other_port_nothing_is_rewritten_any_more() {
    let plain = |target: bool| {
        let service = service(VIP4, PORT).held().backend(NODE4, Way::local());
        world().with(if target { service.target_port(TARGET) } else { service })
    };
    let mut bed = Bed::holding(&plain(true));
    let (packet, reply) = (tcp(CLIENT4, 40_000, VIP4, PORT), tcp(VIP4, TARGET, CLIENT4, 40_000));
    assert_eq!(bed.send(&packet.frame().bytes(), IN).frame, tcp(CLIENT4, 40_000, VIP4, TARGET).frame().bytes());
    bed.apply(&plain(false));
    assert_eq!(bed.send(&packet.frame().bytes(), IN).frame, packet.frame().bytes());
    leaves_as(&mut bed, "a reply", &reply, &reply);
}
