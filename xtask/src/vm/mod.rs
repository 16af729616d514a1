//! `cargo xtask vm`: the packet tests on kernels of Debian, in guests that QEMU emulates.
//!
//! The tests are linked statically and lie with a shell in the guest's initial memory disk; nothing is installed, on the
//! machine or in the guest. A guest that dies, hangs or runs fewer tests than there are is a failure.

mod binaries;
mod guest;
mod image;
mod kernels;
mod modules;
mod report;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::say;
use crate::setup::{Group, ensure};
use crate::workspace::Workspace;

use binaries::Binary;
use kernels::Kernel;
use report::{Report, table};

/// How long a guest may take: some times what it takes on an idle machine of two cores.
const LIMIT: Duration = Duration::from_mins(90);

/// Runs the tests on each of these kernels, named by version such as `6.1`; on all that are known if none is named. Test
/// programs other than `only` are left out, unless that is empty.
///
/// # Errors
/// If a test failed on one of them or was not run, or a guest could not be made.
pub fn vm(workspace: &Workspace, versions: &[String], only: &[String]) -> Result<()> {
    let chosen = kernels::choose(versions)?;
    ensure(workspace, &[Group::Build, Group::Test, Group::Vm])?;
    let binaries = binaries::build(workspace, only)?;
    let mut reports = Vec::new();
    for kernel in chosen {
        let report = run(workspace, kernel, &binaries).unwrap_or_else(|error| {
            say(format!("Linux {}: {error:#}", kernel.version));
            Report::impossible(kernel.version, &format!("{error:#}"))
        });
        reports.push(report);
    }
    print!("{}", table(&reports));
    let failed: Vec<_> = reports.iter().filter(|report| !report.failures.is_empty()).map(Report::name).collect();
    if failed.is_empty() { Ok(()) } else { bail!("failed on {}", failed.join(", ")) }
}

/// Runs the tests on one kernel.
fn run(workspace: &Workspace, kernel: &Kernel, binaries: &[Binary]) -> Result<Report> {
    let unpacked = kernels::unpack(workspace, kernel)?;
    let directory = folder(workspace).join("guests").join(kernel.version);
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let image = image::build(&directory, &unpacked, binaries)?;
    say(format!("Linux {}: booting {}", kernel.version, unpacked.name));
    let report = guest::run(kernel.version, &unpacked.image, &image, &directory.join("console.log"), binaries, LIMIT)?;
    for failure in &report.failures {
        say(format!("Linux {}: {failure}", kernel.version));
    }
    Ok(report)
}

/// Where all of it lies.
fn folder(workspace: &Workspace) -> std::path::PathBuf {
    workspace.target().join("vm")
}
