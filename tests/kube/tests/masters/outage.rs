//! Every API server and every etcd member is down: nothing moves, and the first server that is back is served.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use kube::CustomResourceExt;
use kube_tests::{
    ability::Ability,
    bed::START,
    definitions::install,
    follow::{self, LIFETIME, pool},
    masters::{INTERVAL, Masters, PATIENCE, RISE, VIP, ask::Asking, create},
};
use lb_agent::kubernetes::crds::VipPool;
use netns_tests::{
    monitor::{Monitor, Of},
    process::Process,
    routing::Suite,
    wait,
};
use serde_json::{Value, json};
use tokio::time::{sleep, sleep_until};

use crate::{ROUTING, failed, servers, title, told, turn};

/// The address of the Service (RFC 5737).
const WEB: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 20));
/// Limit of a request.
const LIMIT: Duration = Duration::from_secs(5);
/// Time between two requests.
const PERIOD: Duration = Duration::from_millis(100);
/// The node whose plug is pulled during the outage.
const DEAD: usize = 2;
/// The others.
const ALIVE: [usize; 2] = [0, 1];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_moves_while_all_api_servers_are_down_and_the_first_one_back_serves() {
    let _turn = turn().await;
    let _kept = promises::keeps(&["F01"], &title());
    let mut masters = Masters::build(Suite::Bird).unwrap();
    masters.start_servers().await.unwrap();
    masters.describe().await.unwrap();
    make_service(&masters).await;
    masters.start_agents(&[0]).unwrap();
    let settled = masters.settled().await;
    told(&mut masters, settled);
    for node in 0..masters.servers.len() {
        wait_for_web(&masters, node).await;
    }
    nothing_moves(&mut masters).await;
    cold_agents_know_what_was_saved(&mut masters).await;
    the_first_server_serves(&mut masters).await;
    an_empty_api_is_not_believed(&mut masters).await;
}

/// A Service with an address of a pool, whose pods are on every node.
async fn make_service(masters: &Masters) {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default" },
        "spec": { "type": "LoadBalancer", "externalIPs": [WEB], "ports": [{ "port": 80 }] },
    });
    if masters.assets.can(Ability::LoadBalancerClass) {
        service["spec"]["loadBalancerClass"] = json!("levee.dev/levee");
    }
    let pods: Vec<_> = masters.cluster.topology.nodes.iter().map(follow::Pod::on).collect();
    let slice = follow::in_version(&masters.assets, follow::slice("web", 80, &pods));
    let make = move |client: kube::Client| async move {
        install(&client, VipPool::crd()).await?;
        for object in [pool("all", &["198.51.100.0/24"], &json!({})), service, slice] {
            create(&client, &object).await?;
        }
        Ok(())
    };
    masters.ask(0, make).await.unwrap();
}

/// Whether a node has an address on `lo`.
fn announces(masters: &Masters, node: usize, address: IpAddr) -> Result<bool> {
    let shown = masters.cluster.topology.nodes[node].netns.ip("-4 -o addr show dev lo")?;
    Ok(shown.contains(&format!(" {address}/32 ")))
}

async fn wait_for_web(masters: &Masters, node: usize) {
    let look = || async {
        let status = masters.status(node)?;
        ensure!(status["cluster"]["services"] == 2, "{}", status["cluster"]);
        ensure!(announces(masters, node, WEB)?, "not announced: {}", status["cluster"]["judgements"]);
        Ok(())
    };
    wait::until(&format!("node {node} to announce the Service"), PATIENCE, look).await.unwrap();
}

/// What an agent says of the following of its cluster.
fn origin(masters: &Masters, agent: usize) -> Result<Value> {
    Ok(masters.status(agent)?["cluster"]["origin"].clone())
}

async fn wait_for_origin(masters: &Masters, agent: usize, expected: &str) -> Result<()> {
    let look = || async {
        let origin = origin(masters, agent)?;
        ensure!(origin == expected, "{origin}");
        Ok(())
    };
    wait::until(&format!("agent {agent} to have a {expected} inventory"), PATIENCE, look).await.map(drop)
}

/// Waits until an agent finds every server dead, and goes on with all of them.
async fn wait_until_none_answers(masters: &Masters, agent: usize) -> Result<()> {
    let look = || async {
        let all = masters.backends(agent)?;
        let dead = all.iter().all(|one| one["health"] == "failed" && one["takesFlows"] == true);
        ensure!(all.len() == masters.servers.len() && dead, "{all:?}");
        Ok(())
    };
    wait::until(&format!("agent {agent} to find all dead"), PATIENCE, look).await.map(drop)
}

/// The whole outage: nobody moves, whether an agent restarts or a node dies.
async fn nothing_moves(masters: &mut Masters) {
    let scope = &masters.cluster.scope;
    let stream = Asking::start(&masters.cluster.runtime, &masters.asker(LIMIT).unwrap(), PERIOD);
    let begin = Instant::now();
    let watch = |node: &netns_tests::topology::Node| Monitor::start(scope, &node.netns, Of::Addresses).unwrap();
    let monitors: Vec<_> = masters.cluster.topology.nodes.iter().map(watch).collect();
    let mut ping = masters.cluster.topology.client.command("ping");
    ping.args(["-n", "-O", "-i", "0.2", &VIP.to_string()]);
    let mut ping = Process::spawn(scope, "ping", &mut ping).unwrap();
    sleep(INTERVAL * 2).await;

    masters.lose_api().unwrap();
    let lost = Instant::now();
    let attempts = stream.stop().await;
    assert_eq!(failed(&attempts, begin, lost - PERIOD * 2), Vec::<String>::new());
    for agent in 0..masters.servers.len() {
        let none = wait_until_none_answers(masters, agent).await;
        told(masters, none);
    }
    restart(masters, 0).await;
    // Longer than an address lives that nobody renews.
    sleep_until((lost + Duration::from_secs(LIFETIME + 2)).into()).await;
    let everywhere = |masters: &Masters, nodes: &[usize]| {
        for node in nodes {
            assert_eq!(masters.held_and_announced(*node).unwrap(), (true, true), "node {node}");
            assert!(announces(masters, *node, WEB).unwrap(), "node {node}");
            for vip in [VIP, WEB] {
                assert_eq!(monitors[*node].deleted(vip).unwrap(), Vec::<String>::new(), "node {node}");
            }
        }
    };
    everywhere(masters, &[0, 1, 2]);
    masters.cluster.wait_for_routes(3, Duration::ZERO).await.unwrap();
    ping.terminate().unwrap();
    let pings = fs::read_to_string(ping.log()).unwrap();
    let (answered, missed) = (pings.matches(" time=").count(), pings.matches("no answer yet").count());
    assert!(missed == 0 && answered >= 50, "{answered} pings were answered, {missed} were not");

    masters.pull_plug(DEAD).unwrap();
    let routes = masters.cluster.wait_for_routes(2, PATIENCE).await;
    told(masters, routes);
    sleep(INTERVAL * 3).await;
    everywhere(masters, &ALIVE);
}

/// Ends an agent in order and starts it again.
async fn restart(masters: &mut Masters, node: usize) {
    let agent = &mut masters.cluster.agents[node];
    agent.process().terminate().unwrap();
    agent.start_again(&masters.cluster.scope).unwrap();
    agent.wait_ready(PATIENCE).await.unwrap();
    let saved = wait_for_origin(masters, node, "saved").await;
    told(masters, saved);
    let none = wait_until_none_answers(masters, node).await;
    told(masters, none);
}

/// As after a loss of power: the agents begin with empty maps.
async fn cold_agents_know_what_was_saved(masters: &mut Masters) {
    for node in ALIVE {
        let agent = &mut masters.cluster.agents[node];
        agent.process().kill().unwrap();
        agent.lbctl(&["detach"]).unwrap();
        assert!(!agent.pin_path().exists());
        assert!(!announces(masters, node, WEB).unwrap());
    }
    for node in ALIVE {
        let agent = &mut masters.cluster.agents[node];
        agent.start_again(&masters.cluster.scope).unwrap();
        agent.wait_ready(PATIENCE).await.unwrap();
    }
    for node in ALIVE {
        let saved = wait_for_origin(masters, node, "saved").await;
        told(masters, saved);
        let none = wait_until_none_answers(masters, node).await;
        told(masters, none);
        wait_for_web(masters, node).await;
    }
}

/// Two members are most of them, so a server can be ready.
async fn the_first_server_serves(masters: &mut Masters) {
    let stream = Asking::start(&masters.cluster.runtime, &masters.asker(LIMIT).unwrap(), PERIOD);
    for node in ALIVE {
        masters.members[node].start(&masters.cluster.scope).unwrap();
    }
    for node in ALIVE {
        masters.members[node].ready(START).await.unwrap();
    }
    masters.servers[0].start(&masters.cluster.scope).unwrap();
    masters.servers[0].ready(START).await.unwrap();
    let ready = Instant::now();
    // With the probe that is under way.
    let bound = ready + INTERVAL * (RISE + 1) + ROUTING;
    sleep_until((bound + INTERVAL * 3).into()).await;
    let end = Instant::now();
    let attempts = stream.stop().await;
    assert_eq!(failed(&attempts, bound, end), Vec::<String>::new());
    assert_eq!(servers(&attempts, bound, end), masters.cluster.names()[..1]);
    let first = attempts.iter().filter(|attempt| attempt.outcome.is_ok()).map(|attempt| attempt.began).min();
    let first = first.map(|first| first.saturating_duration_since(ready));
    eprintln!("the first connection was served {first:?} after the first server was ready");
    for node in ALIVE {
        let live = wait_for_origin(masters, node, "live").await;
        told(masters, live);
        wait_for_web(masters, node).await;
    }
}

/// A data store that lost everything: what was known stays, until that is confirmed.
async fn an_empty_api_is_not_believed(masters: &mut Masters) {
    masters.lose_api().unwrap();
    let scope = &masters.cluster.scope;
    masters.members[0].forget().unwrap();
    masters.members[0].start(scope).unwrap();
    masters.members[0].ready(START).await.unwrap();
    masters.servers[0].start(scope).unwrap();
    masters.servers[0].ready(START).await.unwrap();
    for node in ALIVE {
        let doubted = || async {
            let kinds = masters.status(node)?["cluster"]["source"]["kinds"].as_array().cloned().unwrap_or_default();
            let of = |kind: &str| kinds.iter().find(|one| one["resource"] == kind).map(|one| one["doubted"].clone());
            for kind in ["services", "nodes"] {
                ensure!(of(kind).is_some_and(|doubted| doubted["listed"] == 0), "{kinds:?}");
            }
            ensure!(announces(masters, node, WEB)?, "the Service is gone");
            Ok(())
        };
        let doubted = wait::until("an empty list that is doubted", PATIENCE, doubted).await;
        told(masters, doubted);
        let status = masters.status(node).unwrap();
        assert_eq!((&status["cluster"]["services"], &status["cluster"]["nodes"]), (&json!(2), &json!(3)));
    }
}
