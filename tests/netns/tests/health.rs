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
/// Time between two probes, and the limit of one.
const INTERVAL: Duration = Duration::from_millis(200);
/// Failures until a backend has failed, and successes until it is back.
const COUNT: u8 = 2;
/// Two probes, each of which may have begun just before the change and take its whole time: what a user is promised.
const TURN: Duration = Duration::from_millis(200 * 2 * 2);
/// Time between two requests of the stream.
const PERIOD: Duration = Duration::from_millis(20);
/// The node whose server is not ready for a while.
const TURNING: usize = 1;

/// Three nodes, all of them directors, with servers that are asked for `/readyz` by HTTPS and have to show a certificate
/// of the testbed's authority.
async fn build() -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 3, &VIPS[..1]).unwrap();
    let ca_file = bed.authority.certificate(&bed.scope).unwrap();
    bed.start_servers().unwrap();
    bed.start_agents(|topology, config| {
        let probe = ProbeConfig { interval: INTERVAL, timeout: INTERVAL, rise: COUNT, fall: COUNT };
        config.with_service(ServiceConfig {
            probe: Some(probe),
            question: format!("https: {{path: /readyz, caFile: \"{}\"}}", ca_file.display()),
            ..ServiceConfig::on_all_nodes(topology, "api", &VIPS[..1], Protocol::Tcp, PORT)
        })
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    bed.topology.enter_by(VIPS[0], &[0, 1, 2]).unwrap();
    wait_for_turning(&bed, true).await;
    bed
}

/// Waits until every director gives new connections to the turning node, or none does.
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
        wait::until("all directors to agree on the turning node", PATIENCE, look).await.unwrap();
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
    let bed = build().await;
    let name = bed.names()[TURNING].clone();
    let client = bed.client(VIPS[0], LIMIT).unwrap();
    let stream = Stream::start(&bed.runtime, client.clone(), PERIOD);
    sleep(INTERVAL * 2).await;

    let unready = turn(&bed, 500);
    wait_for_turning(&bed, false).await;
    let turned = unready.elapsed();
    sleep(TURN).await;
    let is_held = held_and_announced(&bed);
    let told = bed.agents[0].lbctl(&["backends"]).unwrap();
    let metric = bed.agents[0].metric("levee_service_probes_believed{service=\"api\"}").unwrap();

    let ready = turn(&bed, 200);
    wait_for_turning(&bed, true).await;
    let returned = ready.elapsed();
    let burst = Tally::of(&burst(&bed.runtime, &client, 60, 6).await);
    let attempts = stream.stop().await;

    let away = begun(&attempts, unready + TURN, ready);
    assert!(!away.answers.contains_key(&name) && away.answered() > 0, "{away:?} after {turned:?}");
    assert_eq!(is_held, (true, false), "held for the connections that it has, and not announced");
    assert!(told.contains("https :6443/readyz") && told.contains("failed: https GET /readyz answers 500"), "{told}");
    assert_eq!(metric, Some(1.0), "two of three are believed");
    assert!(burst.answers.contains_key(&name) && burst.failed() == 0, "{burst:?} after {returned:?}");
    assert_eq!(held_and_announced(&bed), (true, true));
    let all = Tally::of(&attempts);
    assert_eq!(all.failed(), 0, "{all:?}");
    assert!(turned < TURN + INTERVAL && returned < TURN + INTERVAL, "out after {turned:?}, back after {returned:?}");
}

#[tokio::test]
async fn open_connections_through_a_server_that_is_not_ready_live_on() {
    let bed = build().await;
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
