use super::*;

impl World {
    fn drain(&mut self, target: &str, deadline_seconds: Option<u64>) {
        let request = crate::model::DrainRequest { target: target.to_owned(), services: Vec::new(), deadline_seconds };
        self.drains.drain(&self.desired, &request, 1_000_000_000, self.monotonic).unwrap();
    }
}

#[test]
fn a_drained_backend_takes_no_new_flows_and_keeps_those_that_it_has() {
    let mut world = World::new(Delivery::Auto);
    let before = world.decide();
    world.drain("10.0.0.2", None);
    let decision = world.decide();
    assert_eq!(decision.held, before.held, "held as before");
    assert_eq!(decision.announced, before.announced, "announced as before");
    let backends: Vec<_> =
        of_service(&decision).map(|one| (one.in_ring, one.keeps_flows, one.drain.is_some())).collect();
    assert_eq!(backends, [(true, true, false), (false, true, true), (true, true, false)]);
    assert_eq!(*decision.services[0].backends[1].reason, "drained by lbctl since 2001-09-09T01:46:40Z");
    assert_eq!(decision.next_change, None);
}

#[test]
fn after_its_deadline_a_drain_cuts_what_is_left() {
    let mut world = World::new(Delivery::Auto);
    world.monotonic = 5_000_000_000;
    world.drain("10.0.0.2", Some(600));
    assert_eq!(world.decide().next_change, Some(Duration::from_secs(600)));
    world.monotonic += 600_000_000_000;
    let decision = world.decide();
    let keeps: Vec<_> = of_service(&decision).map(|one| one.keeps_flows).collect();
    assert_eq!((keeps, decision.next_change), (vec![true, false, true], None));
    assert!(
        decision.services[0].backends[1].reason.ends_with("Z, deadline over"),
        "{}",
        decision.services[0].backends[1].reason
    );
}

#[test]
fn a_drained_node_withdraws_and_goes_on_holding() {
    let mut world = World::new(Delivery::Auto);
    world.desired.announcements[0].when = AnnounceWhen::Always;
    world.drain("node-1", None);
    let decision = world.decide();
    assert_eq!(decision.held, BTreeSet::from([ip(VIP)]));
    assert!(decision.announced.is_empty());
    assert_eq!(*decision.announcements[0].reason, "this node is drained by lbctl since 2001-09-09T01:46:40Z");
    let local = &decision.services[0].backends[0];
    assert!(
        !local.takes_flows && local.reason.starts_with("drained by lbctl with its node node-1 since "),
        "{local:?}"
    );

    let mut world = World::new(Delivery::Auto);
    world.drain("node-2", None);
    assert_eq!(world.decide().announced.len(), 1, "a peer's drain is no reason to withdraw here");
}

#[test]
fn when_all_but_the_drained_fail_their_probes_are_not_believed() {
    let mut world = World::new(Delivery::Auto);
    world.drain("10.0.0.1", None);
    world.probe("10.0.0.2", failed());
    world.probe("10.0.9.3", failed());
    let decision = world.decide();
    let takes: Vec<_> = decision.services[0].backends.iter().map(|one| one.takes_flows).collect();
    assert_eq!(takes, [false, true, true]);
    world.drain("10.0.0.2", None);
    world.drain("10.0.9.3", None);
    assert_eq!(takers(&world.decide()), [""; 0], "nobody takes flows when all are drained");
}

fn of_service(decision: &Decision) -> impl Iterator<Item = TargetBackend> {
    decision.target.services.values().next().unwrap().backends.values().map(|backend| **backend)
}
