//! `levee-fuzz`: feeds a target until told to stop. `cargo xtask fuzz` starts it.

#![expect(clippy::print_stdout, reason = "a tool that talks to the person who runs it")]

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use clap::Parser;
use levee_fuzz::{
    Target, corpus,
    engine::{self, Limit},
};

/// Feed hostile input to a target; all in turn if none is named
#[derive(Debug, Parser)]
struct Cli {
    #[arg(value_enum)]
    target: Option<Target>,
    /// How long to feed each target: seconds, also as in `60s` or `5m`
    #[arg(long, default_value = "60s", value_parser = duration)]
    time: Duration,
    /// How many edited inputs to feed each target, instead of a time
    #[arg(long)]
    runs: Option<u64>,
    /// What the edits follow from; another one in every run unless told
    #[arg(long)]
    seed: Option<u64>,
    /// Feed this file only; needs a target
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Write the corpus anew, what was found excepted, and feed nothing
    #[arg(long)]
    write_corpus: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("{text} is no time; write for example 60s or 5m"))
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if cli.write_corpus {
        return corpus::write();
    }
    if let Some(path) = &cli.replay {
        let Some(target) = cli.target else { bail!("name the target that {} is for", path.display()) };
        engine::replay(target, path)?;
        println!("{}: {} is handled well", target.name(), path.display());
        return Ok(());
    }
    let limit = cli.runs.map_or(Limit::Time(cli.time), Limit::Runs);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seed = cli.seed.unwrap_or(now);
    for target in cli.target.map_or(Target::ALL.to_vec(), |target| vec![target]) {
        println!("{}: seed {seed}", target.name());
        let fed = engine::feed(target, seed, limit)?;
        let engine::Fed { inputs, ours, undecided, ends } = fed;
        println!("{}: {inputs} inputs", target.name());
        if target == Target::Program {
            println!("{ours} of them for a VIP, {undecided} undecided, {} ends: {ends:?}", ends.len());
        }
    }
    Ok(())
}
