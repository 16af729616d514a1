//! The compiler of the BPF object: it has to build `core` itself, so it needs the library's sources and unstable options.
//!
//! Two will do: a rustup nightly with `rust-src`, or Debian's `rustc-web` with `rust-web-src`, whose stable compiler takes
//! unstable options with `RUSTC_BOOTSTRAP=1`.

use std::path::Path;
use std::process::Command;

use crate::process::{ask, foreign};
use crate::workspace::Workspace;

/// The triple the kernel's packet path is compiled for, on little-endian machines.
pub const BPF_TARGET: &str = "bpfel-unknown-none";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_RUSTDOC: &str = "/usr/bin/rustdoc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
/// The library's sources inside a sysroot.
const LIBRARY: &str = "lib/rustlib/src/rust/library/core/Cargo.toml";

/// A compiler that can build the BPF object, once there is a linker for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Toolchain {
    kind: Kind,
    rustc: Rustc,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Kind {
    /// A rustup toolchain, by its name.
    Rustup(String),
    Debian,
}

/// What `rustc -vV` says.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Rustc {
    release: String,
    llvm: u32,
}

impl Toolchain {
    /// Every usable toolchain of this machine, the preferred one first.
    pub fn installed(workspace: &Workspace) -> Vec<Self> {
        let listed = ask(foreign(workspace, "rustup").args(["toolchain", "list"])).unwrap_or_default();
        let nightlies = nightlies(&listed).into_iter().filter_map(|name| Self::rustup(workspace, name));
        nightlies.chain(Self::debian(workspace)).collect()
    }

    fn rustup(workspace: &Workspace, name: &str) -> Option<Self> {
        let rustc = |args: &[&str]| ask(foreign(workspace, "rustup").args(["run", name, "rustc"]).args(args));
        let sysroot = rustc(&["--print", "sysroot"])?;
        let rustc = Rustc::parse(&rustc(&["-vV"])?)?;
        let usable = Path::new(sysroot.trim()).join(LIBRARY).exists() && rustc.is_new_enough();
        usable.then(|| Self { kind: Kind::Rustup(name.to_owned()), rustc })
    }

    fn debian(workspace: &Workspace) -> Option<Self> {
        let rustc = Rustc::parse(&ask(foreign(workspace, DEBIAN_RUSTC).arg("-vV"))?)?;
        let complete = Path::new("/usr").join(LIBRARY).exists() && Path::new(DEBIAN_CARGO).exists();
        (complete && rustc.is_new_enough()).then_some(Self { kind: Kind::Debian, rustc })
    }

    /// Major version of the LLVM in this compiler; the linker has to read its bitcode.
    pub fn llvm(&self) -> u32 {
        self.rustc.llvm
    }

    /// What to call it in messages.
    pub fn name(&self) -> String {
        let Rustc { release, llvm } = &self.rustc;
        match &self.kind {
            Kind::Rustup(name) => format!("rustup's {name} (rustc {release}, LLVM {llvm})"),
            Kind::Debian => format!("Debian's rustc-web (rustc {release}, LLVM {llvm})"),
        }
    }

    /// `cargo VERB` of a package for the BPF target, `core` included.
    pub fn cargo(&self, workspace: &Workspace, verb: &str, package: &str) -> Command {
        let mut command = self.plain_cargo(workspace, verb);
        command.args(["-p", package, "--profile", "bpf", "-Z", "build-std=core", "--target", BPF_TARGET]);
        command.arg("--target-dir").arg(workspace.bpf_target());
        command
    }

    /// Whether `cargo clippy` of this toolchain works.
    pub fn has_clippy(&self, workspace: &Workspace) -> bool {
        ask(self.plain_cargo(workspace, "clippy").arg("--version")).is_some()
    }

    /// How to get `cargo clippy` for it.
    pub fn clippy_source(&self) -> ClippySource {
        match &self.kind {
            Kind::Rustup(name) => ClippySource::Rustup(name.clone()),
            Kind::Debian => ClippySource::Apt("rust-web-clippy"),
        }
    }

    fn plain_cargo(&self, workspace: &Workspace, verb: &str) -> Command {
        let mut command = match &self.kind {
            Kind::Rustup(name) => {
                let mut command = foreign(workspace, "rustup");
                command.args(["run", name, "cargo"]);
                command
            }
            Kind::Debian => {
                // By way of `cargo clippy` the first cargo-clippy on PATH would run, which is rustup's.
                let program = if verb == "clippy" { DEBIAN_CLIPPY } else { DEBIAN_CARGO };
                let mut command = foreign(workspace, program);
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTDOC", DEBIAN_RUSTDOC).env("CARGO", DEBIAN_CARGO);
                command.env("RUSTC_BOOTSTRAP", "1");
                command
            }
        };
        command.arg(verb);
        command
    }
}

/// Where a toolchain's clippy comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClippySource {
    /// `rustup component add clippy --toolchain NAME`.
    Rustup(String),
    /// A Debian package.
    Apt(&'static str),
}

/// The nightlies in the output of `rustup toolchain list`, whose lines are a name and remarks in brackets.
pub fn nightlies(listed: &str) -> Vec<&str> {
    listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly"))
        .collect()
}

impl Rustc {
    /// Reads `rustc -vV`.
    fn parse(verbose: &str) -> Option<Self> {
        let value = |key: &str| verbose.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let llvm = value("LLVM version:")?.split('.').next()?.parse().ok()?;
        Some(Self { release: value("release:")?.to_owned(), llvm })
    }

    /// Whether it is at least the workspace's `rust-version`.
    fn is_new_enough(&self) -> bool {
        major_minor(&self.release) >= major_minor(env!("CARGO_PKG_RUST_VERSION"))
    }
}

/// `1.97.0-nightly` -> (1, 97).
fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIGHTLY: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                           release: 1.97.0-nightly\nLLVM version: 22.1.4\n";

    #[test]
    fn release_and_llvm_are_read_from_rustc() {
        assert_eq!(Rustc::parse(NIGHTLY), Some(Rustc { release: "1.97.0-nightly".to_owned(), llvm: 22 }));
        assert_eq!(Rustc::parse("release: 1.95.0\n"), None);
    }

    #[test]
    fn a_compiler_older_than_the_workspace_does_not_count() {
        let rustc = |release: &str| Rustc { release: release.to_owned(), llvm: 22 };
        assert!(!rustc("1.63.0").is_new_enough());
        assert!(rustc("1.97.0-nightly").is_new_enough());
    }

    #[test]
    fn only_nightlies_are_taken_from_the_list() {
        let listed = "stable-x86_64-unknown-linux-gnu (active, default)\nnightly-x86_64-unknown-linux-gnu\n\
                      nightly-2026-05-19-x86_64-unknown-linux-gnu (override)\n";
        assert_eq!(
            nightlies(listed),
            ["nightly-x86_64-unknown-linux-gnu", "nightly-2026-05-19-x86_64-unknown-linux-gnu"]
        );
        assert_eq!(nightlies("no installed toolchains\n"), [""; 0]);
    }
}
