//! Where things are: the repository, its target folder, and what xtask keeps there.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The repository this xtask belongs to.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Finds the repository by this crate's folder, and its target folder by `CARGO_TARGET_DIR` or cargo's default.
    pub fn locate() -> Result<Self> {
        // `cargo run` sets the variable; the compiled-in path serves a binary that is started by hand.
        let manifest_dir =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = manifest_dir.parent().context("xtask has no parent folder; start it with `cargo xtask`")?.to_owned();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => env::current_dir().context("reading the current folder")?.join(dir),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The repository's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target folder.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// `--root` of the tools that xtask installs for itself.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// Where those tools' programs are.
    pub fn tools_bin(&self) -> PathBuf {
        self.tools().join("bin")
    }

    /// Target folder of the BPF build: another compiler made what is in it.
    pub fn bpf_target(&self) -> PathBuf {
        self.target.join("bpf")
    }

    /// The BPF object that `build-ebpf` leaves.
    pub fn object(&self) -> PathBuf {
        self.target.join("lb-ebpf.o")
    }

    /// Where the benchmark's results go.
    pub fn bench(&self) -> PathBuf {
        self.target.join("bench")
    }

    /// Where tests note which promises they showed to be kept.
    pub fn promises(&self) -> PathBuf {
        self.target.join("promises.tsv")
    }

    /// The BPF objects that only the benchmark loads.
    pub fn bench_objects(&self) -> PathBuf {
        self.bench().join("objects")
    }

    /// Folder of the host binaries of one kind of build.
    pub fn binaries(&self, profile: Profile) -> PathBuf {
        self.target.join(match profile {
            Profile::Debug => "debug",
            Profile::Release => "release",
        })
    }
}

/// How host code is compiled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Profile {
    /// Quick to build, with checks.
    Debug,
    /// Optimized.
    Release,
}

impl Profile {
    /// The profile that `--release` on the command line means.
    pub fn from_release_flag(release: bool) -> Self {
        if release { Self::Release } else { Self::Debug }
    }

    /// Cargo's arguments for it.
    pub fn args(self) -> &'static [&'static str] {
        match self {
            Self::Debug => &[],
            Self::Release => &["--release"],
        }
    }
}

/// Finds a program: an absolute path as it is, a name on PATH and in the system folders that users' PATHs lack.
pub fn find_program(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(PathBuf::from(name)).filter(|path| path.exists());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|candidate| candidate.is_file())
}
