//! Who holds and who announces the VIPs: as servers die and return, against meddling hands, at the end of an agent.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::ensure;
use lb_agent::model::Protocol;
use netns_tests::{
    client::Failure,
    cluster::{Cluster, PORT},
    config::{ProbeConfig, ServiceConfig},
    monitor::{Monitor, Of},
    netns::{Netns, NetnsRuntime},
    observe::{backends, wait_for_hops},
    routing::Suite,
    scope::Scope,
    topology::{Fabric, UPLINK, VIPS},
    traffic::{Tally, burst},
    wait,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Limit of a request.
const LIMIT: Duration = Duration::from_secs(3);
/// What was removed by hand is back after this.
const REPAIR: Duration = Duration::from_secs(1);
/// Failures until a backend has failed: as many as it takes to hear from every other one since the first.
const FALL: u8 = 3;
/// What so many probes take, five a second; and as much again on a busy machine.
const FOUND: Duration = Duration::from_millis(3 * 200 * 2);
/// What a routing daemon takes to tell the router, at most: it looks at its interfaces every second.
const ROUTING: Duration = Duration::from_secs(1);
/// How often a server dies and returns.
const FLAPS: usize = 3;

/// Three nodes with servers and agents, whose announcements BIRD carries to the router.
async fn build(on_terminate: &str) -> Cluster {
    build_with(on_terminate, Suite::Bird).await
}

async fn build_with(on_terminate: &str, nodes: Suite) -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 3, &VIPS).unwrap();
    bed.start_servers().unwrap();
    bed.start_routing(Suite::Bird, nodes).unwrap();
    bed.start_agents(|topology, config| {
        let mut service = ServiceConfig::on_all_nodes(topology, "api", &VIPS, Protocol::Tcp, PORT);
        service.probe = service.probe.map(|probe| ProbeConfig { fall: FALL, ..probe });
        let mut config = config.with_service(service);
        on_terminate.clone_into(&mut config.on_terminate);
        config
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    bed.wait_for_routes(3, PATIENCE).await.unwrap();
    bed
}

/// VIPs with an address on `lo`.
fn announced(netns: &Netns) -> Vec<IpAddr> {
    let shown = netns.ip("-o addr show dev lo").unwrap();
    VIPS.into_iter().filter(|vip| shown.contains(&format!(" {vip}/"))).collect()
}

/// VIPs with a `local` route of the agent's protocol number.
fn held(netns: &Netns) -> Vec<IpAddr> {
    let show = |family| netns.ip(&format!("{family} route show table local proto 76")).unwrap();
    let shown = show("-4") + &show("-6");
    let words: Vec<&str> = shown.split_whitespace().collect();
    VIPS.into_iter().filter(|vip| words.contains(&vip.to_string().as_str())).collect()
}

async fn wait_for(what: &str, limit: Duration, look: impl Fn() -> Vec<IpAddr>, wanted: &[IpAddr]) {
    let look = || {
        let seen = look();
        async move {
            ensure!(seen == wanted, "{seen:?}");
            Ok(())
        }
    };
    wait::until(what, limit, look).await.unwrap();
}

/// Waits until every director gives flows to the third node, or none does. Each probes by itself, and a connection begun
/// while they differ may change its server when the router spreads anew.
async fn wait_for_third(bed: &Cluster, takes_flows: bool) {
    let third = bed.topology.nodes[2].addresses[0];
    for agent in &bed.agents {
        let look = || async {
            let all = backends(agent, "api")?.into_iter();
            let entries: Vec<_> = all.filter(|backend| backend.address == third).collect();
            ensure!(!entries.is_empty() && entries.iter().all(|entry| entry.in_ring == takes_flows), "{entries:?}");
            Ok(())
        };
        wait::until("all directors to agree on node-3", PATIENCE, look).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_removed_by_hand_returns_within_a_second() {
    let _kept = promises::keeps(&["F21", "S0-16"], "the agent");
    let bed = build("keep").await;
    let netns = &bed.topology.nodes[0].netns;
    for vip in VIPS {
        let length = if vip.is_ipv4() { 32 } else { 128 };
        netns.ip(&format!("addr del {vip}/{length} dev lo")).unwrap();
        wait_for("the address", REPAIR, || announced(netns), &VIPS).await;
        let family = if vip.is_ipv4() { "-4" } else { "-6" };
        netns.ip(&format!("{family} route del local {vip} table local proto 76")).unwrap();
        wait_for("the held route", REPAIR, || held(netns), &VIPS).await;
    }
}

#[tokio::test]
async fn a_node_whose_server_dies_reaches_the_vip_over_the_wire_until_it_returns() {
    let _kept = promises::keeps(&["F08"], "FRR");
    let mut bed = build_with("keep", Suite::Frr).await;
    bed.servers[2].kill().unwrap();
    let killed = Instant::now();
    let netns = &bed.topology.nodes[2].netns;
    wait_for("no address", FOUND, || announced(netns), &[]).await;
    bed.wait_for_routes(2, (FOUND + ROUTING).saturating_sub(killed.elapsed())).await.unwrap();
    let netns = &bed.topology.nodes[2].netns;
    wait_for("no held route", PATIENCE, || held(netns), &[]).await;
    wait_for_third(&bed, false).await;
    let runtime = NetnsRuntime::start(netns).unwrap();
    for vip in VIPS {
        let client = bed.client(vip, LIMIT).unwrap();
        let tally = Tally::of(&burst(&runtime, &client, 20, 4).await);
        assert_eq!((tally.answered(), tally.failed()), (20, 0), "{tally:?}");
        assert_eq!(tally.answers.into_keys().collect::<Vec<_>>(), ["node-1", "node-2"]);
    }
    drop(runtime);

    bed.start_server(2).unwrap();
    bed.wait_for_routes(3, PATIENCE).await.unwrap();
    wait_for_third(&bed, true).await;
    let netns = &bed.topology.nodes[2].netns;
    assert_eq!((announced(netns), held(netns)), (VIPS.to_vec(), VIPS.to_vec()));
    for vip in VIPS {
        let client = bed.client(vip, LIMIT).unwrap();
        let tally = Tally::of(&burst(&bed.runtime, &client, 40, 6).await);
        assert_eq!((tally.failed(), tally.answers.len()), (0, 3), "{tally:?}");
    }
}

#[tokio::test]
async fn a_flapping_server_moves_no_vip_of_other_nodes_and_when_all_are_dead_none_moves() {
    let _kept = promises::keeps(&["F10"], "BIRD");
    let mut bed = build("keep").await;
    let watch = |node: usize| Monitor::start(&bed.scope, &bed.topology.nodes[node].netns, Of::Addresses).unwrap();
    let watched = [watch(0), watch(1), watch(2)];
    let withdrawn = |node: usize| VIPS.into_iter().flat_map(|vip| watched[node].deleted(vip).unwrap()).count();
    for _ in 0..FLAPS {
        bed.servers[2].kill().unwrap();
        wait_for_third(&bed, false).await;
        bed.start_server(2).unwrap();
        wait_for_third(&bed, true).await;
    }
    let netns = &bed.topology.nodes[2].netns;
    wait_for("the address", PATIENCE, || announced(netns), &VIPS).await;
    assert_eq!([0, 1].map(withdrawn), [0; 2], "the others stay");
    let of_third = withdrawn(2);
    assert!(of_third >= FLAPS, "it was found dead {FLAPS} times: {of_third}");

    for server in &mut bed.servers {
        server.kill().unwrap();
    }
    for agent in &bed.agents {
        let look = || async {
            let status = agent.lbctl_json(&["status"])?;
            let backends = status["status"]["backends"].as_array().cloned().unwrap_or_default();
            let all = backends.iter().all(|backend| backend["health"] == "failed" && backend["takesFlows"] == true);
            ensure!(all && !backends.is_empty(), "{backends:?}");
            Ok(())
        };
        wait::until("all backends to fail and to stay", PATIENCE, look).await.unwrap();
    }
    assert_eq!([0, 1, 2].map(withdrawn), [0, 0, of_third], "nobody is better, so nobody goes");
    bed.wait_for_routes(3, PATIENCE).await.unwrap();
    for node in &bed.topology.nodes {
        assert_eq!((announced(&node.netns), held(&node.netns)), (VIPS.to_vec(), VIPS.to_vec()), "{}", node.name);
    }
    // Refused by the servers' nodes, not lost in the network.
    let tally = Tally::of(&burst(&bed.runtime, &bed.client(VIPS[0], LIMIT).unwrap(), 20, 4).await);
    assert_eq!(tally.failures.into_iter().collect::<Vec<_>>(), [(Failure::Refused.to_string(), 20)]);
}

#[tokio::test]
async fn on_terminate_withdraw_takes_the_address_and_keeps_what_is_held() {
    let _kept = promises::keeps(&["F07", "S0-16"], "the agent");
    let mut bed = build("withdraw").await;
    bed.agents[1].process().terminate().unwrap();
    let netns = &bed.topology.nodes[1].netns;
    assert_eq!((announced(netns), held(netns)), (vec![], VIPS.to_vec()));
    bed.wait_for_routes(2, PATIENCE).await.unwrap();
    // Its server goes on, by way of the other directors.
    for vip in VIPS {
        let tally = Tally::of(&burst(&bed.runtime, &bed.client(vip, LIMIT).unwrap(), 30, 6).await);
        assert_eq!((tally.answered(), tally.failed(), tally.answers.len()), (30, 0, 3), "{tally:?}");
    }
}

#[tokio::test]
async fn detach_leaves_nothing_and_is_refused_while_the_agent_runs() {
    let mut bed = build("keep").await;
    let refused = format!("{:#}", bed.agents[0].lbctl(&["detach"]).unwrap_err());
    assert!(refused.contains("node-1") && refused.contains("agent"), "{refused}");
    let netns = &bed.topology.nodes[0].netns;
    let xdp = |netns: &Netns| {
        let links: serde_json::Value = serde_json::from_str(&netns.ip(&format!("-j link show {UPLINK}"))?)?;
        anyhow::Ok(links[0].get("xdp").is_some())
    };
    assert_eq!((announced(netns), held(netns)), (VIPS.to_vec(), VIPS.to_vec()));

    bed.agents[0].process().terminate().unwrap();
    assert_eq!((announced(netns), held(netns)), (VIPS.to_vec(), VIPS.to_vec()), "SIGTERM keeps");
    assert!(xdp(netns).unwrap());
    bed.agents[0].lbctl(&["detach"]).unwrap();
    assert_eq!((announced(netns), held(netns)), (vec![], vec![]));
    assert!(!xdp(netns).unwrap());
    assert!(!bed.agents[0].pin_path().exists());
    bed.agents[0].lbctl(&["detach"]).unwrap();
}
