//! The tests and the programs they start, linked statically so that they run without a system around them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::build::{build_ebpf, embedding_cargo};
use crate::process::{ask, say, shown};
use crate::workspace::Workspace;

use super::folder;

/// Named, so that flags reach the guest's programs only and not those that build them.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Namespace tests that need devices which not every kernel has; they exist for guests only.
const GUEST_TESTS: &str = "kernel_devices";

/// A program for the guest.
#[derive(Clone, Debug)]
pub struct Binary {
    /// Name in the guest.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// How many tests it has; `None` if it is none but started by them.
    pub tests: Option<u32>,
}

/// Builds everything that goes into the guest; of the test programs those named in `only`, or all if that is empty.
///
/// # Errors
/// If something does not build, or no test program is left.
pub fn build(workspace: &Workspace, only: &[String]) -> Result<Vec<Binary>> {
    build_ebpf(workspace)?;
    say("building the tests for the guests (some minutes at the first time)");
    let mut binaries = Vec::new();
    for arguments in [
        &["build", "-p", "lb-agent", "-p", "netns-tests", "--bins"][..],
        &["test", "--no-run", "-p", "packets-tests", "--tests"],
        &["test", "--no-run", "-p", "netns-tests", "--features", "guest", "--test", GUEST_TESTS],
    ] {
        for (name, path, is_test) in compile(workspace, arguments)? {
            let tests = if is_test { Some(count(&path)?) } else { None };
            // Unit tests of the test beds run on the host.
            if tests != Some(0) && !name.ends_with("_tests") && !binaries.iter().any(|b: &Binary| b.name == name) {
                binaries.push(Binary { name, path, tests });
            }
        }
    }
    let built: Vec<_> = binaries.iter().filter(|binary| binary.tests.is_some()).map(|b| b.name.clone()).collect();
    if let Some(unknown) = only.iter().find(|name| !built.contains(name)) {
        bail!("no test program {unknown}; these are: {}", built.join(", "));
    }
    binaries.retain(|binary| binary.tests.is_none() || only.is_empty() || only.contains(&binary.name));
    binaries.sort_by(|a, b| a.name.cmp(&b.name)); // cargo names them as it is done with them
    if built.is_empty() {
        bail!("cargo built no test for the guests");
    }
    Ok(binaries)
}

/// Runs cargo; returns name and path of every executable, and whether it is a test.
fn compile(workspace: &Workspace, arguments: &[&str]) -> Result<Vec<(String, PathBuf, bool)>> {
    let mut command = embedding_cargo(workspace);
    command.args(arguments).args(["--target", TARGET, "--message-format=json-render-diagnostics"]);
    command.env("RUSTFLAGS", "-C target-feature=+crt-static").env("CARGO_TARGET_DIR", folder(workspace).join("build"));
    // Emulated, what loads programs takes minutes if it is not optimized. Assertions stay.
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_PROFILE_DEV_DEBUG", "0");
    println!("    $ {}", shown(&command));
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("starting `{}`", shown(&command)))?;
    if !output.status.success() {
        bail!("`{}` failed ({}); its output above says why", shown(&command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(executable).collect())
}

/// What a line of cargo's messages says of an executable.
fn executable(line: &str) -> Option<(String, PathBuf, bool)> {
    let (_, rest) = line.split_once("\"executable\":\"")?;
    let path = PathBuf::from(rest.split('"').next()?);
    let file = path.file_name()?.to_str()?;
    let is_test = line.contains("\"test\":true}") && path.parent().is_some_and(|parent| parent.ends_with("deps"));
    // Files of tests end in a hash.
    let name = if is_test { file.rsplit_once('-')?.0 } else { file };
    Some((name.to_owned(), path.clone(), is_test))
}

/// How many tests a test program has, by its own list.
fn count(path: &Path) -> Result<u32> {
    let listed = ask(Command::new(path).args(["--list", "--format", "terse"]));
    let listed = listed.with_context(|| format!("{} does not list its tests", path.display()))?;
    Ok(u32::try_from(listed.lines().filter(|line| line.ends_with(": test")).count())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_told_apart_from_tests() {
        let message = |path: &str, test: bool| {
            format!(
                "{{\"reason\":\"compiler-artifact\",\"profile\":{{\"opt_level\":\"0\",\"test\":{test}}},\"executable\":\"{path}\",\"fresh\":true}}"
            )
        };
        let found = executable(&message("/t/debug/deps/forward-0a1b", true));
        assert_eq!(found, Some(("forward".to_owned(), "/t/debug/deps/forward-0a1b".into(), true)));
        let found = executable(&message("/t/debug/lb-agent", false));
        assert_eq!(found, Some(("lb-agent".to_owned(), "/t/debug/lb-agent".into(), false)));
        assert_eq!(executable("{\"reason\":\"compiler-artifact\",\"executable\":null}"), None);
    }
}
