//! `bpf-linker`: turns the compiler's bitcode into the BPF object.
//!
//! It reads bitcode with an LLVM of its own, which must not be older than the compiler's. One that is on PATH is taken
//! if it fits; else a version of our choice is built under the target folder against the LLVM libraries of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result};

use crate::process::{ask, cargo_install, run};
use crate::workspace::{Workspace, find_program};

const PROGRAM: &str = "bpf-linker";
/// What is built when none is there.
pub const VERSION: &str = "0.13.0";
/// The LLVM versions that this version has a cargo feature for.
const LLVM_FEATURES: [u32; 3] = [21, 22, 23];

/// The linker for bitcode of LLVM `llvm`, if this machine has one.
pub fn find(workspace: &Workspace, llvm: u32) -> Option<PathBuf> {
    own(workspace, llvm).or_else(|| find_program(PROGRAM).filter(|path| works(path) && reads(path, llvm)))
}

/// Where the LLVM `llvm` of this machine is, if the linker can be built against it.
pub fn llvm_prefix(llvm: u32) -> Option<PathBuf> {
    if !LLVM_FEATURES.contains(&llvm) {
        return None;
    }
    let named = env::var_os("LLVM_PREFIX").map(PathBuf::from);
    let usual =
        [format!("/usr/lib/llvm-{llvm}"), format!("/usr/lib64/llvm{llvm}"), "/usr".to_owned()].map(PathBuf::from);
    named.into_iter().chain(usual).find(|prefix| is_llvm(prefix, llvm))
}

/// Debian's package with the LLVM that the linker needs; `None` where the linker knows no such LLVM.
pub fn llvm_package(llvm: u32) -> Option<String> {
    LLVM_FEATURES.contains(&llvm).then(|| format!("llvm-{llvm}-dev"))
}

/// Builds the linker under the target folder.
pub fn install(workspace: &Workspace, llvm: u32, prefix: &Path) -> Result<()> {
    let mut command = cargo_install(workspace, PROGRAM, VERSION);
    command.env("LLVM_PREFIX", prefix).args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
    run(
        &format!("building {PROGRAM} {VERSION} for LLVM {llvm} under {} (about a minute)", workspace.tools().display()),
        &mut command,
    )?;
    let stamp = stamp_path(workspace);
    fs::write(&stamp, stamp_text(llvm)).with_context(|| format!("writing {}", stamp.display()))
}

/// The linker that [`install`] made, unless it was made for another LLVM.
fn own(workspace: &Workspace, llvm: u32) -> Option<PathBuf> {
    let path = workspace.tools_bin().join(PROGRAM);
    let fits = fs::read_to_string(stamp_path(workspace)).is_ok_and(|stamp| stamp == stamp_text(llvm));
    (fits && works(&path)).then_some(path)
}

/// Says what the linker was built for; the program itself does not tell.
fn stamp_path(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("bpf-linker.built-for")
}

fn stamp_text(llvm: u32) -> String {
    format!("{PROGRAM} {VERSION} LLVM {llvm}\n")
}

fn works(path: &Path) -> bool {
    ask(Command::new(path).arg("--version")).is_some()
}

/// Whether the linker at `path` reads bitcode of LLVM `llvm`, by the LLVM library it is linked to.
fn reads(path: &Path, llvm: u32) -> bool {
    fs::read(path).is_ok_and(|bytes| linked_llvm(&bytes).is_some_and(|linked| linked >= llvm))
}

/// The major version in the name of the LLVM library that an ELF file needs, such as `libLLVM.so.22.1` or `libLLVM-22.so`.
fn linked_llvm(elf: &[u8]) -> Option<u32> {
    [b"libLLVM.so.".as_slice(), b"libLLVM-"].into_iter().find_map(|name| {
        let at = elf.windows(name.len()).position(|window| window == name)? + name.len();
        let digits: Vec<u8> = elf[at..].iter().copied().take_while(u8::is_ascii_digit).collect();
        String::from_utf8(digits).ok()?.parse().ok()
    })
}

/// Whether LLVM `llvm` is under `prefix` with the library link that only the development package has.
fn is_llvm(prefix: &Path, llvm: u32) -> bool {
    let config = prefix.join("bin/llvm-config");
    let says = |flag| ask(Command::new(&config).arg(flag));
    says("--version").is_some_and(|version| version.starts_with(&format!("{llvm}.")))
        && says("--libdir").is_some_and(|libdir| Path::new(libdir.trim()).join("libLLVM.so").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_linker_is_read_from_its_library_names() {
        assert_eq!(linked_llvm(b"\0libgcc_s.so.1\0libLLVM.so.22.1\0"), Some(22));
        assert_eq!(linked_llvm(b"\0libLLVM-19.so.1\0"), Some(19));
        assert_eq!(linked_llvm(b"\0libLLVM.so.\0"), None);
        assert_eq!(linked_llvm(b"a static linker"), None);
    }

    #[test]
    fn no_package_is_named_for_an_llvm_the_linker_does_not_know() {
        assert_eq!(llvm_package(22).as_deref(), Some("llvm-22-dev"));
        assert_eq!(llvm_package(99), None);
    }
}
