//! Both variants of every program load on the kernel that runs.

use aya::{
    EbpfLoader, TestRun,
    programs::{TestRunOptions, Xdp},
};
use lb_agent::dataplane::{KernelVersion, OBJECT};
use lb_common::verdict::Action;

#[test]
fn every_variant_passes_the_verifier() {
    let bytes = OBJECT.expect("run `cargo xtask packets`: it builds the object and hands it to the agent's library");
    let mut ebpf = EbpfLoader::new().load(bytes).unwrap();
    let has_frags = KernelVersion::running() >= KernelVersion::FRAGS;
    let mut loaded = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        if name.ends_with("_frags") && !has_frags {
            continue;
        }
        let program: &mut Xdp = program.try_into().unwrap();
        program.load().unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let instructions = program.info().unwrap().verified_instruction_count();
        println!("{name}: {instructions:?} instructions verified");
        loaded.push((name.to_owned(), instructions));
    }
    loaded.sort();
    // Half of the kernel's million, since kernels differ in how well they prune.
    let heavy: Vec<_> = loaded.iter().filter(|(_, count)| count.is_some_and(|count| count > 500_000)).collect();
    assert!(heavy.is_empty(), "close to the verifier's limit: {heavy:?}");
    let loaded: Vec<_> = loaded.into_iter().map(|(name, _)| name).collect();
    let expected =
        ["levee", "levee_frags", "levee_lookup", "levee_lookup_frags", "levee_trace", "levee_trace_frags", "pass"];
    let expected: Vec<_> = expected.into_iter().filter(|name| has_frags || !name.ends_with("_frags")).collect();
    assert_eq!(loaded, expected);
}

#[test]
fn empty_maps_pass_everything() {
    let bytes = OBJECT.expect("run `cargo xtask packets`: it builds the object and hands it to the agent's library");
    let mut ebpf = EbpfLoader::new().load(bytes).unwrap();
    for name in ["levee", "pass"] {
        let program: &mut Xdp = ebpf.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
        let frame = packets_tests::tcp(packets_tests::addresses::CLIENT4, 40_000, packets_tests::addresses::VIP4, 80);
        let result =
            program.test_run(TestRunOptions { data_in: Some(&frame.frame().bytes()), ..TestRunOptions::default() });
        assert_eq!(result.unwrap().return_value, Action::Pass as u32, "{name}");
    }
}
