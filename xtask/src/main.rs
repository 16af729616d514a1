//! `cargo xtask`: every build, test and release step that is not plain cargo.
//!
//! Each verb first installs what it needs and lacks. Lines that begin with `==>` say what happens.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool that talks to the person or CI job that runs it"
)]

mod alerts;
mod apt;
mod bench;
mod build;
mod dist;
mod fuzz;
mod image;
mod kube;
mod linker;
mod lint;
mod manifests;
mod mirror;
mod mutations;
mod packages;
mod privilege;
mod process;
mod promises;
mod sbom;
mod setup;
mod summary;
mod tally;
mod tar;
mod test;
mod tidy;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::{Profile, Workspace};

/// Every build, test and release step that is not plain cargo.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install what the other verbs need and this machine lacks
    Setup {
        /// Only tell what is missing; exits 1 if anything is
        #[arg(long)]
        check: bool,
    },
    /// Build the BPF object
    BuildEbpf,
    /// Build the BPF object, then lb-agent and lbctl with it
    Build {
        /// Optimize
        #[arg(long)]
        release: bool,
    },
    /// Run every test: host, packets, namespaces, API server (needs root)
    Test {
        /// Go on after a failure
        #[arg(long)]
        keep_going: bool,
    },
    /// Run packets through the loaded BPF program (needs root)
    Packets {
        /// Part of the tests' names, and arguments for the test harness after `--`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Send real traffic through network namespaces (needs root)
    Netns {
        /// Part of the tests' names, and arguments for the test harness after `--`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Test against a real API server (needs root)
    Kube {
        /// Part of the tests' names, and arguments for the test harness after `--`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build etcd and kube-apiserver for the tests, unless KUBEBUILDER_ASSETS names a folder with both
    KubeAssets,
    /// Build everything and show it at work in network namespaces (needs root)
    Demo {
        /// `kubernetes` for the one with API servers; arguments for the demo, which `--help` after `--` lists
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the packet tests on other kernels, in emulated guests
    Vm {
        /// Versions such as `6.1`; all that are known if none is named
        kernels: Vec<String>,
        /// Only this test program; can be given several times
        #[arg(long)]
        test: Vec<String>,
    },
    /// See that tests fail for code with a fault: each of some faults in turn, in a copy of the last commit (needs root)
    Mutations {
        /// Only these; all if none is named
        names: Vec<String>,
        /// Only list them
        #[arg(long)]
        list: bool,
    },
    /// Measure, and report on it (needs root)
    Bench {
        /// Only this; everything unless told
        #[arg(value_enum)]
        part: Option<bench::Part>,
        /// Fewer and shorter samples: to see whether it works, not to quote
        #[arg(long)]
        quick: bool,
        /// Write the summary to docs/benchmarks.md as well
        #[arg(long)]
        write_docs: bool,
    },
    /// Feed hostile input to the parser, the configuration and the loaded program (the last needs root)
    #[command(disable_help_flag = true)]
    Fuzz {
        /// parser, config or program (all in turn unless named), and options: `fuzz --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Make the plain manifests and the Kustomize base from the Helm chart
    Manifests {
        /// Only compare; exits 1 if a file is not what the chart makes
        #[arg(long)]
        check: bool,
    },
    /// Build the container image, an OCI layout in target/image
    Image {
        /// Do not optimize
        #[arg(long)]
        debug: bool,
        /// Run it as the manifests would, in network namespaces (needs root)
        #[arg(long)]
        test: bool,
    },
    /// Build what a release consists of: archive, image, SBOM and their checksums, in target/dist
    Dist {
        /// Do not optimize: to see whether it works, not to release
        #[arg(long)]
        debug: bool,
    },
    /// Check format, clippy, dependencies, documentation and layout
    Lint,
    /// Check which module imports what, where `unsafe` stands and how long files are
    Tidy,
}

fn main() -> ExitCode {
    match Workspace::locate().and_then(|workspace| perform(&workspace, Cli::parse().verb)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(workspace: &Workspace, verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup { check } => setup::setup(workspace, check),
        Verb::BuildEbpf => build::build_ebpf(workspace).map(drop),
        Verb::Build { release } => build::build(workspace, Profile::from_release_flag(release)),
        Verb::Test { keep_going } => test::test(workspace, keep_going),
        Verb::Packets { args } => test::packets(workspace, &args),
        Verb::Netns { args } => test::netns(workspace, &args),
        Verb::Kube { args } => test::kube(workspace, &args),
        Verb::KubeAssets => kube::kube_assets(workspace),
        Verb::Demo { args } => test::demo(workspace, &args),
        Verb::Mutations { names, list } => mutations::mutations(workspace, &names, list),
        Verb::Vm { kernels, test } => vm::vm(workspace, &kernels, &test),
        Verb::Bench { part, quick, write_docs } => bench::bench(workspace, part, quick, write_docs),
        Verb::Fuzz { args } => fuzz::fuzz(workspace, &args),
        Verb::Manifests { check } => manifests::manifests(workspace, check),
        Verb::Image { debug, test } => {
            let layout = image::image(workspace, Profile::from_release_flag(!debug))?;
            if test { test::image(workspace, &layout) } else { Ok(()) }
        }
        Verb::Dist { debug } => dist::dist(workspace, Profile::from_release_flag(!debug)),
        Verb::Lint => lint::lint(workspace),
        Verb::Tidy => tidy::check(workspace),
    }
}
