//! `lbctl doctor`.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::{
    args::Options,
    block_on,
    console::{Report, Style, counted},
};
use crate::doctor::{self, Finding, Severity};

/// What was found.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Diagnosis {
    pin_path: String,
    errors: usize,
    warnings: usize,
    unknown: usize,
    findings: Vec<Finding>,
    /// Whether people want to see what is as it should be, too.
    #[serde(skip)]
    verbose: bool,
}

pub(super) fn gather(options: &Options, verbose: bool, controller: Option<&Path>) -> Result<Diagnosis> {
    let facts = block_on(doctor::gather(&options.pin_path, &options.socket, controller))?;
    Ok(diagnosis(options.pin_path.display().to_string(), doctor::examine(&facts), verbose))
}

fn diagnosis(pin_path: String, findings: Vec<Finding>, verbose: bool) -> Diagnosis {
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let [errors, warnings, unknown] = [Severity::Error, Severity::Warning, Severity::Unknown].map(count);
    Diagnosis { pin_path, errors, warnings, unknown, findings, verbose }
}

impl Report for Diagnosis {
    fn text(&self, style: Style) -> String {
        let shown = self.findings.iter().filter(|finding| self.verbose || finding.severity != Severity::Ok);
        let mut text: String = shown.map(|finding| of_finding(finding, style)).collect();
        let fine = self.findings.len() - self.errors - self.warnings - self.unknown;
        text += &format!(
            "{fine} of {} as they should be, {}, {}, {} not readable\n",
            counted(self.findings.len(), "check"),
            counted(self.errors, "error"),
            counted(self.warnings, "warning"),
            self.unknown,
        );
        text
    }

    fn failed(&self) -> bool {
        self.errors > 0
    }
}

fn of_finding(finding: &Finding, style: Style) -> String {
    let line = |label: &str, rest: &str| format!("{label:7}  {:12}  {rest}\n", finding.check);
    let mut text = match finding.severity {
        Severity::Ok => return line("ok", &finding.seen),
        Severity::Unknown => line("unknown", &finding.seen),
        Severity::Warning => line("warning", &finding.seen),
        Severity::Error => style.bad(line("error", &finding.seen).trim_end()) + "\n",
    };
    let indent = " ".repeat(23);
    text += &format!("{indent}{}\n", style.dim(&format!("{}.", finding.why)));
    if let Some(advice) = &finding.advice {
        text += &format!("{indent}-> {advice}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::console::json;

    fn finding(check: &'static str, severity: Severity, advice: Option<&str>) -> Finding {
        Finding {
            check,
            severity,
            seen: format!("{check} was looked at"),
            why: "It matters",
            advice: advice.map(str::to_owned),
        }
    }

    fn report(verbose: bool) -> Diagnosis {
        let findings = vec![
            finding("kernel", Severity::Ok, None),
            finding("jit", Severity::Unknown, Some("run it as root")),
            finding("rp-filter", Severity::Warning, Some("run sysctl")),
            finding("xdp", Severity::Error, Some("detach it")),
        ];
        diagnosis("/sys/fs/bpf/levee".to_owned(), findings, verbose)
    }

    #[test]
    fn people_see_what_is_wrong_why_it_matters_and_what_to_do() {
        insta::assert_snapshot!(report(false).text(Style::PLAIN));
    }

    #[test]
    fn what_is_right_is_shown_on_demand_and_in_the_document() {
        assert!(report(true).text(Style::PLAIN).starts_with("ok       kernel        kernel was looked at\n"));
        insta::assert_snapshot!(json(&report(false)).unwrap());
    }

    #[test]
    fn only_errors_fail() {
        assert!(report(false).failed());
        let mild = diagnosis(String::new(), report(false).findings[..3].to_vec(), false);
        assert!(!mild.failed());
    }
}
