use std::sync::Arc;

use lb_common::{
    addr::Be16,
    maps::{
        addresses::AddressEntry,
        backends::{Hop, Mode},
        services::VipKey,
        sources::SourceRange,
    },
    wire::eth,
};

use super::*;
use crate::model::{
    AnnouncerKind, Backend, Delivery, HoldWhen, Interface, InterfaceKind, MacAddr, MssClamp, NextHop, Node, Peer,
    Probe, ProbeKind, ProbeTarget, Protocol, RingSize,
};
use crate::plan::TargetBackend;

const VIP: &str = "192.0.2.10";

fn tcp_probe() -> Arc<Probe> {
    let (interval, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
    Arc::new(Probe { kind: ProbeKind::Tcp, port: 6443, interval, timeout, rise: 2, fall: 3 })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

/// Node 10.0.0.1 with backends 10.0.0.1 (here), 10.0.0.2 (same link) and 10.0.9.3 (behind a router).
struct World {
    desired: DesiredState,
    network: Network,
    health: HealthReport,
    distrusted: BTreeSet<(String, BackendAddress)>,
    unproven: BTreeSet<(String, BackendAddress)>,
    now: Duration,
    takers: Takers,
    drains: Drains,
    addresses: BTreeMap<IpAddr16, u32>,
    monotonic: u64,
    members: Members,
}

impl World {
    fn new(delivery: Delivery) -> Self {
        let backend = |address| Backend { address: ip(address), port: 6443, weight: 1 };
        let service = Service {
            name: "api".to_owned(),
            vips: vec![ip(VIP)],
            ports: vec![6443],
            protocol: Protocol::Tcp,
            delivery,
            ring_size: RingSize::DEFAULT,
            backends: ["10.0.0.1", "10.0.0.2", "10.0.9.3"].map(backend).to_vec(),
            flow_timeout: Protocol::Tcp.flow_timeout(),
            affinity: None,
            probe: Some(tcp_probe()),
            slow_start: Duration::ZERO,
            drop_unmatched: true,
            source_ranges: Vec::new(),
            mss_clamp: MssClamp::Off,
            hold: HoldWhen::Trusted,
            connect_translation: false,
            second_chance: true,
            local_first: false,
        };
        let announcement = Announcement {
            vip: ip(VIP),
            announcer: AnnouncerKind::Loopback,
            when: AnnounceWhen::LocalBackend,
            lifetime: Duration::from_secs(30),
        };
        let desired = DesiredState {
            node: Node { name: "node-1".to_owned(), addresses: vec![ip("10.0.0.1")] },
            peers: vec![Peer { name: "node-2".to_owned(), addresses: vec![ip("10.0.0.2")] }],
            services: vec![service.into()],
            announcements: vec![announcement],
        };
        Self {
            desired,
            network: network(),
            health: HealthReport::default(),
            distrusted: BTreeSet::new(),
            unproven: BTreeSet::new(),
            now: Duration::ZERO,
            takers: Takers::default(),
            drains: Drains::default(),
            addresses: BTreeMap::new(),
            monotonic: 0,
            members: Members::default(),
        }
    }

    fn probe(&mut self, address: &str, state: ProbeState) {
        self.health.targets.insert(ProbeTarget { address: ip(address), probe: tcp_probe() }, state);
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            desired: &self.desired,
            network: &self.network,
            health: &self.health,
            hash_key: HashKey::new([7; 16]),
            distrusted: &self.distrusted,
            unproven: &self.unproven,
            now: self.now,
            takers: &self.takers,
            drains: &self.drains,
            addresses: &self.addresses,
            monotonic: self.monotonic,
            members: &self.members,
        }
    }

    fn decide(&self) -> Decision {
        decide(&self.inputs())
    }

    /// Decides, and lets the next decision know.
    fn go_on(&mut self, seconds: u64) -> Decision {
        self.now += Duration::from_secs(seconds);
        let decision = self.decide();
        self.takers.clone_from(&decision.takers);
        decision
    }

    fn hop(&self, address: &str) -> Hop {
        let decision = self.decide();
        let service = decision.target.services.values().next().unwrap();
        service.backends[&(ip(address).into(), Be16::new(6443))].hop
    }
}

fn network() -> Network {
    let interface =
        |index, kind, mtu| Interface { index, name: format!("eth{index}"), mac: mac(100), mtu, up: true, kind };
    let mut network = Network::default();
    network.interfaces.insert(2, interface(2, InterfaceKind::Ethernet, 1500));
    network.interfaces.insert(3, interface(3, InterfaceKind::Vlan { parent: 2, id: 42 }, 1450));
    let way = |gateway, last| NextHop { interface: 2, gateway, mac: Some(mac(last)) };
    network.next_hops.insert(ip("10.0.0.2"), way(None, 2));
    network.next_hops.insert(ip("10.0.9.3"), way(Some(ip("10.0.0.254")), 254));
    network
}

fn failed() -> ProbeState {
    ProbeState::Failed { reason: "connection refused".to_owned(), port_open: false }
}

/// A server that answers 500 to `/readyz`.
fn not_ready() -> ProbeState {
    ProbeState::Failed { reason: "https GET /readyz answers 500".to_owned(), port_open: true }
}

/// In the order of the backends: weight in the ring, takes new flows, keeps old ones.
fn targets(decision: &Decision) -> Vec<(u16, bool, bool)> {
    let service = decision.target.services.values().next().unwrap();
    service.backends.values().map(|backend| (backend.weight, backend.in_ring, backend.keeps_flows)).collect()
}

fn takers(decision: &Decision) -> Vec<String> {
    let backends = decision.services.iter().flat_map(|service| &service.backends);
    backends.filter(|backend| backend.takes_flows).map(|backend| backend.address.to_string()).collect()
}

#[test]
fn auto_is_l2_on_the_link_and_gue_behind_a_router() {
    let world = World::new(Delivery::Auto);
    assert_eq!(world.hop("10.0.0.1").mode, Mode::Local as u8);
    let on_link = world.hop("10.0.0.2");
    assert_eq!((on_link.mode, on_link.interface, on_link.mtu), (Mode::L2 as u8, 2, 1500));
    assert_eq!(on_link.macs, eth::addresses(mac(2).0, mac(100).0));
    let routed = world.hop("10.0.9.3");
    assert_eq!(routed.mode, Mode::Gue4 as u8);
    assert_eq!(routed.tunnel_source, ip("10.0.0.1").into());
    assert_eq!(routed.tunnel_destination, ip("10.0.9.3").into());
    assert_eq!(routed.macs, eth::addresses(mac(254).0, mac(100).0));
}

#[test]
fn a_vlan_device_sends_tagged_through_the_interface_beneath() {
    let mut world = World::new(Delivery::Ipip);
    world.network.next_hops.get_mut(&ip("10.0.9.3")).unwrap().interface = 3;
    let hop = world.hop("10.0.9.3");
    assert_eq!((hop.mode, hop.interface, hop.vlan, hop.mtu), (Mode::Ipip4 as u8, 2, 42, 1450));
}

#[test]
fn a_way_that_is_not_known_is_said_and_does_not_change_the_ring() {
    let mut world = World::new(Delivery::L2);
    world.network.next_hops.get_mut(&ip("10.0.0.2")).unwrap().mac = None;
    let decision = world.decide();
    assert_eq!(takers(&decision).len(), 3, "directors agree on the ring, whatever their neighbours answer");
    let reasons: Vec<_> = decision.services[0].backends.iter().map(|backend| backend.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "not probed yet, taken for healthy; on this node",
            "not probed yet, taken for healthy; 10.0.0.2 on eth2 has not answered ARP or neighbour discovery yet",
            "not probed yet, taken for healthy; delivery l2, but 10.0.9.3 is behind a router",
        ]
    );
    world.network.next_hops.clear();
    assert_eq!(
        *world.decide().services[0].backends[1].reason,
        "not probed yet, taken for healthy; no route to 10.0.0.2"
    );
}

#[test]
fn local_delivery_leaves_other_nodes_out() {
    assert_eq!(takers(&World::new(Delivery::Local).decide()), ["10.0.0.1"]);
}

#[test]
fn a_failed_backend_leaves_the_ring_and_a_failed_own_server_is_not_held_or_announced() {
    let mut world = World::new(Delivery::Auto);
    world.probe("10.0.0.2", failed());
    assert_eq!(takers(&world.decide()), ["10.0.0.1", "10.0.9.3"]);
    assert!(world.decide().held.contains(&ip(VIP)) && world.decide().announced.contains_key(&ip(VIP)));
    world.probe("10.0.0.1", failed());
    let decision = world.decide();
    assert_eq!(takers(&decision), ["10.0.9.3"]);
    assert!(decision.held.is_empty() && decision.announced.is_empty());
    assert!(decision.target.services.values().all(|service| !service.held));
}

#[test]
fn an_own_server_that_is_not_ready_is_held_for_its_flows_and_not_announced() {
    let mut world = World::new(Delivery::Auto);
    world.probe("10.0.0.1", not_ready());
    let decision = world.decide();
    assert_eq!(takers(&decision), ["10.0.0.2", "10.0.9.3"]);
    assert!(decision.held.contains(&ip(VIP)) && decision.announced.is_empty());
    assert!(decision.target.services.values().all(|service| service.held));
    assert_eq!(*decision.announcements[0].reason, "no backend on this node takes flows");
}

#[test]
fn a_failed_tcp_backend_keeps_its_flows_and_a_udp_backend_none() {
    let mut world = World::new(Delivery::Auto);
    world.probe("10.0.0.2", not_ready());
    let kept = [(1, true, true), (1, false, true), (1, true, true)];
    assert_eq!(targets(&world.decide()), kept);
    world.desired.services[0].protocol = Protocol::Udp;
    assert_eq!(targets(&world.decide()), [(1, true, true), (1, false, false), (1, true, true)]);
    world.probe("10.0.0.1", failed());
    world.probe("10.0.9.3", failed());
    assert_eq!(targets(&world.decide()), [(1, true, true); 3], "probes that are not believed end no flow");
}

#[test]
fn a_vip_is_marked_as_held_and_source_ranges_reach_every_entry() {
    let mut world = World::new(Delivery::Auto);
    world.desired.services[0].source_ranges = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let target = world.decide().target;
    let is_held =
        |target: &TargetState| AddressEntry { flags: target.addresses[&ip(VIP).into()] }.has(AddressEntry::HELD);
    assert!(is_held(&target));
    let ranges = [SourceRange::new(ip("10.0.0.0"), 8), SourceRange::new(ip("2001:db8::"), 32)];
    assert!(target.services.values().all(|service| service.source_ranges == BTreeSet::from(ranges)));
    world.probe("10.0.0.1", failed());
    assert!(!is_held(&world.decide().target));
}

#[test]
fn when_all_probes_fail_none_is_believed() {
    let mut world = World::new(Delivery::Auto);
    for address in ["10.0.0.1", "10.0.0.2", "10.0.9.3"] {
        world.probe(address, failed());
    }
    let decision = world.decide();
    assert_eq!(takers(&decision).len(), 3);
    assert!(decision.held.contains(&ip(VIP)) && decision.announced.contains_key(&ip(VIP)));
    assert!(
        decision.services[0].backends[0].reason.contains("not believed"),
        "{}",
        decision.services[0].backends[0].reason
    );
    let said: Vec<_> = decision.services.iter().map(|one| (one.probes_believed, one.local_first)).collect();
    assert_eq!(said, [(false, false)]);
    world.probe("10.0.0.1", ProbeState::Healthy);
    assert!(world.decide().services[0].probes_believed);
}

#[test]
fn backends_without_weight_do_not_make_the_others_probes_unbelievable() {
    let mut world = World::new(Delivery::Auto);
    world.desired.services[0].backends[2].weight = 0;
    world.probe("10.0.0.1", failed());
    assert_eq!(takers(&world.decide()), ["10.0.0.2"]);
}

#[test]
fn what_an_earlier_agent_found_failed_stays_out_until_a_probe_succeeds() {
    let mut world = World::new(Delivery::Auto);
    world.distrusted.insert(("api".to_owned(), BackendAddress { address: ip("10.0.0.2"), port: 6443 }));
    assert_eq!(takers(&world.decide()), ["10.0.0.1", "10.0.9.3"]);
    world.probe("10.0.0.2", ProbeState::Healthy);
    assert_eq!(takers(&world.decide()).len(), 3);
}

#[test]
fn with_new_maps_a_vip_is_announced_when_the_own_backend_has_answered() {
    let mut world = World::new(Delivery::Auto);
    assert!(!world.decide().target.services.values().any(|service| service.rejoins));
    world.unproven.insert(("api".to_owned(), BackendAddress { address: ip("10.0.0.1"), port: 6443 }));
    let decision = world.decide();
    assert!(decision.target.services.values().all(|service| service.rejoins));
    assert_eq!(takers(&decision).len(), 3, "what others send here is served");
    assert!(decision.announced.is_empty() && decision.held.contains(&ip(VIP)), "{decision:?}");
    assert!(decision.announcements[0].reason.contains("not been probed"), "{decision:?}");
    world.probe("10.0.0.1", ProbeState::Healthy);
    assert!(world.decide().announced.contains_key(&ip(VIP)));
}

#[test]
fn with_new_maps_a_vip_is_announced_when_all_probes_failed() {
    let mut world = World::new(Delivery::Auto);
    world.unproven.insert(("api".to_owned(), BackendAddress { address: ip("10.0.0.1"), port: 6443 }));
    for address in ["10.0.0.1", "10.0.0.2", "10.0.9.3"] {
        world.probe(address, failed());
    }
    assert!(world.decide().announced.contains_key(&ip(VIP)), "the first server is yet to start");
}

#[test]
fn a_director_without_backends_announces_only_when_told_always() {
    let mut world = World::new(Delivery::Auto);
    world.desired.services[0].backends.remove(0);
    assert!(world.decide().announced.is_empty());
    world.desired.announcements[0].when = AnnounceWhen::Always;
    assert!(world.decide().announced.contains_key(&ip(VIP)) && world.decide().held.is_empty());
}

#[test]
fn peers_are_known_by_address_and_on_the_link_by_mac() {
    let target = World::new(Delivery::Auto).decide().target;
    assert_eq!(target.peers, BTreeMap::from([(ip("10.0.0.2").into(), 1)]));
    assert_eq!(target.peer_macs, BTreeMap::from([(mac(2).0, 1)]));
    let bit = lb_common::hash::mac_bit(&mac(2).0) as usize;
    assert_eq!(target.settings.peer_macs[bit / 64], 1 << (bit % 64));
    assert_eq!(target.addresses[&ip("10.0.0.1").into()], AddressEntry::NODE);
    assert_eq!(target.addresses[&ip(VIP).into()], AddressEntry::VIP | AddressEntry::HELD);
}

#[test]
fn echo_requests_are_answered_where_the_vip_is_held_only() {
    let mut world = World::new(Delivery::Auto);
    let flags = |world: &World| world.decide().target.addresses[&ip(VIP).into()];
    assert_eq!(flags(&world), AddressEntry::VIP | AddressEntry::HELD);
    world.desired.services[0].backends.remove(0);
    assert_eq!(flags(&world), AddressEntry::VIP);
}

#[test]
fn errors_come_from_the_first_address_of_each_family() {
    let mut world = World::new(Delivery::Auto);
    world.desired.node.addresses = ["10.0.0.1", "fd00::1", "10.0.0.9"].map(ip).to_vec();
    assert_eq!(world.decide().target.settings.node, ["10.0.0.1", "fd00::1"].map(|address| ip(address).into()));
    world.desired.node.addresses = vec![ip("fd00::1")];
    assert_eq!(world.decide().target.settings.node, [IpAddr16::default(), ip("fd00::1").into()]);
}

#[path = "decide_drain_tests.rs"]
mod drains;

#[path = "decide_redirect_tests.rs"]
mod redirects;

#[path = "decide/tests/doubt.rs"]
mod doubt;

#[path = "decide/tests/members.rs"]
mod members;

#[path = "decide/tests/hold.rs"]
mod holding;

#[path = "decide/tests/slow_start.rs"]
mod slow_start;

#[path = "decide/tests/local_first.rs"]
mod local_first;

#[path = "decide/tests/histories.rs"]
mod histories;
