//! The configuration changes while packets flow: none is lost, none goes where neither the old nor the new state sends
//! it, and a bad edit changes nothing.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use lb_agent::{
    inspect::{Inspector, Rings, ServiceView},
    model::{Delivery, Protocol},
};
use netns_tests::{
    agent::Agent,
    cluster::Cluster,
    config::{AgentConfig, ServiceConfig},
    echo::{self, Kind},
    flood::{Flood, Plan, Report},
    observe::{Counters, inspect, wait_for_hops},
    scope::Scope,
    topology::{Fabric, Topology, VIPS},
    wait,
};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two edits.
const PERIOD: Duration = Duration::from_millis(50);
/// Packets to both services together.
const PACKETS: u64 = 1_000_000;
/// Rest of a flood after 64 packets: two floods without one leave an agent no processor on a small machine.
const PAUSE: Duration = Duration::from_millis(1);
/// Node that traffic enters by; it is no backend.
const DIRECTOR: usize = 0;
/// Weights tell generations apart; 1..=1000 are allowed.
const WEIGHTS: u64 = 900;

/// A service whose backends change with every generation.
struct Changing {
    name: &'static str,
    port: u16,
    /// Indices of the nodes that serve it.
    nodes: &'static [usize],
    /// How many of them are backends at a time.
    at_once: usize,
}

/// No node serves both, so an answer by a node of the other service betrays the other's ring.
const CHANGING: [Changing; 2] = [
    Changing { name: "first", port: 7, nodes: &[1, 2, 3, 4], at_once: 2 },
    Changing { name: "second", port: 8, nodes: &[5, 6, 7], at_once: 1 },
];

impl Changing {
    /// The nodes that are backends in `generation`: one leaves and one comes each time.
    fn at(&self, generation: u64) -> BTreeSet<usize> {
        let first = usize::try_from(generation).unwrap();
        (0..self.at_once).map(|n| self.nodes[(first + n) % self.nodes.len()]).collect()
    }

    fn config(&self, topology: &Topology, nodes: &BTreeSet<usize>, weight: u16) -> ServiceConfig {
        ServiceConfig {
            // Small, so that the test can read it again and again.
            ring_size: 256,
            delivery: Delivery::Gue,
            backends: nodes.iter().map(|&node| (topology.nodes[node].addresses[0], weight)).collect(),
            ..ServiceConfig::on_all_nodes(topology, self.name, &VIPS[..1], Protocol::Udp, self.port)
        }
    }
}

/// The director's configuration in `generation`.
fn generation(bed: &Cluster, generation: u64) -> AgentConfig {
    let mut config = AgentConfig::for_node(&bed.scope, &bed.topology, DIRECTOR).unwrap();
    let weight = u16::try_from(generation % WEIGHTS + 1).unwrap();
    let services = CHANGING.iter();
    config.services.extend(services.map(|service| service.config(&bed.topology, &service.at(generation), weight)));
    "capacities: {services: 16, backends: 64, ringSlots: 4096}\n".clone_into(&mut config.extra);
    config
}

/// What is known about the generation in force: at least `seen`, at most `written`.
#[derive(Debug, Default)]
struct Known {
    written: AtomicU64,
    seen: [AtomicU64; 2],
}

/// Eight nodes; the first directs, the others hold the VIP with a configuration that does not change.
async fn changing_bed() -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 8, &VIPS[..1]).unwrap();
    for (service, node) in CHANGING.iter().flat_map(|service| service.nodes.iter().map(move |node| (service, *node))) {
        let (target, name) = (SocketAddr::new(VIPS[0], service.port), bed.topology.nodes[node].name.clone());
        // A name of its own for every service: answering on the wrong port shows, too.
        let name = format!("{name}:{}", service.port);
        let echo = echo::spawn(&bed.scope, &bed.topology.nodes[node].netns, Kind::Udp, &name, &[target]);
        bed.echoes.push(echo.unwrap());
    }
    let first = generation(&bed, 0);
    bed.start_agents(|topology, mut config| {
        if config.node == first.node {
            return first.clone();
        }
        let all = |service: &Changing| {
            let nodes = service.nodes.iter().copied().collect();
            service.config(topology, &nodes, 1)
        };
        config.services.extend(CHANGING.iter().map(all));
        config.extra.clone_from(&first.extra);
        config
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    wait_for_hops(&bed.agents[DIRECTOR], PATIENCE).await.unwrap();
    bed.topology.enter_by(VIPS[0], &[DIRECTOR]).unwrap();
    bed
}

/// Floods a service; every answer has to come from a backend of a generation that can have been in force.
fn flood(bed: &Cluster, which: usize, known: &Arc<Known>, packets: u64) -> Flood {
    let service = &CHANGING[which];
    let plan = Plan { pause: PAUSE, ..Plan::new(SocketAddr::new(VIPS[0], service.port), packets) };
    let known = Arc::clone(known);
    let names = bed.names();
    // The generation in force when the window was sent is not older than what was seen before.
    let mut floor = 0;
    let is_right = move |number: u64, server: &str| {
        let written = known.written.load(Ordering::SeqCst);
        let mut allowed = (floor..=written).flat_map(|generation| service.at(generation));
        let right = allowed.any(|node| format!("{}:{}", names[node], service.port) == server);
        if (number + 1).is_multiple_of(plan.window as u64) {
            floor = known.seen[which].load(Ordering::SeqCst);
        }
        right
    };
    Flood::start(&bed.topology.client, plan, is_right).unwrap()
}

/// The services as published, in the order of their names.
fn services(agent: &Agent) -> Vec<ServiceView> {
    let maps = Inspector::open(agent.pin_path()).unwrap();
    maps.read(Rings::Read).unwrap().services
}

/// Notes the newest written generation whose weights and ring the maps hold.
fn look(bed: &Cluster, known: &Known) {
    let written = known.written.load(Ordering::SeqCst);
    for (which, view) in services(&bed.agents[DIRECTOR]).iter().enumerate() {
        let service = &CHANGING[which];
        let addresses = |nodes: BTreeSet<usize>| -> BTreeSet<IpAddr> {
            nodes.into_iter().map(|node| bed.topology.nodes[node].addresses[0]).collect()
        };
        let owners = view.ring.as_ref().unwrap().shares.iter();
        let owners: BTreeSet<_> = owners.filter(|share| share.slots > 0).map(|share| share.address).collect();
        let weights: BTreeSet<_> =
            view.backends.iter().filter(|backend| backend.in_ring).map(|backend| u64::from(backend.weight)).collect();
        let newest = (known.seen[which].load(Ordering::SeqCst)..=written).rev().find(|&generation| {
            weights.iter().eq([&(generation % WEIGHTS + 1)]) && owners == addresses(service.at(generation))
        });
        if let Some(generation) = newest {
            known.seen[which].store(generation, Ordering::SeqCst);
        }
    }
}

fn check(report: &Report, ring_drops: u64) {
    assert!(report.lost <= ring_drops, "ring drops {ring_drops}, {report:?}");
    assert_eq!((report.misdirected, report.stray), (0, 0), "{report:?}");
    assert_eq!(report.answered + report.lost, report.sent, "{report:?}");
}

#[tokio::test]
async fn a_million_packets_meet_old_or_new_backends_while_two_services_change_every_50_ms() {
    let bed = changing_bed().await;
    let known = Arc::new(Known::default());
    let published = |views: Vec<ServiceView>| -> Vec<u32> { views.iter().map(|view| view.generation).collect() };
    let before = published(services(&bed.agents[DIRECTOR]));
    let drops = bed.topology.link_drops().unwrap();
    let counted: Vec<_> = bed.agents.iter().map(|agent| Counters::of(agent).unwrap()).collect();

    let start = Instant::now();
    let mut floods = [0, 1].map(|which| flood(&bed, which, &known, PACKETS / 2));
    let mut written = 0;
    while !floods.iter().all(Flood::is_finished) {
        written += 1;
        // Before the file is: the agent may be faster than this thread.
        known.written.store(written, Ordering::SeqCst);
        bed.agents[DIRECTOR].reconfigure(&generation(&bed, written)).unwrap();
        // No catching up: two edits at once are one to the agent.
        let edited = Instant::now();
        while edited.elapsed() < PERIOD {
            look(&bed, &known);
            sleep(Duration::from_millis(5));
        }
    }
    let applied: Vec<_> = published(services(&bed.agents[DIRECTOR]))
        .iter()
        .zip(&before)
        .map(|(now, then)| u64::from(now.wrapping_sub(*then) & 0xff_ffff))
        .collect();
    let took = start.elapsed();
    let reports = floods.each_mut().map(|flood| flood.join().unwrap());
    let ring_drops = bed.topology.link_drops().unwrap() - drops;
    eprintln!("{written} generations in {took:?}, applied {applied:?}, ring drops {ring_drops}, {reports:?}");

    for (agent, then) in bed.agents.iter().zip(&counted) {
        let grown = Counters::of(agent).unwrap().since(then);
        assert_eq!(grown, grown.only(&["gue", "terminated"]), "{grown:?}");
    }
    for report in &reports {
        check(report, ring_drops);
    }
    assert!(reports.iter().map(|report| report.sent).sum::<u64>() >= PACKETS);
    for applied in applied {
        assert!(applied * 100 >= written * 95 && applied <= written, "{applied} of {written} generations");
    }
}

/// A node that serves the services `named` for the VIPs, each on a port of its own from 7 on.
async fn small_bed() -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 2, &VIPS).unwrap();
    bed.start_udp_echoes(&[7, 8]).unwrap();
    bed.start_agents(|topology, mut config| {
        config.services.push(echo_service(topology, "stays", 7));
        config
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    for vip in VIPS {
        bed.topology.enter_by(vip, &[0]).unwrap();
    }
    bed
}

fn echo_service(topology: &Topology, name: &str, port: u16) -> ServiceConfig {
    ServiceConfig::on_all_nodes(topology, name, &VIPS, Protocol::Udp, port)
}

/// Configuration of the first node with `stays` and these further services, as (name, port).
fn with_further(bed: &Cluster, node: usize, further: &[(&str, u16)]) -> AgentConfig {
    let mut config = AgentConfig::for_node(&bed.scope, &bed.topology, node).unwrap();
    let services = [("stays", 7)].iter().chain(further);
    config.services.extend(services.map(|(name, port)| echo_service(&bed.topology, name, *port)));
    config
}

async fn wait_for_metric(agent: &Agent, series: &str, value: f64) {
    let look = || async {
        let seen = agent.metric(series)?;
        anyhow::ensure!(seen == Some(value), "{seen:?}");
        Ok(())
    };
    wait::until(&format!("{series} {value}"), PATIENCE, look).await.unwrap();
}

async fn wait_for_services(agent: &Agent, names: &[&str]) {
    let look = || async {
        let services = inspect(agent)?.services;
        let seen: BTreeSet<_> = services.iter().map(|service| service.name.clone()).collect();
        anyhow::ensure!(seen.iter().eq(names), "{seen:?}");
        Ok(())
    };
    wait::until(&format!("the services {names:?}"), PATIENCE, look).await.unwrap();
}

#[tokio::test]
async fn a_bad_edit_leaves_the_last_good_state_in_force() {
    let _kept = promises::keeps(&["F25"], "the agent");
    let mut bed = small_bed().await;
    let target = SocketAddr::new(VIPS[0], 7);
    let flood = Flood::start(&bed.topology.client, Plan::new(target, u64::MAX), |_, _| true).unwrap();
    wait_for_metric(&bed.agents[0], "levee_config_stale", 0.0).await;
    let mut bad = with_further(&bed, 0, &[]);
    "colour: blue\n".clone_into(&mut bad.extra);
    bed.agents[0].reconfigure(&bad).unwrap();
    wait_for_metric(&bed.agents[0], "levee_config_stale", 1.0).await;

    let line = bad.to_string().lines().position(|line| line == "colour: blue").unwrap() + 1;
    let place = format!("{}:{line}:1: unknown key `colour`", bed.agents[0].file().display());
    let log = fs::read_to_string(bed.agents[0].process().log()).unwrap();
    assert!(log.contains(&place), "no `{place}` in {log}");
    assert!(inspect(&bed.agents[0]).unwrap().services.iter().all(|service| service.name == "stays"));

    bed.agents[0].reconfigure(&with_further(&bed, 0, &[("new", 8)])).unwrap();
    wait_for_metric(&bed.agents[0], "levee_config_stale", 0.0).await;
    wait_for_services(&bed.agents[0], &["new", "stays"]).await;
    let report = flood.stop().unwrap();
    assert_eq!((report.lost, report.misdirected), (0, 0), "{report:?}");
    assert!(report.answered > 0, "{report:?}");
}

#[tokio::test]
async fn sighup_loads_the_configuration_again() {
    let mut bed = small_bed().await;
    let before = bed.agents[0].metric("levee_config_generation").unwrap().unwrap();
    bed.agents[0].process().signal(Signal::SIGHUP).unwrap();
    wait_for_metric(&bed.agents[0], "levee_config_generation", before + 1.0).await;
    bed.agents[0].process().signal(Signal::SIGHUP).unwrap();
    wait_for_metric(&bed.agents[0], "levee_config_generation", before + 2.0).await;
}

#[tokio::test]
async fn services_come_and_go_without_touching_the_traffic_of_another() {
    let bed = small_bed().await;
    let flood = |vip| Flood::start(&bed.topology.client, Plan::new(SocketAddr::new(vip, 7), u64::MAX), |_, _| true);
    let floods = VIPS.map(|vip| flood(vip).unwrap());
    let limit = Duration::from_millis(500);
    for vip in VIPS {
        let ask = || echo::ask_udp(SocketAddr::new(vip, 8), 16, limit);
        for _ in 0..3 {
            for (agent, node) in bed.agents.iter().zip(0..) {
                agent.reconfigure(&with_further(&bed, node, &[("comes", 8)])).unwrap();
            }
            for agent in &bed.agents {
                wait_for_services(agent, &["comes", "stays"]).await;
                wait_for_hops(agent, PATIENCE).await.unwrap();
            }
            bed.topology.client.enter(ask).unwrap().unwrap();
            for (agent, node) in bed.agents.iter().zip(0..) {
                agent.reconfigure(&with_further(&bed, node, &[])).unwrap();
            }
            for agent in &bed.agents {
                wait_for_services(agent, &["stays"]).await;
            }
            assert!(bed.topology.client.enter(ask).unwrap().is_err(), "nobody serves port 8 any more");
        }
    }
    for flood in floods {
        let report = flood.stop().unwrap();
        assert_eq!((report.lost, report.misdirected), (0, 0), "{report:?}");
        assert!(report.answered > 0, "{report:?}");
    }
}
