//! Failures that are not believed.

use std::time::Instant;

use super::*;
use crate::model::{Ended, Failing};

/// A backend fails since this many seconds, and had answered half a second before.
fn fails(world: &mut World, address: &str, begin: Instant, seconds: u64) {
    let probe = world.desired.services[0].probe.clone().unwrap();
    let since = begin + Duration::from_secs(seconds);
    let failing = Failing { since, answered: Some(since - Duration::from_millis(500)), ended: None };
    world.health.failing.insert(ProbeTarget { address: ip(address), probe }, failing);
}

#[test]
fn nobody_lets_go_before_another_is_known_to_be_better() {
    for hold in [HoldWhen::PortOpen, HoldWhen::Trusted] {
        let (mut world, begin) = (World::new(Delivery::Auto), Instant::now());
        world.desired.services[0].hold = hold;
        world.addresses.insert(ip(VIP).into(), AddressEntry::VIP | AddressEntry::HELD);
        let state = |world: &World| {
            let decision = world.decide();
            (!decision.held.is_empty(), !decision.announced.is_empty(), takers(&decision).len())
        };
        for address in ["10.0.0.1", "10.0.0.2", "10.0.9.3"] {
            world.probe(address, ProbeState::Healthy);
            fails(&mut world, address, begin, 1);
        }
        assert_eq!(state(&world), (true, true, 3), "{hold:?}: one failure is none");
        world.probe("10.0.0.1", failed());
        assert_eq!(state(&world), (true, true, 3), "{hold:?}: the others have not answered since");
        assert!(world.decide().services[0].backends[0].reason.contains("not believed yet"));
        fails(&mut world, "10.0.9.3", begin, 2);
        assert_eq!(state(&world), (false, false, 2), "{hold:?}: one had answered since, and failed later");
        fails(&mut world, "10.0.9.3", begin, 1);
        for address in ["10.0.0.2", "10.0.9.3"] {
            world.probe(address, failed());
        }
        assert_eq!(state(&world), (true, true, 3), "{hold:?}: they are dead as well");
    }
}

/// A backend that failed since the first second answers again: it failed last and answered first at these times, in
/// milliseconds.
fn ends(world: &mut World, address: &str, begin: Instant, failed: u64, answered: u64) {
    fails(world, address, begin, 1);
    let [failed, answered] = [failed, answered].map(|at| begin + Duration::from_millis(at));
    let probe = world.desired.services[0].probe.clone().unwrap();
    let failing = world.health.failing.get_mut(&ProbeTarget { address: ip(address), probe }).unwrap();
    failing.ended = Some(Ended { failed, answered });
}

#[test]
fn servers_that_were_stuck_together_do_not_let_go_when_the_first_is_found_to_answer() {
    let (mut world, begin) = (World::new(Delivery::Auto), Instant::now());
    for address in ["10.0.0.1", "10.0.0.2", "10.0.9.3"] {
        world.probe(address, failed());
        ends(&mut world, address, begin, 3000, 4000);
    }
    let serving = |world: &World| {
        let decision = world.decide();
        (!decision.announced.is_empty(), takers(&decision).len())
    };
    assert_eq!(serving(&world), (true, 3), "all answer again, though not often enough");
    world.probe("10.0.0.2", ProbeState::Healthy);
    assert!(serving(&world).0, "another is found first to answer often enough");
    ends(&mut world, "10.0.0.1", begin, 5000, 6000);
    assert!(!serving(&world).0, "it failed while another had answered, and is not back yet");
    world.probe("10.0.0.1", ProbeState::Healthy);
    assert!(serving(&world).0, "it is back");
}
