//! Services whose backends take flows little by little.

use super::*;

#[test]
fn a_backend_that_comes_back_starts_slowly_and_says_so() {
    let mut world = World::new(Delivery::Auto);
    world.desired.services[0].slow_start = Duration::from_secs(30);
    world.probe("10.0.0.2", failed());
    assert_eq!(world.go_on(0).next_change, None);
    world.probe("10.0.0.2", ProbeState::Healthy);
    let decision = world.go_on(100);
    assert_eq!(targets(&decision), [(10, true, true), (1, true, true), (10, true, true)]);
    assert_eq!(decision.next_change, Some(Duration::from_secs(6)));
    let shown = &decision.services[0].backends[1];
    assert_eq!((shown.weight, shown.probe.as_ref().map(|probe| probe.as_str())), (1, Some("tcp :6443")));
    assert!(shown.reason.ends_with("; slow start: 10 % of its weight"), "{}", shown.reason);
    let decision = world.go_on(30);
    assert_eq!((targets(&decision), decision.next_change), (vec![(1, true, true); 3], None));
}

#[test]
fn the_earliest_step_of_all_services_is_the_next_change() {
    let mut world = World::new(Delivery::Auto);
    world.desired.services[0].slow_start = Duration::from_secs(30);
    let other = Service {
        name: "other".to_owned(),
        slow_start: Duration::from_secs(10),
        ..(*world.desired.services[0]).clone()
    };
    world.desired.services.push(other.into());
    world.probe("10.0.0.2", failed());
    world.go_on(0);
    world.probe("10.0.0.2", ProbeState::Healthy);
    assert_eq!(world.go_on(1).next_change, Some(Duration::from_secs(2)));
}
