//! The committed corpus: a file per input, in a folder per target. Files named `found-*` are inputs that failed once; the
//! others are what [`seeds`] makes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{Target, frames::frames, texts::texts};

/// Prefix of the names of inputs that failed once.
const FOUND: &str = "found-";

/// Folder of this crate.
#[must_use]
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An input to begin with.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Input {
    /// Name of its file.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What the corpus of a target holds but for what was found, sorted by name.
#[must_use]
pub fn seeds(target: Target) -> Vec<Input> {
    let made = match target {
        Target::Parser | Target::Program => frames(),
        Target::Config => texts(),
    };
    let mut seeds: Vec<Input> = made.into_iter().map(|(name, bytes)| Input { name, bytes }).collect();
    seeds.sort();
    seeds
}

/// The corpus of a target, sorted by name.
///
/// # Errors
/// If a file cannot be read, or there is none.
pub fn read(target: Target) -> Result<Vec<Input>> {
    let folder = of(target);
    let listing = || format!("listing {}; `cargo xtask fuzz --write-corpus` makes it", folder.display());
    let mut inputs = Vec::new();
    for entry in fs::read_dir(&folder).with_context(listing)? {
        let path = entry.with_context(listing)?.path();
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        inputs.push(Input { name, bytes });
    }
    inputs.sort();
    Ok(inputs)
}

/// The corpus of a target without what was found.
///
/// # Errors
/// As [`read`].
pub fn read_seeds(target: Target) -> Result<Vec<Input>> {
    Ok(read(target)?.into_iter().filter(|input| !input.name.starts_with(FOUND)).collect())
}

/// Writes what [`seeds`] makes for every target, and removes what it makes no more; what was found stays.
///
/// # Errors
/// If a file cannot be written or removed.
pub fn write() -> Result<()> {
    for target in Target::ALL {
        let folder = of(target);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let seeds = seeds(target);
        for old in read_seeds(target)?.iter().filter(|old| !seeds.iter().any(|seed| seed.name == old.name)) {
            let path = folder.join(&old.name);
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        for seed in &seeds {
            let path = folder.join(&seed.name);
            fs::write(&path, &seed.bytes).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}

fn of(target: Target) -> PathBuf {
    folder().join("corpus").join(target.name())
}
