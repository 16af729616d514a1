//! Who may have which address, and where it is announced.

use super::*;
use crate::{cluster::claim::SHARING_KEY, model::ClusterPool};

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
