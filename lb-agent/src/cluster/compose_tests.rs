use std::{fmt::Write, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    cluster::fixtures::*,
    model::{
        AnnounceNodes, AnnouncePolicy, AnnounceWhen, AnnouncerKind, ClusterService, Node, ObjectName, Origin,
        ServersFrom, inventory::EndpointSlice,
    },
};

const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

struct World {
    desired: DesiredState,
    kubernetes: KubernetesSettings,
    control_plane: Option<ControlPlaneSettings>,
    snapshot: Snapshot,
    age: Duration,
    room: Room,
    connected: Vec<Subnet>,
}

impl World {
    fn new() -> Self {
        let node = Node { name: "n1".to_owned(), addresses: vec![ip("10.0.0.1")] };
        Self {
            desired: DesiredState { node, peers: Vec::new(), services: Vec::new(), announcements: Vec::new() },
            kubernetes: settings(),
            control_plane: None,
            snapshot: Snapshot { inventory: Arc::new(inventory()), origin: Origin::Live },
            age: Duration::ZERO,
            room: room(),
            connected: Vec::new(),
        }
    }

    fn inventory(&mut self) -> &mut Inventory {
        Arc::make_mut(&mut self.snapshot.inventory)
    }

    /// Adds a Service with one endpoint on each of these nodes.
    fn add(&mut self, name: &str, created: i64, ingress: &[&str], nodes: &[&str]) {
        let endpoints = (1..).zip(nodes).map(|(last, node)| endpoint(&format!("10.244.0.{last}"), node)).collect();
        add(self.inventory(), name, service(created, ingress), vec![slice("a", endpoints)]);
    }

    fn service(&mut self, name: &str) -> &mut ClusterService {
        self.inventory().services.get_mut(&ObjectName::new("ns", name)).unwrap()
    }

    fn sources(&self) -> Sources<'_> {
        Sources {
            desired: &self.desired,
            kubernetes: Some(&self.kubernetes),
            control_plane: self.control_plane.as_ref(),
            snapshot: Some(&self.snapshot),
            age: self.age,
            room: self.room.clone(),
            connected: &self.connected,
        }
    }

    fn compose(&self) -> Composed {
        Composer::default().compose(&self.sources())
    }
}

fn names(composed: &Composed) -> Vec<&str> {
    composed.desired.services.iter().map(|service| service.name.as_str()).collect()
}

/// Who is told what, and why, without the words.
fn judged(composed: &Composed) -> String {
    composed.judgements.iter().fold(String::new(), |mut text, one| {
        let _ = writeln!(text, "{} {} {}", one.subject, one.severity, one.reason);
        text
    })
}

fn announced(composed: &Composed) -> Vec<(IpAddr, AnnounceWhen)> {
    composed.desired.announcements.iter().map(|one| (one.vip, one.when)).collect()
}

#[test]
fn services_stand_beside_the_configuration_and_peers_come_from_nodes() {
    let mut world = World::new();
    world.desired.peers.push(Peer { name: "edge".to_owned(), addresses: vec![ip("10.0.0.3")] });
    world.add("web", 1, &["192.0.2.1"], &["n1", "n2"]);
    let composed = world.compose();
    assert_eq!(names(&composed), ["ns/web:80/tcp"]);
    assert_eq!(announced(&composed), [(ip("192.0.2.1"), AnnounceWhen::AnyBackend)]);
    let peer = |name: &str, addresses: &[&str]| Peer {
        name: name.to_owned(),
        addresses: addresses.iter().copied().map(ip).collect(),
    };
    // What the configuration gives to a peer is not another's, too.
    assert_eq!(
        composed.desired.peers,
        [peer("edge", &["10.0.0.3"]), peer("n2", &["10.0.0.2", "fd00::2"]), peer("n3", &["fd00::3"])]
    );
    assert_eq!((judged(&composed).as_str(), composed.served), ("", 1));
    world.kubernetes.peers_from_nodes = false;
    assert_eq!(world.compose().desired.peers, [peer("edge", &["10.0.0.3"])]);
    world.kubernetes.services = false;
    assert_eq!(names(&world.compose()), [""; 0]);
}

fn control_plane() -> ControlPlaneSettings {
    ControlPlaneSettings {
        vips: vec![ip("192.0.2.10")],
        port: 6443,
        server_port: 6443,
        connect_translation: false,
        local_first: false,
        backends: vec![ip("10.0.0.1"), ip("10.0.0.2")],
        from: ServersFrom::Endpoints,
        node_selector: Default::default(),
        probe: None,
        announced_for: Some(Duration::from_secs(10)),
    }
}

#[test]
fn the_control_plane_needs_no_inventory() {
    let mut world = World::new();
    world.control_plane = Some(control_plane());
    let sources = Sources { snapshot: None, ..world.sources() };
    let composed = Composer::default().compose(&sources);
    assert_eq!(names(&composed), ["control-plane"]);
    assert_eq!(announced(&composed), [(ip("192.0.2.10"), AnnounceWhen::LocalBackend)]);
    assert_eq!(composed.api_servers, ["10.0.0.1:6443", "10.0.0.2:6443"].map(|server| server.parse().unwrap()));
    world.desired.node.addresses = vec![ip("10.0.0.2")];
    world.kubernetes.access.servers = ["10.0.0.1:6443", "10.0.0.0:6443"].map(|server| server.parse().unwrap()).to_vec();
    let composed = Composer::default().compose(&Sources { snapshot: None, ..world.sources() });
    let expected = ["10.0.0.2:6443", "10.0.0.1:6443", "10.0.0.0:6443"].map(|server| server.parse().unwrap());
    assert_eq!(composed.api_servers, expected, "the own server first, what is only written last");
}

/// The rules of kube-proxy keep no socket of connections to pods; those of API servers are sockets of their nodes.
#[test]
fn connections_of_the_control_plane_have_a_second_chance_and_others_if_told_so() {
    let mut world = World::new();
    world.control_plane = Some(control_plane());
    world.add("web", 1, &["192.0.2.1"], &["n1"]);
    for told in [false, true] {
        world.kubernetes.second_chance = told;
        let composed = world.compose();
        let chances = composed.desired.services.iter().map(|service| (service.name.as_str(), service.second_chance));
        assert_eq!(chances.collect::<Vec<_>>(), [("control-plane", true), ("ns/web:80/tcp", told)]);
    }
}

#[test]
fn a_saved_inventory_announces_services_for_a_time_and_the_control_plane_always() {
    let mut world = World::new();
    world.control_plane = Some(control_plane());
    world.add("web", 1, &["192.0.2.1"], &["n1"]);
    world.snapshot.origin = Origin::Saved { age: Duration::from_secs(60) };
    world.age = Duration::from_secs(3599);
    let composed = world.compose();
    assert_eq!((composed.desired.announcements.len(), composed.changes_in), (2, Some(Duration::from_secs(1))));
    world.age = Duration::from_secs(3600);
    let composed = world.compose();
    assert_eq!(announced(&composed), [(ip("192.0.2.10"), AnnounceWhen::LocalBackend)]);
    assert_eq!((names(&composed).len(), composed.changes_in), (2, None), "what is not announced is still served");
    assert!(composed.withheld[&ip("192.0.2.1")].contains("maxSnapshotAge"));
    assert_eq!(judged(&composed), "cluster warning NotAnnounced\n");
    world.snapshot.origin = Origin::Live;
    assert_eq!(world.compose().desired.announcements.len(), 2);
}

#[test]
fn an_excluded_node_announces_no_service_and_keeps_the_control_plane() {
    let mut world = World::new();
    world.control_plane = Some(control_plane());
    world.add("web", 1, &["192.0.2.1"], &["n2"]);
    world.inventory().nodes.get_mut("n1").unwrap().labels.insert(EXCLUDED.to_owned(), String::new());
    let composed = world.compose();
    assert_eq!(announced(&composed), [(ip("192.0.2.10"), AnnounceWhen::LocalBackend)]);
    assert!(composed.withheld[&ip("192.0.2.1")].contains(EXCLUDED));
}

#[test]
fn the_policy_of_the_pool_says_who_announces() {
    let mut world = World::new();
    world.add("web", 1, &["192.0.2.1"], &["n2"]);
    let policy = |world: &mut World, edit: &dyn Fn(&mut AnnouncePolicy)| {
        edit(&mut world.inventory().pools.get_mut("pool").unwrap().spec.as_mut().unwrap().announce);
    };
    policy(&mut world, &|policy| policy.nodes = AnnounceNodes::LocalBackends);
    assert_eq!(announced(&world.compose()), [(ip("192.0.2.1"), AnnounceWhen::LocalBackend)]);
    policy(&mut world, &|policy| {
        policy.node_selector.insert("edge".to_owned(), "true".to_owned());
    });
    let composed = world.compose();
    assert_eq!((announced(&composed), composed.withheld.len()), (vec![], 1));
    world.inventory().nodes.get_mut("n1").unwrap().labels.insert("edge".to_owned(), "true".to_owned());
    assert_eq!(world.compose().desired.announcements[0].announcer, AnnouncerKind::Loopback);
}

#[test]
fn what_does_not_fit_is_refused_to_the_youngest() {
    for (shrink, key) in [
        ((|room: &mut Room| room.services = 2) as fn(&mut Room), "services"),
        (|room| room.backends = 3, "backends"),
        (|room| room.ring_slots = 3 * 4096, "ringSlots"),
        (|room| room.addresses = 2, "addresses"),
    ] {
        let mut world = World::new();
        for (name, created) in [("c", 1), ("b", 2), ("a", 3)] {
            world.add(name, created, &[&format!("192.0.2.{created}")], &["n1"]);
        }
        world.add("b", 2, &["192.0.2.2"], &["n1", "n2"]);
        shrink(&mut world.room);
        let composed = world.compose();
        assert_eq!(names(&composed), ["ns/b:80/tcp", "ns/c:80/tcp"], "{key}");
        assert_eq!(judged(&composed), "ns/a refused NoRoom\n");
        assert!(composed.judgements[0].message.contains(key), "{}", composed.judgements[0].message);
    }
}

#[test]
fn this_nodes_object_has_to_fit_the_configuration() {
    let mut world = World::new();
    world.desired.node.addresses = vec![ip("10.9.9.9")];
    world.inventory().nodes.insert("n4".to_owned(), node(&[]));
    assert_eq!(judged(&world.compose()), "node n1 warning NodeAddress\nnode n4 warning NodeAddress\n");
    world.kubernetes.node_name = "else".to_owned();
    let composed = world.compose();
    assert_eq!(judged(&composed), "node else warning NodeAddress\nnode n4 warning NodeAddress\n");
}

#[test]
fn only_what_changed_is_judged_anew() {
    let mut world = World::new();
    world.add("same", 1, &["192.0.2.1"], &["n1"]);
    world.add("other", 2, &["192.0.2.2"], &["n1"]);
    let mut composer = Composer::default();
    let before = composer.compose(&world.sources());
    world.add("other", 2, &["192.0.2.2"], &["n1", "n2"]);
    let composed = composer.compose(&world.sources());
    let is_kept = |at: usize| composed.desired.services[at].is(&before.desired.services[at]);
    assert_eq!((names(&composed)[0], is_kept(0), is_kept(1)), ("ns/other:80/tcp", false, true));
    assert_eq!(composed, world.compose());
    world.inventory().pools.clear();
    assert_eq!(names(&composer.compose(&world.sources())), [""; 0], "another pool is another judgement of all");
}

/// A Service as a property test makes it up.
#[derive(Clone, Debug)]
struct Made {
    created: i64,
    ingress: Vec<u8>,
    port: u16,
    protocol: usize,
    endpoints: Vec<(u8, u8, bool, bool)>,
    ranges: usize,
}

fn made() -> impl Strategy<Value = Made> {
    let endpoint = (1u8..9, 0u8..5, any::<bool>(), any::<bool>());
    (
        1i64..4,
        proptest::collection::vec(0u8..8, 0..3),
        79u16..82,
        0usize..4,
        proptest::collection::vec(endpoint, 0..8),
        0usize..3,
    )
        .prop_map(|(created, ingress, port, protocol, endpoints, ranges)| Made {
            created,
            ingress,
            port,
            protocol,
            endpoints,
            ranges,
        })
}

impl Made {
    fn put(&self, world: &mut World, name: &str, at: impl Fn(usize) -> usize) {
        let mut service = service(self.created, &[]);
        service.ingress = self.ingress.iter().map(|last| given(&format!("192.0.2.{last}"))).collect();
        service.ports = vec![port("http", ["TCP", "TCP", "UDP", "QUIC"][self.protocol], self.port)];
        service.source_ranges = [vec![], vec!["10.0.0.0/8".to_owned()], vec!["x".to_owned()]][self.ranges].clone();
        let mut slices: Vec<EndpointSlice> = ["a", "b", "c"].iter().map(|name| slice(name, Vec::new())).collect();
        slices.iter_mut().for_each(|slice| slice.ports[0].protocol.clone_from(&service.ports[0].protocol));
        for (index, (last, node, is_ready, ends)) in self.endpoints.iter().enumerate() {
            let mut endpoint = endpoint(&format!("10.244.0.{last}"), &format!("n{node}"));
            (endpoint.ready, endpoint.terminating) = (*is_ready, *ends);
            slices[at(index) % 3].endpoints.push(endpoint);
        }
        add(world.inventory(), name, service, slices);
    }
}

fn world_of(services: &[Made], at: impl Fn(usize) -> usize + Copy) -> World {
    let mut world = World::new();
    for (index, service) in services.iter().enumerate() {
        service.put(&mut world, &format!("s{index}"), at);
    }
    world
}

proptest! {
    /// An endpoint that is in two slices with different nodes cannot be: its node follows from its address here.
    #[test]
    fn the_order_and_cut_of_slices_change_nothing(services in proptest::collection::vec(made(), 1..6), seed in 0usize..7) {
        let one_node = |services: &[Made]| -> Vec<Made> {
            let mut services = services.to_vec();
            services.iter_mut().flat_map(|service| &mut service.endpoints).for_each(|endpoint| endpoint.1 = endpoint.0 % 5);
            services
        };
        let services = one_node(&services);
        let (world, other) = (world_of(&services, |_| 0), world_of(&services, |index| index * 5 + seed));
        let mut turned = other;
        for slices in turned.inventory().slices.values_mut() {
            slices.reverse();
            slices.iter_mut().for_each(|slice| slice.endpoints.reverse());
        }
        prop_assert_eq!(world.compose(), turned.compose());
    }

    /// The youngest comes last, whatever it asks for: no other Service's result is another for it.
    #[test]
    fn no_service_changes_what_becomes_of_elder_ones(services in proptest::collection::vec(made(), 0..6), bad in made()) {
        let before = world_of(&services, |index| index).compose();
        let mut world = world_of(&services, |index| index);
        Made { created: 9, ..bad }.put(&mut world, "bad", |index| index);
        let with = world.compose();
        let others = |composed: &Composed| -> Vec<Shared<Service>> {
            composed.desired.services.iter().filter(|service| !service.name.starts_with("ns/bad")).cloned().collect()
        };
        prop_assert_eq!(others(&before), others(&with));
        let bad = Subject::Service(ObjectName::new("ns", "bad"));
        let judgements: Vec<_> = with.judgements.iter().filter(|one| one.subject != bad).cloned().collect();
        prop_assert_eq!(&before.judgements, &judgements);
    }

    /// A composer that remembers says what a new one says.
    #[test]
    fn a_history_composes_as_each_of_its_states(history in proptest::collection::vec(proptest::collection::vec(made(), 0..5), 1..5)) {
        let mut composer = Composer::default();
        for services in history {
            let world = world_of(&services, |index| index);
            prop_assert_eq!(composer.compose(&world.sources()), world.compose());
        }
    }

    /// As long as only endpoints change, who has what is not settled anew: it comes to the same.
    #[test]
    fn a_history_of_endpoints_composes_as_each_of_its_states(
        services in proptest::collection::vec(made(), 1..6),
        steps in proptest::collection::vec((0usize..6, made()), 1..12),
        backends in 0u64..20,
    ) {
        let mut services = services;
        let mut composer = Composer::default();
        for (index, step) in steps {
            let index = index % services.len();
            services[index].endpoints = step.endpoints;
            let mut world = world_of(&services, |index| index);
            world.room.backends = backends;
            prop_assert_eq!(composer.compose(&world.sources()), world.compose());
        }
    }
}

#[path = "compose_address_tests.rs"]
mod addresses;
