//! The command line of `lb-agent`.

use std::path::PathBuf;

use clap::{
    CommandFactory, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::config::{LogFormat, LogLevel};

/// The node agent of Levee: keeps the XDP data plane and the announcements of this node as the configuration says.
#[derive(Debug, Eq, Parser, PartialEq)]
#[command(name = "lb-agent", version)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What `lb-agent` can do.
#[derive(Debug, Eq, PartialEq, Subcommand)]
pub enum Verb {
    /// Runs until SIGTERM or SIGINT; SIGHUP reads the configuration again
    Run {
        /// Configuration file; `lbctl sample config` shows one
        #[arg(long, short, env = "LEVEE_CONFIG", value_name = "FILE", default_value = "/etc/levee/levee.yaml")]
        config: PathBuf,
        /// What goes before the file.
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Gives Services of type LoadBalancer their addresses, until SIGTERM or SIGINT
    ///
    /// Runs on control-plane nodes only: it alone may write the status of Services.
    Controller {
        /// Configuration file; `lbctl sample controller` shows one
        #[arg(
            long,
            short,
            env = "LEVEE_CONTROLLER_CONFIG",
            value_name = "FILE",
            default_value = "/etc/levee/controller.yaml"
        )]
        config: PathBuf,
        /// What goes before the file.
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Prints the version
    Version,
}

/// Settings of the command line that go before those of the file.
#[derive(clap::Args, Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Overrides {
    /// Least important events to log, instead of the file's `log.level`
    #[arg(long, env = "LEVEE_LOG_LEVEL", value_name = "LEVEL", value_parser = levels())]
    pub log_level: Option<LogLevel>,
    /// Shape of log lines, instead of the file's `log.format`
    #[arg(long, env = "LEVEE_LOG_FORMAT", value_name = "FORMAT", value_parser = formats())]
    pub log_format: Option<LogFormat>,
}

/// The command line, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

fn levels() -> impl TypedValueParser<Value = LogLevel> {
    PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"]).map(|name| match name.as_str() {
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        _ => LogLevel::Info,
    })
}

fn formats() -> impl TypedValueParser<Value = LogFormat> {
    PossibleValuesParser::new(["text", "json"]).map(|name| match name.as_str() {
        "json" => LogFormat::Json,
        _ => LogFormat::Text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Verb, clap::Error> {
        Args::try_parse_from(std::iter::once("lb-agent").chain(line.split_whitespace())).map(|args| args.verb)
    }

    #[test]
    fn the_file_and_what_goes_before_it_are_read() {
        let run = |config: &str, log_level, log_format| Verb::Run {
            config: config.into(),
            overrides: Overrides { log_level, log_format },
        };
        let given = parse("run --config a.yaml --log-level debug --log-format json").unwrap();
        assert_eq!(given, run("a.yaml", Some(LogLevel::Debug), Some(LogFormat::Json)));
        assert_eq!(parse("run").unwrap(), run("/etc/levee/levee.yaml", None, None));
        assert_eq!(parse("version").unwrap(), Verb::Version);
    }

    #[test]
    fn the_controller_has_a_file_of_its_own() {
        let (config, overrides) = ("/etc/levee/controller.yaml".into(), Overrides::default());
        assert_eq!(parse("controller").unwrap(), Verb::Controller { config, overrides });
    }

    #[test]
    fn every_level_is_itself() {
        for level in [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace] {
            let Verb::Run { overrides, .. } = parse(&format!("run --log-level {}", level.as_str())).unwrap() else {
                panic!("not run");
            };
            assert_eq!(overrides.log_level, Some(level));
        }
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for line in ["", "run --log-level loud", "run a.yaml", "walk"] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
