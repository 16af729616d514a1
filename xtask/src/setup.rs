//! Installs what the other verbs need, and only what is missing.
//!
//! Level-triggered: look what is missing, install the first kind of it, look again. What comes out of one look depends on
//! what the one before installed (only a compiler tells which LLVM its linker needs), so a fresh machine takes some rounds.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages::{
    BENCH_PACKAGES, COMPILER_PACKAGES, DEPLOY_PACKAGES, KUBE_PACKAGES, Package, TEST_PACKAGES, VM_PACKAGES,
};
use crate::process::{ask, cargo_install, foreign, host_cargo, run, say};
use crate::toolchain::{ClippySource, Toolchain};
use crate::workspace::{Workspace, find_program};
use crate::{apt, linker};

/// A set of verbs that need the same things.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Group {
    /// The BPF object.
    Build,
    /// Packet and namespace tests, the demo.
    Test,
    /// `lint`.
    Lint,
    /// Emulated guests.
    Vm,
    /// The end-to-end benchmark.
    Bench,
    /// The build of kube-apiserver.
    Kube,
    /// Charts, alerts and containers.
    Deploy,
}

/// Every group that `setup` installs. Guests, benchmarks and the API server install what they need themselves: few machines do.
pub const ALL: [Group; 3] = [Group::Build, Group::Test, Group::Lint];

/// The version that `deny.toml` is written for, and its compatible range.
const DENY_VERSION: &str = "0.20.2";
const DENY_RANGE: &str = "cargo-deny 0.20.";
/// More rounds than any machine takes: packages, LLVM, linker, tools.
const MAX_ROUNDS: usize = 6;

/// The tools of the BPF build.
#[derive(Clone, Debug)]
pub struct BpfTools {
    /// The compiler.
    pub toolchain: Toolchain,
    /// The linker that fits it.
    pub linker: PathBuf,
}

impl BpfTools {
    /// The first toolchain of this machine that has a linker.
    pub fn find(workspace: &Workspace) -> Option<Self> {
        Self::among(workspace, &Toolchain::installed(workspace))
    }

    fn among(workspace: &Workspace, toolchains: &[Toolchain]) -> Option<Self> {
        toolchains.iter().find_map(|toolchain| {
            let linker = linker::find(workspace, toolchain.llvm())?;
            Some(Self { toolchain: toolchain.clone(), linker })
        })
    }
}

/// Something that is missing.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Need {
    /// A Debian package, and what it is for.
    Package { name: String, why: String },
    /// A linker for the LLVM of `toolchain`, to be built against the LLVM at `prefix`.
    Linker { llvm: u32, prefix: PathBuf, toolchain: String },
    /// A linker, when the compiler will be there to say which.
    LinkerLater,
    /// A component of a rustup toolchain; `None` is the one that runs this.
    Component { name: &'static str, toolchain: Option<String> },
    /// cargo-deny.
    Deny,
    /// Something nobody can install here, with the reason and the way out.
    Impossible(String),
}

impl Need {
    fn describe(&self) -> String {
        match self {
            Self::Package { name, why } => format!("package {name}: {why}"),
            Self::Linker { llvm, prefix, toolchain } => {
                format!(
                    "bpf-linker {} for {toolchain}: built against LLVM {llvm} in {}",
                    linker::VERSION,
                    prefix.display()
                )
            }
            Self::LinkerLater => "bpf-linker and the LLVM libraries that fit the compiler".to_owned(),
            Self::Component { name, toolchain: None } => format!("rustup component {name}"),
            Self::Component { name, toolchain: Some(toolchain) } => format!("rustup component {name} of {toolchain}"),
            Self::Deny => format!("cargo-deny {DENY_VERSION}: checks licences and sources of the dependencies"),
            Self::Impossible(reason) => reason.clone(),
        }
    }
}

/// Installs what `groups` miss; silent if that is nothing.
pub fn ensure(workspace: &Workspace, groups: &[Group]) -> Result<()> {
    let mut before = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let needs = survey(workspace, groups);
        if needs.is_empty() {
            return Ok(());
        }
        if needs == before {
            break;
        }
        tell(&needs);
        perform(workspace, &needs)?;
        before = needs;
    }
    bail!(
        "still missing after the installation: {}. Install that by hand, then run `cargo xtask setup` again",
        before.iter().map(Need::describe).collect::<Vec<_>>().join("; ")
    )
}

/// `cargo xtask setup`.
pub fn setup(workspace: &Workspace, check: bool) -> Result<()> {
    say("looking for what the build, the tests and the lints need");
    if !check {
        ensure(workspace, &ALL)?;
    }
    let needs = survey(workspace, &ALL);
    tell(&needs);
    if let Some(tools) = BpfTools::find(workspace) {
        say(format!("BPF compiler: {}", tools.toolchain.name()));
        say(format!("BPF linker: {}", tools.linker.display()));
    }
    if needs.is_empty() {
        say("nothing is missing");
        return Ok(());
    }
    bail!("{} missing; `cargo xtask setup` installs {}", count(&needs), if needs.len() == 1 { "it" } else { "them" })
}

fn count(needs: &[Need]) -> String {
    if needs.len() == 1 { "1 thing is".to_owned() } else { format!("{} things are", needs.len()) }
}

fn tell(needs: &[Need]) {
    for need in needs {
        say(format!("missing: {}", need.describe()));
    }
}

/// What `groups` miss now.
fn survey(workspace: &Workspace, groups: &[Group]) -> Vec<Need> {
    let mut needs = Vec::new();
    if groups.contains(&Group::Test) {
        needs.extend(missing(&TEST_PACKAGES));
    }
    if groups.contains(&Group::Vm) {
        needs.extend(missing(&VM_PACKAGES));
    }
    if groups.contains(&Group::Bench) {
        needs.extend(missing(&BENCH_PACKAGES));
    }
    if groups.contains(&Group::Kube) {
        needs.extend(missing(&KUBE_PACKAGES));
    }
    if groups.contains(&Group::Deploy) {
        needs.extend(missing(&DEPLOY_PACKAGES));
    }
    let toolchains = Toolchain::installed(workspace);
    let tools = BpfTools::among(workspace, &toolchains);
    if groups.contains(&Group::Build) && tools.is_none() {
        needs.extend(bpf_needs(&toolchains, missing(&COMPILER_PACKAGES).collect()));
    }
    if groups.contains(&Group::Lint) {
        needs.extend(lint_needs(workspace, tools.as_ref().map(|tools| &tools.toolchain).or(toolchains.first())));
    }
    needs
}

fn missing(packages: &[Package]) -> impl Iterator<Item = Need> {
    let absent = packages.iter().filter(|package| find_program(package.proof).is_none());
    absent.map(|package| Need::Package { name: package.name.to_owned(), why: package.why.to_owned() })
}

/// What the BPF build misses when no toolchain has a linker; `absent` are the missing packages of Debian's compiler.
fn bpf_needs(toolchains: &[Toolchain], absent: Vec<Need>) -> Vec<Need> {
    let buildable = toolchains.iter().find_map(|toolchain| {
        let llvm = toolchain.llvm();
        Some(Need::Linker { llvm, prefix: linker::llvm_prefix(llvm)?, toolchain: toolchain.name() })
    });
    if let Some(need) = buildable {
        return vec![need];
    }
    let packaged = toolchains.iter().find_map(|toolchain| {
        let why = format!("LLVM that bpf-linker is built against, as in {}", toolchain.name());
        Some(Need::Package { name: linker::llvm_package(toolchain.llvm())?, why })
    });
    if let Some(need) = packaged {
        return vec![need, Need::LinkerLater];
    }
    if absent.is_empty() {
        let found = toolchains.iter().map(Toolchain::name).collect::<Vec<_>>().join(", ");
        return vec![Need::Impossible(format!(
            "a BPF compiler: /usr/bin/rustc is older than {} or its LLVM has no bpf-linker {} (usable compilers: {}). \
             Run `rustup toolchain install nightly --component rust-src` and put a bpf-linker for its LLVM on PATH",
            env!("CARGO_PKG_RUST_VERSION"),
            linker::VERSION,
            if found.is_empty() { "none" } else { &found },
        ))];
    }
    absent.into_iter().chain([Need::LinkerLater]).collect()
}

fn lint_needs(workspace: &Workspace, bpf: Option<&Toolchain>) -> Vec<Need> {
    let mut needs = Vec::new();
    for (verb, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if ask(host_cargo(workspace).args([verb, "--version"])).is_none() {
            needs.push(Need::Component { name: component, toolchain: None });
        }
    }
    match bpf {
        Some(toolchain) if toolchain.has_clippy(workspace) => {}
        // Without a compiler Debian's comes, and its clippy along with it.
        None => needs.push(clippy_package("rust-web-clippy")),
        Some(toolchain) => needs.push(match toolchain.clippy_source() {
            ClippySource::Apt(package) => clippy_package(package),
            ClippySource::Rustup(name) => Need::Component { name: "clippy", toolchain: Some(name) },
        }),
    }
    if cargo_deny(workspace).is_none() {
        needs.push(Need::Deny);
    }
    needs
}

fn clippy_package(name: &str) -> Need {
    Need::Package { name: name.to_owned(), why: "lints of the BPF code".to_owned() }
}

/// The cargo-deny to use: ours, or one on PATH that reads the same configuration.
pub fn cargo_deny(workspace: &Workspace) -> Option<PathBuf> {
    let ours = workspace.tools_bin().join("cargo-deny");
    let candidates = [Some(ours), find_program("cargo-deny")].into_iter().flatten();
    candidates
        .into_iter()
        .find(|path| ask(Command::new(path).arg("--version")).is_some_and(|version| version.starts_with(DENY_RANGE)))
}

/// Installs everything that `needs` names: all packages in one go, then the rest one by one.
fn perform(workspace: &Workspace, needs: &[Need]) -> Result<()> {
    let packages = package_names(needs);
    if !packages.is_empty() {
        apt::install(workspace, &packages)?;
    }
    for need in needs {
        match need {
            Need::Package { .. } | Need::LinkerLater => {}
            Need::Linker { llvm, prefix, .. } => linker::install(workspace, *llvm, prefix)?,
            Need::Component { name, toolchain } => add_component(workspace, name, toolchain.as_deref())?,
            Need::Deny => install_deny(workspace)?,
            Need::Impossible(reason) => bail!("{reason}"),
        }
    }
    Ok(())
}

fn package_names(needs: &[Need]) -> Vec<String> {
    let name = |need: &Need| {
        if let Need::Package { name, .. } = need { Some(name.clone()) } else { None }
    };
    needs.iter().filter_map(name).collect()
}

fn add_component(workspace: &Workspace, name: &str, toolchain: Option<&str>) -> Result<()> {
    if find_program("rustup").is_none() {
        bail!("{name} is missing and there is no rustup to add it; install {name} the way this Rust was installed");
    }
    let mut command = foreign(workspace, "rustup");
    command.args(["component", "add", name]);
    if let Some(toolchain) = toolchain {
        command.args(["--toolchain", toolchain]);
    }
    run(&format!("adding rustup component {name}"), &mut command)
}

fn install_deny(workspace: &Workspace) -> Result<()> {
    let mut command = cargo_install(workspace, "cargo-deny", DENY_VERSION);
    run(&format!("building cargo-deny {DENY_VERSION} (some minutes)"), &mut command)
        .with_context(|| format!("could not install cargo-deny; put a {DENY_RANGE}x on PATH, then try again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_installed_again() {
        let there = Package { name: "dash", proof: "/bin/sh", why: "a shell" };
        let absent = Package { name: "ghost", proof: "/nonexistent/ghost", why: "a test" };
        let needs: Vec<_> = missing(&[there, absent]).collect();
        assert_eq!(needs, [Need::Package { name: "ghost".to_owned(), why: "a test".to_owned() }]);
    }

    #[test]
    fn without_a_toolchain_debians_is_installed_and_a_linker_announced() {
        let compiler = Need::Package { name: "rustc-web".to_owned(), why: "compiler".to_owned() };
        assert_eq!(bpf_needs(&[], vec![compiler.clone()]), [compiler, Need::LinkerLater]);
    }

    #[test]
    fn a_compiler_that_will_not_do_is_reported_and_not_installed_again() {
        let [Need::Impossible(reason)] = &bpf_needs(&[], Vec::new())[..] else {
            panic!("expected one impossible need")
        };
        assert!(reason.contains("rustup toolchain install nightly"), "{reason}");
    }

    #[test]
    fn packages_of_all_groups_go_into_one_installation() {
        let needs = [clippy_package("a"), Need::Deny, clippy_package("b"), Need::LinkerLater];
        assert_eq!(package_names(&needs), ["a", "b"]);
    }
}
