//! What the demo shows: steps, notes, checked expectations, tables.

use std::{
    io::{Write, stdout},
    net::IpAddr,
    time::{Duration, Instant},
};

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

use super::percentile;
use crate::traffic::{Attempt, Tally};

/// Writes to standard output and remembers what failed.
pub(super) struct Console {
    start: Instant,
    failures: usize,
}

impl Console {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), failures: 0 }
    }

    /// A heading with the time since the start.
    pub(super) fn step(&self, text: &str) {
        self.raw(&format!("\n[{:5.1} s] {text}", self.start.elapsed().as_secs_f64()));
    }

    /// A line under a heading.
    pub(super) fn note(&self, text: &str) {
        self.raw(&format!("          {text}"));
    }

    /// Something checked: `seen` is shown either way.
    pub(super) fn expect(&mut self, holds: bool, expected: &str, seen: &str) {
        if holds {
            self.note(&format!("ok      {expected} ({seen})"));
        } else {
            self.failed(&format!("expected: {expected}; seen: {seen}"));
        }
    }

    /// Something that went wrong.
    pub(super) fn failed(&mut self, text: &str) {
        self.failures += 1;
        self.note(&format!("FAILED  {text}"));
    }

    /// How much went wrong so far.
    pub(super) const fn failures(&self) -> usize {
        self.failures
    }

    /// Who answered, one row per node and one column per VIP.
    pub(super) fn answers(&self, names: &[String], columns: &[(IpAddr, Vec<Attempt>)]) {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let tallies: Vec<_> = columns.iter().map(|(_, attempts)| Tally::of(attempts)).collect();
        table.set_header(
            [vec!["answered by".to_owned()], columns.iter().map(|(vip, _)| vip.to_string()).collect()].concat(),
        );
        for name in names {
            let counts = tallies.iter().map(|tally| tally.answers.get(name).copied().unwrap_or(0).to_string());
            table.add_row([name.clone()].into_iter().chain(counts));
        }
        let failed = tallies.iter().map(|tally| tally.failed().to_string());
        table.add_row(["nobody".to_owned()].into_iter().chain(failed));
        for (what, percent) in [("median time", 50), ("99th percentile", 99)] {
            let times = columns.iter().map(|(_, attempts)| milliseconds(percentile(attempts, percent)));
            table.add_row([what.to_owned()].into_iter().chain(times));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self.block(&table.to_string());
    }

    /// Several lines, indented.
    pub(super) fn block(&self, text: &str) {
        text.lines().for_each(|line| self.note(line));
    }

    /// Lines as they are. A closed output is no reason to stop: the cleanup has to come.
    #[expect(clippy::unused_self, reason = "all output goes through the console")]
    pub(super) fn raw(&self, text: &str) {
        let mut out = stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

/// A duration in milliseconds, for people.
pub(super) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
