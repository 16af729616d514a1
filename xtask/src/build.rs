//! Builds the BPF object and the host programs that embed it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

use anyhow::{Context, Result};

use crate::process::{host_cargo, run, say};
use crate::setup::{BpfTools, Group, ensure};
use crate::toolchain::BPF_TARGET;
use crate::workspace::{Profile, Workspace};

/// Tells `lb-agent/build.rs` which object to embed, and the packet tests which one to load.
const OBJECT_VARIABLE: &str = "LEVEE_BPF_OBJECT";

/// Builds the BPF object and returns its path.
pub fn build_ebpf(workspace: &Workspace) -> Result<PathBuf> {
    ensure(workspace, &[Group::Build])?;
    let object = workspace.object();
    build_object(workspace, "lb-ebpf", &[], &object)?;
    Ok(object)
}

/// Builds what only the benchmark loads, and returns its folder: the harness, and the program with the yardstick in it.
pub fn build_bench_objects(workspace: &Workspace) -> Result<PathBuf> {
    ensure(workspace, &[Group::Build])?;
    let folder = workspace.bench_objects();
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    build_object(workspace, "bench-ebpf", &[], &folder.join("harness.o"))?;
    build_object(workspace, "lb-ebpf", &["--features", "yardstick-lru"], &folder.join("yardstick.o"))?;
    Ok(folder)
}

fn build_object(workspace: &Workspace, package: &str, args: &[&str], object: &Path) -> Result<()> {
    let tools = bpf_tools(workspace)?;
    let mut command = bpf_cargo(workspace, &tools, "build", package)?;
    command.args(args);
    run(&format!("building {} with {}", name(object), tools.toolchain.name()), &mut command)?;
    let built = workspace.bpf_target().join(BPF_TARGET).join("bpf").join(package);
    let size = copy_if_changed(&built, object)?;
    say(format!("BPF object: {} ({size} bytes)", object.display()));
    Ok(())
}

fn name(object: &Path) -> &str {
    object.file_name().and_then(OsStr::to_str).unwrap_or("the BPF object")
}

/// Builds the BPF object, then the agent and `lbctl` with it.
pub fn build(workspace: &Workspace, profile: Profile) -> Result<()> {
    build_ebpf(workspace)?;
    let mut command = embedding_cargo(workspace);
    command.args(["build", "-p", "lb-agent"]).args(profile.args());
    run("building lb-agent and lbctl", &mut command)?;
    say(format!("programs: {}", workspace.binaries(profile).display()));
    Ok(())
}

/// A host cargo that makes programs with the BPF object in them; [`build_ebpf`] has to come first.
pub fn embedding_cargo(workspace: &Workspace) -> Command {
    let mut command = host_cargo(workspace);
    command.env(OBJECT_VARIABLE, workspace.object());
    command
}

/// The compiler and linker that [`ensure`] found or installed.
pub fn bpf_tools(workspace: &Workspace) -> Result<BpfTools> {
    BpfTools::find(workspace)
        .context("no compiler and linker for the BPF object; `cargo xtask setup` says what is missing")
}

/// `cargo VERB` on a BPF crate, with its linker first on PATH and BTF in what it links.
pub fn bpf_cargo(workspace: &Workspace, tools: &BpfTools, verb: &str, package: &str) -> Result<Command> {
    let mut command = tools.toolchain.cargo(workspace, verb, package);
    let linker_dir = tools.linker.parent().unwrap_or(Path::new("/")).to_owned();
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([linker_dir].into_iter().chain(env::split_paths(&path)))
        .with_context(|| format!("{} cannot be part of PATH", tools.linker.display()))?;
    command
        .env("PATH", path)
        .env("RUSTFLAGS", "-C link-arg=--btf -C link-arg=--cpu-features=+allows-misaligned-mem-access");
    Ok(command)
}

/// Copies `from` over `to` unless they are equal, so that an unchanged object rebuilds nothing; returns the size.
fn copy_if_changed(from: &Path, to: &Path) -> Result<usize> {
    let bytes =
        fs::read(from).with_context(|| format!("reading {}, which the BPF build should have made", from.display()))?;
    let unchanged = match fs::read(to) {
        Ok(present) => present == bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(|| format!("reading {}", to.display())),
    };
    if !unchanged {
        fs::write(to, &bytes).with_context(|| format!("writing {}", to.display()))?;
    }
    Ok(bytes.len())
}
