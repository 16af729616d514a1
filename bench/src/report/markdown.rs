//! The summary: tables that can be read as they are.

use super::{
    format::{budget, counters, figure, judgement},
    groups, title,
};
use crate::schema::{Case, Ratio, Results};

/// How the machine is named.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Machine {
    /// With its processor and its kernel's whole release.
    AsItIs,
    /// As one of its kind.
    Generic,
}

/// The summary of all parts.
#[must_use]
pub fn summary(parts: &[Results], machine: Machine) -> String {
    let mut text = "# Benchmarks\n\n".to_owned();
    text += "Written by `cargo xtask bench` (`--write-docs` keeps it here); the page with plots is `target/bench/report.html`.\n\
             Figures are medians. \"Net\" is less the floor of the same run. Compare figures of one run only.\n";
    for results in parts {
        text += &part(results, machine);
    }
    text
}

fn part(results: &Results, machine: Machine) -> String {
    let mut text = format!("\n## {}\n\n`{}`, {}.\n", title(results.part), results.command, place(results, machine));
    let judged: Vec<String> =
        results.ratios.iter().map(of_ratio).chain(results.cases.iter().filter_map(of_case)).collect();
    if !judged.is_empty() {
        text += "\n| budget | figure | at most | |\n|---|---:|---:|---|\n";
        text.extend(judged);
    }
    for group in groups(results) {
        text += &format!("\n### {}\n\n| case | median | quartiles | net |\n|---|---:|---:|---:|\n", capitalized(group));
        text.extend(results.cases.iter().filter(|case| case.group == group).map(row));
    }
    for note in &results.notes {
        text += &format!("\n{note}\n");
    }
    for source in &results.sources {
        text += &format!("\nSource of {}: `{}`.\n", source.name, source.path);
    }
    text
}

fn place(results: &Results, machine: Machine) -> String {
    match machine {
        Machine::AsItIs => {
            format!("{}, kernel {}, {}, {} cores", results.when, results.kernel, results.cpu, results.cores)
        }
        Machine::Generic => format!("{} shared cores, kernel {}", results.cores, major_minor(&results.kernel)),
    }
}

/// `6.18.44-host` -> `6.18`.
fn major_minor(release: &str) -> String {
    release.split(|c: char| !c.is_ascii_digit()).take(2).collect::<Vec<_>>().join(".")
}

fn of_ratio(ratio: &Ratio) -> String {
    row_of(&ratio.name, &figure(ratio.value), &budget(ratio.budget), judgement(ratio.met))
}

fn of_case(case: &Case) -> Option<String> {
    case.budget?;
    let value = format!("{} {}", figure(case.figure()), case.unit);
    Some(row_of(&case.name, &value, &budget(case.budget), judgement(case.met)))
}

fn row(case: &Case) -> String {
    let mut name = case.name.clone();
    let lru: Vec<_> = case.counters.keys().filter(|name| name.starts_with("LRU")).cloned().collect();
    if !lru.is_empty() {
        let mut only = case.clone();
        only.counters.retain(|name, _| lru.contains(name));
        name += &format!(" ({})", counters(&only));
    }
    let quartiles = format!("{} … {}", figure(case.q1), figure(case.q3));
    let net = case.net.map_or_else(|| "–".to_owned(), figure);
    row_of(&name, &format!("{} {}", figure(case.median), case.unit), &quartiles, &net)
}

fn row_of(first: &str, second: &str, third: &str, fourth: &str) -> String {
    format!("| {} | {second} | {third} | {fourth} |\n", first.replace('|', "\\|"))
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::{super::tests::example, *};

    #[test]
    fn a_generic_summary_does_not_name_the_machine() {
        let text = summary(&[example()], Machine::Generic);
        assert!(text.contains("2 shared cores, kernel 6.18.\n"), "{text}");
        for name in ["Processor X", "name-of-a-host", "6.18.44", "2026"] {
            assert!(!text.contains(name), "{name}");
        }
        assert!(summary(&[example()], Machine::AsItIs).contains("Processor X"));
    }

    #[test]
    fn every_budget_has_a_row_and_every_case_too() {
        let text = summary(&[example()], Machine::Generic);
        for row in [
            "| a against c | 0.400 | ≤ 0.6 | met |",
            "| a \\| b | 20.0 ns/packet | ≤ 10 | missed |",
            "| c < d | 50.0 ns/packet | ≤ 50 | met |",
            "| a \\| b | 31.0 ns/packet | 30.5 … 32.0 | 20.0 |",
            "| floor | 11.0 ns/packet | 10.5 … 11.5 | – |",
        ] {
            assert!(text.contains(row), "{row} is not in\n{text}");
        }
    }
}
