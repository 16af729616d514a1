//! Silent nodes, and the gate for announcing.

use std::time::Instant;

use super::*;
use crate::model::{Gate, Member, MemberState};

/// Node `node-2`, 10.0.0.2, in this state, and `node-3` with 10.0.9.3.
fn members(state: MemberState) -> Members {
    let member = |address, state| Member { addresses: vec![ip(address)], state, knows_us: Some(true) };
    let second = ("node-2".to_owned(), member("10.0.0.2", state));
    let third = ("node-3".to_owned(), member("10.0.9.3", MemberState::Heard));
    Members { peers: [second, third].into(), ..Members::default() }
}

fn silent() -> MemberState {
    MemberState::Silent { since: Instant::now() }
}

#[test]
fn a_silent_nodes_backend_takes_no_new_flows_and_keeps_its_old_ones() {
    let mut world = World::new(Delivery::Auto);
    world.members = members(silent());
    let decision = world.decide();
    assert_eq!(takers(&decision), ["10.0.0.1", "10.0.9.3"]);
    assert_eq!(targets(&decision), [(1, true, true), (1, false, true), (1, true, true)]);
    assert!(
        decision.services[0].backends[1].reason.starts_with("node node-2 is silent"),
        "{}",
        decision.services[0].backends[1].reason
    );
    // What looks like an old flow can be a new one.
    world.desired.services[0].protocol = Protocol::Udp;
    assert_eq!(targets(&world.decide())[1], (1, false, false));
    for state in [
        MemberState::Heard,
        MemberState::Left,
        MemberState::Unknown,
        MemberState::Stranger { fingerprint: "ffffffff".to_owned() },
    ] {
        world.members = members(state);
        assert_eq!(takers(&world.decide()).len(), 3);
    }
}

#[test]
fn silence_is_not_believed_when_most_are_silent_or_nobody_else_could_take_flows() {
    let mut world = World::new(Delivery::Auto);
    world.members = Members { most_silent: true, ..members(silent()) };
    assert_eq!(takers(&world.decide()).len(), 3);
    world.members.most_silent = false;
    world.probe("10.0.0.1", failed());
    world.probe("10.0.9.3", failed());
    let decision = world.decide();
    assert_eq!(takers(&decision), ["10.0.0.2"], "its probe passes, the others' fail");
    world.probe("10.0.0.2", failed());
    let decision = world.decide();
    assert_eq!(takers(&decision), ["10.0.0.1", "10.0.9.3"], "all probes fail, and one is silent too");
    assert!(!decision.services[0].probes_believed);
}

#[test]
fn nothing_is_announced_while_the_gate_is_shut() {
    let mut world = World::new(Delivery::Auto);
    world.members.gate = Gate::Unknown(vec!["node-2".to_owned()]);
    for when in [AnnounceWhen::LocalBackend, AnnounceWhen::Always] {
        world.desired.announcements[0].when = when;
        let decision = world.decide();
        assert!(decision.announced.is_empty() && decision.held.contains(&ip(VIP)), "held all the same");
        let reason = &decision.announcements[0].reason;
        assert!(reason.starts_with("not known as a director yet to node-2"), "{reason}");
    }
    world.members.gate = Gate::Open;
    assert!(!world.decide().announced.is_empty());
}
