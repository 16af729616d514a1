//! A rolling upgrade of the control plane: node after node is drained, ends, forgets everything, and comes back.

use std::time::{Duration, Instant};

use anyhow::ensure;
use lb_agent::model::Protocol;
use netns_tests::{
    cluster::{Cluster, PORT},
    config::{ProbeConfig, ServiceConfig},
    observe::{backends, wait_for_hops},
    routing::Suite,
    scope::Scope,
    server::set_readiness,
    topology::Fabric,
    wait,
    watches::{Session, Watches},
};

use crate::bed::{LIMIT, PATIENCE, VIP};

/// Control-plane nodes.
const NODES: u8 = 3;
/// Watches through the VIP.
const WATCHES: usize = 200;
/// Time between two events of a watch.
const PERIOD: Duration = Duration::from_millis(100);

/// Three nodes that are directors and backends alike, whose servers are asked whether they are ready.
async fn build() -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, NODES, &[VIP]).unwrap();
    let ca_file = bed.authority.certificate(&bed.scope).unwrap();
    bed.start_servers().unwrap();
    bed.start_routing(Suite::Bird, Suite::Bird).unwrap();
    bed.start_agents(|topology, config| {
        // A handshake can take long on a busy machine.
        let second = Duration::from_secs(1);
        config.with_service(ServiceConfig {
            probe: Some(ProbeConfig { interval: second, timeout: second, rise: 2, fall: 2 }),
            question: format!("https: {{path: /readyz, caFile: \"{}\"}}", ca_file.display()),
            ..ServiceConfig::on_all_nodes(topology, "api", &[VIP], Protocol::Tcp, PORT)
        })
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    for node in 0..bed.agents.len() {
        wait_for_server(&bed, node, "healthy").await;
    }
    bed.wait_for_routes(NODES.into(), PATIENCE).await.unwrap();
    bed
}

/// Waits until every agent found the server of a node `healthy` or `failed`, and gives it new flows or none.
async fn wait_for_server(bed: &Cluster, node: usize, health: &str) {
    let address = bed.topology.nodes[node].addresses[0];
    let look = || async {
        for agent in &bed.agents {
            let status = agent.lbctl_json(&["status"])?;
            let all = status["status"]["backends"].as_array().cloned().unwrap_or_default();
            let found = all.iter().any(|one| one["address"] == address.to_string() && one["health"] == health);
            ensure!(found, "{all:?}");
            let takes = backends(agent, "api")?.iter().any(|one| one.address == address && one.in_ring);
            ensure!(takes == (health == "healthy"), "the ring is not that far");
        }
        Ok(())
    };
    wait::until(&format!("node {node} to be {health} to all"), PATIENCE, look).await.unwrap();
}

/// Waits until every watch has a connection that carries data; those to `without` do not count.
async fn wait_for_watches(watches: &Watches, without: Option<&str>) {
    let then = watches.latest();
    let look = || async {
        let is_fine = |now: &Session, then: &Option<Session>| {
            let goes_on = then.as_ref().filter(|then| then.began == now.began);
            now.lives() && now.answered > goes_on.map_or(0, |then| then.answered) && now.server.as_deref() != without
        };
        let now = watches.latest();
        let silent = now.iter().zip(&then).filter(|(now, then)| !now.as_ref().is_some_and(|now| is_fine(now, then)));
        let silent = silent.count();
        ensure!(silent == 0, "{silent} without");
        Ok(())
    };
    wait::until("data on every watch", PATIENCE, look).await.unwrap();
}

/// Drains a node, ends all that runs on it and takes away what is left, and starts everything anew. Returns when its server
/// ended.
async fn upgrade(bed: &mut Cluster, watches: &Watches, node: usize) -> Instant {
    let name = bed.names()[node].clone();
    set_readiness(&bed.scope, &name, 500).unwrap();
    wait_for_server(bed, node, "failed").await;
    bed.wait_for_routes(usize::from(NODES) - 1, PATIENCE).await.unwrap();
    wait_for_watches(watches, None).await;

    let ended = Instant::now();
    bed.servers[node].terminate().unwrap();
    wait_for_watches(watches, Some(&name)).await;
    bed.agents[node].process().terminate().unwrap();
    bed.agents[node].lbctl(&["detach"]).unwrap();
    assert!(!bed.agents[node].pin_path().exists(), "nothing is left of its maps");

    set_readiness(&bed.scope, &name, 200).unwrap();
    bed.start_server(node).unwrap();
    bed.agents[node].start_again(&bed.scope).unwrap();
    bed.agents[node].wait_ready(PATIENCE).await.unwrap();
    wait_for_server(bed, node, "healthy").await;
    bed.wait_for_routes(NODES.into(), PATIENCE).await.unwrap();
    wait_for_watches(watches, None).await;
    ended
}

#[tokio::test]
async fn a_rolling_upgrade_ends_the_watches_of_the_node_that_restarts_only() {
    let mut bed = build().await;
    let watches = Watches::open(&bed.runtime, &bed.client(VIP, LIMIT).unwrap(), WATCHES, PERIOD);
    wait_for_watches(&watches, None).await;
    let names = bed.names();
    let mut ends = Vec::new();
    for node in 0..names.len() {
        ends.push(upgrade(&mut bed, &watches, node).await);
    }
    let watches = watches.close().await;

    // A watch may end when the server ends that it goes to, or does not come about at all.
    let is_due = |session: &Session| {
        let (at, _) = session.ended.as_ref().unwrap();
        let server = names.iter().position(|name| session.server.as_ref() == Some(name));
        server.is_some_and(|node| session.began < ends[node] && ends[node] <= *at)
    };
    let ended = || watches.iter().flatten().filter(|session| session.ended.is_some());
    let lost: Vec<_> = ended()
        .filter(|session| !is_due(session))
        .map(|session| {
            let (at, how) = session.ended.as_ref().unwrap();
            let since = |at: Instant| at.saturating_duration_since(ends[0]).as_millis();
            format!("{:?} {}..{} ms: {how}", session.server, since(session.began), since(*at))
        })
        .collect();
    assert!(ended().count() >= WATCHES / 2, "only {} watches ended: not every server restarted", ended().count());
    let ends: Vec<_> = ends.iter().map(|end| end.duration_since(ends[0]).as_millis()).collect();
    assert!(lost.is_empty(), "{} of {WATCHES} watches; servers ended at {ends:?} ms: {lost:#?}", lost.len());
}
