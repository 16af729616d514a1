//! Debian's kernels: which there are, the newest package of each, and its files.
//!
//! Packages are looked up in lists of our own, so that the machine's apt stays as it is and its release does not matter.
//! Names carry a number that counts up while older ones vanish from the mirror; so the newest is looked for each time
//! that none is unpacked yet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::mirror::{Archives, Mirror};
use crate::process::{run, say};
use crate::workspace::Workspace;

use super::folder;

/// A kernel of Debian.
#[derive(Debug)]
pub struct Kernel {
    /// Its version, as the command line names it.
    pub version: &'static str,
    /// The release of Debian that has it.
    suite: &'static str,
}

/// The kernels that are known: the floor, and the two long-term kernels after it.
const KERNELS: [Kernel; 3] = [
    Kernel { version: "5.10", suite: "bullseye" },
    Kernel { version: "6.1", suite: "bookworm" },
    Kernel { version: "6.12", suite: "bookworm" },
];

/// What every package of a kernel for virtual machines ends in.
const FLAVOUR: &str = "-cloud-amd64";

/// A kernel's files.
#[derive(Debug)]
pub struct Unpacked {
    /// Name of the package.
    pub name: String,
    /// The image to boot.
    pub image: PathBuf,
    /// Folder with its modules.
    pub modules: PathBuf,
}

/// The kernels of these versions, or all.
///
/// # Errors
/// If a version is none of the known.
pub fn choose(versions: &[String]) -> Result<Vec<&'static Kernel>> {
    if versions.is_empty() {
        return Ok(KERNELS.iter().collect());
    }
    let find = |version: &String| {
        let known = || KERNELS.map(|kernel| kernel.version).join(", ");
        let found = KERNELS.iter().find(|kernel| kernel.version == version);
        found.with_context(|| format!("no kernel {version} is known; these are: {}", known()))
    };
    versions.iter().map(find).collect()
}

/// Downloads and unpacks the newest package of a kernel, unless one lies there already.
///
/// # Errors
/// If there is no such package, or no network.
pub fn unpack(workspace: &Workspace, kernel: &Kernel) -> Result<Unpacked> {
    let directory = folder(workspace).join("kernels").join(kernel.version);
    if let Some(unpacked) = find(&directory)? {
        let path = directory.display();
        say(format!("Linux {}: {} lies in {path}; remove that to look for a newer one", kernel.version, unpacked.name));
        return Ok(unpacked);
    }
    let mirror = Mirror::prepare(&folder(workspace).join("apt").join(kernel.suite), kernel.suite, Archives::Binary)?;
    let name = newest(&mirror.names(&format!("linux-image-{}.", kernel.version)), kernel.version)
        .with_context(|| format!("{} has no package linux-image-{}.*{FLAVOUR}", kernel.suite, kernel.version))?;
    let archive = mirror.download(&name)?;
    let beside = directory.with_file_name(format!("{}-new", kernel.version));
    let _ = fs::remove_dir_all(&beside);
    fs::create_dir_all(&beside).with_context(|| format!("creating {}", beside.display()))?;
    run(&format!("unpacking {name}"), Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&beside))?;
    fs::rename(&beside, &directory).with_context(|| format!("renaming to {}", directory.display()))?;
    let _ = fs::remove_file(archive);
    find(&directory)?.with_context(|| format!("{name} holds no kernel image"))
}

/// The kernel that was unpacked into `directory`, if one was.
fn find(directory: &Path) -> Result<Option<Unpacked>> {
    let Ok(entries) = fs::read_dir(directory.join("boot")) else {
        return Ok(None);
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {}", directory.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(release) = name.strip_prefix("vmlinuz-") {
            let modules = ["lib/modules", "usr/lib/modules"].map(|path| directory.join(path).join(release));
            let modules = modules.into_iter().find(|path| path.is_dir());
            let modules = modules.with_context(|| format!("no modules of {release} in {}", directory.display()))?;
            return Ok(Some(Unpacked { name: format!("linux-image-{release}"), image: entry.path(), modules }));
        }
    }
    Ok(None)
}

/// The name with the largest numbers among the images of a version.
fn newest(names: &[String], version: &str) -> Option<String> {
    let prefix = format!("linux-image-{version}.");
    let images = names.iter().filter(|name| name.starts_with(&prefix) && name.ends_with(FLAVOUR));
    images.max_by_key(|name| numbers(name)).cloned()
}

/// Every number in a name, in order.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_image_is_chosen_by_its_numbers() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-99-cloud-amd64-dbg",
            "linux-image-6.1.0-98-cloud-amd64-unsigned",
            "linux-image-6.1.0-97-rt-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
        ];
        let names = names.map(str::to_owned);
        assert_eq!(newest(&names, "6.1").as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest(&names, "6.12").as_deref(), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest(&names, "5.10"), None);
    }

    #[test]
    fn an_unknown_version_is_refused_with_those_that_are_known() {
        let error = choose(&["4.19".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "no kernel 4.19 is known; these are: 5.10, 6.1, 6.12");
        assert_eq!(choose(&[]).unwrap().len(), KERNELS.len());
    }
}
