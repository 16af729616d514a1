//! The report: a page with plots and a summary, made of the parts' JSON files alone.

mod format;
mod html;
mod markdown;
mod svg;

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use crate::{
    Options, say,
    schema::{Part, Results},
};

/// Makes the report of what was measured so far; `docs` names a file for the summary that is kept with the source.
///
/// # Errors
/// If nothing was measured, or a file cannot be read or written.
pub fn make(options: &Options, docs: Option<&Path>) -> Result<()> {
    let directory = &options.directory;
    let mut parts = Vec::new();
    for part in Part::ALL {
        match Results::load(directory, part)? {
            Some(results) => parts.push(results),
            None => say(&format!("not measured: {} (`cargo xtask bench {}`)", part.name(), part.name())),
        }
    }
    ensure!(!parts.is_empty(), "{} has no results; `cargo xtask bench` measures", directory.display());
    write(&directory.join("report.html"), &html::page(&parts))?;
    write(&directory.join("summary.md"), &markdown::summary(&parts, markdown::Machine::AsItIs))?;
    if let Some(docs) = docs {
        write(docs, &markdown::summary(&parts, markdown::Machine::Generic))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    say(&format!("written: {}", path.display()));
    Ok(())
}

/// The groups of a part's cases, in the order of their first case.
fn groups(results: &Results) -> Vec<&str> {
    let mut groups: Vec<&str> = Vec::new();
    for case in &results.cases {
        if !groups.contains(&case.group.as_str()) {
            groups.push(&case.group);
        }
    }
    groups
}

/// Title of a part.
const fn title(part: Part) -> &'static str {
    match part {
        Part::Micro => "The program alone",
        Part::EndToEnd => "From end to end",
        Part::Agent => "The agent",
        Part::Kubernetes => "With Kubernetes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{machine::Machine, schema::Case};

    /// Results of one part, with names that have to be escaped.
    pub(super) fn example() -> Results {
        let machine = Machine {
            when: "2026-11-21T14:00:00Z".to_owned(),
            kernel: "6.18.44-name-of-a-host".to_owned(),
            cpu: "Processor X".to_owned(),
            cores: 2,
        };
        let mut results = Results::new(Part::Micro, &machine);
        results.notes.push("measured <carefully>".to_owned());
        results.cases.push(Case::new("floor", "floors", "ns/packet", vec![10.0, 11.0, 12.0]));
        results.cases.push(Case::new("a | b", "cases", "ns/packet", vec![30.0, 31.0, 33.0]).above(11.0).within(10.0));
        results
            .cases
            .push(Case::new("c < d", "cases", "ns/packet", vec![61.0]).above(11.0).within(50.0).note("remark"));
        results.compare("a against c", "a | b", "c < d", Some(0.6));
        results
    }

    #[test]
    fn groups_keep_the_order_of_their_first_cases() {
        assert_eq!(groups(&example()), ["floors", "cases"]);
    }

    #[test]
    fn the_report_is_made_of_files_alone() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { quick: false, directory: directory.path().to_owned() };
        assert!(make(&options, None).is_err());
        example().save(directory.path()).unwrap();
        let docs = directory.path().join("docs.md");
        make(&options, Some(&docs)).unwrap();
        for name in ["report.html", "summary.md", "docs.md"] {
            assert!(fs::read_to_string(directory.path().join(name)).unwrap().contains("a against c"), "{name}");
        }
    }
}
