//! What a node holds and announces on account of its own server, or of any.

use super::*;

/// A world whose VIP is held when the node's own port is open.
fn control_plane() -> World {
    let mut world = World::new(Delivery::Auto);
    world.desired.services[0].hold = HoldWhen::PortOpen;
    world
}

fn closed() -> ProbeState {
    ProbeState::Failed { reason: "connection refused".to_owned(), port_open: false }
}

#[test]
fn a_control_plane_vip_is_held_once_the_nodes_own_server_was_heard() {
    let mut world = control_plane();
    let state = |world: &World| (!world.decide().held.is_empty(), !world.decide().announced.is_empty());
    assert_eq!(state(&world), (false, false), "nothing was heard of it yet");
    world.addresses.insert(ip(VIP).into(), AddressEntry::VIP | AddressEntry::HELD);
    assert_eq!(state(&world), (true, true), "a restart of the agent ends no flow");
    world.addresses.clear();
    for (own, expected) in
        [(closed(), (false, false)), (not_ready(), (true, false)), (ProbeState::Healthy, (true, true))]
    {
        world.probe("10.0.0.1", own.clone());
        assert_eq!(state(&world), expected, "{own:?}");
    }
}

#[test]
fn while_no_server_is_ready_a_control_plane_vip_is_where_a_port_is_open() {
    let mut world = control_plane();
    for other in ["10.0.0.2", "10.0.9.3"] {
        world.probe(other, not_ready());
    }
    world.probe("10.0.0.1", not_ready());
    let decision = world.decide();
    assert!(decision.held.contains(&ip(VIP)) && decision.announced.contains_key(&ip(VIP)));
    world.probe("10.0.0.1", closed());
    let decision = world.decide();
    assert!(decision.held.is_empty() && decision.announced.is_empty(), "that probes are not believed opens no port");
    assert_eq!(takers(&decision).len(), 3);
}

#[test]
fn with_any_backend_a_director_announces_while_one_takes_flows_anywhere() {
    let mut world = World::new(Delivery::Auto);
    world.desired.announcements[0].when = AnnounceWhen::AnyBackend;
    world.desired.services[0].backends.remove(0);
    let decision = world.decide();
    assert!(decision.announced.contains_key(&ip(VIP)) && decision.held.is_empty());
    assert_eq!(*decision.announcements[0].reason, "a backend of api takes flows");
    for backend in &mut world.desired.services[0].backends {
        backend.weight = 0;
    }
    assert!(world.decide().announced.is_empty());
    assert_eq!(*world.decide().announcements[0].reason, "no backend takes flows");
}

#[test]
fn a_control_plane_vip_is_let_go_for_a_server_that_accepts_connections() {
    let mut world = control_plane();
    world.addresses.insert(ip(VIP).into(), AddressEntry::VIP | AddressEntry::HELD);
    for address in ["10.0.0.1", "10.0.0.2", "10.0.9.3"] {
        world.probe(address, closed());
    }
    let decision = world.decide();
    assert!(decision.held.contains(&ip(VIP)) && decision.announced.contains_key(&ip(VIP)));
    world.probe("10.0.0.2", not_ready());
    let decision = world.decide();
    assert!(decision.held.is_empty() && decision.announced.is_empty());
}
