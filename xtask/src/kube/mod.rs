//! A kube-apiserver and an etcd for the tests: those of `KUBEBUILDER_ASSETS`, or one that is built once.
//!
//! The variable is the convention of envtest: a folder with `etcd` and `kube-apiserver`. No package carries the latter, so
//! without the variable it is built from Debian's source package, which takes some minutes and is kept under `target`.

mod build;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{ask, say};
use crate::workspace::Workspace;

/// Names the folder with `etcd` and `kube-apiserver`.
pub const ASSETS_VARIABLE: &str = "KUBEBUILDER_ASSETS";
/// The version that Debian's sources are of.
pub const VERSION: &str = "v1.20.2";

/// A folder with programs that run.
#[derive(Debug)]
pub struct Assets {
    /// The folder.
    pub folder: PathBuf,
    /// What `kube-apiserver --version` says, such as `Kubernetes v1.20.2`.
    pub server: String,
    /// The first line of `etcd --version`, such as `etcd Version: 3.4.23`.
    pub etcd: String,
}

impl Assets {
    /// What is in `folder`; `None` if a program is missing there or does not run.
    fn probe(folder: &Path) -> Option<Self> {
        let version = |program: &str| {
            let said = ask(Command::new(folder.join(program)).arg("--version"))?;
            said.lines().next().map(|line| line.trim().to_owned())
        };
        Some(Self { folder: folder.to_owned(), server: version("kube-apiserver")?, etcd: version("etcd")? })
    }

    fn tell(self) -> Self {
        say(format!("API server: {}, {}, in {}", self.server, self.etcd, self.folder.display()));
        self
    }
}

/// `cargo xtask kube-assets`: sees to it that there is an API server; the last line is its folder.
///
/// # Errors
/// As [`ensure`].
pub fn kube_assets(workspace: &Workspace) -> Result<()> {
    let assets = ensure(workspace)?;
    println!("{}", assets.folder.display());
    Ok(())
}

/// The API server to test with; builds one unless one is named or was built.
///
/// # Errors
/// If the named folder does not hold what it has to, or the build fails.
pub fn ensure(workspace: &Workspace) -> Result<Assets> {
    if let Some(folder) = env::var_os(ASSETS_VARIABLE).filter(|folder| !folder.is_empty()) {
        let folder = env::current_dir().context("reading the current folder")?.join(folder);
        let Some(assets) = Assets::probe(&folder) else {
            bail!(
                "{ASSETS_VARIABLE} names {}, where etcd and kube-apiserver do not both run; name a folder with both, or \
                 unset the variable to have them built",
                folder.display()
            );
        };
        return Ok(assets.tell());
    }
    let folder = workspace.target().join("kube-assets").join(VERSION);
    if let Some(assets) = Assets::probe(&folder) {
        return Ok(assets.tell());
    }
    build::build(workspace, &folder)?;
    let Some(assets) = Assets::probe(&folder) else {
        bail!("what was built in {} does not run; remove that folder and try again", folder.display());
    };
    Ok(assets.tell())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_the_programs_is_no_assets() {
        assert!(Assets::probe(Path::new("/nonexistent")).is_none());
    }
}
