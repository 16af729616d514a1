//! The node agent.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Result;
use clap::Parser;
use lb_agent::{
    cli::agent::{Args, Verb},
    runtime,
};

fn main() -> ExitCode {
    match perform(&Args::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(verb: &Verb) -> Result<()> {
    match verb {
        Verb::Run { config, overrides } => runtime::run(config, overrides.log_level, overrides.log_format),
        Verb::Controller { config, overrides } => {
            runtime::controller::run(config, overrides.log_level, overrides.log_format)
        }
        Verb::Version => Ok(writeln!(io::stdout(), "lb-agent {}", env!("CARGO_PKG_VERSION"))?),
    }
}
