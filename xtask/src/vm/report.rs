//! What a guest's console says, and what that is worth.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::tally::Tally;

/// What every line of the guest's script begins with.
const MARK: &str = "levee-vm: ";
/// What such a line says of a step that failed.
pub const BROKEN: &str = "levee-vm: broken";
/// What tests print of a case that this kernel cannot run.
const NOT_RUN: &str = "not run: ";
/// What the load test prints of each program.
const VERIFIED: &str = "verified: ";

/// Something to tell while a guest runs.
#[derive(Debug, Eq, PartialEq)]
pub enum Event {
    /// The kernel's release.
    Booted(String),
    /// A test program has ended.
    Ended {
        /// Its name.
        name: String,
        /// Tests that passed.
        passed: u32,
        /// Tests that failed.
        failed: u32,
    },
    /// A test or a step failed.
    Failed(String),
}

/// Follows a console.
#[derive(Debug, Default)]
pub struct Reader {
    release: Option<String>,
    running: Option<(String, Tally)>,
    ended: BTreeMap<String, (Tally, String)>,
    not_run: Vec<String>,
    verified: Vec<String>,
    broken: Vec<String>,
    is_done: bool,
}

/// How a kernel did.
#[derive(Debug)]
pub struct Report {
    version: &'static str,
    release: String,
    tally: Tally,
    /// Tests that this kernel cannot run, with the reason.
    not_run: Vec<String>,
    /// Verified instructions of each program.
    verified: Vec<String>,
    took: Duration,
    /// Why it is no pass; empty if it is one.
    pub failures: Vec<String>,
}

impl Reader {
    /// Takes one line.
    pub fn line(&mut self, line: &str) -> Option<Event> {
        if let Some((_, text)) = line.split_once(MARK) {
            return self.marked(text);
        }
        // Lines of tests can begin in the middle of the harness's.
        if let Some((_, what)) = line.split_once(NOT_RUN) {
            self.not_run.push(what.to_owned());
        } else if let Some((_, what)) = line.split_once(VERIFIED) {
            self.verified.push(what.to_owned());
        } else if let Some((_, tally)) = &mut self.running {
            tally.add_line(line);
            if line.starts_with("test ") && line.ends_with("FAILED") {
                return Some(Event::Failed(line.to_owned()));
            }
        }
        None
    }

    fn marked(&mut self, text: &str) -> Option<Event> {
        let mut words = text.split_whitespace();
        match (words.next()?, words.next().unwrap_or_default()) {
            ("booted", release) => {
                self.release = Some(release.to_owned());
                Some(Event::Booted(release.to_owned()))
            }
            ("begin", name) => {
                self.running = Some((name.to_owned(), Tally::default()));
                None
            }
            ("end", name) => {
                let (running, tally) = self.running.take()?;
                let status = words.next().unwrap_or("unknown").to_owned();
                if running != name {
                    self.broken.push(format!("{running} began and {name} ended"));
                }
                self.ended.insert(running, (tally, status));
                Some(Event::Ended { name: name.to_owned(), passed: tally.passed, failed: tally.failed })
            }
            ("done", _) => {
                self.is_done = true;
                None
            }
            _ => {
                self.broken.push(text.to_owned());
                Some(Event::Failed(text.to_owned()))
            }
        }
    }

    /// Judges what was read: a pass is a guest that came to its end, in which as many tests passed as there are.
    pub fn judge(self, version: &'static str, expected: &[(String, u32)], took: Duration) -> Report {
        let mut failures: Vec<_> = self.broken.iter().map(|what| format!("in the guest: {what}")).collect();
        let mut sum = Tally::default();
        for (name, count) in expected {
            let Some((tally, status)) = self.ended.get(name) else {
                failures.push(format!("{name} did not come to its end; {count} tests are missing"));
                continue;
            };
            sum.add(*tally);
            if status != "0" || tally.failed > 0 {
                failures.push(format!("{name}: {} of {count} tests failed, exit status {status}", tally.failed));
            } else if tally.passed != *count {
                failures.push(format!("{name}: {} tests passed of {count} that there are", tally.passed));
            }
        }
        if self.release.is_none() {
            failures.push("the guest did not boot".to_owned());
        } else if !self.is_done {
            failures.push("the guest died".to_owned());
        }
        // The harness counts a test that found nothing to run as passed.
        sum.passed = sum.passed.saturating_sub(u32::try_from(self.not_run.len()).unwrap_or(u32::MAX));
        let Self { not_run, mut verified, .. } = self;
        verified.sort();
        let release = self.release.unwrap_or_default();
        Report { version, release, tally: sum, not_run, verified, took, failures }
    }
}

impl Report {
    /// Of a kernel that could not be tried.
    pub fn impossible(version: &'static str, reason: &str) -> Self {
        let mut report = Reader::default().judge(version, &[], Duration::ZERO);
        report.failures = vec![reason.to_owned()];
        report
    }

    /// The kernel, for a sentence.
    pub fn name(&self) -> String {
        format!("Linux {}", self.version)
    }
}

/// One line per kernel, then what was not run, then what the verifier needed.
pub fn table(reports: &[Report]) -> String {
    let mut text = format!(
        "\n{:<7} {:<28} {:<7} {:>6} {:>6} {:>7} {:>6}\n",
        "kernel", "release", "result", "passed", "failed", "not run", "time"
    );
    for report in reports {
        let Report { version, release, tally, not_run, took, failures, .. } = report;
        let result = if failures.is_empty() { "ok" } else { "FAILED" };
        let (passed, failed, seconds) = (tally.passed, tally.failed, took.as_secs());
        let absent = not_run.len();
        let _ =
            writeln!(text, "{version:<7} {release:<28} {result:<7} {passed:>6} {failed:>6} {absent:>7} {seconds:>4} s");
    }
    for report in reports {
        for (kind, lines) in
            [("not run", &report.not_run), ("verified", &report.verified), ("failed", &report.failures)]
        {
            for line in lines {
                let _ = writeln!(text, "{}: {kind}: {line}", report.version);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "SeaBIOS\n\
        levee-vm: booted 6.1.0\n\
        levee-vm: begin load\n\
        verified: levee 40117\n\
        test every_program ... ok\n\
        test another ... not run: another: this kernel lacks it\n\
        ok\n\
        test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.2s\n\
        levee-vm: end load 0\n\
        levee-vm: done\n";

    fn judged(console: &str) -> Report {
        let mut reader = Reader::default();
        for line in console.lines() {
            reader.line(line);
        }
        reader.judge("6.1", &[("load".to_owned(), 2)], Duration::from_secs(3))
    }

    #[test]
    fn a_guest_in_which_every_test_passed_is_a_pass() {
        let report = judged(GOOD);
        assert_eq!(report.failures, Vec::<String>::new());
        assert_eq!(report.tally, Tally { passed: 1, failed: 0, ignored: 0 });
        assert_eq!(report.not_run, ["another: this kernel lacks it"]);
        assert_eq!(report.verified, ["levee 40117"]);
    }

    #[test]
    fn a_guest_that_dies_or_runs_fewer_tests_is_a_failure() {
        for (from, to, reason) in [
            ("levee-vm: done\n", "", "the guest died"),
            ("2 passed", "1 passed", "load: 1 tests passed of 2 that there are"),
            ("levee-vm: end load 0\n", "", "load did not come to its end; 2 tests are missing"),
            ("end load 0", "end load 101", "load: 0 of 2 tests failed, exit status 101"),
            ("0 failed", "1 failed", "load: 1 of 2 tests failed, exit status 0"),
            ("levee-vm: booted 6.1.0\n", "", "the guest did not boot"),
            ("levee-vm: begin", "levee-vm: broken insmod veth\nlevee-vm: begin", "in the guest: broken insmod veth"),
        ] {
            assert_eq!(judged(&GOOD.replacen(from, to, 1)).failures, [reason], "without {from:?}");
        }
        assert!(!judged("").failures.is_empty());
    }

    #[test]
    fn failures_are_told_as_they_come() {
        let mut reader = Reader::default();
        assert_eq!(reader.line("levee-vm: booted 5.10.0"), Some(Event::Booted("5.10.0".to_owned())));
        reader.line("levee-vm: begin load");
        let failed = "test every_program ... FAILED";
        assert_eq!(reader.line(failed), Some(Event::Failed(failed.to_owned())));
    }

    #[test]
    fn the_table_shows_figures_and_reasons() {
        let expected = "
kernel  release                      result  passed failed not run   time
6.1     6.1.0                        ok           1      0       1    3 s
6.1: not run: another: this kernel lacks it
6.1: verified: levee 40117
";
        assert_eq!(table(&[judged(GOOD)]), expected);
    }
}
