//! Builds kube-apiserver from Debian's sources, and takes etcd from Debian's package.
//!
//! Everything is unpacked beside the result and removed after it. Sources of this age want a Go of theirs: what a newer
//! one makes of them crashes at the first custom object.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::mirror::{Archives, Mirror};
use crate::process::{run, say};
use crate::setup::{Group, ensure};
use crate::workspace::Workspace;

use super::VERSION;

/// The release with the sources and etcd.
const SUITE: &str = "bookworm";
/// The release with a Go that fits the sources.
const GO_SUITE: &str = "bullseye";
/// Packages of that Go, and where they put it.
const GO_PACKAGES: [&str; 2] = ["golang-1.15-go", "golang-1.15-src"];
const GO_ROOT: &str = "usr/lib/go-1.15";
/// What the folder must be called in Go's eyes.
const IMPORT_PATH: &str = "src/k8s.io/kubernetes";

/// Builds into `folder`, which appears only when all is done.
///
/// # Errors
/// If something cannot be downloaded or does not build.
pub fn build(workspace: &Workspace, folder: &Path) -> Result<()> {
    ensure(workspace, &[Group::Kube])?;
    let parent = folder.parent().context("the folder of the assets has no parent")?;
    let site = Site { directory: parent.join("build") };
    say(format!("building kube-apiserver {VERSION} in {}: some minutes, once", site.directory.display()));
    clear(&site.directory)?;
    let beside = parent.join(format!("{VERSION}-new"));
    clear(&beside)?;
    fs::create_dir_all(&beside).with_context(|| format!("creating {}", beside.display()))?;

    let mirror = Mirror::prepare(&site.path("apt"), SUITE, Archives::BinaryAndSource)?;
    unpack(&mirror.download("etcd-server")?, &site.path("etcd"))?;
    install(&site.path("etcd/usr/bin/etcd"), &beside.join("etcd"))?;
    site.unpack_sources(&mirror.download_source("kubernetes")?)?;
    let mirror = Mirror::prepare(&site.path("apt-go"), GO_SUITE, Archives::Binary)?;
    for package in GO_PACKAGES {
        unpack(&mirror.download(package)?, &site.path("go"))?;
    }
    site.make()?;
    install(&site.sources().join("_output/bin/kube-apiserver"), &beside.join("kube-apiserver"))?;

    clear(folder)?; // a broken one
    fs::rename(&beside, folder).with_context(|| format!("renaming to {}", folder.display()))?;
    clear(&site.directory)
}

/// Where the build takes place.
struct Site {
    directory: PathBuf,
}

impl Site {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn sources(&self) -> PathBuf {
        self.path("gopath").join(IMPORT_PATH)
    }

    fn unpack_sources(&self, archive: &Path) -> Result<()> {
        let sources = self.sources();
        fs::create_dir_all(&sources).with_context(|| format!("creating {}", sources.display()))?;
        let mut command = Command::new("tar");
        command.arg("-xzf").arg(archive).arg("--strip-components=1").arg("-C").arg(&sources);
        run("unpacking the sources of kubernetes", &mut command)
    }

    fn make(&self) -> Result<()> {
        let version = self.path("version");
        fs::write(&version, version_file(VERSION)).with_context(|| format!("writing {}", version.display()))?;
        let home = self.path("home");
        fs::create_dir_all(&home).with_context(|| format!("creating {}", home.display()))?;
        let go = self.path("go").join(GO_ROOT);
        let mut command = Command::new("nice");
        command.args(["-n", "10", "make", "WHAT=cmd/kube-apiserver"]).current_dir(self.sources()).env_clear();
        command
            .env("PATH", format!("{}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", go.display()));
        command.env("HOME", home).env("GOROOT", go).env("GOPATH", self.path("gopath"));
        command.env("GOCACHE", self.path("go-cache")).env("CGO_ENABLED", "0").env("KUBE_GIT_VERSION_FILE", version);
        run("compiling kube-apiserver", &mut command)
    }
}

/// What the sources' own scripts read instead of asking git.
fn version_file(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    format!(
        "KUBE_GIT_COMMIT='{:040}'\nKUBE_GIT_TREE_STATE='archive'\nKUBE_GIT_VERSION='{version}'\n\
         KUBE_GIT_MAJOR='{major}'\nKUBE_GIT_MINOR='{minor}'\n",
        0
    )
}

fn unpack(archive: &Path, directory: &Path) -> Result<()> {
    let mut command = Command::new("dpkg-deb");
    run(&format!("unpacking {}", archive.display()), command.arg("-x").arg(archive).arg(directory))
}

/// Copies a program, links followed.
fn install(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Removes a folder if it is there.
fn clear(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_file_says_what_git_would() {
        let text = version_file("v1.20.2");
        assert!(text.contains("KUBE_GIT_VERSION='v1.20.2'\n"), "{text}");
        assert!(text.contains("KUBE_GIT_MAJOR='1'\nKUBE_GIT_MINOR='20'\n"), "{text}");
        assert!(text.contains("KUBE_GIT_COMMIT='0000000000000000000000000000000000000000'\n"), "{text}");
    }
}
