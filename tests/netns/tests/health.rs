//! Servers that say at `/readyz` that they are not ready: no new connections, and no end to those that they have.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::time::{Duration, Instant};

use anyhow::ensure;
use lb_agent::model::Protocol;
use netns_tests::{
    cluster::{Cluster, PORT},
    config::{ProbeConfig, ServiceConfig},
    observe::{backends, wait_for_hops},
    scope::Scope,
    server::set_readiness,
    topology::{Fabric, VIPS},
    traffic::{Attempt, LongLived, Stream, Tally, burst},
    wait,
};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(20);
/// Limit of a request.
const LIMIT: Duration = Duration::from_secs(5);
/// Time between two probes of the director, and the limit of one, where it is measured what comes of them.
const INTERVAL: Duration = Duration::from_millis(200);
/// The same of the other agents, by which no traffic enters, and of tests without a limit: on a busy machine a handshake
/// can take longer than 200 ms.
const REST: Duration = Duration::from_secs(1);
/// Failures until a backend has failed, and successes until it is back.
const COUNT: u8 = 2;
/// Two probes, each of which may have begun just before the change and take its whole time: what a user is promised.
const TURN: Duration = Duration::from_millis(200 * 2 * 2);
/// Time between two requests of the stream, and of a watch.
const PERIOD: Duration = Duration::from_millis(50);
/// The node by which all traffic enters.
const DIRECTOR: usize = 0;
/// The node whose server is not ready for a while.
const TURNING: usize = 1;
/// How often a server goes and comes back.
const ROUNDS: usize = 20;

/// Three nodes with servers that are asked for `/readyz` by HTTPS and have to show a certificate of the testbed's authority.
async fn build(interval_of_director: Duration, slow_start: Duration) -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 3, &VIPS[..1]).unwrap();
    let ca_file = bed.authority.certificate(&bed.scope).unwrap();
    bed.start_servers().unwrap();
    bed.start_agents(|topology, config| {
        let interval = if config.node.0 == topology.nodes[DIRECTOR].name { interval_of_director } else { REST };
        let probe = ProbeConfig { interval, timeout: interval, rise: COUNT, fall: COUNT };
        config.with_service(ServiceConfig {
            probe: Some(probe),
            slow_start,
            question: format!("https: {{path: /readyz, caFile: \"{}\"}}", ca_file.display()),
            ..ServiceConfig::on_all_nodes(topology, "api", &VIPS[..1], Protocol::Tcp, PORT)
        })
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    bed.topology.enter_by(VIPS[0], &[DIRECTOR]).unwrap();
    wait_for_turning(&bed, true).await;
    bed
}

/// Waits until every agent would give new connections to the turning node, or none would.
async fn wait_for_turning(bed: &Cluster, takes_flows: bool) {
    let address = bed.topology.nodes[TURNING].addresses[0];
    for agent in &bed.agents {
        let look = || async {
            let status = agent.lbctl_json(&["status"])?;
            let all = status["status"]["backends"].as_array().cloned().unwrap_or_default();
            // Healthy is more than taken for healthy: the certificate was verified.
            let others = all.iter().filter(|one| one["address"] != address.to_string());
            ensure!(others.clone().count() == 2 && others.clone().all(|one| one["health"] == "healthy"), "{all:?}");
            let expected = if takes_flows { "healthy" } else { "failed" };
            ensure!(
                all.iter().any(|one| one["address"] == address.to_string() && one["health"] == expected),
                "{all:?}"
            );
            let entries = backends(agent, "api")?.into_iter().filter(|backend| backend.address == address);
            let in_ring: Vec<bool> = entries.map(|backend| backend.in_ring).collect();
            ensure!(in_ring == [takes_flows], "{in_ring:?}");
            Ok(())
        };
        wait::until("all agents to agree on the turning node", PATIENCE, look).await.unwrap();
    }
}

fn turn(bed: &Cluster, status: u16) -> Instant {
    set_readiness(&bed.scope, &bed.topology.nodes[TURNING].name, status).unwrap();
    Instant::now()
}

/// The VIPs that the turning node holds and those that it announces, as its kernel has them.
fn held_and_announced(bed: &Cluster) -> (bool, bool) {
    let netns = &bed.topology.nodes[TURNING].netns;
    let routes = netns.ip("-4 route show table local proto 76").unwrap();
    let addresses = netns.ip("-4 -o addr show dev lo").unwrap();
    let vip = VIPS[0].to_string();
    (routes.split_whitespace().any(|word| word == vip), addresses.contains(&format!(" {vip}/")))
}

/// Attempts begun within a time.
fn begun(attempts: &[Attempt], from: Instant, to: Instant) -> Tally {
    Tally::of(attempts.iter().filter(|attempt| (from..to).contains(&attempt.started)))
}

#[tokio::test]
async fn a_server_that_is_not_ready_gets_no_new_connections_until_it_is() {
    let bed = build(INTERVAL, Duration::ZERO).await;
    let name = bed.names()[TURNING].clone();
    let client = bed.client(VIPS[0], LIMIT).unwrap();
    let stream = Stream::start(&bed.runtime, client.clone(), PERIOD);
    let begin = Instant::now();
    sleep(INTERVAL * 5).await;

    let unready = turn(&bed, 500);
    wait_for_turning(&bed, false).await;
    sleep(TURN).await;
    let is_held = held_and_announced(&bed);
    let told = bed.agents[DIRECTOR].lbctl(&["backends"]).unwrap();
    let metric = bed.agents[DIRECTOR].metric("levee_service_probes_believed{service=\"api\"}").unwrap();

    let ready = turn(&bed, 200);
    sleep(TURN).await;
    let back = Instant::now();
    wait_for_turning(&bed, true).await;
    sleep(INTERVAL * 10).await;
    let attempts = stream.stop().await;

    let before = begun(&attempts, begin, unready);
    assert!(before.answers.contains_key(&name) && before.failed() == 0, "{before:?}");
    let away = begun(&attempts, unready + TURN, ready);
    assert!(!away.answers.contains_key(&name) && away.answered() > 0 && away.failed() == 0, "{away:?}");
    assert_eq!(is_held, (true, false), "held for the connections that it has, and not announced");
    assert!(told.contains("https :6443/readyz") && told.contains("failed: https GET /readyz answers 500"), "{told}");
    assert_eq!(metric, Some(1.0), "two of three are believed");
    let again = begun(&attempts, back, Instant::now());
    assert!(again.answers.contains_key(&name) && again.failed() == 0, "{again:?}");
    assert_eq!(held_and_announced(&bed), (true, true));
}

/// Waits until the director says this of the turning node's backend, and gives it flows or none.
async fn wait_for_director(bed: &Cluster, said: &str, in_ring: bool) {
    let (agent, address) = (&bed.agents[DIRECTOR], bed.topology.nodes[TURNING].addresses[0]);
    let look = || async {
        let status = agent.lbctl_json(&["status"])?;
        let all = status["status"]["backends"].as_array().cloned().unwrap_or_default();
        let one = all.iter().find(|one| one["address"] == address.to_string());
        let one = one.map(ToString::to_string).unwrap_or_default();
        ensure!(one.contains(said), "{one}");
        let found = backends(agent, "api")?.iter().any(|one| one.address == address && one.in_ring);
        ensure!(found == in_ring, "in the ring: {found}");
        Ok(())
    };
    wait::until(&format!("the director to say {said:?}"), PATIENCE, look).await.unwrap();
}

#[tokio::test]
async fn a_server_that_comes_back_gets_connections_after_its_good_probes_and_not_for_an_open_port() {
    let _kept = promises::keeps(&["F12"], "an HTTPS server");
    let mut bed = build(INTERVAL, Duration::ZERO).await;
    // Between two probes lie at least nine tenths of the interval.
    let earliest = INTERVAL * u32::from(COUNT - 1) * 9 / 10;
    for round in 0..ROUNDS {
        bed.servers[TURNING].kill().unwrap();
        wait_for_director(&bed, "refused", false).await;
        turn(&bed, 500);
        bed.start_server(TURNING).unwrap();
        // It accepts connections, and the next good probes would be enough.
        wait_for_director(&bed, "answers 500", false).await;
        let agent = &bed.agents[DIRECTOR];
        let address = bed.topology.nodes[TURNING].addresses[0];
        let open = Instant::now();
        while open.elapsed() < INTERVAL * u32::from(COUNT) {
            let taken = backends(agent, "api").unwrap().iter().any(|one| one.address == address && one.in_ring);
            assert!(!taken, "round {round}: it got connections for an open port");
            sleep(INTERVAL / 10).await;
        }
        let ready = turn(&bed, 200);
        wait_for_director(&bed, r#""health":"healthy""#, true).await;
        let took = ready.elapsed();
        assert!(took >= earliest, "round {round}: back after {took:?}, with fewer than {COUNT} good probes");
    }
    let client = bed.client(VIPS[0], LIMIT).unwrap();
    let name = bed.names()[TURNING].clone();
    let serves = || async {
        let tally = Tally::of(&burst(&bed.runtime, &client, 24, 4).await);
        ensure!(tally.failed() == 0 && tally.answers.contains_key(&name), "{tally:?}");
        Ok(())
    };
    wait::until("answers of the server that came back", PATIENCE, serves).await.unwrap();
}

#[tokio::test]
async fn open_connections_through_a_server_that_is_not_ready_live_on() {
    let _kept = promises::keeps(&["F11"], "an HTTPS server");
    let bed = build(REST, Duration::ZERO).await;
    let name = bed.names()[TURNING].clone();
    let client = bed.client(VIPS[0], LIMIT).unwrap();
    let watches = LongLived::open(&bed.runtime, &client, 30, 40_000, PERIOD);
    let open = || async {
        let lives = watches.lives();
        ensure!(lives.iter().all(|life| life.answered > 2), "{lives:?}");
        Ok(())
    };
    wait::until("all watches to be open", PATIENCE, open).await.unwrap();

    turn(&bed, 500);
    wait_for_turning(&bed, false).await;
    sleep(TURN).await;
    let before = watches.lives();
    sleep(PERIOD * 50).await;
    let after = watches.lives();
    turn(&bed, 200);
    wait_for_turning(&bed, true).await;
    sleep(TURN).await;
    let lives = watches.close().await;

    let through: Vec<usize> = (0..lives.len()).filter(|&n| lives[n].server.as_ref() == Some(&name)).collect();
    assert!(through.len() >= 5, "{} of 30 watches go through {name}", through.len());
    let broken: Vec<_> = lives.iter().enumerate().filter(|(_, life)| life.broken.is_some()).collect();
    assert!(broken.is_empty(), "{} of {} (through {name}: {}): {broken:?}", broken.len(), lives.len(), through.len());
    let silent: Vec<usize> = through.into_iter().filter(|&n| after[n].answered <= before[n].answered + 5).collect();
    assert!(silent.is_empty(), "watches {silent:?} carried no data while {name} was not ready");
}

#[tokio::test]
async fn a_server_that_comes_back_starts_slowly_where_that_is_asked_for() {
    let slow_start = Duration::from_secs(5);
    let bed = build(REST, slow_start).await;
    let agent = &bed.agents[DIRECTOR];
    // In the order of the nodes.
    let weights = || {
        let all = backends(agent, "api").unwrap().into_iter();
        let mut all: Vec<_> = all.map(|backend| (backend.address, backend.in_ring, backend.weight)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, in_ring, weight)| if in_ring { weight } else { 0 }).collect::<Vec<u16>>()
    };
    assert_eq!(weights(), [1, 1, 1], "whole from the agent's start on");
    turn(&bed, 500);
    wait_for_turning(&bed, false).await;
    assert_eq!(weights(), [1, 0, 1]);

    let ready = turn(&bed, 200);
    let mut seen = vec![weights()];
    let done = || {
        let now = weights();
        if seen.last() != Some(&now) {
            seen.push(now.clone());
        }
        async move {
            ensure!(now == [1, 1, 1], "{now:?}");
            Ok(())
        }
    };
    wait::until("the whole weight", PATIENCE, done).await.unwrap();
    let took = ready.elapsed();
    let steps = &seen[1..seen.len() - 1];
    assert!(steps.iter().all(|step| matches!(step[..], [10, 1..=9, 10])), "{seen:?}");
    assert!(steps.is_sorted() && steps.len() >= 5, "{seen:?}");
    assert!(took >= slow_start && took < slow_start + PATIENCE / 4, "{took:?}");
}
