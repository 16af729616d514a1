//! Everything that judges the code without running it.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::alerts;
use crate::build::{bpf_cargo, bpf_tools, build_ebpf, embedding_cargo};
use crate::manifests::manifests;
use crate::process::{foreign, host_cargo, run, say};
use crate::setup::{Group, cargo_deny, ensure};
use crate::tidy;
use crate::workspace::Workspace;

/// Runs every lint; the cheap ones first, the first failure ends it.
pub fn lint(workspace: &Workspace) -> Result<()> {
    ensure(workspace, &[Group::Build, Group::Lint])?;
    let started = Instant::now();
    run("checking the format", host_cargo(workspace).args(["fmt", "--all", "--check"]))
        .context("the format differs; `cargo fmt --all` repairs it")?;
    tidy::check(workspace)?;
    deny(workspace)?;
    manifests(workspace, true)?;
    alerts::check(workspace)?;
    build_ebpf(workspace)?; // so that clippy sees the code that embeds it
    clippy_host(workspace)?;
    clippy_bpf(workspace)?;
    docs(workspace)?;
    say(format!("lint is clean ({} s)", started.elapsed().as_secs()));
    Ok(())
}

/// Licences, banned crates and sources. Advisories need a database from the network, so they are no part of it.
fn deny(workspace: &Workspace) -> Result<()> {
    let program = cargo_deny(workspace).context("cargo-deny is missing; run `cargo xtask setup`")?;
    let mut command: Command = foreign(workspace, program);
    command.args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    run("checking licences, banned crates and sources of the dependencies", &mut command)
}

fn clippy_host(workspace: &Workspace) -> Result<()> {
    let mut command = embedding_cargo(workspace);
    command.args([
        "clippy",
        "--workspace",
        "--exclude",
        "lb-ebpf",
        "--exclude",
        "bench-ebpf",
        "--all-targets",
        "--features",
        "netns-tests/guest",
        "--",
        "-D",
        "warnings",
    ]);
    run("running clippy on the host crates", &mut command)
}

fn clippy_bpf(workspace: &Workspace) -> Result<()> {
    let tools = bpf_tools(workspace)?;
    for (package, features) in
        [("lb-ebpf", &[][..]), ("lb-ebpf", &["--features", "yardstick-lru"]), ("bench-ebpf", &[])]
    {
        let mut command = bpf_cargo(workspace, &tools, "clippy", package)?;
        command.args(features).args(["--", "-D", "warnings"]);
        run("running clippy on the BPF code", &mut command)?;
    }
    Ok(())
}

fn docs(workspace: &Workspace) -> Result<()> {
    let mut command = embedding_cargo(workspace);
    // `--lib`: the program lb-agent and the library lb_agent would write the same page.
    command.args(["doc", "--no-deps", "--lib", "-p", "lb-common", "-p", "lb-agent"]).env("RUSTDOCFLAGS", "-D warnings");
    run("building the documentation", &mut command)
}
