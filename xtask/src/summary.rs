//! What ran and how it ended, as a table and a total line.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::tally::Tally;

/// One part of a test run.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Its verb.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, building included.
    pub took: Duration,
}

/// How a phase ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// At least one test ran and none failed.
    Passed(Tally),
    /// What ran until then, and the reason.
    Failed(Tally, String),
    /// It was not run, which is no pass; the reason.
    Skipped(String),
}

impl Phase {
    /// Whether the phase makes the run fail.
    pub fn failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(..))
    }
}

/// Prints the table; a failed phase is an error.
pub fn print_summary(phases: &[Phase]) -> Result<()> {
    println!("\n{}", render(phases));
    let failed: Vec<_> = phases.iter().filter(|phase| phase.failed()).map(|phase| phase.name).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn render(phases: &[Phase]) -> String {
    let mut text =
        format!("{:<8}  {:<8} {:>7} {:>7} {:>8} {:>7}\n", "phase", "result", "passed", "failed", "ignored", "time");
    let mut total = Tally::default();
    let mut took = Duration::ZERO;
    for phase in phases {
        let (result, tally, remark) = match &phase.outcome {
            Outcome::Passed(tally) => ("ok", *tally, ""),
            Outcome::Failed(tally, reason) => ("FAILED", *tally, reason.as_str()),
            Outcome::Skipped(reason) => ("not run", Tally::default(), reason.as_str()),
        };
        text += row(phase.name, result, tally, phase.took, remark).trim_end();
        text += "\n";
        total.add(tally);
        took += phase.took;
    }
    let result = if phases.iter().any(Phase::failed) { "FAILED" } else { "ok" };
    text + row("total", result, total, took, "").trim_end()
}

fn row(name: &str, result: &str, tally: Tally, took: Duration, remark: &str) -> String {
    let Tally { passed, failed, ignored } = tally;
    let seconds = format!("{} s", took.as_secs());
    format!("{name:<8}  {result:<8} {passed:>7} {failed:>7} {ignored:>8} {seconds:>7}  {remark}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(name: &'static str, outcome: Outcome) -> Phase {
        Phase { name, outcome, took: Duration::from_secs(7) }
    }

    #[test]
    fn the_table_shows_every_phase_and_the_sum() {
        let phases = [
            phase("host", Outcome::Passed(Tally { passed: 12, failed: 0, ignored: 1 })),
            phase("miri", Outcome::Skipped("no miri".to_owned())),
            phase("netns", Outcome::Failed(Tally { passed: 3, failed: 2, ignored: 0 }, "tests failed".to_owned())),
        ];
        let expected = "\
phase     result    passed  failed  ignored    time
host      ok            12       0        1     7 s
miri      not run        0       0        0     7 s  no miri
netns     FAILED         3       2        0     7 s  tests failed
total     FAILED        15       2        1    21 s";
        assert_eq!(render(&phases), expected);
    }

    #[test]
    fn a_skipped_phase_does_not_fail_the_run_and_a_failed_one_does() {
        assert!(print_summary(&[phase("miri", Outcome::Skipped(String::new()))]).is_ok());
        let failed = phase("host", Outcome::Failed(Tally::default(), "no compiler".to_owned()));
        assert_eq!(print_summary(&[failed]).unwrap_err().to_string(), "failed: host");
    }
}
