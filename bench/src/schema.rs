//! What a part of the benchmarks leaves behind: one JSON file under `target/bench`, from which the report is made.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{machine::Machine, statistics::Quartiles};

/// A part of the benchmarks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The program alone, packet by packet.
    Micro,
    /// Traffic through network namespaces.
    EndToEnd,
    /// The agent: rings, reaction, memory.
    Agent,
    /// Agent and controller with an API.
    Kubernetes,
}

impl Part {
    /// Every part, in the order of the report.
    pub const ALL: [Self; 4] = [Self::Micro, Self::EndToEnd, Self::Agent, Self::Kubernetes];

    /// Its name on the command line and in file names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Micro => "micro",
            Self::EndToEnd => "end-to-end",
            Self::Agent => "agent",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// The results of one run of a part.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Results {
    /// Which part.
    pub part: Part,
    /// When the run ended, UTC, RFC 3339 to the second.
    pub when: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the processor, as the kernel names it.
    pub cpu: String,
    /// Processors online.
    pub cores: usize,
    /// What to type to get these figures.
    pub command: String,
    /// How it was measured, a paragraph each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What was measured, in the order of the report.
    pub cases: Vec<Case>,
    /// Quotients of cases of this run.
    #[serde(default)]
    pub ratios: Vec<Ratio>,
    /// Source texts that the reader needs to judge a figure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
}

/// One thing that was measured.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Case {
    /// Its name, unique within the part.
    pub name: String,
    /// Cases of one group share a plot, so they share a unit.
    pub group: String,
    /// Unit of all its figures, such as `ns/packet`.
    pub unit: String,
    /// The samples in the order they were taken.
    pub samples: Vec<f64>,
    /// Median of the samples.
    pub median: f64,
    /// First quartile.
    pub q1: f64,
    /// Third quartile.
    pub q3: f64,
    /// The median less that of the floor of the same run, if the case has a floor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<f64>,
    /// What the figure (`net` if there is one) must not exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    /// Whether it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
    /// What the reader has to know about this figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What was counted meanwhile.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
}

/// A quotient of two cases of one run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Ratio {
    /// What it tells.
    pub name: String,
    /// Name of the case above the line.
    pub numerator: String,
    /// Name of the case below it.
    pub denominator: String,
    /// The quotient of their figures.
    pub value: f64,
    /// What it must not exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    /// Whether it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
}

/// A piece of source text.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Source {
    /// What it is.
    pub name: String,
    /// Its file, relative to the repository.
    pub path: String,
    /// The text.
    pub text: String,
}

impl Results {
    /// Results without cases, of this machine and moment.
    #[must_use]
    pub fn new(part: Part, machine: &Machine) -> Self {
        Self {
            part,
            when: machine.when.clone(),
            kernel: machine.kernel.clone(),
            cpu: machine.cpu.clone(),
            cores: machine.cores,
            command: format!("cargo xtask bench {}", part.name()),
            notes: Vec::new(),
            cases: Vec::new(),
            ratios: Vec::new(),
            sources: Vec::new(),
        }
    }

    /// The case with this name.
    #[must_use]
    pub fn case(&self, name: &str) -> Option<&Case> {
        self.cases.iter().find(|case| case.name == name)
    }

    /// Adds the quotient of two cases; nothing if one of them was not measured.
    pub fn compare(&mut self, name: &str, numerator: &str, denominator: &str, budget: Option<f64>) {
        let (Some(above), Some(below)) = (self.case(numerator), self.case(denominator)) else { return };
        let value = above.figure() / below.figure();
        let ratio = Ratio {
            name: name.to_owned(),
            numerator: numerator.to_owned(),
            denominator: denominator.to_owned(),
            value,
            budget,
            met: budget.map(|budget| value <= budget),
        };
        self.ratios.push(ratio);
    }

    /// File of a part's results in `directory`.
    #[must_use]
    pub fn path(directory: &Path, part: Part) -> PathBuf {
        directory.join(format!("{}.json", part.name()))
    }

    /// Writes the results to their file in `directory`, which is created if need be.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<PathBuf> {
        let path = Self::path(directory, self.part);
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        let text = serde_json::to_string_pretty(self).context("turning results into JSON")?;
        fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Reads the results of a part; `None` if there is no file.
    ///
    /// # Errors
    /// If the file cannot be read or says something else.
    pub fn load(directory: &Path, part: Part) -> Result<Option<Self>> {
        let path = Self::path(directory, part);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let results = serde_json::from_str(&text);
                let hint = || format!("reading {}; `cargo xtask bench {}` writes it anew", path.display(), part.name());
                results.map(Some).with_context(hint)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }
}

impl Case {
    /// A case with the quartiles of its samples.
    ///
    /// # Panics
    /// Without a sample.
    #[must_use]
    pub fn new(name: &str, group: &str, unit: &str, samples: Vec<f64>) -> Self {
        let Quartiles { q1, median, q3 } = Quartiles::of(&samples);
        Self {
            name: name.to_owned(),
            group: group.to_owned(),
            unit: unit.to_owned(),
            samples,
            median,
            q1,
            q3,
            net: None,
            budget: None,
            met: None,
            note: None,
            counters: BTreeMap::new(),
        }
    }

    /// With the floor of the same run taken off.
    #[must_use]
    pub fn above(mut self, floor: f64) -> Self {
        self.net = Some(self.median - floor);
        self
    }

    /// With a budget for its figure; comes after [`Self::above`].
    #[must_use]
    pub fn within(mut self, budget: f64) -> Self {
        self.budget = Some(budget);
        self.met = Some(self.figure() <= budget);
        self
    }

    /// With a remark for the reader.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.note = Some(text.into());
        self
    }

    /// With what was counted meanwhile.
    #[must_use]
    pub fn counters(mut self, counters: BTreeMap<String, u64>) -> Self {
        self.counters = counters;
        self
    }

    /// The figure that counts: net of the floor if there is one.
    #[must_use]
    pub fn figure(&self) -> f64 {
        self.net.unwrap_or(self.median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let machine = Machine {
            when: "2026-11-21T14:00:00Z".to_owned(),
            kernel: "6.18".to_owned(),
            cpu: "a processor".to_owned(),
            cores: 2,
        };
        let mut results = Results::new(Part::EndToEnd, &machine);
        results.cases.push(Case::new("a", "group", "ns", vec![6.0, 5.0, 7.0]).above(4.0).within(1.5));
        results.cases.push(Case::new("b", "group", "ns", vec![8.0]).above(4.0).within(4.0).note("remark"));
        results
    }

    #[test]
    fn the_figure_of_a_case_is_net_of_its_floor() {
        let results = results();
        let figures: Vec<_> = results.cases.iter().map(|case| (case.figure(), case.met)).collect();
        assert_eq!(figures, [(2.0, Some(false)), (4.0, Some(true))]);
    }

    #[test]
    fn a_ratio_divides_figures_and_judges_its_budget() {
        let mut results = results();
        results.compare("a over b", "a", "b", Some(0.4));
        results.compare("b over a", "b", "a", None);
        results.compare("a over nothing", "a", "c", Some(1.0));
        let ratios: Vec<_> = results.ratios.iter().map(|ratio| (ratio.name.as_str(), ratio.value, ratio.met)).collect();
        assert_eq!(ratios, [("a over b", 0.5, Some(false)), ("b over a", 2.0, None)]);
    }

    #[test]
    fn results_survive_their_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut results = results();
        results.compare("a over b", "a", "b", Some(0.6));
        assert_eq!(Results::load(directory.path(), Part::EndToEnd).unwrap(), None);
        let path = results.save(directory.path()).unwrap();
        assert_eq!(path.file_name().unwrap(), "end-to-end.json");
        assert_eq!(Results::load(directory.path(), Part::EndToEnd).unwrap(), Some(results));
    }

    #[test]
    fn a_file_with_only_what_must_be_there_is_read() {
        let text = r#"{ "part": "agent", "when": "", "kernel": "", "cpu": "", "cores": 2, "command": "cargo xtask bench agent",
            "cases": [ { "name": "n", "group": "g", "unit": "ms", "samples": [1], "median": 1, "q1": 1, "q3": 1 } ] }"#;
        let results: Results = serde_json::from_str(text).unwrap();
        assert_eq!((results.part, results.cases[0].figure(), results.ratios.len()), (Part::Agent, 1.0, 0));
    }
}
