//! Fragments for VIPs: they go where the whole datagram would have gone, if the first of them came first.

use std::net::IpAddr;

use aya::maps::MapData;
use lb_common::{
    maps::fragments::{FragmentEntry, FragmentKey, LIFETIME_NS},
    verdict::{Action, DropReason, Verdict},
    wire::protocol,
};
use packets_tests::{
    Bed, Case, Frame, IN, IcmpError, Packet, Way, World, addresses::*, answer, check, gue, ipip, raw, service, tcp,
    udp, world,
};

const FAMILIES: [(IpAddr, IpAddr); 2] = [(CLIENT4, VIP4), (CLIENT6, VIP6)];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x44];

/// TCP, UDP and SCTP services of both families with one backend on the link.
fn serving() -> World {
    [(VIP4, A4), (VIP6, A6)]
        .into_iter()
        .flat_map(|(vip, backend)| {
            [service(vip, 80), service(vip, 80).udp(), service(vip, 80).sctp()].map(|service| (service, backend))
        })
        .enumerate()
        .map(|(at, (service, backend))| service.backend(nth(backend, at), Way::l2()))
        .fold(world(), World::with)
}

/// The backend of the service at this place, each of its own.
fn nth(backend: IpAddr, at: usize) -> IpAddr {
    let last = 100 + u8::try_from(at).expect("few");
    match backend {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            IpAddr::from([a, b, c, last])
        }
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[15] = last;
            IpAddr::from(octets)
        }
    }
}

/// A UDP datagram of 3,000 bytes.
fn datagram(client: IpAddr, port: u16, vip: IpAddr) -> Packet {
    udp(client, port, vip, 80).data(&[0x5a; 3_000])
}

/// As it leaves to its next hop on the link.
fn sent_on(packet: &Packet) -> Frame {
    packet.clone().ttl(63).frame().between(NODE_MAC, NEXT_MAC)
}

fn place(packet: &Packet) -> usize {
    let of_family = match packet.protocol() {
        protocol::TCP => 0,
        protocol::UDP => 1,
        _ => 2,
    };
    of_family + if packet.source().is_ipv4() { 0 } else { 3 }
}

fn backend_of(packet: &Packet) -> IpAddr {
    nth(if packet.source().is_ipv4() { A4 } else { A6 }, place(packet))
}

fn sctp(client: IpAddr, vip: IpAddr, length: usize) -> Packet {
    let common = [0x9c, 0x40, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8];
    raw(client, vip, protocol::SCTP, &[&common[..], &vec![0x5a; length]].concat())
}

#[test]
fn every_fragment_goes_to_the_backend_of_its_service() {
    let whole = FAMILIES.into_iter().flat_map(|(client, vip)| {
        [datagram(client, 40_000, vip), tcp(client, 40_000, vip, 80).data(&[0x5a; 3_000]), sctp(client, vip, 3_000)]
    });
    let cases = (0u16..).zip(whole).flat_map(|(at, packet)| {
        let fragments = packet.fragments(at, 1_400);
        assert_eq!(fragments.len(), 3);
        fragments.into_iter().map(move |fragment| {
            let backend = backend_of(&fragment);
            let name = format!("protocol {} of {} to {backend}", fragment.protocol(), fragment.destination());
            Case::new(name).given(&serving()).send(fragment.clone()).expect_tx(
                Verdict::L2,
                backend,
                &sent_on(&fragment),
            )
        })
    });
    check(cases);
}

/// Two backends that frames tell apart by their next hop.
fn two_backends() -> World {
    FAMILIES.into_iter().fold(world(), |world, (_, vip)| {
        world.with(service(vip, 80).udp().backend(A4, Way::l2()).backend(B4, Way::l2().next(OTHER_MAC)))
    })
}

#[test]
fn fragments_go_where_the_whole_datagram_goes() {
    let mut bed = Bed::holding(&two_backends());
    let mut met = std::collections::BTreeSet::new();
    for (client, vip) in FAMILIES {
        for port in 40_000..40_032 {
            let whole = udp(client, port, vip, 80).data(&[0x5a; 1_000]);
            let next_hop = bed.send(&whole.frame().bytes(), IN).frame[..6].to_vec();
            for fragment in whole.fragments(port, 400) {
                let outcome = bed.send(&fragment.frame().bytes(), IN);
                assert_eq!(outcome.action, Action::Transmit as u32, "{port} to {vip}");
                assert_eq!(outcome.frame[..6], next_hop, "{port} to {vip}");
            }
            met.insert(next_hop);
        }
    }
    assert_eq!(met.len(), 2, "both backends were met");
}

#[test]
fn a_later_fragment_that_nobody_knows_is_dropped() {
    let cases = FAMILIES.into_iter().flat_map(|(client, vip)| {
        let fragments = datagram(client, 40_000, vip).fragments(1, 1_400);
        let other_number = datagram(client, 40_000, vip).fragments(2, 1_400).remove(2);
        let other_client = if vip.is_ipv4() { STRANGER4 } else { STRANGER6 };
        let other_client = datagram(other_client, 40_000, vip).fragments(1, 1_400).remove(2);
        let unknown = |name: &str, packet: Packet| {
            Case::new(format!("{name} to {vip}"))
                .given(&serving())
                .send(packet)
                .expect_drop(DropReason::UnknownFragment)
        };
        [
            unknown("the middle one before the first", fragments[1].clone()),
            unknown("the last one before the first", fragments[2].clone()),
            Case::new("the first").given(&serving()).send(fragments[0].clone()).expect_tx(
                Verdict::L2,
                backend_of(&fragments[0]),
                &sent_on(&fragments[0]),
            ),
            unknown("another identification", other_number),
            unknown("another client", other_client),
            Case::new("the last one behind the first").given(&serving()).send(fragments[2].clone()).expect_tx(
                Verdict::L2,
                backend_of(&fragments[2]),
                &sent_on(&fragments[2]),
            ),
        ]
    });
    check(cases);
}

#[test]
fn another_protocol_with_the_same_identification_is_another_datagram() {
    let of_udp = datagram(CLIENT4, 40_000, VIP4).fragments(1, 1_400);
    let of_tcp = tcp(CLIENT4, 40_000, VIP4, 80).data(&[0; 3_000]).fragments(1, 1_400);
    check([
        Case::new("the first of UDP").given(&serving()).send(of_udp[0].clone()).expect_tx(
            Verdict::L2,
            backend_of(&of_udp[0]),
            &sent_on(&of_udp[0]),
        ),
        Case::new("a later one of TCP")
            .given(&serving())
            .send(of_tcp[1].clone())
            .expect_drop(DropReason::UnknownFragment),
    ]);
}

#[test]
fn extension_headers_behind_a_fragment_header_are_not_followed() {
    let first = raw(CLIENT6, VIP6, protocol::UDP, &[&[0x9c, 0x40, 0, 80, 4, 0, 0, 0][..], &[0; 64]].concat())
        .piece(0, true)
        .extension(protocol::DESTINATION_OPTIONS, &[0, 1, 4, 0, 0, 0, 0]);
    let nested = datagram(CLIENT6, 40_000, VIP6).piece(0, true).piece(0, true);
    check([
        Case::new("options").given(&serving()).send(first).expect_drop(DropReason::ExtensionHeaders),
        Case::new("a fragment in a fragment").given(&serving()).send(nested).expect_drop(DropReason::ExtensionHeaders),
    ]);
}

#[test]
fn a_first_fragment_without_its_whole_transport_header_is_dropped() {
    let cases = FAMILIES.into_iter().flat_map(|(client, vip)| {
        [(protocol::TCP, 16), (protocol::UDP, 0), (protocol::SCTP, 8)].map(|(number, length)| {
            let ports = [0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let packet = raw(client, vip, number, &ports[..length]).identification(3).piece(0, true);
            Case::new(format!("{length} bytes of protocol {number} to {vip}"))
                .given(&serving())
                .send(packet)
                .expect_drop(DropReason::Fragment)
        })
    });
    check(cases);
}

#[test]
fn a_fragment_that_is_cut_is_dropped() {
    let cases = FAMILIES.into_iter().flat_map(|(client, vip)| {
        let fragments = datagram(client, 40_000, vip).fragments(1, 1_400);
        fragments.into_iter().map(move |fragment| {
            let mut claimed = fragment.frame();
            let at = if vip.is_ipv4() { 2 } else { 4 };
            claimed = claimed.patched(at, &1_480_u16.to_be_bytes());
            Case::new(format!("to {vip}")).given(&serving()).send(claimed).expect_drop(DropReason::Truncated)
        })
    });
    check(cases);
}

#[test]
fn fragments_of_what_no_service_takes_end_as_the_whole_would() {
    let cases = FAMILIES.into_iter().flat_map(|(client, vip)| {
        let unserved = udp(client, 40_000, vip, 81).data(&[0; 3_000]).fragments(4, 1_400);
        let gre = raw(client, vip, 47, &[0; 3_000]).fragments(5, 1_400);
        let icmp = raw(client, vip, if vip.is_ipv4() { 1 } else { 58 }, &[0; 3_000]).fragments(6, 1_400);
        let passing = [service(vip, 80).passing_unmatched()].into_iter().fold(world(), World::with);
        let case = |name: &str, world: &World, packet: &Packet| {
            Case::new(format!("{name} to {vip}")).given(world).send(packet.clone())
        };
        [
            case("the first to another port", &serving(), &unserved[0]).expect_drop(DropReason::NoService),
            case("its next", &serving(), &unserved[1]).expect_drop(DropReason::UnknownFragment),
            case("the first to another port that is let pass", &passing, &unserved[0])
                .expect_passed(Verdict::Unmatched),
            case("its next", &passing, &unserved[1]).expect_passed(Verdict::Unmatched),
            case("the first of GRE", &serving(), &gre[0]).expect_drop(DropReason::NoService),
            case("its next", &serving(), &gre[1]).expect_drop(DropReason::NoService),
            case("the first of ICMP", &serving(), &icmp[0]).expect_drop(DropReason::EchoNotHeld),
            case("its next", &serving(), &icmp[1]).expect_drop(DropReason::EchoNotHeld),
        ]
    });
    check(cases);
}

/// The pinned map of fragments.
fn remembered(bed: &Bed) -> Vec<FragmentKey> {
    bed.tables().fragments.keys().collect::<Result<_, _>>().expect("it can be read")
}

#[test]
fn only_what_a_service_takes_is_remembered() {
    let mut bed = Bed::holding(&serving());
    for (client, vip) in FAMILIES {
        let other = if vip.is_ipv4() { STRANGER4 } else { STRANGER6 };
        for packet in [udp(client, 40_000, other, 80), udp(client, 40_000, vip, 81)] {
            for fragment in packet.data(&[0; 3_000]).fragments(7, 1_400) {
                bed.send(&fragment.frame().bytes(), IN);
            }
        }
    }
    assert_eq!(remembered(&bed), []);
    bed.send(&datagram(CLIENT4, 40_000, VIP4).fragments(7, 1_400)[0].frame().bytes(), IN);
    assert_eq!(remembered(&bed).len(), 1);
}

#[test]
fn the_dry_entry_remembers_nothing() {
    let bed = Bed::holding(&serving());
    let fragments = datagram(CLIENT4, 40_000, VIP4).fragments(8, 1_400);
    let ends = fragments.iter().map(|fragment| bed.lookup(&fragment.frame().bytes()).end);
    let unknown = lb_common::report::End::Drop(DropReason::UnknownFragment as u32);
    let l2 = lb_common::report::End::Verdict(Verdict::L2 as u32);
    assert_eq!(ends.collect::<Vec<_>>(), [l2, unknown, unknown]);
    assert_eq!(remembered(&bed), []);
}

#[test]
fn a_first_fragment_counts_for_half_a_minute() {
    let mut bed = Bed::holding(&serving());
    let fragments = datagram(CLIENT4, 40_000, VIP4).fragments(9, 1_400);
    bed.send(&fragments[0].frame().bytes(), IN);
    let path = bed.pins().map("FRAGMENTS");
    let mut map: aya::maps::HashMap<MapData, FragmentKey, FragmentEntry> =
        aya::maps::Map::LruHashMap(MapData::from_pin(path).expect("pinned")).try_into().expect("its types");
    let (key, entry) = map.iter().next().expect("one entry").expect("it can be read");
    let mut age_by = |nanoseconds: u64| {
        let older = FragmentEntry { time: entry.time.saturating_sub(nanoseconds), ..entry };
        map.insert(key, older, 0).expect("it can be written");
    };
    age_by(LIFETIME_NS - 10_000_000_000);
    assert_eq!(bed.send(&fragments[1].frame().bytes(), IN).action, Action::Transmit as u32);
    age_by(LIFETIME_NS + 1);
    assert!(bed.send(&fragments[1].frame().bytes(), IN).is_dropped());
}

#[test]
fn fragments_are_tunnelled_and_one_that_does_not_fit_is_too_big() {
    let cases = FAMILIES.into_iter().flat_map(|(client, vip)| {
        let world = world().with(service(vip, 80).udp().backend(A4, Way::gue(A4).mtu(1_300)));
        let fragments = datagram(client, 40_000, vip).fragments(10, 1_400);
        let small = datagram(client, 40_000, vip).fragments(11, 1_000);
        let large = |fragment: &Packet| Case::new(format!("a large one to {vip}")).given(&world).send(fragment.clone());
        let told = |fragment: &Packet, node, mtu| {
            let error = answer(node, IcmpError::TooBig(mtu), fragment).frame().between(NODE_MAC, ROUTER_MAC);
            large(fragment).expect_answer(Verdict::TooBigTold, &error)
        };
        // Of IPv4 only the first is answered (RFC 1122 section 3.2.2); IPv6 does not go below 1280.
        let mut cases: Vec<Case> = if vip.is_ipv4() {
            vec![told(&fragments[0], NODE4, 1_300 - 32), large(&fragments[1]).expect_drop(DropReason::TooBig)]
        } else {
            fragments.iter().take(2).map(|fragment| told(fragment, NODE6, 1_280)).collect()
        };
        let port = entropy_port(&world, &small[0]);
        cases.extend(small.iter().map(|fragment| {
            let outer = gue(NODE4, A4, port, &fragment.clone().ttl(63));
            let expected = outer.frame().between(NODE_MAC, NEXT_MAC);
            Case::new(format!("a small one to {vip}")).given(&world).send(fragment.clone()).expect_tx(
                Verdict::Gue,
                A4,
                &expected,
            )
        }));
        cases
    });
    check(cases);
}

/// The UDP source port that the flow of a first fragment has in a GUE tunnel.
fn entropy_port(world: &World, first: &Packet) -> u16 {
    let mut bed = Bed::holding(world);
    let frame = bed.send(&first.frame().bytes(), IN).frame;
    u16::from_be_bytes([frame[34], frame[35]])
}

/// Both VIPs, held here, with a backend here and one elsewhere.
fn holding() -> World {
    FAMILIES.into_iter().fold(world(), |world, (_, vip)| {
        world.with(service(vip, 80).udp().held().backend(A4, Way::gue(A4)).backend(NODE4, Way::local()))
    })
}

/// The same, held by others only.
fn not_holding() -> World {
    FAMILIES.into_iter().fold(world(), |world, (_, vip)| world.with(service(vip, 80).udp().backend(A4, Way::gue(A4))))
}

#[test]
fn a_fragment_in_a_tunnel_is_stripped_in_any_order_if_the_vip_is_held() {
    let cases = FAMILIES.into_iter().flat_map(|(client, vip)| {
        let fragments = udp(client, 40_000, vip, 80).data(&[0x5a; 1_000]).fragments(12, 400);
        fragments.into_iter().rev().flat_map(move |inner| {
            [ipip(PEER4, NODE4, &inner), ipip(PEER6, NODE6, &inner), gue(PEER4, NODE4, 50_000, &inner)]
                .into_iter()
                .flat_map(|outer| {
                    [
                        Case::new(format!("to {vip}, held"))
                            .given(&holding())
                            .send(outer.clone())
                            .expect_stripped(&inner.frame()),
                        Case::new(format!("to {vip}, not held"))
                            .given(&not_holding())
                            .send(outer)
                            .expect_drop(DropReason::NotHeld),
                    ]
                })
                .collect::<Vec<_>>()
        })
    });
    check(cases);
}

#[test]
fn a_fragment_in_a_tunnel_from_somebody_unknown_is_dropped() {
    let fragments = udp(CLIENT4, 40_000, VIP4, 80).data(&[0; 1_000]).fragments(13, 400);
    check(fragments.into_iter().map(|inner| {
        Case::new("a stranger")
            .given(&holding())
            .send(ipip(STRANGER4, NODE4, &inner))
            .expect_drop(DropReason::UnknownPeer)
    }));
}

#[test]
fn a_fragment_that_a_director_on_the_link_sent_here_is_passed_in_any_order() {
    let cases = FAMILIES.into_iter().flat_map(|(client, vip)| {
        let later = udp(client, 40_000, vip, 80).data(&[0x5a; 1_000]).fragments(14, 400).remove(1);
        let from_peer = later.frame().between(PEER_MAC, NODE_MAC);
        [
            Case::new(format!("from a director to {vip}"))
                .given(&holding())
                .send(from_peer.clone())
                .expect_passed(Verdict::Directed),
            Case::new(format!("from the router to {vip}"))
                .given(&holding())
                .send(later)
                .expect_drop(DropReason::UnknownFragment),
            Case::new(format!("from a director to {vip}, which is not held"))
                .given(&not_holding())
                .send(from_peer)
                .expect_drop(DropReason::UnknownFragment),
        ]
    });
    check(cases);
}

#[test]
fn fragments_of_tunnel_packets_are_none_of_ours() {
    let inner = udp(CLIENT4, 40_000, VIP4, 80).data(&[0; 1_000]);
    let v4 = ipip(PEER4, NODE4, &inner).fragments(15, 800);
    let v6 = ipip(PEER6, NODE6, &inner).fragments(16, 800);
    check(v4.into_iter().chain(v6).map(|fragment| {
        Case::new(format!("to {}", fragment.destination())).given(&holding()).send(fragment).expect_untouched()
    }));
}
