//! Feeds a target: the corpus first, then edits of it, for as many runs or as long as told. What makes it panic is
//! written to a file.

use std::{
    any::Any,
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{Bed, Target, config, corpus, edit::Editor, parser, program};

/// Most frames of a run that the model may not decide on: one of this many.
const UNDECIDED: u64 = 20;

/// How long to feed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// As many edited inputs.
    Runs(u64),
    /// As long.
    Time(Duration),
}

/// A fed target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fed {
    /// Inputs, those of the corpus among them.
    pub inputs: u64,
    /// Frames for a VIP; 0 for other targets than the program.
    pub ours: u64,
    /// Frames that the model did not decide on.
    pub undecided: u64,
    /// Labels of the ends that frames came to.
    pub ends: BTreeSet<&'static str>,
}

/// Feeds the corpus and edits of it.
///
/// # Errors
/// If an input made the target panic, with the file that it was written to; if the model left too many frames undecided.
pub fn feed(target: Target, seed: u64, limit: Limit) -> Result<Fed> {
    let mut fed = Feeder::new(target);
    let corpus = corpus::read(target)?;
    for input in &corpus {
        fed.feed(&input.bytes).with_context(|| format!("{} of the corpus", input.name))?;
    }
    let corpus: Vec<&[u8]> = corpus.iter().map(|input| &input.bytes[..]).collect();
    let mut editor = Editor::new(target, seed);
    let (started, mut runs) = (Instant::now(), 0);
    while match limit {
        Limit::Runs(most) => runs < most,
        Limit::Time(most) => started.elapsed() < most,
    } {
        fed.feed(&editor.edited(&corpus)).with_context(|| format!("run {runs} of seed {seed}"))?;
        runs += 1;
    }
    fed.finish()
}

/// Feeds one file.
///
/// # Errors
/// As [`feed`].
pub fn replay(target: Target, path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Feeder::new(target).feed(&bytes)
}

struct Feeder {
    target: Target,
    bed: Option<Bed>,
    inputs: u64,
}

impl Feeder {
    fn new(target: Target) -> Self {
        Self { target, bed: (target == Target::Program).then(Bed::new), inputs: 0 }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.inputs += 1;
        let fed = catch_unwind(AssertUnwindSafe(|| match (self.target, &mut self.bed) {
            (Target::Program, Some(bed)) => program(bytes, bed),
            (Target::Config, _) => config(bytes),
            _ => parser(bytes),
        }));
        let Err(panic) = fed else { return Ok(()) };
        let path = keep(self.target, bytes)?;
        let (name, path) = (self.target.name(), path.display());
        bail!(
            "{}\nthe input is {path}; `cargo xtask fuzz {name} --replay {path}` feeds it again. \
             Once that is mended, commit it as fuzz/corpus/{name}/found-WHAT",
            message(&*panic)
        );
    }

    fn finish(self) -> Result<Fed> {
        let Self { inputs, bed, .. } = self;
        let (ours, undecided, ends) = bed.map_or_else(Default::default, |bed| (bed.ours, bed.unknown, bed.ends));
        if undecided * UNDECIDED > inputs {
            bail!("the model did not decide on {undecided} of {inputs} frames, more than one of {UNDECIDED}");
        }
        Ok(Fed { inputs, ours, undecided, ends })
    }
}

/// Writes an input that made a target panic; its name is a hash of it.
fn keep(target: Target, bytes: &[u8]) -> Result<PathBuf> {
    let folder = corpus::folder().join("artifacts");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let key = lb_common::hash::HashKey::default();
    let path = folder.join(format!("{}-{:016x}", target.name(), lb_common::hash::bytes(&key, bytes)));
    fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message").to_owned()
}
