//! `lbctl doctor`, `explain` and `top` on a running node: what is right, what somebody broke, and what flows.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{net::SocketAddr, time::Duration};

use lb_agent::model::Protocol;
use netns_tests::{
    cluster::Cluster,
    config::ServiceConfig,
    flood::{Flood, Plan},
    netns::Netns,
    observe::wait_for_hops,
    scope::{Scope, binary},
    topology::{Fabric, UPLINK, VIPS},
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
const PORT: u16 = 5353;

/// Two nodes with a UDP service; the client's traffic comes in by the first.
async fn build() -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 2, &VIPS).unwrap();
    bed.start_udp_echoes(&[PORT]).unwrap();
    for vip in VIPS {
        bed.topology.enter_by(vip, &[0]).unwrap();
    }
    bed.start_agents(|topology, config| {
        config.with_service(ServiceConfig::on_all_nodes(topology, "echo", &VIPS, Protocol::Udp, PORT))
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    bed
}

/// Runs `lbctl doctor --output json` on the first node: whether it succeeded, and its document.
fn doctor(bed: &Cluster) -> (bool, Value) {
    let mut command = node(bed).command(binary("lbctl").unwrap());
    command.arg("--pin-path").arg(bed.agents[0].pin_path()).arg("--socket").arg(bed.agents[0].socket());
    let output = command.args(["--output", "json", "doctor"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let document = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (output.status.success(), document)
}

fn node(bed: &Cluster) -> &Netns {
    &bed.topology.nodes[0].netns
}

/// What a check saw that is not as it should be.
fn bad(document: &Value, check: &str) -> Vec<(String, String)> {
    let findings = document["findings"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    findings
        .filter(|finding| finding["check"] == check && finding["severity"] != "ok")
        .map(|finding| (text(&finding["severity"]), text(&finding["seen"])))
        .collect()
}

#[tokio::test]
async fn the_doctor_finds_what_was_broken_and_nothing_before() {
    let bed = build().await;
    let (healthy, document) = doctor(&bed);
    assert!(healthy && document["errors"] == 0, "{document:#}");
    let findings = document["findings"].as_array().unwrap().iter();
    let unknown: Vec<_> = findings.filter(|finding| finding["severity"] == "unknown").collect();
    // The setting is there in the first network namespace only.
    assert!(unknown.iter().all(|finding| finding["check"] == "jit"), "{unknown:#?}");
    assert_eq!(bad(&document, "rp-filter"), []);

    node(&bed).sysctl(&format!("net/ipv4/conf/{UPLINK}/rp_filter"), "1").unwrap();
    let (passes, document) = doctor(&bed);
    assert!(passes, "a warning is no failure: {document:#}");
    let [(severity, seen)] = &bad(&document, "rp-filter")[..] else { panic!("{document:#}") };
    assert!(severity == "warning" && seen.contains(UPLINK), "{seen}");

    node(&bed).ip(&format!("addr add {}/32 dev {UPLINK}", VIPS[0])).unwrap();
    let (passes, document) = doctor(&bed);
    let [(severity, seen)] = &bad(&document, "vip")[..] else { panic!("{document:#}") };
    assert!(!passes && severity == "error" && seen.contains(&VIPS[0].to_string()), "{seen}");
}

#[tokio::test]
async fn the_doctor_misses_an_agent_that_was_killed() {
    let mut bed = build().await;
    bed.agents[0].process().kill().unwrap();
    let (passes, document) = doctor(&bed);
    let [(severity, seen)] = &bad(&document, "agent")[..] else { panic!("{document:#}") };
    assert!(!passes && severity == "error" && seen.contains("no agent holds the lock"), "{seen}");
}

#[tokio::test]
async fn a_service_is_explained_and_its_rates_are_shown() {
    let bed = build().await;
    let explained = bed.agents[0].lbctl_json(&["explain", "echo"]).unwrap();
    let vips = explained["vips"].as_array().unwrap();
    assert!(
        vips.len() == 2 && vips.iter().all(|vip| vip["held"] == true && vip["unmatched"] == "dropped"),
        "{explained:#}"
    );
    let services = explained["services"].as_array().unwrap();
    let mut backends = services.iter().flat_map(|service| service["backends"].as_array().unwrap());
    assert!(
        backends.all(|backend| backend["takesNewFlows"] == true && backend["reason"] != Value::Null),
        "{explained:#}"
    );

    let plan = Plan { pause: Duration::from_millis(1), ..Plan::new(SocketAddr::new(VIPS[0], PORT), u64::MAX) };
    let flood = Flood::start(&bed.topology.client, plan, |_, _| true).unwrap();
    let rates = bed.agents[0].lbctl_json(&["top", "--once", "--interval", "0.5"]).unwrap();
    let report = flood.stop().unwrap();
    let rate = |vip: &str| {
        let services = rates["services"].as_array().unwrap();
        let service = services.iter().find(|service| service["vip"] == vip).unwrap();
        service["packetsPerSecond"].as_f64().unwrap()
    };
    assert!(report.lost == 0 && rate(&VIPS[0].to_string()) > 100.0, "{report:?}, {rates:#}");
    assert_eq!(rate(&VIPS[1].to_string()), 0.0, "nobody asked there");
}
