//! A node is drained on every director: no new connection reaches it, and those that it has live on until they end.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{net::IpAddr, time::Duration};

use anyhow::ensure;
use lb_agent::model::Protocol;
use netns_tests::{
    agent::Agent,
    cluster::{Cluster, PORT},
    config::ServiceConfig,
    observe::{backends, wait_for_hops},
    scope::Scope,
    topology::{Fabric, VIPS},
    traffic::{LongLived, Tally, burst},
    wait,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
/// Limit of a request.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two requests on an open connection.
const PULSE: Duration = Duration::from_millis(200);
/// How long a flow may be silent and a slot is unsettled: longer than the pulse, and short enough to see its end.
const WINDOW: Duration = Duration::from_secs(8);
/// Connections that stay open, in two halves, from these ports on.
const OPEN: u16 = 60;
const FIRST_PORT: u16 = 20_000;
/// The node that is drained.
const DRAINED: usize = 1;
/// New connections that tell who takes them.
const NEW: usize = 60;

/// Three nodes, all of them directors.
async fn build() -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 3, &VIPS[..1]).unwrap();
    bed.start_servers().unwrap();
    bed.start_agents(|topology, config| {
        config.with_service(ServiceConfig {
            flow_timeout: Some(WINDOW),
            ..ServiceConfig::on_all_nodes(topology, "api", &VIPS[..1], Protocol::Tcp, PORT)
        })
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    bed.topology.enter_by(VIPS[0], &[0, 1, 2]).unwrap();
    bed
}

/// Who answers new connections.
async fn takers(bed: &Cluster) -> Tally {
    let client = bed.client(VIPS[0], LIMIT).unwrap();
    Tally::of(&burst(&bed.runtime, &client, NEW, 10).await)
}

/// What an agent says of the drained node's backend.
fn drain_of(agent: &Agent, address: IpAddr) -> anyhow::Result<Value> {
    let status = agent.lbctl_json(&["status"])?;
    let all = status["status"]["backends"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|one| one["address"] == address.to_string());
    Ok(found.map(|one| one["drain"].clone()).unwrap_or_default())
}

async fn wait_until_open(watches: &LongLived) {
    let open = || async {
        let lives = watches.lives();
        ensure!(lives.iter().all(|life| life.answered > 2), "{lives:?}");
        Ok(())
    };
    wait::until("all connections to be open", PATIENCE, open).await.unwrap();
}

/// Waits until every connection was answered `count` times more.
async fn carry_data(watches: &LongLived, count: u64) {
    let before = watches.lives();
    let carried = || async {
        let lives = watches.lives();
        let broken: Vec<_> = lives.iter().filter(|life| life.broken.is_some()).collect();
        ensure!(broken.is_empty(), "{broken:?}");
        ensure!(before.iter().zip(&lives).all(|(before, now)| now.answered >= before.answered + count), "{lives:?}");
        Ok(())
    };
    wait::until("data on all connections", PATIENCE, carried).await.unwrap();
}

fn through(watches: &LongLived, name: &str) -> usize {
    watches.lives().iter().filter(|life| life.server.as_deref() == Some(name)).count()
}

/// Flows to the drained backend that all directors together have recorded.
fn recorded(bed: &Cluster, address: IpAddr) -> u64 {
    let of = |agent: &Agent| {
        let flows = agent.lbctl_json(&["flows", "--service", "api", "--backend", &address.to_string()]).unwrap();
        let listed = flows["flows"].as_array().unwrap();
        assert_eq!(flows["matching"], listed.len(), "{flows}");
        assert!(listed.iter().all(|flow| flow["backend"] == address.to_string()), "{flows}");
        listed.len() as u64
    };
    bed.agents.iter().map(of).sum()
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, from the drain to its end")]
async fn a_drained_node_gets_no_new_connections_and_keeps_its_old_ones_across_a_restart() {
    let mut bed = build().await;
    let (name, address) = (bed.topology.nodes[DRAINED].name.clone(), bed.topology.nodes[DRAINED].addresses[0]);
    let client = bed.client(VIPS[0], LIMIT).unwrap();
    let half = |at: u16| LongLived::open(&bed.runtime, &client, OPEN / 2, FIRST_PORT + at * OPEN / 2, PULSE);
    let (first, second) = (half(0), half(1));
    wait_until_open(&first).await;
    wait_until_open(&second).await;
    let (of_first, of_second) = (through(&first, &name), through(&second, &name));
    assert!(of_first > 0 && of_second > 0, "{of_first} and {of_second} connections reach {name}");
    let before = takers(&bed).await;
    assert!(before.answers.contains_key(&name) && before.failed() == 0, "{before:?}");

    for agent in &bed.agents {
        let said = agent.lbctl(&["drain", &name]).unwrap();
        assert!(said.starts_with(&format!("drained node {name} with 1 backend\n")), "{said}");
    }
    let during = takers(&bed).await;
    assert!(!during.answers.contains_key(&name) && during.failed() == 0, "{during:?}");
    carry_data(&first, 3).await;
    carry_data(&second, 3).await;
    assert_eq!(recorded(&bed, address), (of_first + of_second) as u64, "each of its connections is recorded once");
    let node = &bed.topology.nodes[DRAINED];
    let addresses = node.netns.ip("-4 -o addr show dev lo").unwrap();
    assert!(!addresses.contains(&VIPS[0].to_string()), "its announcement is withdrawn: {addresses}");
    let routes = node.netns.ip("-4 route show table local proto 76").unwrap();
    assert!(routes.contains(&VIPS[0].to_string()), "it goes on holding: {routes}");

    bed.agents[0].process().terminate().unwrap();
    bed.agents[DRAINED].process().terminate().unwrap();
    for agent in [0, DRAINED] {
        bed.agents[agent].start_again(&bed.scope).unwrap();
        bed.agents[agent].wait_ready(PATIENCE).await.unwrap();
        let status = bed.agents[agent].lbctl_json(&["status"]).unwrap();
        assert_eq!(status["status"]["drainedNodes"], serde_json::json!([name]), "{status}");
        let told = || async {
            let backends = bed.agents[agent].lbctl(&["backends"])?;
            ensure!(backends.contains("drained, "), "{backends}");
            Ok(())
        };
        wait::until("the drain to be told", PATIENCE, told).await.unwrap();
    }
    let restarted = takers(&bed).await;
    assert!(!restarted.answers.contains_key(&name) && restarted.failed() == 0, "{restarted:?}");
    carry_data(&second, 3).await;

    // On the node itself its server's connections are counted, on the others what they recorded.
    let here = |bed: &Cluster| drain_of(&bed.agents[DRAINED], address).map(|drain| drain["sockets"].clone());
    let counted = || async {
        let sockets = here(&bed)?;
        ensure!(sockets == of_first + of_second, "{sockets}");
        Ok(())
    };
    wait::until("all connections to be counted", PATIENCE, counted).await.unwrap();
    let lives = first.close().await;
    assert!(lives.iter().all(|life| life.broken.is_none()), "{lives:?}");
    let fewer = || async {
        let sockets = here(&bed)?;
        ensure!(sockets == of_second, "{sockets}");
        Ok(())
    };
    wait::until("the first half to be gone", PATIENCE, fewer).await.unwrap();
    let lives = second.close().await;
    assert!(lives.iter().all(|life| life.broken.is_none()), "{lives:?}");
    for agent in &bed.agents {
        let done = || async {
            let drain = drain_of(agent, address)?;
            let is_done = (&drain["recorded"], &drain["slots"]) == (&Value::from(0), &Value::from(0));
            ensure!(is_done && (drain["sockets"] == 0 || drain["sockets"].is_null()), "{drain}");
            Ok(())
        };
        wait::until("no flow to be left", WINDOW * 2 + PATIENCE, done).await.unwrap();
        let waited = agent.lbctl(&["drain", &name, "--wait"]).unwrap();
        assert!(waited.contains("0 flows recorded"), "{waited}");
    }

    for agent in &bed.agents {
        agent.lbctl(&["undrain", &name]).unwrap();
        let refused = agent.lbctl(&["undrain", &name]).unwrap_err();
        assert!(format!("{refused:#}").contains("is not drained; drained are none"), "{refused:#}");
        let in_ring: Vec<_> = backends(agent, "api").unwrap().iter().map(|backend| backend.in_ring).collect();
        assert_eq!(in_ring, [true; 3]);
    }
    let after = takers(&bed).await;
    assert!(after.answers.contains_key(&name) && after.failed() == 0, "{after:?}");
}

#[tokio::test]
async fn a_deadline_cuts_what_is_left_and_waiting_shows_the_way_there() {
    let bed = build().await;
    bed.topology.enter_by(VIPS[0], &[0]).unwrap();
    let (name, address) = (bed.topology.nodes[DRAINED].name.clone(), bed.topology.nodes[DRAINED].addresses[0]);
    let client = bed.client(VIPS[0], LIMIT).unwrap();
    let watches = LongLived::open(&bed.runtime, &client, OPEN / 2, FIRST_PORT, PULSE);
    wait_until_open(&watches).await;
    let count = through(&watches, &name);
    assert!(count > 0);
    let target = address.to_string();
    let shown = bed.agents[0].lbctl(&["drain", &target, "--service", "api", "--deadline", "4s", "--wait"]).unwrap();
    let recorded = format!("{count} flow{} recorded", if count == 1 { "" } else { "s" });
    assert!(shown.contains(&recorded) && shown.contains("; cut in ") && shown.contains("they were cut"), "{shown}");
    let cut = || async {
        let lives = watches.lives();
        let alive = lives.iter().filter(|life| life.server.as_ref() == Some(&name) && life.broken.is_none()).count();
        ensure!(alive == 0, "{alive} of {count} connections are alive");
        Ok(())
    };
    wait::until("the connections to be cut", PATIENCE, cut).await.unwrap();
    let broken = watches.close().await.into_iter().filter(|life| life.broken.is_some()).count();
    assert_eq!(broken, count, "no other connection broke");
    let taken = takers(&bed).await;
    assert!(!taken.answers.contains_key(&name) && taken.failed() == 0, "{taken:?}");
}
