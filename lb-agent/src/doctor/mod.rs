//! What is wrong on this node, found out without changing anything. [`gather`] reads the facts, [`examine`] judges them
//! and does no I/O. What could not be read is a finding of its own, never a guess.

mod facts;
mod gather;
mod interfaces;
mod node;
mod nsxt;
mod services;

#[cfg(test)]
mod samples;

use serde::Serialize;

pub use facts::{AgentFacts, Facts, InterfaceFacts, Read, Routed, Sysctls, System};
pub use gather::gather;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It could not be found out.
    Unknown,
    /// It works, but not as well as it could, or not always.
    Warning,
    /// Something does not work.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What was looked at, one word or two with a dash.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was seen, with values.
    pub seen: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do; `null` where nothing has to be done.
    pub advice: Option<String>,
}

/// Judges the facts: the node first, then its interfaces, then what it serves, and what is around it.
#[must_use]
pub fn examine(facts: &Facts) -> Vec<Finding> {
    [node::examine(facts), interfaces::examine(facts), services::examine(facts), nsxt::examine(facts)].concat()
}

/// A check, of which findings are made.
#[derive(Clone, Copy)]
struct Check {
    name: &'static str,
    why: &'static str,
}

impl Check {
    const fn new(name: &'static str, why: &'static str) -> Self {
        Self { name, why }
    }

    fn found(self, severity: Severity, seen: impl Into<String>, advice: Option<String>) -> Finding {
        Finding { check: self.name, severity, seen: seen.into(), why: self.why, advice }
    }

    fn ok(self, seen: impl Into<String>) -> Finding {
        self.found(Severity::Ok, seen, None)
    }

    fn warning(self, seen: impl Into<String>, advice: impl Into<String>) -> Finding {
        self.found(Severity::Warning, seen, Some(advice.into()))
    }

    fn error(self, seen: impl Into<String>, advice: impl Into<String>) -> Finding {
        self.found(Severity::Error, seen, Some(advice.into()))
    }

    /// What could not be read, and why.
    fn unknown(self, what: &str, reason: &str) -> Finding {
        let advice = "run `lbctl doctor` as root, in the network namespace of the agent";
        self.found(Severity::Unknown, format!("{what} cannot be read: {reason}"), Some(advice.to_owned()))
    }
}
