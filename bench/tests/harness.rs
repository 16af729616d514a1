//! The harness restores packets: run after run the frames that come out are right and counters exact. No time is judged.

use levee_bench::micro::{CASES, Order, Session};

/// Every case but those whose maps take long to fill.
fn cases() -> Vec<levee_bench::micro::Spec> {
    CASES.iter().filter(|spec| !spec.needs_large_maps()).copied().collect()
}

#[test]
fn every_case_ends_as_it_should_however_often_it_runs() {
    let mut session = Session::open(&cases(), Order::Forward).unwrap_or_else(|error| panic!("{error:#}"));
    session.check().unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn samples_of_few_runs_count_every_packet() {
    use levee_bench::micro::Plan;
    let cases = cases();
    let mut session = Session::open(&cases, Order::Swapped).unwrap_or_else(|error| panic!("{error:#}"));
    let plan = Plan { samples: 2, repeat: 10, order: Order::Swapped };
    let measured = session.measure(&plan).unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(measured.len(), cases.len());
    assert!(measured.values().all(|measured| measured.samples.len() == 2));
}
