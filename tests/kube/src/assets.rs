//! The programs: etcd and kube-apiserver, from the folder that `KUBEBUILDER_ASSETS` names.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use netns_tests::netns::run;

use crate::ability::{Ability, Versions};

/// Names the folder.
const VARIABLE: &str = "KUBEBUILDER_ASSETS";

/// Where the programs are, and what they are.
#[derive(Clone, Debug)]
pub struct Assets {
    /// The program etcd.
    pub etcd: PathBuf,
    /// The program kube-apiserver.
    pub server: PathBuf,
    /// Their versions.
    pub versions: Versions,
}

impl Assets {
    /// Finds them.
    ///
    /// # Errors
    /// If the variable is not set, or a program is missing or says nothing sensible.
    pub fn find() -> Result<Self> {
        let folder = env::var_os(VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let folder = folder.with_context(|| {
            format!("{VARIABLE} is not set; run `cargo xtask kube`, or set it to what `cargo xtask kube-assets` prints")
        })?;
        let (etcd, server) = (folder.join("etcd"), folder.join("kube-apiserver"));
        let said = |program: &PathBuf| run(Command::new(program).arg("--version"));
        let (server_version, etcd_version) = (said(&server)?, said(&etcd)?);
        let versions = Versions::parse(&server_version, &etcd_version)
            .with_context(|| format!("cannot read the versions {server_version:?} and {etcd_version:?}"))?;
        Ok(Self { etcd, server, versions })
    }

    /// The server with its version, for the table of promises: `server 1.20`.
    #[must_use]
    pub fn title(&self) -> String {
        let (major, minor) = self.versions.server;
        format!("server {major}.{minor}")
    }

    /// Whether the server can do something.
    #[must_use]
    pub fn can(&self, ability: Ability) -> bool {
        ability.is_in(self.versions)
    }
}
