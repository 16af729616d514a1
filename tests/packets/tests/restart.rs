//! A second start over the same pins, and the lock that keeps two agents apart.

use lb_agent::{
    dataplane::{Dataplane, DataplaneError, Kernel, Tables},
    model::Drain,
    plan::{MapState, RingOrigin, Sizes, TargetState, operations},
};
use lb_common::verdict::Verdict;
use packets_tests::{Bed, Counts, IN, SIZES, Way, World, addresses::*, dump, run_program, service, tcp, world};

fn serving() -> World {
    world()
        .with(service(VIP4, 80).held().backend(A4, Way::l2()).backend(B4, Way::gue(B4)))
        .with(service(VIP6, 0).udp().backend(A6, Way::ipip(A6)))
        .with(service(VIP6, 443).idle_backend(B6, Way::unknown()))
}

/// A bed with a history: entries came, went and moved to their other hop, and packets were counted.
fn used() -> Bed {
    let mut bed =
        Bed::holding(&world().with(service(VIP4, 80).backend(A4, Way::unknown()).backend(NODE4, Way::local())));
    bed.apply(&serving());
    for port in 1..50 {
        let _ = bed.send(&tcp(CLIENT4, port, VIP4, 80).frame().bytes(), IN);
    }
    bed
}

/// A state without what a restart cannot know: what rings were built from, and in which order free entries were used.
fn known(mut state: MapState) -> MapState {
    for service in state.services.values_mut() {
        service.ring = RingOrigin::Adopted;
        service.marks.clear();
    }
    state.free_backends.make_contiguous().sort_unstable();
    state
}

#[test]
fn a_restart_adopts_what_is_pinned() {
    let bed = used();
    let (maps, counts) = (dump(bed.pins()), bed.counts());
    let mut again = Kernel::open(bed.lock(), SIZES).unwrap();
    again.commit().unwrap();
    let adopted = again.state().unwrap();
    assert_eq!(known(adopted.clone()), known(bed.state().clone()));
    let (steps, _) = operations(&adopted, &serving().target(), again.rings(), 0).unwrap();
    assert!(steps.is_empty(), "the same target needs {steps:?}");
    assert!(dump(bed.pins()) == maps, "adopting changed a map");
    assert_eq!(bed.counts(), counts);
    assert!(counts.verdict(Verdict::L2) > 0 && counts.verdict(Verdict::Gue) > 0, "{counts}");
    let outcome = run_program(again.program().unwrap(), &tcp(CLIENT4, 1, VIP4, 80).frame().bytes(), IN);
    assert!(!outcome.is_passed() && !outcome.is_dropped(), "{outcome:?}");
    assert_eq!(bed.counts().since(&counts).drops(), 0, "the new program counts in the old maps");
    assert_ne!(bed.counts(), counts);
}

#[test]
fn a_change_after_a_restart_keeps_the_ids_of_what_stays() {
    let bed = used();
    let mut again = Kernel::open(bed.lock(), SIZES).unwrap();
    let adopted = again.state().unwrap();
    let changed = world()
        .with(service(VIP4, 80).held().backend(A4, Way::l2()).backend(B6, Way::gue(B6)))
        .with(service(VIP6, 0).udp().backend(A6, Way::ipip(A6)));
    let (steps, after) = operations(&adopted, &changed.target(), again.rings(), 0).unwrap();
    for step in &steps {
        again.perform(step).unwrap();
    }
    assert_eq!(known(again.state().unwrap()), known(after.clone()), "the maps are as the plan says");
    let (key, identity) = (service(VIP4, 80).key(), (A4.into(), lb_common::addr::Be16::new(80)));
    assert_eq!(after.services[&key].index, adopted.services[&key].index);
    assert_eq!(after.services[&key].backends[&identity].id, adopted.services[&key].backends[&identity].id);
}

/// Turns what the maps hold into `target`.
fn perform(kernel: &mut Kernel, target: &TargetState) {
    let (steps, _) = operations(&kernel.state().unwrap(), target, kernel.rings(), 0).unwrap();
    for step in &steps {
        kernel.perform(step).unwrap();
    }
}

/// How many of the flows behind their SYN go to the backend behind [`DRAINED_MAC`].
fn kept(kernel: &mut Kernel) -> usize {
    let frames = (1..200).map(|port| tcp(CLIENT4, port, VIP4, 80).frame().bytes());
    let program = kernel.program().unwrap();
    frames.filter(|frame| run_program(program, frame, IN).frame[..6] == DRAINED_MAC).count()
}

const DRAINED_MAC: [u8; 6] = [2, 0, 0, 0, 0, 99];

#[test]
fn a_drain_survives_a_restart_and_its_deadline_cuts_what_is_recorded() {
    let web = service(VIP4, 80).backend(A4, Way::l2()).backend(B4, Way::l2().next(DRAINED_MAC));
    let (key, serving) = (web.key(), world().with(web));
    let drain = Drain { since: 7, deadline: Some(u64::MAX), with_node: true };
    let drained = |keeps_flows| {
        let mut target = serving.target();
        let backends = &mut target.services.get_mut(&key).unwrap().backends;
        let backend = backends.get_mut(&(B4.into(), lb_common::addr::Be16::new(80))).unwrap();
        (backend.in_ring, backend.keeps_flows, backend.drain) = (false, keeps_flows, Some(drain));
        target
    };
    let bed = Bed::holding(&serving);
    let mut first = Kernel::open(bed.lock(), SIZES).unwrap();
    perform(&mut first, &drained(true));
    first.sign("node-a", Some(drain)).unwrap();
    let before = kept(&mut first);
    assert!(before > 50, "{before} of 199 flows are the drained backend's");
    let syn = tcp(CLIENT4, 1_000, VIP4, 80).syn().frame().bytes();
    let all_syns = |kernel: &mut Kernel| run_program(kernel.program().unwrap(), &syn, IN).frame[..6] == DRAINED_MAC;
    assert!(!all_syns(&mut first));
    drop(first);

    let mut again = Kernel::open(bed.lock(), SIZES).unwrap();
    let state = again.state().unwrap();
    let found: Vec<_> = state.services[&key].backends.values().map(|backend| backend.drain).collect();
    assert!(found.contains(&Some(drain)) && found.contains(&None), "{found:?}");
    assert_eq!(again.node_drain().unwrap(), Some(drain));
    let (steps, _) = operations(&state, &drained(true), again.rings(), 0).unwrap();
    assert_eq!(steps, [], "the drain goes on as it was");
    assert_eq!(kept(&mut again), before, "and its flows stay");

    perform(&mut again, &drained(false));
    assert_eq!(kept(&mut again), 0, "the deadline is over: recorded or not, they are cut");
    again.sign("node-a", None).unwrap();
    assert_eq!(again.node_drain().unwrap(), None);
}

#[test]
fn other_sizes_are_built_beside_and_put_in_force_by_commit() {
    let bed = used();
    let larger = Sizes { backends: SIZES.backends * 2, ..SIZES };
    let counts = bed.counts();
    let old = dump(bed.pins());
    let mut again = Kernel::open(bed.lock(), larger).unwrap();
    let state = again.state().unwrap();
    assert_eq!((state.sizes, state.services.len()), (larger, 3));
    let (steps, _) = operations(&state, &serving().target(), again.rings(), 0).unwrap();
    assert!(steps.is_empty(), "it holds the same before it is in force: {steps:?}");
    assert!(dump(bed.pins()) == old, "the set in force is as it was until `commit`");
    again.commit().unwrap();
    let tables = Tables::open(|name| bed.pins().map(name)).unwrap();
    let state = again.state().unwrap();
    assert_eq!(state.sizes, larger);
    let outcome = run_program(again.program().unwrap(), &tcp(CLIENT4, 1, VIP4, 80).frame().bytes(), IN);
    assert!(!outcome.is_passed() && !outcome.is_dropped(), "{outcome:?}");
    let fresh = Counts::read(&tables, &state);
    assert_eq!(fresh.verdict(Verdict::L2) + fresh.verdict(Verdict::Gue), 1, "counted in the new maps: {fresh}");
    assert_eq!(bed.counts(), counts, "and not in the old ones");
    let report = bed.lookup(&tcp(CLIENT4, 1, VIP4, 80).frame().bytes());
    let chosen = state.services[&service(VIP4, 80).key()].backends.values();
    assert!(chosen.into_iter().any(|backend| backend.id.bits() == report.backend), "the dry entry reads the new maps");
}

#[test]
fn a_set_that_was_never_committed_is_given_up() {
    let bed = used();
    let larger = Sizes { services: SIZES.services * 2, ..SIZES };
    drop(Kernel::open(bed.lock(), larger).unwrap());
    let adopted = Kernel::open(bed.lock(), SIZES).unwrap().state().unwrap();
    assert_eq!(known(adopted), known(bed.state().clone()));
}

#[test]
fn a_second_agent_is_refused_by_the_name_of_the_first() {
    let mut bed = used();
    bed.kernel().sign("node-a", None).unwrap();
    assert!(bed.pins().is_locked());
    let refused = bed.pins().lock().err().unwrap();
    assert!(matches!(refused, DataplaneError::Locked { .. }), "{refused:?}");
    let (text, pid) = (refused.to_string(), std::process::id());
    assert!(text.contains(&format!("process {pid} of node node-a")), "{text}");
}

#[test]
fn detaching_leaves_no_pin() {
    let bed = used();
    let root = bed.pins().root().to_owned();
    assert!(root.join("lookup").exists());
    drop(bed);
    assert!(!root.exists());
}
