//! A kernel's modules, in the order in which they have to be loaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Devices that the tests make: `veth` for all, the others as peers of our tunnels and for tagged frames.
const WANTED: [&str; 7] = ["veth", "ipip", "sit", "ip6_tunnel", "fou", "fou6", "8021q"];
/// What goes before the names of the modules that a module needs.
const DEPENDS: &[u8] = b"\0depends=";

/// A module.
#[derive(Debug)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Its object file, unpacked.
    pub object: Vec<u8>,
}

/// The modules that the tests need, each after those it depends on; without what is built into the kernel.
///
/// # Errors
/// If the kernel lacks one.
pub fn wanted(directory: &Path) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    index(directory, &mut files)?;
    let builtin = fs::read_to_string(directory.join("modules.builtin")).unwrap_or_default();
    let builtin: Vec<_> = builtin.lines().map(|line| module_name(Path::new(line))).collect();
    let mut loaded = Vec::new();
    for name in WANTED {
        load(name, &files, &builtin, &mut loaded)?;
    }
    Ok(loaded)
}

/// Appends a module and what it depends on.
fn load(name: &str, files: &BTreeMap<String, PathBuf>, builtin: &[String], loaded: &mut Vec<Module>) -> Result<()> {
    if loaded.iter().any(|module| module.name == name) || builtin.iter().any(|there| there == name) {
        return Ok(());
    }
    let path = files.get(name).with_context(|| format!("this kernel has no module {name}"))?;
    let object = read(path)?;
    for needed in dependencies(&object) {
        load(&needed, files, builtin, loaded)?;
    }
    loaded.push(Module { name: name.to_owned(), object });
    Ok(())
}

/// Every module file below `directory`, by name.
fn index(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry.with_context(|| format!("reading {}", directory.display()))?.path();
        if path.is_dir() && !path.is_symlink() {
            index(&path, files)?;
        } else if path.to_string_lossy().contains(".ko") {
            files.insert(module_name(&path), path);
        }
    }
    Ok(())
}

/// The name of a module by its file: up to the first dot, `_` for `-`.
fn module_name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let reading = || format!("reading {}", path.display());
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => fs::read(path).with_context(reading),
        Some("xz") => {
            let output = Command::new("xz").arg("-dc").arg(path).output().with_context(reading)?;
            if !output.status.success() {
                bail!("{}: xz: {}", reading(), String::from_utf8_lossy(&output.stderr).trim());
            }
            Ok(output.stdout)
        }
        _ => bail!("{}: neither .ko nor .ko.xz", reading()),
    }
}

/// Names of the modules that a module says it needs.
fn dependencies(object: &[u8]) -> Vec<String> {
    let Some(at) = object.windows(DEPENDS.len()).position(|window| window == DEPENDS) else {
        return Vec::new();
    };
    let list = object[at + DEPENDS.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(list).into_owned();
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_read_from_it() {
        assert_eq!(dependencies(b"ELF\0license=GPL\0depends=tunnel4,ip-tunnel\0name=ipip\0"), ["tunnel4", "ip_tunnel"]);
        assert_eq!(dependencies(b"ELF\0depends=\0retpoline=Y\0"), Vec::<String>::new());
        assert_eq!(dependencies(b"ELF"), Vec::<String>::new());
    }

    #[test]
    fn names_are_those_that_the_kernel_uses() {
        assert_eq!(module_name(Path::new("kernel/net/a-b.ko.xz")), "a_b");
        assert_eq!(module_name(Path::new("8021q.ko")), "8021q");
    }
}
