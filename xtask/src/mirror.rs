//! Debian's packages without installing them, of a release that need not be the machine's.
//!
//! The lists are our own, so that the machine's apt stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{ask, run};
use crate::workspace::find_program;

/// What the lists hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Archives {
    /// Binary packages.
    Binary,
    /// Binary and source packages.
    BinaryAndSource,
}

/// apt with lists of its own.
pub struct Mirror {
    directory: PathBuf,
}

impl Mirror {
    /// Fetches the lists of a release into `directory`, where downloads go too.
    ///
    /// # Errors
    /// Where there is no apt-get, or no network.
    pub fn prepare(directory: &Path, suite: &str, archives: Archives) -> Result<Self> {
        if find_program("apt-get").is_none() {
            bail!("there is no apt-get to download Debian's packages with; run this on Debian or Ubuntu");
        }
        for part in ["lists/partial", "cache/archives/partial"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        }
        let file = directory.join("sources.list");
        fs::write(&file, sources(suite, archives)).with_context(|| format!("writing {}", file.display()))?;
        let mirror = Self { directory: directory.to_owned() };
        run(
            &format!("fetching the package lists of {suite}"),
            mirror.command("apt-get").args(["--quiet=2", "update"]),
        )?;
        Ok(mirror)
    }

    /// Names of the binary packages that begin with `prefix`.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let listed = ask(self.command("apt-cache").args(["pkgnames", prefix]));
        listed.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Downloads a binary package; returns the archive.
    ///
    /// # Errors
    /// If there is no such package, or no network.
    pub fn download(&self, name: &str) -> Result<PathBuf> {
        let mut command = self.command("apt-get");
        command.args(["--quiet=2", "download", name]).current_dir(&self.directory);
        run(&format!("downloading {name}"), &mut command)?;
        self.find(name, ".deb")
    }

    /// Downloads a source package; returns the archive of the upstream sources.
    ///
    /// # Errors
    /// If there is no such package, or no network.
    pub fn download_source(&self, name: &str) -> Result<PathBuf> {
        let mut command = self.command("apt-get");
        command.args(["--quiet=2", "source", "--download-only", name]).current_dir(&self.directory);
        run(&format!("downloading the sources of {name}"), &mut command)?;
        self.find(name, ".orig.tar.gz")
    }

    /// The downloaded file of a package.
    fn find(&self, name: &str, end: &str) -> Result<PathBuf> {
        let entries = fs::read_dir(&self.directory).with_context(|| format!("reading {}", self.directory.display()))?;
        let start = format!("{name}_");
        let fits = |path: &PathBuf| {
            path.file_name().is_some_and(|file| {
                let file = file.to_string_lossy();
                file.starts_with(&start) && file.ends_with(end)
            })
        };
        let found = entries.flatten().map(|entry| entry.path()).find(fits);
        found.with_context(|| format!("apt-get left no archive of {name} in {}", self.directory.display()))
    }

    /// `program` of apt on these lists.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = |name: &str| self.directory.join(name).display().to_string();
        for setting in [
            format!("Dir::Etc::sourcelist={}", path("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={}", path("lists")),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::Cache={}", path("cache")),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "APT::Sandbox::User=root".to_owned(), // the lists lie where only we may write
        ] {
            command.args(["-o", &setting]);
        }
        command
    }
}

/// The `sources.list` of a release.
fn sources(suite: &str, archives: Archives) -> String {
    let places = [format!("debian {suite}"), format!("debian-security {suite}-security")];
    let line = |kind: &str, place: &String| format!("{kind} http://deb.debian.org/{place} main\n");
    let binary = places.iter().map(|place| line("deb [arch=amd64]", place));
    let source = places.iter().filter(|_| archives == Archives::BinaryAndSource).map(|place| line("deb-src", place));
    binary.chain(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_listed_where_they_are_wanted() {
        let binary = "deb [arch=amd64] http://deb.debian.org/debian bullseye main\n\
                      deb [arch=amd64] http://deb.debian.org/debian-security bullseye-security main\n";
        assert_eq!(sources("bullseye", Archives::Binary), binary);
        let source = "deb-src http://deb.debian.org/debian bullseye main\n\
                      deb-src http://deb.debian.org/debian-security bullseye-security main\n";
        assert_eq!(sources("bullseye", Archives::BinaryAndSource), format!("{binary}{source}"));
    }
}
