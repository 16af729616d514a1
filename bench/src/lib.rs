//! The benchmarks. Each part measures and leaves its results as JSON; the report is made of those files alone.

pub mod agent;
pub mod end_to_end;
pub mod interrupt;
pub mod kubernetes;
pub mod machine;
pub mod micro;
pub mod report;
pub mod schema;
pub mod statistics;

use std::path::PathBuf;

/// What all parts are told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Fewer and shorter samples: to see whether it works, not to quote.
    pub quick: bool,
    /// Where results go.
    pub directory: PathBuf,
}

/// Tells whoever waits what goes on.
#[expect(clippy::print_stdout, reason = "a program that talks to the person or CI job that runs it")]
pub fn say(text: &str) {
    println!("{text}");
}
