//! What is wrong with a configuration: every problem with its place, all of them at once.

use std::fmt;

use thiserror::Error;

/// Problems shown at once; the rest is counted. A list that a person reads ends somewhere.
const SHOWN: usize = 100;

/// A position in a file.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

/// One thing that is wrong (or, as a warning, odd) with a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The file as it was named to the agent.
    pub file: String,
    /// Where in the file; `None` when the file as a whole is meant.
    pub place: Option<Place>,
    /// What is wrong, with which value, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(Place { line, column }) => write!(f, "{}:{line}:{column}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// Why a configuration was refused: at least one problem, in the order of their places.
///
/// Displays as one `file:line:column: reason` per line.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub struct ConfigErrors {
    /// The problems, never empty.
    pub problems: Vec<Problem>,
}

impl ConfigErrors {
    /// One problem with the file as a whole.
    pub(crate) fn whole_file(file: &str, message: impl Into<String>) -> Self {
        Self { problems: vec![Problem { file: file.to_owned(), place: None, message: message.into() }] }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().take(SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        match self.problems.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n... and {more} more"),
        }
    }
}

/// Collects what is found while a file is read and checked.
pub(super) struct Problems {
    file: String,
    refused: Vec<Problem>,
    warned: Vec<Problem>,
}

impl Problems {
    pub(super) fn of(file: &str) -> Self {
        Self { file: file.to_owned(), refused: Vec::new(), warned: Vec::new() }
    }

    /// Records a reason not to accept the file.
    pub(super) fn refuse(&mut self, place: Place, message: impl Into<String>) {
        let problem = self.problem(place, message);
        self.refused.push(problem);
    }

    /// How many reasons there are so far.
    pub(super) const fn count(&self) -> usize {
        self.refused.len()
    }

    /// Records something that is accepted but hardly meant.
    pub(super) fn warn(&mut self, place: Place, message: impl Into<String>) {
        let problem = self.problem(place, message);
        self.warned.push(problem);
    }

    /// `value` with the warnings if nothing was refused.
    pub(super) fn finish<T>(mut self, value: T) -> Result<(T, Vec<Problem>), ConfigErrors> {
        self.refused.sort_by_key(|problem| problem.place);
        self.warned.sort_by_key(|problem| problem.place);
        if self.refused.is_empty() { Ok((value, self.warned)) } else { Err(ConfigErrors { problems: self.refused }) }
    }

    fn problem(&self, place: Place, message: impl Into<String>) -> Problem {
        Problem { file: self.file.clone(), place: Some(place), message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_in_the_order_of_their_places() {
        let mut problems = Problems::of("a.yaml");
        problems.refuse(Place { line: 9, column: 1 }, "late");
        problems.refuse(Place { line: 2, column: 5 }, "early");
        let errors = problems.finish(()).unwrap_err();
        assert_eq!(errors.to_string(), "a.yaml:2:5: early\na.yaml:9:1: late");
    }

    #[test]
    fn a_long_list_ends_with_a_count() {
        let mut problems = Problems::of("a.yaml");
        for line in 1..=103 {
            problems.refuse(Place { line, column: 1 }, "bad");
        }
        let text = problems.finish(()).unwrap_err().to_string();
        assert_eq!(text.lines().count(), 101);
        assert_eq!(text.lines().last(), Some("... and 3 more"));
    }
}
