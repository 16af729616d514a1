//! What tells one testbed from every other on the machine: a name prefix, a scratch directory and a mark on processes.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::netns::run;

/// Environment variable that marks every process of a testbed; its value is the prefix.
pub const MARK: &str = "LEVEE_TESTBED";
/// Where the agents of a testbed pin their maps and links.
const BPFFS: &str = "/sys/fs/bpf";
/// Where named namespaces lie.
const NETNS: &str = "/var/run/netns";
/// Everywhere a testbed puts something.
const PLACES: [&str; 5] = [NETNS, BPFFS, "/etc/frr", "/var/run/frr", "/tmp"];
/// `f_type` of bpffs (`BPF_FS_MAGIC` in `linux/magic.h`).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Identity of one testbed.
#[derive(Debug)]
pub struct Scope {
    prefix: String,
    directory: TempDir,
}

impl Scope {
    /// A new identity: the prefix is `lv<pid>-<n>`, unique while this process lives.
    ///
    /// # Errors
    /// Without root, or if no scratch directory can be made.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        if !nix::unistd::geteuid().is_root() {
            bail!("network namespaces need root; run this as root");
        }
        let prefix = format!("lv{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::Builder::new()
            .prefix(&format!("{prefix}-"))
            .tempdir_in("/tmp")
            .context("making a scratch directory")?;
        Ok(Self { prefix, directory })
    }

    /// Start of every name this testbed gives to something.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Path of a file in the scratch directory, which is removed with the scope.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Pin directory for the agent of `node`.
    ///
    /// # Errors
    /// If no bpffs is mounted where it has to be.
    pub fn pin_path(&self, node: &str) -> Result<PathBuf> {
        let mounted = nix::sys::statfs::statfs(BPFFS).is_ok_and(|fs| fs.filesystem_type().0 == BPF_FS_MAGIC);
        if !mounted {
            bail!("no bpffs at {BPFFS}; run `mount -t bpf bpf {BPFFS}`");
        }
        Ok(Path::new(BPFFS).join(format!("levee-{}-{node}", self.prefix)))
    }
}

/// Path of a binary of this workspace, looked for in `LEVEE_BIN_DIR` and beside the running executable.
///
/// # Errors
/// If it is in none of these places.
pub fn binary(name: &str) -> Result<PathBuf> {
    let executable = env::current_exe().context("finding the running executable")?;
    // Test executables lie in `deps`, one below the binaries.
    let around = executable.ancestors().skip(1).take(2).map(Path::to_path_buf);
    let directories: Vec<_> = env::var_os("LEVEE_BIN_DIR").map(PathBuf::from).into_iter().chain(around).collect();
    directories
        .iter()
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("no binary {name} in {directories:?}; build it (`cargo build`) or set LEVEE_BIN_DIR"))
}

/// Everything on this machine that bears `prefix`, one line each: namespaces, processes, pin and run directories.
/// Empty after a complete cleanup.
#[must_use]
pub fn residue(prefix: &str) -> Vec<String> {
    let left = left_names(prefix).into_iter();
    let mut found: Vec<_> = left.map(|(directory, name)| format!("{directory}/{name}")).collect();
    found.extend(marked_processes(prefix).into_iter().map(|pid| format!("process {pid}")));
    found
}

/// Removes what testbeds whose process is gone (killed with SIGKILL, say) left on this machine.
pub fn sweep() {
    let names = PLACES.into_iter().flat_map(|directory| names_in(Path::new(directory)));
    let prefixes: BTreeSet<_> = names.filter_map(|name| orphan(&name)).collect();
    for prefix in prefixes {
        for pid in marked_processes(&prefix).into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for (directory, name) in left_names(&prefix) {
            if directory == NETNS {
                let _ = run(Command::new("ip").args(["netns", "del", &name]));
            } else {
                let _ = fs::remove_dir_all(Path::new(directory).join(name));
            }
        }
    }
}

/// The prefix in `name`, if it is one of ours and its process is gone.
fn orphan(name: &str) -> Option<String> {
    let name = name.strip_prefix("levee-").unwrap_or(name);
    let (pid, rest) = name.strip_prefix("lv")?.split_once('-')?;
    let number = rest.split('-').next()?;
    pid.parse::<u32>().ok()?;
    number.parse::<u32>().ok()?;
    (!Path::new("/proc").join(pid).exists()).then(|| format!("lv{pid}-{number}"))
}

/// Ids of live processes that carry the mark of `prefix`, other than this one.
fn marked_processes(prefix: &str) -> Vec<u32> {
    let mark = format!("{MARK}={prefix}");
    names_in(Path::new("/proc"))
        .filter_map(|name| name.parse().ok())
        .filter(|&pid| pid != process::id())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environment| environment.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes()))
        })
        .collect()
}

/// Directory and name of everything that bears `prefix`.
fn left_names(prefix: &str) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for directory in PLACES {
        let names = names_in(Path::new(directory)).filter(|name| bears(name, prefix));
        found.extend(names.map(|name| (directory, name)));
    }
    found
}

fn names_in(directory: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// Whether `name` is `prefix` itself or goes on with a dash, with or without the word that pin directories begin with.
fn bears(name: &str, prefix: &str) -> bool {
    let name = name.strip_prefix("levee-").unwrap_or(name);
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_bears_only_its_own_prefix() {
        assert!(bears("lv12-1-router", "lv12-1"));
        assert!(bears("levee-lv12-1-node-1", "lv12-1"));
        assert!(!bears("lv12-10-router", "lv12-1"));
        assert!(!bears("other", "lv12-1"));
    }

    #[test]
    fn an_orphan_is_ours_and_its_process_gone() {
        // Process ids end at 4194304 (`PID_MAX_LIMIT`).
        assert_eq!(orphan("lv4194305-2-node-1").as_deref(), Some("lv4194305-2"));
        assert_eq!(orphan("levee-lv4194305-2-node-1").as_deref(), Some("lv4194305-2"));
        assert_eq!(orphan(&format!("lv{}-1-router", process::id())), None);
        assert_eq!(orphan("lvm-4194305"), None);
    }
}
