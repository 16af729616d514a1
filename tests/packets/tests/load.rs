//! Both variants of every program load on the kernel that runs, and what that takes is bounded.

use aya::{
    EbpfLoader, TestRun,
    programs::{Program, ProgramError, ProgramInfo, TestRunOptions, Xdp},
};
use lb_agent::dataplane::{KernelVersion, OBJECT};
use lb_common::verdict::Action;
use packets_tests::budget;

#[test]
fn every_program_passes_the_verifier_within_its_budget() {
    let bytes = OBJECT.expect("run `cargo xtask packets`: it builds the object and hands it to the agent's library");
    let mut ebpf = EbpfLoader::new().load(bytes).unwrap();
    let has_frags = KernelVersion::running() >= KernelVersion::FRAGS;
    let has_tracing = KernelVersion::running() >= KernelVersion::TRACING;
    let (mut loaded, mut failures) = (Vec::new(), Vec::new());
    for (name, program) in ebpf.programs_mut() {
        if name.ends_with("_frags") && !has_frags || name.starts_with("levee_trace") && !has_tracing {
            continue;
        }
        let info = load(program).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let verified = info.verified_instruction_count();
        match verified {
            Some(verified) => println!("verified: {name} {verified}"),
            None => println!("verified: {name} not told by this kernel"),
        }
        failures.extend(budget::check(name, verified).err());
        loaded.push(name.to_owned());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    loaded.sort();
    let expected = budget::CEILINGS.iter().map(|(name, _)| *name);
    let expected = expected.filter(|name| has_frags || !name.ends_with("_frags"));
    let expected: Vec<_> = expected.filter(|name| has_tracing || !name.starts_with("levee_trace")).collect();
    assert_eq!(loaded, expected);
}

/// Loads a program of the object; returns what the kernel tells of it.
fn load(program: &mut Program) -> Result<ProgramInfo, ProgramError> {
    match program {
        Program::Xdp(program) => program.load().and_then(|()| program.info()),
        Program::CgroupSockAddr(program) => program.load().and_then(|()| program.info()),
        Program::SchedClassifier(program) => program.load().and_then(|()| program.info()),
        other => panic!("none of XDP, tc and cgroup: {:?}", other.prog_type()),
    }
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
