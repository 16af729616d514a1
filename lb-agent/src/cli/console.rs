//! How reports look: colours, tables, sections, JSON.

use std::{
    fmt::Write,
    io::{self, IsTerminal},
    net::{IpAddr, SocketAddr},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, presets};
use serde::Serialize;

use super::args::{Color, Options};
use crate::{
    inspect::{Inspection, Inspector, Presence, Rings},
    model::moment,
};

/// What a verb found out.
pub(super) trait Report: Serialize {
    /// The report for people; ends with a line end.
    fn text(&self, style: Style) -> String;

    /// Whether the process has to say by its exit code that something is wrong.
    fn failed(&self) -> bool {
        false
    }
}

/// The report as JSON.
pub(super) fn json<R: Report>(report: &R) -> Result<String> {
    let mut text = serde_json::to_string_pretty(report).context("making JSON of the report")?;
    text.push('\n');
    Ok(text)
}

/// Reads the pinned maps.
pub(super) fn inspect(options: &Options, rings: Rings) -> Result<Inspection> {
    Ok(Inspector::open(&options.pin_path)?.read(rings)?)
}

/// A line on top of everything that is read from the maps while no agent runs, else nothing.
pub(super) fn notice(agent: &Presence, style: Style) -> String {
    if agent.running {
        return String::new();
    }
    format!("{}\n\n", style.bad(&absence(agent)))
}

/// That no agent runs, and what that means.
pub(super) fn absence(agent: &Presence) -> String {
    let last = agent.owner.as_ref().map(|owner| format!(" (last: {owner})")).unwrap_or_default();
    format!("agent is not running{last}; forwarding goes on from the pinned maps")
}

/// Whether and how to colour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    colored: bool,
}

impl Style {
    /// No colours.
    #[cfg(test)]
    pub const PLAIN: Self = Self { colored: false };

    pub fn for_stdout(color: Color) -> Self {
        Self::new(color, io::stdout().is_terminal())
    }

    pub fn for_stderr(color: Color) -> Self {
        Self::new(color, io::stderr().is_terminal())
    }

    fn new(color: Color, is_terminal: bool) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colored: match color {
                Color::Always => true,
                Color::Never => false,
                Color::Auto => is_terminal && !unwanted,
            },
        }
    }

    /// Whether to colour.
    pub const fn is_colored(self) -> bool {
        self.colored
    }

    /// For headings and labels.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// For what is wrong.
    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colored && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Aligned columns under a dim heading. Numbers stand to the right.
pub(super) struct Table {
    table: comfy_table::Table,
    bad: Vec<bool>,
}

impl Table {
    /// A table with these headings; one that begins with `>` is of numbers.
    pub fn new(headings: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(headings.iter().map(|heading| heading.trim_start_matches('>')));
        for (at, heading) in headings.iter().enumerate() {
            if let Some(column) = table.column_mut(at).filter(|_| heading.starts_with('>')) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table, bad: Vec::new() }
    }

    /// Adds a row, in red if it `is_bad`.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>, is_bad: bool) {
        self.table.add_row(cells);
        self.bad.push(is_bad);
    }

    /// The lines; `none` instead of a table without rows.
    pub fn render(&self, none: &str, style: Style) -> String {
        if self.bad.is_empty() {
            return format!("{none}\n");
        }
        let mut text = String::new();
        for (at, line) in self.table.lines().enumerate() {
            // Cells are padded on both sides, the first one too.
            let line = line.strip_prefix(' ').unwrap_or(&line).trim_end();
            let painted = match at.checked_sub(1).map(|row| self.bad.get(row)) {
                None => style.dim(line),
                Some(Some(true)) => style.bad(line),
                Some(_) => line.to_owned(),
            };
            let _ = writeln!(text, "{painted}");
        }
        text
    }
}

/// Lines beside dim labels.
pub(super) struct Sections {
    style: Style,
    sections: Vec<(&'static str, Vec<String>)>,
}

impl Sections {
    pub const fn new(style: Style) -> Self {
        Self { style, sections: Vec::new() }
    }

    /// Adds a section, unless it has no lines.
    pub fn add(&mut self, label: &'static str, lines: impl IntoIterator<Item = String>) {
        let lines: Vec<_> = lines.into_iter().collect();
        if !lines.is_empty() {
            self.sections.push((label, lines));
        }
    }

    pub fn render(&self) -> String {
        let width = self.sections.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (label, lines) in &self.sections {
            for (at, line) in lines.iter().enumerate() {
                let label = if at == 0 { label } else { "" };
                let padding = " ".repeat(width - label.len() + 2);
                let _ = writeln!(text, "{}{padding}{line}", self.style.dim(label));
            }
        }
        text
    }
}

/// A port for people.
pub(super) fn port(port: u16) -> String {
    if port == 0 { "any".to_owned() } else { port.to_string() }
}

/// Address and port for people, `192.0.2.10:6443`.
pub(super) fn endpoint(address: IpAddr, port: u16) -> String {
    match (port, address) {
        (0, IpAddr::V4(address)) => format!("{address}:any"),
        (0, IpAddr::V6(address)) => format!("[{address}]:any"),
        _ => SocketAddr::new(address, port).to_string(),
    }
}

/// `yes` or `no`.
pub(super) fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

/// A number of bytes for people.
pub(super) fn bytes(bytes: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", bytes / unit, bytes % unit * 10 / unit);
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", tenths(1_024)),
        1_048_576..1_073_741_824 => format!("{} MiB", tenths(1_048_576)),
        _ => format!("{} GiB", tenths(1_073_741_824)),
    }
}

/// A duration for people, in its two largest units.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes} min {} s", seconds % 60),
        3_600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// Seconds of Unix time.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A moment in RFC 3339, UTC, with microseconds; from nanoseconds of Unix time.
pub(super) fn utc(nanoseconds: u64) -> String {
    let (seconds, micros) = (nanoseconds / 1_000_000_000, nanoseconds / 1_000 % 1_000_000);
    format!("{}.{micros:06}Z", moment::utc(seconds).trim_end_matches('Z'))
}

/// `1 backend`, `2 backends`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn tables_are_aligned_and_colour_whole_lines() {
        let mut table = Table::new(&["NAME", ">PACKETS", "REASON"]);
        table.row(["a".to_owned(), "5".to_owned(), "fine".to_owned()], false);
        table.row(["longer".to_owned(), "12345678".to_owned(), "broken".to_owned()], true);
        let plain = "NAME     PACKETS  REASON\na              5  fine\nlonger  12345678  broken\n";
        assert_eq!(table.render("none", Style::PLAIN), plain);
        let colored = table.render("none", Style::new(Color::Always, false));
        assert!(colored.starts_with("\x1b[2mNAME     PACKETS  REASON\x1b[0m\n"), "{colored:?}");
        assert!(colored.ends_with("\x1b[31mlonger  12345678  broken\x1b[0m\n"), "{colored:?}");
        assert_eq!(Table::new(&["NAME"]).render("There is none.", Style::PLAIN), "There is none.\n");
    }

    #[test]
    fn sections_line_up_and_empty_ones_are_left_out() {
        let mut sections = Sections::new(Style::PLAIN);
        sections.add("node", ["node-1".to_owned()]);
        sections.add("nothing", []);
        sections.add("drops", ["a".to_owned(), "b".to_owned()]);
        assert_eq!(sections.render(), "node   node-1\ndrops  a\n       b\n");
    }

    #[test]
    fn an_agent_that_is_down_is_named() {
        assert_eq!(notice(&examples::presence(true), Style::PLAIN), "");
        assert_eq!(
            notice(&examples::presence(false), Style::PLAIN),
            "agent is not running (last: process 4711 of node node-1, version 0.1.0); forwarding goes on from the \
             pinned maps\n\n"
        );
    }

    #[test]
    fn colours_are_for_terminals_unless_asked_for() {
        assert!(!Style::new(Color::Auto, false).colored);
        assert!(Style::new(Color::Always, false).colored);
        assert!(!Style::new(Color::Never, true).colored);
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(utc(seconds * 1_000_000_000), text);
        }
        assert_eq!(utc(1_795_000_000_123_456_789), "2026-11-18T11:06:40.123456Z");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 1_023, 1_536, 33_554_432].map(bytes), ["0 B", "1023 B", "1.5 KiB", "32.0 MiB"]);
        let durations = [5, 65, 3_660, 90_000].map(duration);
        assert_eq!(durations, ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]);
        assert_eq!(endpoint("2001:db8::1".parse().unwrap(), 0), "[2001:db8::1]:any");
    }
}
