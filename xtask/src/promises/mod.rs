//! The table of promises: which test showed each of them to be kept, on which server.
//!
//! Tests note what they showed (crate `promises`). A promise that should be kept and was not shown is red, and so is one
//! whose test failed, or that a test shows although it is listed as open.

mod rows;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use rows::{ROWS, Standing};

/// Tells tests where to note what they showed.
pub const FILE_VARIABLE: &str = "LEVEE_PROMISES";

/// What one test noted of one promise.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Note {
    test: String,
    server: String,
    passed: bool,
}

/// Notes by the promise's id.
type Notes = BTreeMap<String, Vec<Note>>;

/// Forgets the notes of an earlier run.
///
/// # Errors
/// If the file is there and cannot be removed.
pub fn forget(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// Prints the table; returns how many are shown to be kept, and the ids of those that are red.
///
/// # Errors
/// If the notes cannot be read.
pub fn report(file: &Path) -> Result<(u32, Vec<String>)> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text.with_context(|| format!("reading {}", file.display()))?,
    };
    let (table, kept, red) = render(ROWS, &read(&text)?);
    println!("\n{table}");
    Ok((kept, red))
}

fn read(text: &str) -> Result<Notes> {
    let mut notes = Notes::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [id, program, test, server, outcome] = fields[..] else {
            anyhow::bail!("a note of promises has {} fields instead of 5: {line:?}", fields.len());
        };
        let note = Note { test: format!("{program}: {test}"), server: server.to_owned(), passed: outcome == "passed" };
        notes.entry(id.to_owned()).or_default().push(note);
    }
    Ok(notes)
}

fn render(rows: &[(&str, &str, Standing)], notes: &Notes) -> (String, u32, Vec<String>) {
    let (mut table, mut kept, mut red) =
        (String::from("promise  result  what, by which test, on which server\n"), 0, Vec::new());
    for (id, what, standing) in rows {
        let of = notes.get(*id).map_or(&[][..], Vec::as_slice);
        let result = match (standing, of.is_empty(), of.iter().all(|note| note.passed)) {
            (Standing::Kept, false, true) => "kept",
            (Standing::Open, true, _) => "open",
            (Standing::Kept, true, _) => "NOT RUN",
            (Standing::Open, false, true) => "LISTED AS OPEN",
            (_, false, false) => "BROKEN",
        };
        match result {
            "kept" => kept += 1,
            "open" => {}
            _ => red.push((*id).to_owned()),
        }
        let _ = writeln!(table, "{id:<8} {result:<7} {what}");
        for note in of {
            let mark = if note.passed { "" } else { " FAILED" };
            let _ = writeln!(table, "{:<16} {}, on {}{mark}", "", note.test, note.server);
        }
    }
    let unknown = notes.keys().filter(|id| rows.iter().all(|(row, ..)| row != id));
    red.extend(unknown.map(|id| format!("{id} (no such promise)")));
    (table, kept, red)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(lines: &[&str]) -> Notes {
        read(&lines.join("\n")).unwrap()
    }

    #[test]
    fn a_promise_without_its_test_is_red_and_so_is_a_failed_one() {
        let rows = [("A", "a", Standing::Kept), ("B", "b", Standing::Kept), ("C", "c", Standing::Kept)];
        let notes = notes(&["A\tp\tt\tkube 1.20\tpassed", "C\tp\tt\tFRR\tpassed", "C\tp\tu\tFRR\tfailed"]);
        let (table, kept, red) = render(&rows, &notes);
        assert_eq!((kept, red), (1, vec!["B".to_owned(), "C".to_owned()]));
        assert!(table.contains("p: t, on kube 1.20\n") && table.contains("p: u, on FRR FAILED\n"), "{table}");
    }

    #[test]
    fn an_open_promise_is_red_only_if_a_test_says_otherwise() {
        let rows = [("A", "a", Standing::Open), ("B", "b", Standing::Open)];
        let (_, kept, red) = render(&rows, &notes(&["B\tp\tt\tFRR\tpassed", "X\tp\tt\tFRR\tpassed"]));
        assert_eq!((kept, red), (0, vec!["B".to_owned(), "X (no such promise)".to_owned()]));
    }

    #[test]
    fn ids_are_there_once() {
        let mut ids: Vec<_> = ROWS.iter().map(|(id, ..)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ROWS.len());
    }
}
