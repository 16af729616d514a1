//! Who may have which address, and where it is announced.

use super::*;
use crate::{
    cluster::{claim::SHARING_KEY, judged::News},
    model::ClusterPool,
};

#[test]
fn the_elder_of_two_keeps_the_address_unless_they_share_it() {
    let mut world = World::new();
    world.add("a-young", 7, &["192.0.2.1"], &["n1"]);
    world.add("b-old", 3, &["192.0.2.1"], &["n2"]);
    let composed = world.compose();
    assert_eq!(names(&composed), ["ns/b-old:80/tcp"]);
    assert_eq!(judged(&composed), "ns/a-young refused AddressTaken\n");
    world.service("a-young").ports[0].port = 81;
    assert_eq!(names(&world.compose()), ["ns/b-old:80/tcp"], "another port alone is no leave to share");
    let share = |world: &mut World, name: &str, key: &str| {
        world.service(name).annotations.insert(SHARING_KEY.to_owned(), key.to_owned());
    };
    share(&mut world, "a-young", "k");
    assert_eq!(judged(&world.compose()), "ns/a-young refused AddressTaken\n");
    share(&mut world, "b-old", "k");
    assert_eq!(names(&world.compose()), ["ns/a-young:81/tcp", "ns/b-old:80/tcp"]);
    // With a port in common, none of the younger's ports is served: the controller takes its address away.
    world.service("a-young").ports.push(port("http", "TCP", 80));
    assert_eq!(names(&world.compose()), ["ns/b-old:80/tcp"]);
}

#[test]
fn an_address_that_was_given_goes_before_one_that_is_only_named() {
    let mut world = World::new();
    let pool = world.inventory().pools.get_mut("pool").unwrap().spec.as_mut().unwrap();
    pool.allow_external_ips = true;
    world.add("elder", 1, &[], &["n1"]);
    world.service("elder").external_ips = vec!["192.0.2.1".to_owned()];
    assert_eq!(names(&world.compose()), ["ns/elder:80/tcp"]);
    world.add("given", 2, &["192.0.2.1"], &["n2"]);
    assert_eq!(names(&world.compose()), ["ns/given:80/tcp"]);
}

#[test]
fn vips_of_the_configuration_and_cluster_ips_are_refused() {
    let mut world = World::new();
    world.control_plane = Some(control_plane());
    world.add("api", 1, &["192.0.2.10"], &["n1"]);
    world.add("inner", 2, &["192.0.2.99"], &["n1"]);
    world.add("owner", 3, &[], &[]);
    world.service("owner").cluster_ips = vec![ip("192.0.2.99")];
    let composed = world.compose();
    assert_eq!(names(&composed), ["control-plane"]);
    let expected = "ns/api refused AddressRefused\nns/inner refused AddressRefused\nns/owner note AddressPending\n";
    assert_eq!(judged(&composed), expected);
}

#[test]
fn an_address_whose_pool_is_gone_or_overlapped_away_is_not_announced() {
    let mut world = World::new();
    world.add("web", 1, &["198.51.100.1"], &["n1"]);
    let mut composer = Composer::default();
    let mut served = |world: &World| {
        let composed = composer.compose(&world.sources());
        assert_eq!(composed.desired.announcements.len(), composed.served);
        composed.served
    };
    let put = |world: &mut World, pool: ClusterPool| {
        world.inventory().pools.insert("more".to_owned(), pool);
    };
    put(&mut world, offered(1, pool(&["198.51.100.0/24"])));
    assert_eq!(served(&world), 1);
    // An edit that takes addresses of another pool leaves what was in force before it.
    put(&mut world, offered(1, pool(&["192.0.2.255"])));
    assert_eq!(served(&world), 1);
    assert_eq!(world.compose().served, 0, "an agent that did not see it");
    // Until the controller says that something else is.
    put(&mut world, ClusterPool { is_judged: true, ..offered(1, pool(&["192.0.2.255"])) });
    assert_eq!(served(&world), 0);
    let good = pool(&["198.51.100.0/24"]);
    put(&mut world, ClusterPool { is_judged: true, last_good: Some(good), ..offered(1, pool(&["192.0.2.255"])) });
    assert_eq!((served(&world), world.compose().served), (1, 1), "agents agree by the controller's word");
    world.inventory().pools.remove("more");
    assert_eq!(served(&world), 0);
    // A younger pool that overlaps an elder one is not in force at all.
    put(&mut world, offered(7, pool(&["192.0.2.255-198.51.100.9"])));
    assert_eq!(served(&world), 0);
}

#[test]
fn an_address_on_a_link_is_served_and_not_announced() {
    let mut world = World::new();
    world.add("inside", 1, &["192.0.2.1"], &["n1"]);
    world.add("outside", 2, &["192.0.2.129"], &["n1"]);
    let subnet = |net: &str| Subnet { net: net.parse().unwrap(), interface: "eth0".to_owned() };
    world.connected = vec![subnet("10.0.0.0/24"), subnet("192.0.2.0/25")];
    let composed = world.compose();
    let expected = vec![(ip("192.0.2.129"), AnnounceWhen::AnyBackend)];
    assert_eq!((announced(&composed), composed.served), (expected, 2));
    assert_eq!(judged(&composed), "ns/inside warning AddressOnLink\n");
    let why = &composed.withheld[&ip("192.0.2.1")];
    assert!(why.starts_with("192.0.2.1 lies in 192.0.2.0/25 of eth0, "), "{why}");
}

#[test]
fn endpoints_of_services_that_share_settle_nothing_and_a_key_settles_all() {
    let mut world = World::new();
    for (created, name, port) in [(1, "a", 80), (2, "b", 81), (3, "c", 80)] {
        world.add(name, created, &["192.0.2.1"], &["n1"]);
        world.service(name).ports[0].port = port;
        world.service(name).annotations.insert(SHARING_KEY.to_owned(), "k".to_owned());
    }
    let mut composer = Composer::default();
    let composed = composer.compose(&world.sources());
    assert_eq!(names(&composed), ["ns/a:80/tcp", "ns/b:81/tcp"], "c has a port in common with its elder");
    let mut news = |world: &World| {
        let (inventory, pools) = (&world.snapshot.inventory, composer.pools.follow(&world.snapshot.inventory.pools));
        match composer.judged.follow(&world.kubernetes, inventory, BTreeSet::new(), pools) {
            News::Wishes(news) => Some((news.len(), composer.settled.take().and_then(|settled| settled.with(&news)))),
            News::Anything => None,
        }
    };
    let slices = vec![slice("a", vec![endpoint("10.244.0.1", "n1"), endpoint("10.244.0.2", "n2")]).into()];
    for name in ["b", "c"] {
        world.inventory().slices.insert(ObjectName::new("ns", name), slices.clone());
    }
    let (changed, settled) = news(&world).unwrap();
    assert_eq!((changed, settled.map(|settled| settled.result)), (2, Some(world.compose())));
    world.service("b").annotations.clear();
    assert!(news(&world).is_none());
}

#[test]
fn services_that_go_with_the_nodes_leave_nothing_behind() {
    let mut world = World::new();
    world.add("web", 1, &["192.0.2.1"], &["n1"]);
    let mut composer = Composer::default();
    assert_eq!(composer.compose(&world.sources()).served, 1);
    *world.inventory() = Inventory::default();
    assert_eq!(composer.compose(&world.sources()), world.compose());
}

/// What happens to one of four Services, or to this node's links.
#[derive(Clone, Debug)]
enum Step {
    Key(Option<u8>),
    Created(i64),
    Port(u16),
    Given(Option<u8>),
    Named(Option<u8>),
    Nodes(Vec<u8>),
    Gone,
    OnLink(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let address = || proptest::option::of(1u8..3);
    prop_oneof![
        2 => proptest::option::weighted(0.7, 0u8..2).prop_map(Step::Key),
        1 => (0i64..4).prop_map(Step::Created),
        1 => (80u16..83).prop_map(Step::Port),
        1 => address().prop_map(Step::Given),
        1 => address().prop_map(Step::Named),
        3 => proptest::collection::vec(1u8..4, 0..3).prop_map(Step::Nodes),
        1 => Just(Step::Gone),
        1 => any::<bool>().prop_map(Step::OnLink),
    ]
}

impl World {
    fn take(&mut self, name: &str, step: &Step) {
        let subnet = Subnet { net: "192.0.2.0/31".parse().unwrap(), interface: "eth0".to_owned() };
        let address = |last: &Option<u8>| last.map(|last| format!("192.0.2.{last}"));
        match step {
            Step::Key(key) => {
                let annotations = &mut self.service(name).annotations;
                annotations.remove(SHARING_KEY);
                annotations.extend(key.map(|key| (SHARING_KEY.to_owned(), key.to_string())));
            }
            Step::Created(created) => self.service(name).created = *created,
            Step::Port(port) => self.service(name).ports[0].port = *port,
            Step::Given(last) => self.service(name).ingress = address(last).iter().map(|text| given(text)).collect(),
            Step::Named(last) => self.service(name).external_ips = address(last).into_iter().collect(),
            Step::Nodes(nodes) => {
                let end = |node: &u8| endpoint(&format!("10.244.0.{node}"), &format!("n{node}"));
                let slice = slice("a", nodes.iter().map(end).collect());
                self.inventory().slices.insert(ObjectName::new("ns", name), vec![slice.into()]);
            }
            Step::Gone => drop(self.inventory().services.remove(&ObjectName::new("ns", name))),
            Step::OnLink(is_so) => self.connected = is_so.then_some(subnet).into_iter().collect(),
        }
    }
}

proptest! {
    /// Whatever an owner follows from changes: who has an address is what it would be if it were settled for the first time.
    #[test]
    fn who_has_an_address_does_not_depend_on_what_was(
        keyed in any::<bool>(),
        steps in proptest::collection::vec((0usize..4, step()), 1..30),
    ) {
        let mut world = World::new();
        world.inventory().pools.get_mut("pool").unwrap().spec.as_mut().unwrap().allow_external_ips = true;
        let mut composer = Composer::default();
        for (index, step) in steps {
            let name = format!("s{index}");
            if !world.inventory().services.contains_key(&ObjectName::new("ns", &name)) {
                world.add(&name, 1, &["192.0.2.1"], &["n1"]);
                world.service(&name).ports[0].port = [80, 81, 82, 80][index];
                world.take(&name, &Step::Key(keyed.then_some(0)));
            }
            world.take(&name, &step);
            prop_assert_eq!(composer.compose(&world.sources()), world.compose());
        }
    }
}
