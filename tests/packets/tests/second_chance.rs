//! Packets for this node without a socket here, on slots whose owner changed: to the slot's other owner, with a mark that
//! counts how often.

use std::net::{IpAddr, SocketAddr};

use lb_common::verdict::{Action, DropReason, Verdict};
use packets_tests::{
    Bed, Counts, IN, Outcome, Packet, Way, World, addresses::*, flow_hash, gue, ipip, marked_gue, service, sockets,
    tcp, udp, world,
};

const FAMILIES: [(IpAddr, IpAddr); 2] = [(CLIENT4, VIP4), (CLIENT6, VIP6)];

/// Both VIPs, held; the one takes new flows, the other keeps those it has.
fn holding(taker: (IpAddr, Way), keeper: (IpAddr, Way)) -> World {
    let services = [VIP4, VIP6].into_iter().flat_map(|vip| [service(vip, 80), service(vip, 80).udp()]);
    let with =
        |service: packets_tests::Service| service.held().backend(taker.0, taker.1).idle_backend(keeper.0, keeper.1);
    services.map(with).fold(world(), World::with)
}

fn here() -> (IpAddr, Way) {
    (NODE4, Way::local())
}

fn elsewhere() -> (IpAddr, Way) {
    (A4, Way::gue(A4))
}

/// Every slot belonged to A and belongs to this node now.
fn come_here() -> Bed {
    let mut bed = Bed::holding(&holding(elsewhere(), here()));
    bed.apply(&holding(here(), elsewhere()));
    bed
}

fn in_tunnel(packet: &Packet) -> Packet {
    gue(PEER4, NODE4, 50_000, packet)
}

fn send(bed: &mut Bed, packet: &Packet) -> (Outcome, Counts) {
    let before = bed.counts();
    let outcome = bed.send(&packet.frame().bytes(), IN);
    (outcome, bed.counts().since(&before))
}

/// The frame in which a packet goes on to A, the mark's letter in it.
fn marked(packet: &Packet, chance: u8) -> Vec<u8> {
    let entropy = 0xc000 | (flow_hash(&world(), packet) & 0x3fff) as u16;
    marked_gue(NODE4, A4, entropy, chance, &packet.clone().ttl(63)).frame().between(NODE_MAC, NEXT_MAC).bytes()
}

#[test]
fn what_comes_by_a_tunnel_goes_on_once_to_the_other_owner() {
    let mut bed = come_here();
    for (client, vip) in FAMILIES {
        let packet = tcp(client, 40_000, vip, 80).data(b"hello");
        for tunnel in [in_tunnel(&packet), ipip(PEER4, NODE4, &packet), ipip(PEER6, NODE6, &packet)] {
            let (outcome, counts) = send(&mut bed, &tunnel);
            assert_eq!(outcome.action, Action::Transmit as u32, "{counts}");
            assert_eq!(outcome.frame, marked(&packet, b'c'));
            assert_eq!(counts, Counts::of_verdict(Verdict::SecondChance));
        }
    }
}

#[test]
fn what_is_chosen_here_goes_on_as_well() {
    let mut bed = Bed::holding(&holding(here(), elsewhere()));
    bed.apply(&holding(elsewhere(), here()));
    for (client, vip) in FAMILIES {
        let packet = tcp(client, 40_000, vip, 80);
        let (outcome, counts) = send(&mut bed, &packet);
        assert_eq!(outcome.frame, marked(&packet, b'c'), "{counts}");
        assert_eq!(counts, Counts::of_verdict(Verdict::SecondChance));
    }
}

#[test]
fn what_was_sent_on_before_goes_on_to_an_older_owner_until_the_last_chance() {
    let mut bed = come_here();
    for (client, vip) in FAMILIES {
        let packet = tcp(client, 40_000, vip, 80);
        for chance in b'c'..b'j' {
            let (outcome, counts) = send(&mut bed, &marked_gue(PEER4, NODE4, 50_000, chance, &packet));
            assert_eq!(outcome.frame, marked(&packet, chance + 1), "{counts}");
            assert_eq!(counts, Counts::of_verdict(Verdict::SecondChance));
        }
        let (outcome, counts) = send(&mut bed, &marked_gue(PEER4, NODE4, 50_000, b'j', &packet));
        assert!(outcome.is_passed(), "{counts}");
        assert_eq!(outcome.frame, packet.frame().bytes());
        assert_eq!(counts, Counts::of_verdict(Verdict::Terminated));
    }
    for other in [b'b', b'k'] {
        let unknown = marked_gue(PEER4, NODE4, 50_000, other, &tcp(CLIENT4, 40_000, VIP4, 80));
        assert_eq!(send(&mut bed, &unknown).1, Counts::of_verdict(Verdict::NotOurs), "{}", char::from(other));
    }
    let stranger = marked_gue(STRANGER4, NODE4, 50_000, b'c', &tcp(CLIENT4, 40_000, VIP4, 80));
    assert_eq!(send(&mut bed, &stranger).1, Counts::of_drop(DropReason::UnknownPeer));
}

/// The slot went from this node to A: whoever sends a packet here that others had before, an elder one is asked, and there is
/// none.
#[test]
fn what_was_sent_on_before_does_not_go_to_a_newer_owner() {
    let mut bed = Bed::holding(&holding(here(), elsewhere()));
    bed.apply(&holding(elsewhere(), here()));
    for (client, vip) in FAMILIES {
        let packet = tcp(client, 40_000, vip, 80);
        assert_eq!(send(&mut bed, &in_tunnel(&packet)).0.frame, marked(&packet, b'c'));
        let (outcome, counts) = send(&mut bed, &marked_gue(PEER4, NODE4, 50_000, b'c', &packet));
        assert_eq!(outcome.frame, packet.frame().bytes(), "{counts}");
        assert_eq!(counts, Counts::of_verdict(Verdict::Terminated));
    }
}

#[test]
fn a_service_whose_connections_are_no_sockets_has_none() {
    let translated = |taker: (IpAddr, Way), keeper: (IpAddr, Way)| {
        let with = |vip| service(vip, 80).held().backend(taker.0, taker.1).idle_backend(keeper.0, keeper.1);
        [VIP4, VIP6].into_iter().map(|vip| with(vip).without_second_chance()).fold(world(), World::with)
    };
    let mut bed = Bed::holding(&translated(elsewhere(), here()));
    bed.apply(&translated(here(), elsewhere()));
    for (client, vip) in FAMILIES {
        let packet = tcp(client, 40_000, vip, 80);
        let (outcome, counts) = send(&mut bed, &in_tunnel(&packet));
        assert_eq!(outcome.frame, packet.frame().bytes(), "{counts}");
        assert_eq!(counts, Counts::of_verdict(Verdict::Terminated));
    }
    bed.apply(&holding(here(), elsewhere()));
    let packet = tcp(CLIENT4, 40_000, VIP4, 80);
    assert_eq!(send(&mut bed, &in_tunnel(&packet)).1, Counts::of_verdict(Verdict::SecondChance), "once it is told to");
}

#[test]
fn what_opens_a_connection_or_is_no_tcp_is_delivered() {
    let mut bed = come_here();
    for (client, vip) in FAMILIES {
        for packet in [tcp(client, 40_000, vip, 80).syn(), udp(client, 40_000, vip, 80)] {
            let (outcome, counts) = send(&mut bed, &in_tunnel(&packet));
            assert!(outcome.is_passed(), "{packet:?}: {counts}");
        }
    }
}

#[test]
fn on_a_settled_slot_everything_is_delivered() {
    let mut bed = come_here();
    bed.pass(u64::MAX / 2, None);
    let scan = bed.scan();
    bed.pass(1, Some(&scan));
    bed.apply(&holding(here(), elsewhere()));
    let (outcome, counts) = send(&mut bed, &in_tunnel(&tcp(CLIENT4, 40_000, VIP4, 80)));
    assert!(outcome.is_passed(), "{counts}");
}

#[test]
fn what_does_not_fit_the_marked_tunnel_is_dropped() {
    let narrow = |mtu| (A4, Way::gue(A4).mtu(mtu));
    let mut bed = Bed::holding(&holding(narrow(1000), here()));
    bed.apply(&holding(here(), narrow(1000)));
    // Outer IPv4, UDP and GUE headers take 36 bytes, inner IPv4 and TCP headers 40.
    for (data, end) in [(924, Counts::of_verdict(Verdict::SecondChance)), (925, Counts::of_drop(DropReason::TooBig))] {
        let packet = tcp(CLIENT4, 40_000, VIP4, 80).data(&vec![0; data]);
        assert_eq!(send(&mut bed, &in_tunnel(&packet)).1, end, "{data} bytes");
    }
}

#[test]
fn a_connection_that_the_kernel_knows_is_delivered_and_a_listener_is_not_enough() {
    let mut bed = come_here();
    for (client, vip) in FAMILIES {
        sockets::own(&[vip, client]);
        let (listener, socket) = sockets::pair(SocketAddr::new(client, 40_000), SocketAddr::new(vip, 80));
        let known = tcp(client, 40_000, vip, 80);
        assert_eq!(send(&mut bed, &in_tunnel(&known)).1, Counts::of_verdict(Verdict::SecondChance), "only a listener");
        socket.connect(&SocketAddr::new(vip, 80).into()).unwrap();
        let accepted = listener.accept().unwrap();
        assert_eq!(send(&mut bed, &in_tunnel(&known)).1, Counts::of_verdict(Verdict::Terminated), "{vip}");
        let other = tcp(client, 40_001, vip, 80);
        assert_eq!(send(&mut bed, &in_tunnel(&other)).1, Counts::of_verdict(Verdict::SecondChance), "{vip}");
        drop(accepted);
    }
}
