//! Runs the tests: on the host, packets through the loaded program, traffic through namespaces, the API server. And the
//! demo.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Instant;

use anyhow::{Error, Result};

use crate::bench::OBJECTS_VARIABLE;
use crate::build::{build, build_bench_objects, build_ebpf, embedding_cargo};
use crate::kube::{ASSETS_VARIABLE, ensure as ensure_assets};
use crate::privilege::require_kernel_access;
use crate::process::{ask, foreign, host_cargo, observe, run, say};
use crate::promises;
use crate::setup::{Group, ensure};
use crate::summary::{Outcome, Phase, print_summary};
use crate::tally::Tally;
use crate::workspace::{Profile, Workspace};

/// Tells the namespace tests and the demo where `lb-agent` and `lbctl` are.
pub const BINARIES_VARIABLE: &str = "LEVEE_BIN_DIR";
/// Tells the test of the container image where its OCI layout is.
const IMAGE_VARIABLE: &str = "LEVEE_IMAGE_DIR";
/// Namespace tests that run side by side unless told otherwise: their timing suffers from more.
const NETNS_THREADS: &str = "--test-threads=2";

/// Everything: host tests, miri where there is one, packets, namespaces, API server; then a summary.
///
/// # Errors
/// If anything failed. Without `keep_going` the first failure ends it.
pub fn test(workspace: &Workspace, keep_going: bool) -> Result<()> {
    require_kernel_access("test")?;
    ensure(workspace, &[Group::Build, Group::Test])?;
    promises::forget(&workspace.promises())?;
    let mut phases = Vec::new();
    for (name, phase) in [
        ("host", host_tests as fn(&Workspace) -> Result<Outcome>),
        ("miri", miri),
        ("packets", |workspace| packet_tests(workspace, &[])),
        ("netns", |workspace| netns_tests(workspace, &[])),
        ("kube", |workspace| kube_tests(workspace, &[])),
        ("promises", promises),
    ] {
        let started = Instant::now();
        let outcome = if !keep_going && phases.iter().any(Phase::failed) {
            Outcome::Skipped("an earlier phase failed".to_owned())
        } else {
            phase(workspace).unwrap_or_else(|error| Outcome::Failed(Tally::default(), format!("{error:#}")))
        };
        phases.push(Phase { name, outcome, took: started.elapsed() });
    }
    print_summary(&phases)
}

/// `packets`: tables of packets through the loaded program.
pub fn packets(workspace: &Workspace, args: &[String]) -> Result<()> {
    single("packets", || packet_tests(workspace, args))
}

/// `netns`: real traffic between network namespaces.
pub fn netns(workspace: &Workspace, args: &[String]) -> Result<()> {
    single("netns", || netns_tests(workspace, args))
}

/// `kube`: with a real API server.
pub fn kube(workspace: &Workspace, args: &[String]) -> Result<()> {
    single("kube", || kube_tests(workspace, args))
}

/// `image --test`: the container image under the manifests' security settings.
pub fn image(workspace: &Workspace, layout: &Path) -> Result<()> {
    require_kernel_access("image --test")?;
    ensure(workspace, &[Group::Test, Group::Deploy])?;
    let mut command = embedding_cargo(workspace);
    command.env(IMAGE_VARIABLE, layout).env(BINARIES_VARIABLE, workspace.binaries(Profile::Debug));
    command.args(["test", "-p", "netns-tests", "--features", "image", "--test", "image", "--", "--nocapture"]);
    single("image", || tests("running the image as the manifests would", &mut command))
}

/// `demo`: replaces this process by the demo, so that Ctrl-C and the exit status are the demo's own.
pub fn demo(workspace: &Workspace, args: &[String]) -> Result<()> {
    require_kernel_access("demo")?;
    ensure(workspace, &[Group::Build, Group::Test])?;
    let is_kubernetes = args.first().is_some_and(|first| first == "kubernetes");
    let assets = if is_kubernetes { Some(ensure_assets(workspace)?) } else { None };
    build(workspace, Profile::Release)?;
    let mut command = embedding_cargo(workspace);
    command.args(["build", "-p", "netns-tests", "--bins"]).args(Profile::Release.args());
    if is_kubernetes {
        command.args(["-p", "kube-tests"]);
    }
    run("building the demo", &mut command)?;
    let binaries = workspace.binaries(Profile::Release);
    let program = binaries.join(if is_kubernetes { "demo-kubernetes" } else { "demo" });
    say("starting the demo");
    let mut demo = Command::new(&program);
    demo.args(&args[usize::from(is_kubernetes)..]);
    demo.env(BINARIES_VARIABLE, &binaries).env("LEVEE_BPF_OBJECT", workspace.object());
    if let Some(assets) = assets {
        demo.env(ASSETS_VARIABLE, &assets.folder);
    }
    Err(Error::new(demo.exec()).context(format!("starting {}", program.display())))
}

fn single(name: &'static str, phase: impl FnOnce() -> Result<Outcome>) -> Result<()> {
    let started = Instant::now();
    let outcome = phase()?;
    print_summary(&[Phase { name, outcome, took: started.elapsed() }])
}

/// Plain `cargo test`, exactly what works on a fresh clone: without root and without a BPF object.
fn host_tests(workspace: &Workspace) -> Result<Outcome> {
    tests("running the host tests", host_cargo(workspace).arg("test"))
}

/// `lb-common` under miri, with the first toolchain that has it.
fn miri(workspace: &Workspace) -> Result<Outcome> {
    let listed = ask(foreign(workspace, "rustup").args(["toolchain", "list"])).unwrap_or_default();
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    let has_miri =
        |name: &&str| ask(foreign(workspace, "rustup").args(["run", name, "cargo", "miri", "--version"])).is_some();
    let Some(name) = names.into_iter().find(has_miri) else {
        let reason = "no installed toolchain has miri (`rustup component add miri --toolchain nightly`)";
        say(format!("miri is not run: {reason}"));
        return Ok(Outcome::Skipped(reason.to_owned()));
    };
    let mut command = foreign(workspace, "rustup");
    command.args(["run", name, "cargo", "miri", "test", "-p", "lb-common", "--target-dir"]);
    command.arg(workspace.target().join("miri"));
    // Property tests read the clock and write failures to files; a few cases each are what an interpreter can do in time.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", "4");
    tests("running lb-common under miri", &mut command)
}

fn packet_tests(workspace: &Workspace, args: &[String]) -> Result<Outcome> {
    require_kernel_access("packets")?;
    build_ebpf(workspace)?;
    let mut command = embedding_cargo(workspace);
    command.env(OBJECTS_VARIABLE, build_bench_objects(workspace)?);
    command
        .args(["test", "-p", "packets-tests", "-p", "levee-bench", "-p", "levee-fuzz"])
        .args(harness_args(args, None));
    tests("running the packet tests", &mut command)
}

fn netns_tests(workspace: &Workspace, args: &[String]) -> Result<Outcome> {
    require_kernel_access("netns")?;
    ensure(workspace, &[Group::Build, Group::Test])?;
    build(workspace, Profile::Debug)?;
    let mut command = embedding_cargo(workspace);
    command.env(BINARIES_VARIABLE, workspace.binaries(Profile::Debug));
    command.args(["test", "-p", "netns-tests"]).args(harness_args(args, Some(NETNS_THREADS)));
    tests("running the namespace tests", &mut command)
}

fn kube_tests(workspace: &Workspace, args: &[String]) -> Result<Outcome> {
    require_kernel_access("kube")?;
    ensure(workspace, &[Group::Build, Group::Test])?;
    let assets = ensure_assets(workspace)?;
    build(workspace, Profile::Debug)?;
    let mut servers = embedding_cargo(workspace);
    run("building the servers behind the VIPs", servers.args(["build", "-p", "netns-tests", "--bins"]))?;
    let mut command = embedding_cargo(workspace);
    command.env(BINARIES_VARIABLE, workspace.binaries(Profile::Debug)).env(ASSETS_VARIABLE, &assets.folder);
    command.args(["test", "-p", "kube-tests"]).args(harness_args(args, Some(NETNS_THREADS)));
    tests(&format!("running the tests with {}", assets.server), &mut command)
}

/// What the phases before showed to be kept.
fn promises(workspace: &Workspace) -> Result<Outcome> {
    let (passed, red) = promises::report(&workspace.promises())?;
    let tally = Tally { passed, failed: u32::try_from(red.len())?, ignored: 0 };
    if red.is_empty() { Ok(Outcome::Passed(tally)) } else { Ok(Outcome::Failed(tally, red.join(", "))) }
}

/// Arguments for `cargo test`: filters and flags go to the test harness, with a default number of threads.
fn harness_args(args: &[String], threads: Option<&'static str>) -> Vec<String> {
    let told = args.iter().any(|arg| arg.starts_with("--test-threads"));
    let default = threads.filter(|_| !told).map(str::to_owned);
    let own = args.iter().filter(|arg| *arg != "--").cloned();
    let harness: Vec<String> = default.into_iter().chain(own).collect();
    if harness.is_empty() { harness } else { ["--".to_owned()].into_iter().chain(harness).collect() }
}

/// Runs `cargo test` and judges how it ended.
fn tests(step: &str, command: &mut Command) -> Result<Outcome> {
    let finished = observe(step, command)?;
    Ok(judge(finished.status, finished.tally))
}

/// A run without a single test is a failure: it proves nothing.
fn judge(status: ExitStatus, tally: Tally) -> Outcome {
    if !status.success() {
        let reason = if tally.failed > 0 { "tests failed".to_owned() } else { format!("`cargo test`: {status}") };
        return Outcome::Failed(tally, reason);
    }
    if tally.passed == 0 {
        return Outcome::Failed(tally, "no test ran; does the filter match a name?".to_owned());
    }
    Outcome::Passed(tally)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_reach_the_harness_once_separated() {
        assert_eq!(harness_args(&words("vlan -- --nocapture"), None), words("-- vlan --nocapture"));
        assert_eq!(harness_args(&[], None), words(""));
    }

    #[test]
    fn the_default_number_of_threads_gives_way_to_the_users() {
        assert_eq!(harness_args(&words("reload"), Some(NETNS_THREADS)), words("-- --test-threads=2 reload"));
        assert_eq!(harness_args(&words("--test-threads 1"), Some(NETNS_THREADS)), words("-- --test-threads 1"));
    }

    #[test]
    fn a_run_without_a_test_is_a_failure() {
        let ended =
            |code: i32, passed, failed| judge(ExitStatus::from_raw(code << 8), Tally { passed, failed, ignored: 0 });
        assert!(matches!(ended(0, 0, 0), Outcome::Failed(..)));
        assert!(matches!(ended(0, 1, 0), Outcome::Passed(_)));
        let expected = Outcome::Failed(Tally { passed: 1, failed: 2, ignored: 0 }, "tests failed".to_owned());
        assert_eq!(ended(101, 1, 2), expected);
        let expected = Outcome::Failed(Tally::default(), "`cargo test`: exit status: 101".to_owned());
        assert_eq!(ended(101, 0, 0), expected); // it did not compile
    }
}
