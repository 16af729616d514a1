//! Tests of the tests: code with a fault has to turn a promise red.
//!
//! The last commit is checked out beside the build, and built there. Each fault is put in, its test runs, and the fault is
//! taken out again. Before all that the tests have to pass as they are.

mod faults;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::kube;
use crate::process::{run, say};
use crate::workspace::Workspace;

use faults::{FAULTS, Fault};

/// What became of a test.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seen {
    /// It passed, and so did the promise.
    Kept,
    /// It ran, and the promise is broken.
    Broken,
    /// It did not run to an end.
    NotRun,
}

/// Puts the faults in, one after the other.
///
/// # Errors
/// If a test does not pass without a fault, or passes with one.
pub fn mutations(workspace: &Workspace, names: &[String], list: bool) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| !FAULTS.iter().any(|fault| fault.name == **name)) {
        bail!("no fault {unknown}; `cargo xtask mutations --list` shows them");
    }
    let chosen: Vec<_> =
        FAULTS.iter().filter(|fault| names.is_empty() || names.iter().any(|n| n == fault.name)).collect();
    if list {
        for Fault { name, what, promise, .. } in chosen {
            println!("{name:16} {promise}  {what}");
        }
        return Ok(());
    }
    let copy = Copy::of(workspace)?;
    let mut wrong = Vec::new();
    for (nth, fault) in chosen.iter().enumerate() {
        if !chosen[..nth].iter().any(|before| before.test == fault.test) {
            say(format!("{}: without a fault", fault.test));
            let seen = copy.test(fault)?;
            ensure!(seen == Seen::Kept, "{} is {seen:?} without a fault", fault.test);
        }
    }
    for fault in chosen {
        say(format!("{}: {}", fault.name, fault.what));
        let seen = copy.with(fault, || copy.test(fault))?;
        println!("    {} is {seen:?}", fault.promise);
        if seen != Seen::Broken {
            wrong.push(fault.name);
        }
    }
    ensure!(wrong.is_empty(), "no promise broke with: {}", wrong.join(", "));
    say("every fault was found");
    Ok(())
}

/// A checkout of its own.
struct Copy {
    root: PathBuf,
    assets: PathBuf,
}

impl Copy {
    fn of(workspace: &Workspace) -> Result<Self> {
        let root = workspace.target().join("mutations");
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.current_dir(workspace.root()).args(arguments);
            run("copying the last commit", &mut command)
        };
        if root.join(".git").exists() {
            let mut command = Command::new("git");
            let head =
                crate::process::ask(Command::new("git").current_dir(workspace.root()).args(["rev-parse", "HEAD"]));
            let head = head.context("git does not tell the last commit")?;
            command.current_dir(&root).args(["checkout", "--quiet", "--force", "--detach", head.trim()]);
            run("copying the last commit", &mut command)?;
        } else {
            git(&["worktree", "prune"])?;
            git(&["worktree", "add", "--quiet", "--detach", &root.display().to_string(), "HEAD"])?;
        }
        Ok(Self { root, assets: kube::ensure(workspace)?.folder })
    }

    /// Does `work` with the fault in its place.
    fn with<T>(&self, fault: &Fault, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let path = self.root.join(fault.file);
        let text = read(&path)?;
        fs::write(&path, put_in(fault, &text)?).with_context(|| format!("writing {}", path.display()))?;
        let done = work();
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        done
    }

    /// Runs the fault's test.
    fn test(&self, fault: &Fault) -> Result<Seen> {
        let notes = self.root.join("target/promises.tsv");
        let mut command = Command::new("cargo");
        command.current_dir(&self.root).env_remove("CARGO_TARGET_DIR").env_remove("CARGO_MANIFEST_DIR");
        command.env(kube::ASSETS_VARIABLE, &self.assets).env(crate::promises::FILE_VARIABLE, &notes);
        command.args(fault.tests).arg(fault.test);
        crate::promises::forget(&notes)?;
        println!("    $ cargo {} {}", fault.tests.join(" "), fault.test);
        let output = command.output().context("starting cargo")?;
        let log = self.root.join("target").join(format!("{}.log", fault.name));
        fs::write(&log, [output.stdout, output.stderr].concat())
            .with_context(|| format!("writing {}", log.display()))?;
        let text = fs::read_to_string(&notes).unwrap_or_default();
        let seen = judge(&text, fault);
        if seen == Seen::NotRun {
            say(format!("the output is in {}", log.display()));
        }
        Ok(seen)
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// The file's text with the fault in its place.
fn put_in(fault: &Fault, text: &str) -> Result<String> {
    let times = text.matches(fault.right).count();
    ensure!(times == 1, "{} has {times} times instead of once: {}", fault.file, fault.right);
    Ok(text.replace(fault.right, fault.wrong))
}

/// What the notes of promises say of the fault's.
fn judge(notes: &str, fault: &Fault) -> Seen {
    let outcomes: Vec<_> = notes
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .filter(|fields| {
            fields.first() == Some(&fault.promise) && fields.get(2).is_some_and(|test| test.ends_with(fault.test))
        })
        .filter_map(|fields| fields.last().copied())
        .collect();
    match outcomes[..] {
        [] => Seen::NotRun,
        _ if outcomes.contains(&"failed") => Seen::Broken,
        _ => Seen::Kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fault whose place is gone would find nothing for ever.
    #[test]
    fn every_fault_has_its_place() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for fault in FAULTS {
            let text = read(&root.join(fault.file)).unwrap();
            assert_ne!(put_in(fault, &text).unwrap(), text, "{}", fault.name);
        }
    }

    #[test]
    fn a_promise_is_broken_if_the_test_of_the_fault_says_so() {
        let fault = &FAULTS[0];
        let note = |test: &str, outcome: &str| format!("{}\troutes\t{test}\tthe stand-in\t{outcome}\n", fault.promise);
        assert_eq!(judge(&note("another", "failed"), fault), Seen::NotRun);
        assert_eq!(judge(&note(fault.test, "passed"), fault), Seen::Kept);
        let nested = format!("places::{}", fault.test);
        assert_eq!(judge(&(note(fault.test, "passed") + &note(&nested, "failed")), fault), Seen::Broken);
    }
}
