//! `lbctl cleanup`.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{
    args::Options,
    block_on,
    console::{Report, Sections, Style},
    detach::{self, Detached},
};
use crate::{config, nsxt};

/// Between two looks whether a route is gone.
const POLL: Duration = Duration::from_secs(1);

/// What was removed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CleanedUp {
    /// Whether nothing was removed, but only looked for.
    dry_run: bool,
    /// The gateway whose routes were looked at; `None` if it is gone.
    gateway: Option<String>,
    /// Ids of its routes that were ours.
    routes: Vec<String>,
    /// What of this node was removed; `None` if it was not to be touched.
    node: Option<Detached>,
    /// What could not be removed.
    failures: Vec<String>,
}

/// Removes the routes first, so that no traffic comes any more, and then everything from this node.
pub(super) fn perform(options: &Options, file: &Path, dry_run: bool, routes_only: bool) -> Result<CleanedUp> {
    let Some(config) = config::load_nsxt(file)? else {
        bail!("{} has no `nsxt`, so there are no routes; `lbctl detach` clears this node", file.display());
    };
    let cleaned = block_on(nsxt::cleanup(&config, dry_run, POLL))?.context("removing the routes from NSX-T")?;
    let mut report = CleanedUp {
        dry_run,
        gateway: cleaned.gateway,
        routes: cleaned.removed,
        node: None,
        failures: cleaned.failures,
    };
    if !dry_run && !routes_only {
        match detach::perform(options) {
            Ok(detached) => report.node = Some(detached),
            Err(error) => report.failures.push(format!("this node: {error:#}")),
        }
    }
    Ok(report)
}

impl Report for CleanedUp {
    fn text(&self, style: Style) -> String {
        let mut sections = Sections::new(style);
        sections.add("gateway", self.gateway.clone());
        sections.add(if self.dry_run { "would remove" } else { "removed" }, self.routes.iter().cloned());
        sections.add("failed", self.failures.iter().map(|failure| style.bad(failure)));
        let mut text = sections.render();
        if self.routes.is_empty() && self.failures.is_empty() {
            text.push_str("No routes of this cluster are there.\n");
        }
        text + &self.node.as_ref().map(|node| node.text(style)).unwrap_or_default()
    }

    fn failed(&self) -> bool {
        !self.failures.is_empty() || self.node.as_ref().is_some_and(Report::failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::console::json;

    fn cleaned(routes: &[&str], failures: &[&str]) -> CleanedUp {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        CleanedUp {
            dry_run: false,
            gateway: Some("/infra/tier-1s/t1".to_owned()),
            routes: owned(routes),
            node: None,
            failures: owned(failures),
        }
    }

    #[test]
    fn routes_and_failures_are_named() {
        let report = cleaned(&["to-192.0.2.10"], &["to-192.0.2.11: refused"]);
        assert_eq!(
            report.text(Style::PLAIN),
            "gateway  /infra/tier-1s/t1\nremoved  to-192.0.2.10\nfailed   to-192.0.2.11: refused\n"
        );
        assert!(report.failed());
        assert!(json(&report).unwrap().contains("\"routes\": [\n    \"to-192.0.2.10\"\n  ]"));
    }

    #[test]
    fn a_dry_run_says_so_and_nothing_is_no_failure() {
        let report = CleanedUp { dry_run: true, ..cleaned(&["to-192.0.2.10"], &[]) };
        assert!(report.text(Style::PLAIN).contains("would remove  to-192.0.2.10\n"));
        let nothing = CleanedUp { gateway: None, ..cleaned(&[], &[]) };
        assert_eq!(
            (nothing.text(Style::PLAIN).as_str(), nothing.failed()),
            ("No routes of this cluster are there.\n", false)
        );
    }

    #[test]
    fn a_file_without_nsxt_is_refused_before_anything_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("controller.yaml");
        std::fs::write(&file, "class: x\n").unwrap();
        let options = Options {
            pin_path: dir.path().into(),
            socket: dir.path().join("socket"),
            output: crate::cli::args::Output::Text,
            color: crate::cli::args::Color::Never,
        };
        let error = perform(&options, &file, false, false).err().unwrap().to_string();
        assert!(error.ends_with("has no `nsxt`, so there are no routes; `lbctl detach` clears this node"), "{error}");
    }
}
