//! Agents hear one another without anybody's help: who falls silent gets no new flows, unless it is most of them; who is
//! not known or has another secret draws no traffic.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_agent::model::Protocol;
use netns_tests::{
    agent::Agent,
    cluster::Cluster,
    config::{AgentConfig, ServiceConfig},
    netns::Netns,
    observe::{backends, wait_for_hops},
    scope::Scope,
    topology::{Fabric, Topology, VIPS},
    wait,
};
use serde_json::Value;
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(20);
/// The default of `membership.interval`.
const INTERVAL: Duration = Duration::from_millis(500);
/// The default of `membership.silentAfter`, in time.
const SILENCE: Duration = Duration::from_millis(3 * 500);
/// How long a node waits at most until its peers know it.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);
/// The node that something happens to.
const VICTIM: usize = 2;
/// Names of the nodes.
const NAMES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// A service without probes, so that nothing but the membership can take a backend out.
fn service(topology: &Topology) -> ServiceConfig {
    ServiceConfig::on_all_nodes(topology, "echo", &VIPS[..1], Protocol::Udp, 7)
}

/// Three nodes with agents; `change` gets each one's index and configuration.
async fn build(change: impl Fn(usize, &mut AgentConfig)) -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 3, &VIPS[..1]).unwrap();
    bed.start_agents(|topology, config| {
        let index = topology.nodes.iter().position(|node| node.name == config.node.0).unwrap();
        let mut config = config.with_service(service(topology));
        change(index, &mut config);
        config
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    bed
}

/// Three nodes whose agents hear one another.
async fn agreed() -> Cluster {
    let bed = build(|_, _| {}).await;
    for index in 0..3 {
        let others: Vec<_> = (0..3).filter(|other| *other != index).map(|other| (other, "heard")).collect();
        wait_for_peers(&bed.agents[index], &others).await;
    }
    bed
}

fn membership(agent: &Agent) -> Result<Value> {
    Ok(agent.lbctl_json(&["status"])?["status"]["membership"].clone())
}

async fn wait_for_peers(agent: &Agent, expected: &[(usize, &str)]) {
    let look = || async {
        let membership = membership(agent)?;
        let peers = membership["peers"].as_array().cloned().unwrap_or_default();
        for (index, state) in expected {
            ensure!(peers.iter().any(|peer| peer["node"] == NAMES[*index] && peer["state"] == *state), "{membership}");
        }
        Ok(())
    };
    wait::until(&format!("peers to be {expected:?}"), PATIENCE, look).await.unwrap();
}

/// Which of the three nodes' backends are in the ring, as the maps have them.
fn in_ring(bed: &Cluster, agent: usize) -> Result<[bool; 3]> {
    let all = backends(&bed.agents[agent], "echo")?;
    let of = |index: usize| {
        let address: IpAddr = bed.topology.nodes[index].addresses[0];
        all.iter().any(|backend| backend.address == address && backend.in_ring)
    };
    Ok([of(0), of(1), of(2)])
}

/// Waits until these agents have these backends in their rings, and returns how long after `since` that was.
async fn wait_for_rings(bed: &Cluster, agents: &[usize], expected: [bool; 3], since: Instant) -> Duration {
    let look = || async {
        for agent in agents {
            let seen = in_ring(bed, *agent)?;
            ensure!(seen == expected, "agent {agent} has {seen:?}");
        }
        Ok(())
    };
    wait::until(&format!("rings {expected:?}"), PATIENCE, look).await.unwrap();
    since.elapsed()
}

/// Looks all the time at the rings of these agents, which have every backend in them.
async fn stays_whole(bed: &Cluster, agents: &[usize], time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        for agent in agents {
            assert_eq!(in_ring(bed, *agent).unwrap(), [true; 3], "agent {agent} after {:?}", begin.elapsed());
        }
        sleep(INTERVAL / 5).await;
    }
}

/// Whether the node's kernel has the VIP on `lo`.
fn announces(netns: &Netns) -> bool {
    netns.ip("-4 -o addr show dev lo").unwrap().contains(&format!(" {}/", VIPS[0]))
}

async fn wait_until_announced(netns: &Netns) {
    let look = || async {
        ensure!(announces(netns), "the VIP is not on lo");
        Ok(())
    };
    wait::until("the VIP to be announced", PATIENCE, look).await.unwrap();
}

/// The others take the victim's backend out when it falls silent, not before and not much later.
async fn expect_silence(bed: &Cluster, since: Instant) {
    let took = wait_for_rings(bed, &[0, 1], [true, true, false], since).await;
    // The last datagram may have been sent just before, or an interval earlier; two intervals more for a busy machine.
    assert!(took >= SILENCE - INTERVAL && took <= SILENCE + 2 * INTERVAL, "{took:?}");
    // What an agent did, it tells when it is done.
    let told = || async {
        let story = bed.agents[0].lbctl(&["status"])?;
        ensure!(story.contains("node-3  silent") && story.contains("node node-3 is silent"), "{story}");
        let metric = bed.agents[1].metric("levee_peer_silent{peer=\"node-3\"}")?;
        ensure!(metric == Some(1.0), "{metric:?}");
        Ok(())
    };
    wait::until("the silence to be told", PATIENCE, told).await.unwrap();
}

#[tokio::test]
async fn a_silent_nodes_backends_get_no_new_flows_until_it_speaks_again() {
    let mut bed = agreed().await;
    // An agent that hangs, while its node goes on.
    bed.agents[VICTIM].freeze().unwrap();
    expect_silence(&bed, Instant::now()).await;
    bed.agents[VICTIM].thaw().unwrap();
    let took = wait_for_rings(&bed, &[0, 1], [true; 3], Instant::now()).await;
    assert!(took <= INTERVAL * 2, "back after {took:?}");
    assert_eq!(in_ring(&bed, VICTIM).unwrap(), [true; 3], "it was itself that did not listen");

    // An agent that died.
    bed.agents[VICTIM].process().kill().unwrap();
    expect_silence(&bed, Instant::now()).await;
    bed.agents[VICTIM].start_again(&bed.scope).unwrap();
    wait_for_rings(&bed, &[0, 1, 2], [true; 3], Instant::now()).await;

    // A node that is cut off. It hears nobody, so it believes nobody silent.
    bed.topology.nodes[VICTIM].set_link(false).unwrap();
    expect_silence(&bed, Instant::now()).await;
    stays_whole(&bed, &[VICTIM], SILENCE * 2).await;
    assert_eq!(membership(&bed.agents[VICTIM]).unwrap()["mostSilent"], true);
    bed.topology.nodes[VICTIM].set_link(true).unwrap();
    wait_for_rings(&bed, &[0, 1, 2], [true; 3], Instant::now()).await;
}

#[tokio::test]
async fn nothing_changes_when_most_are_silent_or_an_agent_says_that_it_will_be_back() {
    let mut bed = agreed().await;
    // SIGTERM, as for an upgrade.
    bed.agents[1].process().terminate().unwrap();
    stays_whole(&bed, &[0, 2], SILENCE * 2).await;
    wait_for_peers(&bed.agents[0], &[(1, "left")]).await;
    bed.agents[1].start_again(&bed.scope).unwrap();
    wait_for_peers(&bed.agents[0], &[(1, "heard")]).await;

    // Both within one interval: between the two there may be a moment in which only one is silent.
    bed.agents[1].freeze().unwrap();
    bed.agents[VICTIM].freeze().unwrap();
    wait_for_peers(&bed.agents[0], &[(1, "silent"), (2, "silent")]).await;
    wait_for_rings(&bed, &[0], [true; 3], Instant::now()).await;
    stays_whole(&bed, &[0], SILENCE * 2).await;
    assert_eq!(bed.agents[0].metric("levee_peers_most_silent").unwrap(), Some(1.0));
    bed.agents[1].thaw().unwrap();
    bed.agents[VICTIM].thaw().unwrap();
    wait_for_peers(&bed.agents[0], &[(1, "heard"), (2, "heard")]).await;
    wait_for_rings(&bed, &[0, 1, 2], [true; 3], Instant::now()).await;
}

#[tokio::test]
async fn another_secret_is_an_alert_and_the_node_that_has_it_announces_nothing() {
    let odd = |index: usize, config: &mut AgentConfig| {
        if index == VICTIM {
            "0f0e0d0c0b0a09080706050403020100".clone_into(&mut config.secret);
        }
    };
    let bed = build(odd).await;
    for agent in 0..2 {
        wait_for_peers(&bed.agents[agent], &[(1 - agent, "heard"), (VICTIM, "stranger")]).await;
        assert_eq!(bed.agents[agent].metric("levee_peer_secret_differs{peer=\"node-3\"}").unwrap(), Some(1.0));
        wait_until_announced(&bed.topology.nodes[agent].netns).await;
        assert_eq!(in_ring(&bed, agent).unwrap(), [true; 3], "it serves as well as before");
    }
    wait_for_peers(&bed.agents[VICTIM], &[(0, "stranger"), (1, "stranger")]).await;
    let look = || async {
        ensure!(!announces(&bed.topology.nodes[VICTIM].netns), "the VIP is on lo");
        let status = bed.agents[VICTIM].lbctl(&["status"])?;
        ensure!(status.contains("the secret differs from that of node-1, node-2"), "{status}");
        Ok(())
    };
    wait::until("the odd one to stop", PATIENCE, look).await.unwrap();

    // The right secret, without a restart.
    let mut mended = AgentConfig::for_node(&bed.scope, &bed.topology, VICTIM).unwrap();
    mended = mended.with_service(service(&bed.topology));
    bed.agents[VICTIM].reconfigure(&mended).unwrap();
    wait_until_announced(&bed.topology.nodes[VICTIM].netns).await;
    wait_for_peers(&bed.agents[0], &[(1, "heard"), (VICTIM, "heard")]).await;
}

#[tokio::test]
async fn a_node_announces_when_its_peers_know_it_or_the_deadline_has_passed() {
    let others_first = |index: usize, config: &mut AgentConfig| {
        if index != VICTIM {
            config.peers.retain(|(name, _)| name != NAMES[VICTIM]);
        }
    };
    let mut bed = build(others_first).await;
    wait_for_peers(&bed.agents[0], &[(1, "heard")]).await;
    wait_for_peers(&bed.agents[1], &[(0, "heard")]).await;
    // It comes to peers that live, and has never been there.
    bed.agents[VICTIM].process().kill().unwrap();
    bed.agents[VICTIM].lbctl(&["detach"]).unwrap();
    let netns = &bed.topology.nodes[VICTIM].netns;
    assert!(!announces(netns), "the VIP went with the rest");
    let begin = Instant::now();
    bed.agents[VICTIM].start_again(&bed.scope).unwrap();
    bed.agents[VICTIM].wait_ready(PATIENCE).await.unwrap();
    let mut stories = Vec::new();
    while !announces(netns) {
        stories.push(bed.agents[VICTIM].lbctl(&["status"]).unwrap());
        assert!(begin.elapsed() < PATIENCE, "it never announced: {}", stories[stories.len() - 1]);
        sleep(INTERVAL / 2).await;
    }
    let waits = |story: &String| story.contains("not known as a director yet to node-1, node-2");
    assert!(stories.iter().any(waits), "{stories:#?}");
    assert!(begin.elapsed() >= KNOWN_WITHIN, "{:?}", begin.elapsed());
    assert_eq!(bed.agents[VICTIM].metric("levee_peer_refuses{peer=\"node-1\"}").unwrap(), Some(1.0));
    let notes = membership(&bed.agents[VICTIM]).unwrap();
    assert_eq!(notes["notKnownTo"], serde_json::json!(["node-1", "node-2"]));

    // They learn of it.
    for agent in 0..2 {
        let config = AgentConfig::for_node(&bed.scope, &bed.topology, agent).unwrap();
        bed.agents[agent].reconfigure(&config.with_service(service(&bed.topology))).unwrap();
    }
    let look = || async {
        let notes = membership(&bed.agents[VICTIM])?;
        ensure!(notes["notKnownTo"] == serde_json::json!([]), "{notes}");
        Ok(())
    };
    wait::until("the peers to know it", PATIENCE, look).await.unwrap();
    assert!(announces(netns));
}

#[tokio::test]
async fn without_membership_nobody_is_silent_and_nobody_waits() {
    let mute = |index: usize, config: &mut AgentConfig| {
        if index != 0 {
            "membership: off\n".clone_into(&mut config.extra);
        }
    };
    let mut bed = build(mute).await;
    let begin = Instant::now();
    wait_until_announced(&bed.topology.nodes[0].netns).await;
    assert!(begin.elapsed() < KNOWN_WITHIN, "{:?}", begin.elapsed());
    wait_for_peers(&bed.agents[0], &[(1, "unknown"), (2, "unknown")]).await;
    bed.agents[VICTIM].process().kill().unwrap();
    stays_whole(&bed, &[0, 1], SILENCE * 2).await;
    let story = bed.agents[1].lbctl(&["status"]).unwrap();
    assert!(story.contains("membership: off"), "{story}");
}
