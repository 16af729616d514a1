//! A cgroup of a testbed's own, so that programs on it meet no process of the machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::{
    netns::{NetnsRef, run},
    scope::{Scope, binary},
};

/// Where the cgroups of version 2 can be.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// A cgroup without processes; dropping it removes it.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one below the root of version 2.
    ///
    /// # Errors
    /// If none is mounted, or it cannot be made.
    pub fn create(scope: &Scope) -> Result<Self> {
        let is_version_2 = |root: &&str| statfs(*root).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
        let Some(root) = ROOTS.iter().find(|root| is_version_2(root)) else {
            bail!("no cgroup of version 2 at {}; run `mount -t cgroup2 none {}`", ROOTS.join(" and "), ROOTS[1]);
        };
        let path = Path::new(root).join(scope.prefix());
        fs::create_dir(&path).with_context(|| format!("making the cgroup {}", path.display()))?;
        Ok(Self(path))
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs `testpeer` with these arguments as a process of the cgroup in `netns`, to its end; returns what it wrote.
    ///
    /// # Errors
    /// If it fails; the text holds its error output.
    pub fn testpeer(&self, netns: &NetnsRef, arguments: &[&str]) -> Result<String> {
        let inside = netns.command(binary("testpeer")?);
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.0.join("cgroup.procs"));
        command.arg(inside.get_program()).args(inside.get_args()).args(arguments);
        run(&mut command)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
