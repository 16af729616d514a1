//! Hostile input for the parser, the configuration and the loaded program: targets that panic when an invariant does
//! not hold, a corpus to begin with, and an engine that mutates it.
//!
//! The engine is a small one of our own, so that nothing but a stable toolchain is needed: it is told a seed, and the same
//! seed makes the same inputs. `cargo xtask fuzz` runs it for a time, the tests of this crate for a fixed number of runs.

mod config;
pub mod corpus;
mod edit;
pub mod engine;
mod frames;
mod model;
mod packet;
mod parser;
mod program;
mod texts;
mod world;

pub use config::config;
pub use parser::parser;
pub use program::{Bed, program};

/// What is fed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Target {
    /// `lb_common::parse` and `lb_common::quote`
    Parser,
    /// The configuration file
    Config,
    /// The loaded program, compared with a model (needs root)
    Program,
}

impl Target {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Parser, Self::Config, Self::Program];

    /// Its name: that of its folder in the corpus.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parser => "parser",
            Self::Config => "config",
            Self::Program => "program",
        }
    }
}
