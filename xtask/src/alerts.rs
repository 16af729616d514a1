//! Checks the alerts and the dashboard: promtool runs the alerts' own tests and parses what the dashboard asks.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{run, say};
use crate::setup::{Group, ensure};
use crate::workspace::{Workspace, find_program};

const RULES: &str = "deploy/prometheus/rules.yaml";
const TESTS: &str = "deploy/prometheus/rules.test.yaml";
const DASHBOARD: &str = "deploy/grafana/levee.json";

/// Runs every check.
///
/// # Errors
/// With the first that fails.
pub fn check(workspace: &Workspace) -> Result<()> {
    ensure(workspace, &[Group::Deploy])?;
    let promtool = find_program("promtool").context("promtool is missing; run `cargo xtask setup`")?;
    let command = || {
        let mut command = Command::new(&promtool);
        command.current_dir(workspace.root());
        command
    };
    run("checking the alerts", command().args(["check", "rules", RULES]))?;
    run("testing the alerts", command().args(["test", "rules", TESTS]))?;
    let file = workspace.root().join(DASHBOARD);
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let questions = questions(&serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))?)?;
    // As rules, so that promtool parses them all at once.
    let folder = workspace.target().join("dashboard");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let rules = folder.join("rules.yaml");
    fs::write(&rules, as_rules(&questions)).with_context(|| format!("writing {}", rules.display()))?;
    say(format!("{DASHBOARD} asks {} questions", questions.len()));
    run("checking the dashboard", command().args(["check", "rules"]).arg(&rules))
}

/// What the panels ask, with Grafana's own variables filled in.
fn questions(dashboard: &Value) -> Result<Vec<String>> {
    let panels = dashboard["panels"].as_array().context("the dashboard has no panels")?;
    let mut found = Vec::new();
    for panel in panels {
        let targets = panel["targets"].as_array().filter(|targets| !targets.is_empty());
        let targets = targets.with_context(|| format!("panel {} asks nothing", panel["title"]))?;
        for target in targets {
            let question = target["expr"].as_str().unwrap_or_default();
            if question.is_empty() {
                bail!("panel {} asks nothing", panel["title"]);
            }
            found.push(question.replace("$__rate_interval", "1m"));
        }
    }
    Ok(found)
}

fn as_rules(questions: &[String]) -> String {
    let rules: Vec<_> = questions
        .iter()
        .enumerate()
        .map(|(index, question)| serde_json::json!({"record": format!("panel:{index}"), "expr": question}))
        .collect();
    // JSON is YAML.
    serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_target_of_every_panel_is_a_question() {
        let dashboard = json!({"panels": [
            {"title": "a", "targets": [{"expr": "rate(x[$__rate_interval])"}, {"expr": "y"}]},
            {"title": "b", "targets": [{"expr": "z"}]},
        ]});
        assert_eq!(questions(&dashboard).unwrap(), ["rate(x[1m])", "y", "z"]);
    }

    #[test]
    fn a_panel_that_asks_nothing_is_refused() {
        let dashboard = json!({"panels": [{"title": "empty", "targets": []}]});
        assert!(questions(&dashboard).unwrap_err().to_string().contains("empty"));
    }
}
