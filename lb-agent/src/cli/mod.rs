//! `lbctl`, verb by verb, and the command line of `lb-agent`.
//!
//! A verb gathers a report, which is a plain value; how it reads is a function of that value, so that tests construct
//! reports and compare whole texts. JSON is the report as it is: fields are added, never renamed.

pub mod agent;
mod args;
mod backends;
mod cleanup;
mod console;
mod counters;
mod detach;
mod doctor;
mod drain;
mod explain;
mod flow;
mod flows;
mod lookup;
mod man;
mod maps;
mod migrate;
mod ring;
mod sample;
mod services;
mod source;
mod status;
mod top;
mod trace;
mod validate;

use std::{
    ffi::OsString,
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};

pub use args::Args;
use args::{Options, Output, Sample, Verb};
use console::{Report, Style};

use crate::{api::DrainAction, model::DrainRequest};

/// Runs `lbctl` with the arguments of this process. Usage errors end it with exit code 2, others with 1; a reader that
/// went away is no error.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse_from(without_arrow(std::env::args_os()));
    let style = Style::for_stdout(args.options.color);
    match perform(&args, style).and_then(|done| print(&done.text).map(|()| done.code)) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let label = Style::for_stderr(args.options.color).bad("error:");
            let _ = writeln!(io::stderr(), "{label} {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The command line of `lbctl`.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// What a verb has to say, and how the process ends.
struct Done {
    text: String,
    code: ExitCode,
}

impl Done {
    const fn said(text: String) -> Self {
        Self { text, code: ExitCode::SUCCESS }
    }
}

fn perform(args: &Args, style: Style) -> Result<Done> {
    let options = &args.options;
    match &args.verb {
        Verb::Status => show(&status::gather(options)?, options, style),
        Verb::Services => show(&services::gather(options)?, options, style),
        Verb::Backends => show(&backends::gather(options)?, options, style),
        Verb::Flows { wanted } => show(&flows::gather(options, wanted)?, options, style),
        Verb::Drain { target, service, deadline, wait } => {
            let (target, services) = (target.clone(), service.clone());
            let request = DrainRequest { target, services, deadline_seconds: *deadline };
            show(&drain::perform(options, &request, DrainAction::Drain, *wait)?, options, style)
        }
        Verb::Undrain { target, service } => {
            let (target, services) = (target.clone(), service.clone());
            let request = DrainRequest { target, services, deadline_seconds: None };
            show(&drain::perform(options, &request, DrainAction::Undrain, false)?, options, style)
        }
        Verb::Maps { name: None } => show(&maps::gather(options)?, options, style),
        Verb::Maps { name: Some(name) } => show(&maps::dump(options, name)?, options, style),
        Verb::Ring { service } => show(&ring::gather(options, service)?, options, style),
        Verb::Explain { of } => show(&explain::gather(options, of)?, options, style),
        Verb::Counters => show(&counters::gather(options)?, options, style),
        Verb::Lookup { flow } => show(&lookup::gather(options, flow)?, options, style),
        Verb::Top { args } if args.is_once(options) => show(&top::gather(options, args)?, options, style),
        Verb::Top { args } => top::live(options, args, style).map(|()| Done::said(String::new())),
        Verb::Trace { args } => trace::run(options, args, style).map(|()| Done::said(String::new())),
        Verb::Validate { file, offline } => show(&validate::gather(file, *offline)?, options, style),
        Verb::Sample { what: Sample::Config } => Ok(Done::said(sample::CONFIG.to_owned())),
        Verb::Sample { what: Sample::Systemd } => Ok(Done::said(sample::SYSTEMD.to_owned())),
        Verb::Sample { what: Sample::StaticPod } => Ok(Done::said(sample::STATIC_POD.to_owned())),
        Verb::Sample { what: Sample::Controller } => Ok(Done::said(sample::CONTROLLER.to_owned())),
        Verb::Sample { what: Sample::Crds } => Ok(Done::said(crate::kubernetes::crds::yaml()?)),
        Verb::Migrate { former } => migrate::configuration(former).map(Done::said),
        Verb::Doctor { verbose, controller } => {
            show(&doctor::gather(options, *verbose, controller.as_deref())?, options, style)
        }
        Verb::Detach => show(&detach::perform(options)?, options, style),
        Verb::Cleanup { config, dry_run, routes_only } => {
            show(&cleanup::perform(options, config, *dry_run, *routes_only)?, options, style)
        }
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut command(), "lbctl", &mut text);
            Ok(Done::said(String::from_utf8(text).context("completions are not UTF-8")?))
        }
        Verb::Man { dir: None } => man::page().map(Done::said),
        Verb::Man { dir: Some(dir) } => man::write(dir).map(Done::said),
    }
}

fn show<R: Report>(report: &R, options: &Options, style: Style) -> Result<Done> {
    let text = match options.output {
        Output::Text => report.text(style),
        Output::Json => console::json(report)?,
    };
    let code = if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    Ok(Done { text, code })
}

fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).context("writing the output")?;
    stdout.flush().context("writing the output")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// An arrow between the ends of a flow says nothing, but would be taken for an option.
fn without_arrow(words: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    words.filter(|word| word != "->")
}

/// Runs something asynchronous to its end.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("starting the runtime")?.block_on(future))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let words = std::iter::once("lbctl").chain(line.split_whitespace()).map(OsString::from);
        Args::try_parse_from(without_arrow(words))
    }

    #[test]
    fn both_command_lines_are_well_formed() {
        command().debug_assert();
        agent::command().debug_assert();
    }

    #[test]
    fn options_stand_before_and_after_the_verb() {
        let before = parse("-o json --socket /s lookup tcp 10.0.0.1:1 -> 192.0.2.1:2").unwrap();
        let after = parse("lookup tcp 10.0.0.1:1 192.0.2.1:2 --output json --socket /s").unwrap();
        assert_eq!(before, after);
        assert_eq!(before.options.output, Output::Json);
        assert_eq!(before.options.socket.to_str(), Some("/s"));
    }

    #[test]
    fn every_verb_is_understood() {
        let lines = [
            "status",
            "services",
            "backends",
            "flows",
            "flows --service web --backend 10.0.0.1:80 --client 198.51.100.0/24 --limit 5",
            "flows --count",
            "drain 10.0.0.1",
            "drain node-2 --service web --service api --deadline 10m --wait",
            "undrain [2001:db8::1]:53 --service dns",
            "maps",
            "maps RINGS",
            "ring kubernetes",
            "explain kubernetes",
            "explain 2001:db8::10",
            "counters",
            "lookup udp [2001:db8::1]:5 -> [2001:db8::10]:53",
            "top",
            "top --once --interval 0.5",
            "trace",
            "trace --service kubernetes --client 10.0.0.0/8 --port 443 --drops -n 5",
            "validate levee.yaml",
            "validate --offline levee.yaml",
            "sample config",
            "sample systemd",
            "sample static-pod",
            "sample crds",
            "sample controller",
            "doctor",
            "doctor --verbose --controller controller.yaml",
            "migrate nsxt-lite-lb --nsxhost=https://a --nsxuser=b --clustervip=192.0.2.1 --clusterrouterid=c --setvipenabled=false",
            "detach",
            "cleanup --config controller.yaml --dry-run --routes-only",
            "completions bash",
            "man",
            "man --dir /tmp",
        ];
        for line in lines {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for line in [
            "",
            "nothing",
            "ring",
            "lookup",
            "sample",
            "status -o yaml",
            "validate",
            "detach now",
            "cleanup",
            "drain",
            "drain a --deadline 5",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_reader_that_went_away_is_told_from_other_errors() {
        let error = |kind| anyhow::Error::from(io::Error::from(kind)).context("writing the output");
        assert!(is_broken_pipe(&error(ErrorKind::BrokenPipe)));
        assert!(!is_broken_pipe(&error(ErrorKind::StorageFull)));
    }

    #[test]
    fn completions_know_every_verb() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let args = parse(&format!("completions {shell}")).unwrap();
            let text = perform(&args, Style::PLAIN).unwrap().text;
            for verb in command().get_subcommands() {
                assert!(text.contains(verb.get_name()), "{shell}: {}", verb.get_name());
            }
        }
    }
}
