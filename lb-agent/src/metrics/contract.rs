//! What alerts and dashboard ask for has to be there: compares the names in `deploy/` with those of the metrics.

use std::collections::BTreeSet;

use super::render;
use crate::examples;

const RULES: &str = include_str!("../../../deploy/prometheus/rules.yaml");
const RULES_TEST: &str = include_str!("../../../deploy/prometheus/rules.test.yaml");
const DASHBOARD: &str = include_str!("../../../deploy/grafana/levee.json");
/// Metrics of the controller that the files may name: its contract.
const CONTROLLER: &[&str] = &[
    "levee_pool_addresses", // {pool, family: ipv4 | ipv6, state: used | free}; the leader's are current
    "levee_controller_is_leader", // 1 on the one that leads
];

/// Words of `text` that begin like a metric.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("levee_")).collect()
}

/// Names of samples, with the suffixes of their kinds.
fn samples(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(['{', ' ']).next()).collect()
}

#[test]
fn alerts_and_dashboard_name_metrics_that_exist() {
    let text = render(&examples::status(), Some(&examples::inspection()));
    let known: BTreeSet<_> = samples(&text).into_iter().chain(CONTROLLER.iter().copied()).collect();
    for (file, content) in [("rules.yaml", RULES), ("rules.test.yaml", RULES_TEST), ("levee.json", DASHBOARD)] {
        let unknown: Vec<_> = names(content).difference(&known).copied().collect();
        assert!(unknown.is_empty(), "{file} names metrics that nobody has: {unknown:?}");
    }
}

#[test]
fn labels_that_alerts_ask_for_exist() {
    let text = render(&examples::status(), Some(&examples::inspection()));
    for label in ["service=", "vip=", "table=", "map=", "fingerprint=", "backend=", "reason=", "verdict=", "state="] {
        assert!(text.contains(label), "no metric has the label {label}");
    }
}

#[test]
fn every_alert_has_a_test() {
    let alerts = RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let untested: Vec<_> = alerts.filter(|alert| !RULES_TEST.contains(&format!("alertname=\"{alert}\""))).collect();
    assert!(untested.is_empty(), "these alerts are not in rules.test.yaml: {untested:?}");
}
