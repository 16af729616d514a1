//! What the demo shows: steps, notes, checked expectations, tables.

use std::{
    io::{Write, stdout},
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

use super::percentile;
use crate::traffic::{Attempt, Tally};

/// Writes to standard output and remembers what failed.
#[derive(Debug)]
pub struct Console {
    start: Instant,
    failures: usize,
}

impl Console {
    /// One that begins now.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it begins at a moment")]
    pub fn new() -> Self {
        Self { start: Instant::now(), failures: 0 }
    }

    /// A heading with the time since the start.
    pub fn step(&self, text: &str) {
        self.raw(&format!("\n[{:5.1} s] {text}", self.start.elapsed().as_secs_f64()));
    }

    /// A line under a heading.
    pub fn note(&self, text: &str) {
        self.raw(&format!("          {text}"));
    }

    /// Something checked: `seen` is shown either way.
    pub fn expect(&mut self, holds: bool, expected: &str, seen: &str) {
        if holds {
            self.note(&format!("ok      {expected} ({seen})"));
        } else {
            self.failed(&format!("expected: {expected}; seen: {seen}"));
        }
    }

    /// Something that went wrong.
    pub fn failed(&mut self, text: &str) {
        self.failures += 1;
        self.note(&format!("FAILED  {text}"));
    }

    /// Tells of a step that could not be done; returns whether nothing went wrong so far.
    pub fn is_right(&mut self, shown: Result<()>) -> bool {
        if let Err(error) = shown {
            self.failed(&format!("{error:#}"));
        }
        self.failures == 0
    }

    /// How it ended.
    ///
    /// # Errors
    /// If something went wrong, with how much.
    pub fn verdict(&self) -> Result<()> {
        match self.failures {
            0 => Ok(()),
            1 => bail!("one expectation failed"),
            count => bail!("{count} expectations failed"),
        }
    }

    /// Who answered, one row per node and one column per VIP.
    pub fn answers(&self, names: &[String], columns: &[(IpAddr, Vec<Attempt>)]) {
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
    pub fn block(&self, text: &str) {
        text.lines().for_each(|line| self.note(line));
    }

    /// Lines as they are. A closed output is no reason to stop: the cleanup has to come.
    pub fn raw(&self, text: &str) {
        let mut out = stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

/// A duration in milliseconds, for people.
#[must_use]
pub fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
