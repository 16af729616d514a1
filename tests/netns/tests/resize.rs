//! An agent comes back with other capacities while packets flow and flows are recorded: the maps are built anew beside
//! those in force, and no packet and no connection notices.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::ensure;
use lb_agent::{
    dataplane::{PinDirectory, Tables},
    model::{Delivery, Protocol},
};
use netns_tests::{
    cluster::{Cluster, PORT},
    config::{AgentConfig, ServiceConfig},
    flood::{Flood, Plan},
    observe::wait_for_hops,
    scope::Scope,
    topology::{Fabric, Topology, VIPS},
    traffic::{LongLived, Stream, Tally},
    wait,
};

const PATIENCE: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(5);
/// Between two requests on a connection.
const PULSE: Duration = Duration::from_millis(100);
/// Node that traffic enters by; it is no backend.
const DIRECTOR: usize = 0;
const ECHO: u16 = 7;
/// Rest of the flood after 64 packets, which leaves the agent a processor.
const PAUSE: Duration = Duration::from_millis(1);

/// The backends take new flows by these weights.
fn config(topology: &Topology, config: AgentConfig, weights: [u16; 3]) -> AgentConfig {
    let backends = topology.nodes.iter().skip(1).zip(weights).map(|(node, weight)| (node.addresses[0], weight));
    let service = |name, protocol, port| ServiceConfig {
        delivery: Delivery::Gue,
        backends: backends.clone().collect(),
        ..ServiceConfig::on_all_nodes(topology, name, &VIPS[..1], protocol, port)
    };
    let services = [service("api", Protocol::Tcp, PORT), service("echo", Protocol::Udp, ECHO)];
    AgentConfig { services: services.into(), ..config }
}

fn of_director(bed: &Cluster, weights: [u16; 3]) -> AgentConfig {
    config(&bed.topology, AgentConfig::for_node(&bed.scope, &bed.topology, DIRECTOR).unwrap(), weights)
}

async fn build() -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 4, &VIPS[..1]).unwrap();
    bed.start_servers().unwrap();
    bed.start_udp_echoes(&[ECHO]).unwrap();
    bed.start_agents(|topology, empty| config(topology, empty, [1, 1, 1])).unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    wait_for_hops(&bed.agents[DIRECTOR], PATIENCE).await.unwrap();
    bed.topology.enter_by(VIPS[0], &[DIRECTOR]).unwrap();
    bed
}

/// The director's flows in either table: new ones, old ones.
fn flows(bed: &Cluster) -> [usize; 2] {
    let pins = PinDirectory::new(bed.agents[DIRECTOR].pin_path());
    let tables = Tables::open(|name| pins.map(name)).unwrap();
    [tables.new_flows.keys().count(), tables.old_flows.keys().count()]
}

/// Entries that a map of the director has room for.
fn capacity(bed: &Cluster, map: &str) -> u64 {
    let maps = bed.agents[DIRECTOR].lbctl_json(&["maps"]).unwrap();
    let of_map = maps["maps"].as_array().unwrap().iter().find(|of_map| of_map["name"] == map);
    of_map.unwrap()["capacity"].as_u64().unwrap()
}

async fn all_speak(open: &LongLived, answers: u64) {
    let look = || async {
        let silent = open.lives().iter().filter(|life| life.answered < answers).count();
        ensure!(silent == 0, "{silent} connections without {answers} answers");
        Ok(())
    };
    wait::until("answers on every connection", PATIENCE, look).await.unwrap();
}

#[tokio::test]
async fn nobody_notices_that_an_agent_comes_back_with_other_capacities() {
    let mut bed = build().await;
    let client = bed.client(VIPS[0], LIMIT).unwrap();
    let before = LongLived::open(&bed.runtime, &client, 100, 20_000, PULSE);
    all_speak(&before, 2).await;

    // The first server takes no new flows, but keeps those it has.
    bed.agents[DIRECTOR].reconfigure(&of_director(&bed, [0, 1, 1])).unwrap();
    let recorded = || async {
        let [_, old] = flows(&bed);
        ensure!(old >= 20, "{old} old flows");
        Ok(())
    };
    wait::until("old flows are recorded", PATIENCE, recorded).await.unwrap();
    let behind = LongLived::open(&bed.runtime, &client, 100, 21_000, PULSE);
    all_speak(&behind, 2).await;
    let [new, old] = flows(&bed);
    assert!(new >= 20 && old >= 20, "{new} new flows, {old} old ones");
    assert_ne!(["BACKENDS", "OLD_FLOWS"].map(|map| capacity(&bed, map)), [128, 4096]);

    let plan = Plan { pause: PAUSE, ..Plan::new(SocketAddr::new(VIPS[0], ECHO), u64::MAX) };
    let flood = Flood::start(&bed.topology.client, plan, |_, _| true).unwrap();
    let stream = Stream::start(&bed.runtime, client, Duration::from_millis(10));
    let began = Instant::now();
    bed.agents[DIRECTOR].process().terminate().unwrap();
    let mut resized = of_director(&bed, [0, 1, 1]);
    "capacities: {services: 32, backends: 128, ringSlots: 65536, flows: 4096}\n".clone_into(&mut resized.extra);
    bed.agents[DIRECTOR].reconfigure(&resized).unwrap();
    bed.agents[DIRECTOR].start_again(&bed.scope).unwrap();
    bed.agents[DIRECTOR].wait_ready(PATIENCE).await.unwrap();
    assert_eq!(["BACKENDS", "OLD_FLOWS"].map(|map| capacity(&bed, map)), [128, 4096]);
    for open in [&before, &behind] {
        let answered = open.lives().iter().map(|life| life.answered).max().unwrap_or(0);
        all_speak(open, answered + 5).await;
    }
    let took = began.elapsed();

    let tally = Tally::of(&stream.stop().await);
    assert!(tally.failed() == 0 && tally.answered() > 50, "{tally:?}");
    let report = flood.stop().unwrap();
    assert_eq!((report.lost, report.misdirected), (0, 0), "within {took:?}: {report:?}");
    assert!(report.sent > 10_000, "{report:?}");
    let mut servers = [BTreeSet::new(), BTreeSet::new()];
    for (open, servers) in [before, behind].into_iter().zip(&mut servers) {
        for life in open.close().await {
            assert!(life.broken.is_none(), "{life:?}");
            servers.extend(life.server);
        }
    }
    let adopted = bed.agents[DIRECTOR].lbctl_json(&["status"]).unwrap()["status"]["dataplane"]["adopted"].clone();
    assert_eq!(adopted, true);
    let names = bed.names();
    assert_eq!(servers.map(Vec::from_iter), [names[1..].to_vec(), names[2..].to_vec()]);
}
