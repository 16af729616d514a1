//! `levee-bench`: runs one part of the benchmarks. `cargo xtask bench` builds what it needs and calls it.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use levee_bench::{Options, agent, end_to_end, kubernetes, micro, micro::Order, report};

/// Measure Levee.
#[derive(Debug, Parser)]
struct Cli {
    /// Fewer and shorter samples: to see whether it works, not to quote
    #[arg(long, global = true)]
    quick: bool,
    /// Where results go
    #[arg(long, global = true, value_name = "DIR", default_value = "target/bench")]
    directory: PathBuf,
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The program alone, packet by packet (needs root)
    Micro,
    /// Traffic through Levee and through others, in network namespaces (needs root)
    EndToEnd,
    /// The agent: rings, reaction, memory (needs root)
    Agent,
    /// Agent and controller with a stand-in for the API: reaction, size, writes at rest (needs root)
    Kubernetes,
    /// Make the report of what was measured so far
    Report {
        /// Write the summary to this file as well
        #[arg(long, value_name = "FILE")]
        write_docs: Option<PathBuf>,
    },
    /// One process of the micro benchmarks
    #[command(hide = true)]
    MicroProcess {
        /// In which order programs are loaded
        #[arg(value_enum)]
        order: Order,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let options = Options { quick: cli.quick, directory: cli.directory };
    match cli.part {
        Part::Micro => micro::measure(&options),
        Part::EndToEnd => end_to_end::run(&options)?.save(&options.directory).map(drop),
        Part::Agent => agent::run(&options)?.save(&options.directory).map(drop),
        Part::Kubernetes => kubernetes::run(&options)?.save(&options.directory).map(drop),
        Part::Report { write_docs } => report::make(&options, write_docs.as_deref()),
        Part::MicroProcess { order } => micro::measure_in_this_process(&options, order),
    }
}
