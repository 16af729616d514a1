//! `fuzz`: feeds hostile input to the parser, the configuration and the loaded program.

use std::process::Command;

use anyhow::Result;

use crate::build::{build_ebpf, embedding_cargo};
use crate::privilege::require_kernel_access;
use crate::process::run;
use crate::setup::{Group, ensure};
use crate::workspace::{Profile, Workspace};

/// Targets that need neither root nor a BPF object.
const ON_THE_HOST: [&str; 2] = ["parser", "config"];
/// Flags that do without them, too.
const WITHOUT_TARGET: [&str; 3] = ["--write-corpus", "--help", "-h"];

/// Runs `levee-fuzz` with these arguments. Built for debugging, so that an overflow panics.
pub fn fuzz(workspace: &Workspace, args: &[String]) -> Result<()> {
    if needs_kernel(args) {
        require_kernel_access("fuzz")?;
        build_ebpf(workspace)?;
    } else {
        ensure(workspace, &[Group::Build])?;
    }
    let mut command = embedding_cargo(workspace);
    command.args(["build", "-p", "levee-fuzz"]);
    run("building the fuzz targets", &mut command)?;
    let mut command = Command::new(workspace.binaries(Profile::Debug).join("levee-fuzz"));
    command.args(args).env("LEVEE_BPF_OBJECT", workspace.object());
    run("feeding", &mut command)
}

fn needs_kernel(args: &[String]) -> bool {
    !args.iter().any(|arg| ON_THE_HOST.contains(&arg.as_str()) || WITHOUT_TARGET.contains(&arg.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_program_needs_the_kernel() {
        let needs = |text: &str| needs_kernel(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert!(needs("") && needs("program --seed 1") && needs("--time 5s"));
        assert!(!needs("parser --time 5s") && !needs("--seed 1 config") && !needs("--write-corpus"));
    }
}
