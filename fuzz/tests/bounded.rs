//! The bounded run of CI: every target over the corpus, and over a fixed number of edits of it.

use lb_common::verdict::{DropReason, Verdict};
use levee_fuzz::{
    Target, corpus,
    engine::{Fed, Limit, feed},
};

/// The edits are the same in every run.
const SEED: u64 = 20;

/// Ends that no frame comes to on settled slots by hops that are as they should be, with the room that a test run gives;
/// and the limit, which depends on time.
const OUT_OF_REACH: [DropReason; 6] = [
    DropReason::StaleBackend,
    DropReason::NoHeadroom,
    DropReason::NoDevice,
    DropReason::NotLinear,
    DropReason::FlowTableFull,
    DropReason::AnswerLimit,
];

fn fed(target: Target, runs: u64) -> Fed {
    feed(target, SEED, Limit::Runs(runs)).unwrap_or_else(|error| panic!("{error:?}"))
}

#[test]
fn the_parser_stands_any_frame() {
    fed(Target::Parser, 200_000);
}

#[test]
fn the_configuration_stands_any_text() {
    fed(Target::Config, 2_000);
}

#[test]
fn the_program_decides_as_its_model_does() {
    let fed = fed(Target::Program, 20_000);
    assert!(fed.ours * 4 > fed.inputs, "most edits miss every VIP: {fed:?}");
    // A second chance is for slots that are not settled.
    let verdicts =
        Verdict::ALL.iter().filter(|verdict| **verdict != Verdict::SecondChance).map(|verdict| verdict.label());
    let drops = DropReason::ALL.iter().filter(|reason| !OUT_OF_REACH.contains(reason)).map(|reason| reason.label());
    let missed: Vec<_> = verdicts.chain(drops).filter(|end| !fed.ends.contains(end)).collect();
    assert_eq!(missed, [""; 0], "no frame came to these ends");
}

#[test]
fn the_corpus_is_what_the_encoders_make() {
    for target in Target::ALL {
        let committed = corpus::read_seeds(target).unwrap_or_else(|error| panic!("{error:?}"));
        let names = |inputs: &[corpus::Input]| inputs.iter().map(|input| input.name.clone()).collect::<Vec<_>>();
        let made = corpus::seeds(target);
        assert_eq!(names(&committed), names(&made), "renew it by `cargo xtask fuzz --write-corpus`");
        for (committed, made) in committed.iter().zip(&made) {
            assert!(committed == made, "{} has changed: `cargo xtask fuzz --write-corpus`", made.name);
        }
    }
}
