//! Services that prefer the backend of the node that a flow enters.

use super::*;

fn world() -> World {
    let mut world = World::new(Delivery::Auto);
    world.desired.services[0].local_first = true;
    world
}

#[test]
fn a_healthy_own_backend_takes_all_that_enters_here_and_the_others_keep_what_they_have() {
    let mut world = world();
    world.probe("10.0.0.1", ProbeState::Healthy);
    let decision = world.decide();
    assert_eq!(targets(&decision), [(1, true, true), (1, false, true), (1, false, true)]);
    let other = &decision.services[0].backends[1];
    assert!(!other.takes_flows && other.reason.starts_with("`localFirst`: "), "{}", other.reason);
    assert!(decision.announcements[0].announced, "{}", decision.announcements[0].reason);
    // A director without a backend of its own chooses among all.
    world.desired.node.addresses = vec![ip("10.0.0.7")];
    assert_eq!(takers(&world.decide()), ["10.0.0.1", "10.0.0.2", "10.0.9.3"]);
}

#[test]
fn without_a_healthy_own_backend_all_others_take_flows() {
    let mut world = world();
    assert_eq!(
        takers(&world.decide()),
        ["10.0.0.1", "10.0.0.2", "10.0.9.3"],
        "it is not known yet whether one runs here"
    );
    world.probe("10.0.0.1", failed());
    assert_eq!(takers(&world.decide()), ["10.0.0.2", "10.0.9.3"]);
    for other in ["10.0.0.2", "10.0.9.3"] {
        world.probe(other, failed());
    }
    assert_eq!(takers(&world.decide()), ["10.0.0.1", "10.0.0.2", "10.0.9.3"], "when all fail, no probe is believed");
    world.probe("10.0.0.1", ProbeState::Healthy);
    world.desired.services[0].backends[0].weight = 0;
    world.probe("10.0.0.2", ProbeState::Healthy);
    assert_eq!(takers(&world.decide()), ["10.0.0.2"], "it has no weight");
}

#[test]
fn a_server_whose_vip_is_not_held_is_not_preferred() {
    let mut world = world();
    world.desired.services[0].probe = None;
    assert_eq!(takers(&world.decide()), ["10.0.0.1"], "what is not probed is believed");
    world.desired.services[0].probe = Some(tcp_probe());
    world.desired.services[0].hold = HoldWhen::PortOpen;
    world.probe("10.0.0.1", ProbeState::WantsCredentials { reason: "401".to_owned() });
    assert_eq!(takers(&world.decide()), ["10.0.0.1"]);
    world.probe("10.0.0.1", not_ready());
    assert_eq!(takers(&world.decide()), ["10.0.0.2", "10.0.9.3"], "held for its flows, not ready for new ones");
}
