//! `lbctl validate FILE`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    block_on,
    console::{Report, Sections, Style, counted},
};
use crate::{
    config::{self, Config, ConfigErrors, Problem},
    model::Network,
    netlink,
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Validation {
    file: PathBuf,
    valid: bool,
    /// Whether the file was compared with this host.
    compared_with_host: bool,
    problems: Vec<Line>,
    warnings: Vec<Line>,
    /// `null` while there are problems with the file itself.
    summary: Option<Summary>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    file: String,
    line: Option<u64>,
    column: Option<u64>,
    message: String,
    #[serde(skip)]
    text: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    node: String,
    interfaces: usize,
    peers: usize,
    services: usize,
    vips: usize,
    backends: usize,
    announcements: usize,
    secret_fingerprint: String,
}

pub(super) fn gather(file: &Path, offline: bool) -> Result<Validation> {
    let loaded = config::load(file);
    let network = if offline || loaded.is_err() {
        None
    } else {
        let network = block_on(netlink::snapshot_once(&BTreeSet::new()))?;
        Some(network.context("reading this host's network; --offline does without")?)
    };
    Ok(judge(file, loaded, network.as_ref()))
}

fn judge(file: &Path, loaded: Result<Config, ConfigErrors>, network: Option<&Network>) -> Validation {
    let mut validation = Validation {
        file: file.to_owned(),
        valid: false,
        compared_with_host: network.is_some(),
        problems: Vec::new(),
        warnings: Vec::new(),
        summary: None,
    };
    match loaded {
        Err(errors) => validation.problems = lines(&errors.problems),
        Ok(config) => {
            let compared = network.map(|network| config::check_against(&config, network));
            if let Some(Err(errors)) = compared {
                validation.problems = lines(&errors.problems);
            }
            validation.warnings = lines(&config.warnings);
            validation.summary = Some(Summary::of(&config));
        }
    }
    validation.valid = validation.problems.is_empty();
    validation
}

fn lines(problems: &[Problem]) -> Vec<Line> {
    let line = |problem: &Problem| Line {
        file: problem.file.clone(),
        line: problem.place.map(|place| place.line),
        column: problem.place.map(|place| place.column),
        message: problem.message.clone(),
        text: problem.to_string(),
    };
    problems.iter().map(line).collect()
}

impl Summary {
    fn of(config: &Config) -> Self {
        let desired = &config.desired;
        let vips: BTreeSet<_> = desired.services.iter().flat_map(|service| &service.vips).collect();
        Self {
            node: desired.node.name.clone(),
            interfaces: config.agent.interfaces.len(),
            peers: desired.peers.len(),
            services: desired.services.len(),
            vips: vips.len(),
            backends: desired.services.iter().map(|service| service.backends.len()).sum(),
            announcements: desired.announcements.len(),
            secret_fingerprint: config.agent.secret.fingerprint(),
        }
    }

    fn line(&self) -> String {
        let counts = [
            counted(self.interfaces, "interface"),
            counted(self.peers, "peer"),
            counted(self.services, "service"),
            counted(self.vips, "VIP"),
            counted(self.backends, "backend"),
            counted(self.announcements, "announcement"),
        ];
        format!("node {}: {}", self.node, counts.join(", "))
    }
}

impl Report for Validation {
    fn text(&self, style: Style) -> String {
        let mut text = String::new();
        for problem in &self.problems {
            text.push_str(&style.bad(&problem.text));
            text.push('\n');
        }
        for warning in &self.warnings {
            text.push_str(&format!("warning: {}\n", warning.text));
        }
        let mut sections = Sections::new(style);
        let (count, file) = (self.problems.len(), self.file.display());
        sections.add(
            "result",
            [match (self.valid, self.compared_with_host) {
                (true, true) => format!("{file} is valid and fits this host"),
                (true, false) => format!("{file} is valid; it was not compared with this host"),
                (false, _) => style.bad(&format!("{file} has {}", counted(count, "problem"))),
            }],
        );
        if let Some(summary) = self.summary.as_ref().filter(|_| self.valid) {
            sections.add("content", [summary.line()]);
            sections.add("secret", [format!("fingerprint {}", summary.secret_fingerprint)]);
        }
        text + &sections.render()
    }

    fn failed(&self) -> bool {
        !self.valid
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::console::json, config::SAMPLE};

    fn judged(text: &str, network: Option<&Network>) -> Validation {
        let text = text.replace("secretFile: secret", "secret: 000102030405060708090a0b0c0d0e0f");
        judge(Path::new("levee.yaml"), config::parse("levee.yaml", &text, Path::new("/")), network)
    }

    #[test]
    fn the_sample_is_valid_and_summed_up() {
        let validation = judged(SAMPLE, None);
        assert!(!validation.failed(), "{validation:?}");
        insta::assert_snapshot!(validation.text(Style::PLAIN));
        insta::assert_snapshot!(json(&validation).unwrap());
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        let mistaken = SAMPLE.replace("ringSize: 4096", "ringSize: 4095").replace("weight: 1 ", "weight: 2000 ");
        let validation = judged(&mistaken, None);
        assert!(validation.failed());
        insta::assert_snapshot!(validation.text(Style::PLAIN));
        insta::assert_snapshot!(json(&validation).unwrap());
    }

    #[test]
    fn a_host_without_the_interfaces_does_not_fit() {
        let validation = judged(SAMPLE, Some(&Network::default()));
        assert!(validation.failed());
        assert!(validation.text(Style::PLAIN).contains("interface `eth0` is absent on this host"));
    }

    #[test]
    fn a_file_that_is_not_there_is_a_problem_of_its_own() {
        let validation = gather(Path::new("/nowhere/levee.yaml"), false).unwrap();
        assert!(validation.failed());
        assert!(validation.text(Style::PLAIN).starts_with("/nowhere/levee.yaml: can't be read"));
    }
}
