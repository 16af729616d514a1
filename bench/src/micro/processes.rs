//! Two processes measure the same cases with their programs loaded in opposite orders; their samples are one set.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{
    cases::CASES,
    programs::Order,
    results,
    session::{Measured, Plan, Session},
};
use crate::{Options, machine::Machine, say};

/// Measures in two processes, one after the other, and writes the results.
///
/// # Errors
/// If one of them fails, or the results cannot be written.
pub fn measure(options: &Options) -> Result<()> {
    let program = env::current_exe().context("finding this program")?;
    fs::create_dir_all(&options.directory).with_context(|| format!("creating {}", options.directory.display()))?;
    let mut measured = Vec::new();
    for (order, name) in [(Order::Forward, "forward"), (Order::Swapped, "swapped")] {
        say(&format!("process of load order \"{name}\""));
        let path = samples_path(&options.directory, name);
        let mut command = Command::new(&program);
        command.args(["micro-process", name]).arg("--directory").arg(&options.directory);
        command.args(options.quick.then_some("--quick"));
        let status = command.status().with_context(|| format!("starting {}", program.display()))?;
        ensure!(status.success(), "the process of load order \"{name}\" failed ({status}); its output above says why");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let samples: BTreeMap<String, Measured> =
            serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        measured.push((order, samples));
    }
    let results = results::results(&Machine::here(), &plan(options.quick, Order::Forward), &measured)?;
    let path = results.save(&options.directory)?;
    say(&format!("results: {}", path.display()));
    Ok(())
}

/// What each of the processes does: measures, and leaves its samples in a file.
///
/// # Errors
/// If a case fails.
pub fn measure_in_this_process(options: &Options, order: Order) -> Result<()> {
    let plan = plan(options.quick, order);
    let mut session = Session::open(CASES, order)?;
    say("checking frames and counters");
    session.check()?;
    let measured = session.measure(&plan)?;
    let name = if order == Order::Forward { "forward" } else { "swapped" };
    let path = samples_path(&options.directory, name);
    let text = serde_json::to_string_pretty(&measured).context("turning samples into JSON")?;
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

const fn plan(quick: bool, order: Order) -> Plan {
    if quick { Plan { samples: 5, repeat: 200_000, order } } else { Plan { samples: 15, repeat: 2_000_000, order } }
}

fn samples_path(directory: &Path, order: &str) -> PathBuf {
    directory.join(format!("micro-{order}.json"))
}
