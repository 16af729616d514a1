//! `bench`: builds what is measured and what measures it, runs the parts, and makes the report.

use std::process::Command;

use anyhow::Result;

use crate::build::{build, build_bench_objects, embedding_cargo};
use crate::privilege::require_kernel_access;
use crate::process::{run, say};
use crate::setup::{Group, ensure};
use crate::test::BINARIES_VARIABLE;
use crate::workspace::{Profile, Workspace};

/// Tells the benchmark and its tests where the objects are that only they load.
pub const OBJECTS_VARIABLE: &str = "LEVEE_BENCH_OBJECTS";

/// A part of the benchmarks, or the report on all of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Part {
    /// The program alone, packet by packet
    Micro,
    /// Traffic through network namespaces, beside other balancers
    EndToEnd,
    /// The agent: rings, reaction, memory
    Agent,
    /// Agent and controller with an API: reaction, size, writes at rest
    Kubernetes,
    /// The report on what was measured so far
    Report,
}

impl Part {
    const MEASURED: [Self; 4] = [Self::Micro, Self::EndToEnd, Self::Agent, Self::Kubernetes];

    fn name(self) -> &'static str {
        match self {
            Self::Micro => "micro",
            Self::EndToEnd => "end-to-end",
            Self::Agent => "agent",
            Self::Kubernetes => "kubernetes",
            Self::Report => "report",
        }
    }
}

/// Runs one part, or all, and makes the report.
pub fn bench(workspace: &Workspace, part: Option<Part>, quick: bool, write_docs: bool) -> Result<()> {
    let measured: &[Part] = match &part {
        None => &Part::MEASURED,
        Some(Part::Report) => &[],
        Some(part) => std::slice::from_ref(part),
    };
    if !measured.is_empty() {
        require_kernel_access("bench")?;
        ensure(workspace, &[Group::Build, Group::Test, Group::Bench])?;
        build(workspace, Profile::Release)?;
        build_bench_objects(workspace)?;
    }
    let mut command = embedding_cargo(workspace);
    command.args(["build", "-p", "levee-bench"]).args(Profile::Release.args());
    run("building the benchmarks", &mut command)?;
    for part in measured {
        let mut command = program(workspace, *part);
        command.args(quick.then_some("--quick"));
        run(&format!("measuring: {}", part.name()), &mut command)?;
    }
    let mut command = program(workspace, Part::Report);
    if write_docs {
        command.arg("--write-docs").arg(workspace.root().join("docs/benchmarks.md"));
    }
    run("making the report", &mut command)?;
    say(format!("report: {}", workspace.bench().join("report.html").display()));
    Ok(())
}

fn program(workspace: &Workspace, part: Part) -> Command {
    let binaries = workspace.binaries(Profile::Release);
    let mut command = Command::new(binaries.join("levee-bench"));
    command.arg(part.name()).arg("--directory").arg(workspace.bench());
    command.env(BINARIES_VARIABLE, binaries).env("LEVEE_BPF_OBJECT", workspace.object());
    command.env(OBJECTS_VARIABLE, workspace.bench_objects()).current_dir(workspace.root());
    command
}
