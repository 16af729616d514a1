//! A backend or an agent dies at once.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use lb_agent::model::Protocol;
use netns_tests::{
    cluster::{Cluster, PORT},
    config::{ProbeConfig, ServiceConfig},
    flood::{Flood, Plan},
    observe::{Counters, wait_for_hops},
    scope::Scope,
    topology::{Fabric, Topology},
    traffic::{Attempt, Stream, Tally},
    wait,
};
use tokio::time::sleep;

use crate::bed::{LIMIT, PATIENCE, VIP};

/// Time between two probes, and the limit of one.
const INTERVAL: Duration = Duration::from_millis(200);
/// Failures until a backend has failed.
const FALL: u8 = 2;
/// What a user is promised from the death of a backend on, with the last probe's own time.
const TURN: Duration = Duration::from_millis(2 * 200 * 2 + 200);
/// A connection whose SYN was lost takes longer: the client repeats it after a second (RFC 6298 section 2).
const REPEATED: Duration = Duration::from_secs(1);
/// Time between two new connections.
const PERIOD: Duration = Duration::from_millis(20);
/// The node that dies; the others direct.
const VICTIM: usize = 2;

/// Packets of the flood, to both ports together.
const PACKETS: u64 = 1_000_000;
const PORTS: [u16; 2] = [7, 8];

async fn build(nodes: u8, complete: impl Fn(&Topology) -> Vec<ServiceConfig>) -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, nodes, &[VIP]).unwrap();
    bed.start_servers().unwrap();
    bed.start_udp_echoes(&PORTS).unwrap();
    bed.start_agents(|topology, mut config| {
        config.services = complete(topology);
        config
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    bed
}

/// Whether a new connection met a dead backend: it failed, or its SYN had to be repeated.
fn is_bad(attempt: &Attempt) -> bool {
    attempt.outcome.is_err() || attempt.took >= REPEATED
}

/// Kills a backend and measures how long new connections suffer: that time, and how many did.
async fn outage(kill: impl Fn(&mut Cluster)) -> (Duration, usize) {
    let mut bed = build(3, |topology| {
        let probe = ProbeConfig { interval: INTERVAL, timeout: INTERVAL, rise: 2, fall: FALL };
        let service = ServiceConfig::on_all_nodes(topology, "api", &[VIP], Protocol::Tcp, PORT);
        vec![ServiceConfig { probe: Some(probe), ..service }]
    })
    .await;
    bed.topology.enter_by(VIP, &[0, 1]).unwrap();
    let (name, client) = (bed.names()[VICTIM].clone(), bed.client(VIP, LIMIT).unwrap());
    let all_serve = || async {
        let tally = Tally::of(&netns_tests::traffic::burst(&bed.runtime, &client, 24, 4).await);
        ensure!(tally.failed() == 0 && tally.answers.len() == 3, "{tally:?}");
        Ok(())
    };
    wait::until("answers by all servers", PATIENCE, all_serve).await.unwrap();

    let stream = Stream::start(&bed.runtime, client.clone(), PERIOD);
    sleep(INTERVAL * 2).await;
    let killed = Instant::now();
    kill(&mut bed);
    sleep(TURN * 3).await;
    let attempts = stream.stop().await;

    let after: Vec<_> = attempts.iter().filter(|attempt| attempt.started >= killed).collect();
    let last_bad = after.iter().rposition(|attempt| is_bad(attempt));
    let again = after.get(last_bad.map_or(0, |last| last + 1)).expect("a connection after the last bad one");
    let outage = again.started - killed;
    let bad = after.iter().filter(|attempt| is_bad(attempt)).count();
    assert!(bad > 0, "no connection met the dead backend");
    assert!(outage <= TURN, "new connections suffered for {outage:?}, more than {TURN:?}");
    let settled = Tally::of(after.into_iter().filter(|attempt| attempt.started > killed + TURN));
    assert!(settled.answered() > 0 && !settled.answers.contains_key(&name), "{settled:?}");
    (outage, bad)
}

#[tokio::test]
async fn new_connections_succeed_again_two_probes_after_a_server_was_killed() {
    let (outage, bad) = outage(|bed| bed.servers[VICTIM].kill().unwrap()).await;
    eprintln!("{bad} connections met the dead server, the last before {outage:?}");
}

#[tokio::test]
async fn new_connections_succeed_again_two_probes_after_a_node_lost_its_power() {
    let (outage, bad) = outage(|bed| bed.kill_node(VICTIM).unwrap()).await;
    eprintln!("{bad} connections met the dead node, the last before {outage:?}");
}

/// Waits until `seen` packets were answered.
async fn wait_for(seen: &AtomicU64, packets: u64) {
    let look = || async {
        let seen = seen.load(Ordering::Relaxed);
        ensure!(seen >= packets, "{seen}");
        Ok(())
    };
    wait::until(&format!("{packets} answers"), PATIENCE * 4, look).await.unwrap();
}

#[tokio::test]
async fn a_million_packets_meet_killed_agents_and_none_is_lost() {
    let mut bed = build(2, |topology| {
        let service =
            |port: u16| ServiceConfig::on_all_nodes(topology, &format!("echo-{port}"), &[VIP], Protocol::Udp, port);
        PORTS.map(service).into()
    })
    .await;
    bed.topology.enter_by(VIP, &[0]).unwrap();
    let drops = bed.topology.link_drops().unwrap();
    let counted: Vec<_> = bed.agents.iter().map(|agent| Counters::of(agent).unwrap()).collect();
    let seen = Arc::new(AtomicU64::new(0));
    let mut floods = PORTS.map(|port| {
        let seen = Arc::clone(&seen);
        // A rest leaves the agents a processor.
        let pause = Duration::from_millis(1);
        let plan = Plan { pause, window: 96, ..Plan::new(SocketAddr::new(VIP, port), PACKETS / 2) };
        let count = move |_, _: &str| {
            seen.fetch_add(1, Ordering::Relaxed);
            true
        };
        Flood::start(&bed.topology.client, plan, count).unwrap()
    });

    // Director and terminator, one after the other, and back amid the flood.
    wait_for(&seen, PACKETS / 4).await;
    for agent in &mut bed.agents {
        agent.process().kill().unwrap();
    }
    wait_for(&seen, PACKETS / 2).await;
    for agent in &mut bed.agents {
        agent.start_again(&bed.scope).unwrap();
        agent.wait_ready(PATIENCE).await.unwrap();
    }
    let reports = floods.each_mut().map(|flood| flood.join().unwrap());
    let ring_drops = bed.topology.link_drops().unwrap() - drops;
    eprintln!("ring drops {ring_drops}, {reports:?}");

    assert!(reports.iter().map(|report| report.sent).sum::<u64>() >= PACKETS);
    for report in &reports {
        assert!(report.lost <= ring_drops, "ring drops {ring_drops}, {report:?}");
        assert_eq!((report.answered + report.lost, report.servers.len()), (report.sent, 2), "{report:?}");
    }
    for (agent, then) in bed.agents.iter().zip(&counted) {
        let grown = Counters::of(agent).unwrap().since(then);
        assert_eq!(grown, grown.only(&["local", "gue", "terminated"]), "{grown:?}");
    }
}
