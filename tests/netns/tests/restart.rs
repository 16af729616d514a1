//! An agent is killed, terminated or hangs, and starts again: what it pinned forwards on, what it holds it goes on to
//! hold, and no connection notices.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    net::{IpAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::ensure;
use lb_agent::model::Protocol;
use netns_tests::{
    agent::Agent,
    cluster::{Cluster, PORT},
    config::ServiceConfig,
    monitor::{Monitor, Of},
    netns::NetnsHandle,
    observe::{backends, choices, inspect, wait_for_hops},
    routing::Suite,
    scope::Scope,
    topology::{CLIENT, Fabric, VIPS},
    traffic::{LongLived, Stream, Tally},
    wait,
};
use nix::sys::signal::Signal;
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(20);
/// Two retransmissions of a SYN (1 s, 3 s) would pass as an answer, so a loss shows as a slow request instead.
const LIMIT: Duration = Duration::from_secs(5);
/// A request that took longer had a packet lost: TCP waits 200 ms at least before it sends again.
const SLOW: Duration = Duration::from_millis(900);
/// Lifetime of the announcements.
const LIFETIME: Duration = Duration::from_secs(3);
/// The default of that, which a restart is shorter than.
const USUAL_LIFETIME: Duration = Duration::from_secs(30);
/// The node whose agent is tormented.
const VICTIM: usize = 2;
/// Open connections to each VIP, from this port on: a third of them reaches the victim's server.
const OPEN: u16 = 100;
const FIRST_PORT: u16 = 20_000;
/// Flows whose backends are compared.
const FLOWS: u16 = 10_000;

/// Three nodes that announce the VIPs by BIRD, all of them directors. The last is left out of the ways into the cluster if
/// `only_others`, whatever it announces.
async fn build(only_others: bool, lifetime: Duration) -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 3, &VIPS).unwrap();
    bed.start_servers().unwrap();
    if only_others {
        for vip in VIPS {
            bed.topology.enter_by(vip, &[0, 1]).unwrap();
        }
    } else {
        bed.start_routing(Suite::Bird, Suite::Bird).unwrap();
    }
    bed.start_agents(|topology, config| {
        let mut config = config.with_service(ServiceConfig::on_all_nodes(topology, "api", &VIPS, Protocol::Tcp, PORT));
        config.announcements[0].lifetime = lifetime;
        config
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    bed.wait_for_routes(if only_others { 2 } else { 3 }, PATIENCE).await.unwrap();
    bed
}

/// Looks at a node's held routes all the time.
struct Watch {
    stop: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    thread: thread::JoinHandle<Vec<String>>,
}

impl Watch {
    fn start(inside: NetnsHandle) -> Self {
        let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, looking) = (Arc::clone(&stop), Arc::clone(&looks));
        let thread = thread::spawn(move || {
            inside.join().unwrap();
            let mut gone = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                gone.extend(VIPS.into_iter().filter(|&vip| !is_held(vip)).map(|vip| vip.to_string()));
                looking.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
            }
            gone
        });
        Self { stop, looks, thread }
    }

    /// How often it looked, and the VIPs that it found not held.
    fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let gone = self.thread.join().unwrap();
        (self.looks.load(Ordering::Relaxed), gone)
    }
}

/// Whether this thread's namespace has the agent's `local` route (protocol 76) to `vip`.
fn is_held(vip: IpAddr) -> bool {
    let family = if vip.is_ipv4() { "-4" } else { "-6" };
    let mut command = std::process::Command::new("ip");
    command.args([family, "route", "show", "table", "local", "proto", "76"]);
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .any(|line| line.split_whitespace().any(|word| word == vip.to_string()))
}

/// Whether a node has the VIPs on `lo`: all of them, or none.
async fn wait_for_addresses(bed: &Cluster, there: bool, limit: Duration) {
    let look = || async {
        let addresses = bed.topology.nodes[VICTIM].netns.ip("-o addr show dev lo")?;
        let count = VIPS.iter().filter(|vip| addresses.contains(&format!(" {vip}/"))).count();
        ensure!(count == if there { VIPS.len() } else { 0 }, "{addresses}");
        Ok(())
    };
    let what = format!("VIPs on lo: {there}");
    wait::until(&what, limit, look).await.unwrap();
}

/// Index and generation of every backend with its address: what flows are pinned to.
fn ids(agent: &Agent) -> Vec<(u32, u16, IpAddr)> {
    let backends = backends(agent, "api").unwrap().into_iter();
    backends.map(|backend| (backend.index, backend.generation, backend.address)).collect()
}

/// Generation of every ring: grows with each publication.
fn rings(agent: &Agent) -> Vec<u32> {
    let services = inspect(agent).unwrap().services;
    services.iter().map(|service| service.generation).collect()
}

/// Starts the victim's agent again and checks that it took over what was there.
async fn start_again(bed: &mut Cluster) {
    let (before, published) = (ids(&bed.agents[VICTIM]), rings(&bed.agents[VICTIM]));
    assert_eq!(before.len(), 2 * 3, "{before:?}");
    bed.agents[VICTIM].start_again(&bed.scope).unwrap();
    bed.agents[VICTIM].wait_ready(PATIENCE).await.unwrap();
    let agent = &bed.agents[VICTIM];
    assert_eq!(ids(agent), before, "the backends keep their ids");
    assert_eq!(rings(agent), published, "rings that are as they should be are left alone");
    let status = agent.lbctl_json(&["status"]).unwrap();
    assert_eq!(status["status"]["dataplane"]["adopted"], true, "{status}");
    wait_for_addresses(bed, true, LIFETIME).await;
}

async fn kill(bed: &mut Cluster) {
    bed.agents[VICTIM].process().kill().unwrap();
    // Longer than the announcement lives.
    wait_for_addresses(bed, false, LIFETIME * 2).await;
}

async fn terminate(bed: &mut Cluster) {
    bed.agents[VICTIM].process().terminate().unwrap();
}

/// A hang for longer than the lifetime, the end of it, and then the end of the process.
async fn freeze(bed: &mut Cluster) {
    bed.agents[VICTIM].freeze().unwrap();
    wait_for_addresses(bed, false, LIFETIME * 2).await;
    bed.agents[VICTIM].thaw().unwrap();
    wait_for_addresses(bed, true, LIFETIME).await;
    bed.agents[VICTIM].process().kill().unwrap();
}

/// Does to the victim's agent what `torment` does, starts it again, and lets nobody notice.
async fn nobody_notices(torment: impl AsyncFn(&mut Cluster)) {
    let mut bed = build(true, LIFETIME).await;
    let clients = VIPS.map(|vip| bed.client(vip, LIMIT).unwrap());
    let pulse = Duration::from_millis(100);
    let open = clients.each_ref().map(|client| LongLived::open(&bed.runtime, client, OPEN, FIRST_PORT, pulse));
    let streams = clients.map(|client| Stream::start(&bed.runtime, client, Duration::from_millis(20)));
    let all_speak = || async {
        let silent = open.iter().flat_map(LongLived::lives).filter(|life| life.answered < 2).count();
        ensure!(silent == 0, "{silent} connections without two answers");
        Ok(())
    };
    wait::until("answers on every connection", PATIENCE, all_speak).await.unwrap();
    let watch = Watch::start(bed.topology.nodes[VICTIM].netns.handle().unwrap());

    torment(&mut bed).await;
    start_again(&mut bed).await;
    sleep(Duration::from_secs(1)).await;

    let (looks, gone) = watch.end();
    assert!(looks > 10 && gone.is_empty(), "{looks} looks, held routes gone: {gone:?}");
    for stream in streams {
        let attempts = stream.stop().await;
        let tally = Tally::of(&attempts);
        assert_eq!(tally.failed(), 0, "{tally:?}");
        assert_eq!(tally.answers.keys().cloned().collect::<Vec<_>>(), bed.names());
        let slow = attempts.iter().filter(|attempt| attempt.took > SLOW).count();
        assert_eq!(slow, 0, "{slow} requests took longer than {SLOW:?}");
    }
    let mut of_victim = 0;
    for connections in open {
        for life in connections.close().await {
            assert!(life.broken.is_none() && life.answered > 10, "{life:?}");
            of_victim += usize::from(life.server.as_ref() == Some(&bed.topology.nodes[VICTIM].name));
        }
    }
    assert!(of_victim >= 50, "only {of_victim} connections to the victim's server");
}

#[tokio::test]
async fn nobody_notices_that_an_agent_is_killed_and_starts_again() {
    nobody_notices(kill).await;
}

#[tokio::test]
async fn nobody_notices_that_an_agent_is_terminated_and_starts_again() {
    nobody_notices(terminate).await;
}

#[tokio::test]
async fn nobody_notices_that_an_agent_hangs_until_its_announcement_expires() {
    nobody_notices(freeze).await;
}

/// Connections that stay open, to each VIP.
fn open_connections(bed: &Cluster) -> Vec<LongLived> {
    let pulse = Duration::from_millis(100);
    let open = |&vip: &IpAddr| LongLived::open(&bed.runtime, &bed.client(vip, LIMIT).unwrap(), OPEN, FIRST_PORT, pulse);
    VIPS.iter().map(open).collect()
}

/// Waits until every connection was answered `count` times more, or broke.
async fn carry_data(connections: &[LongLived], count: u64) {
    let answered = || connections.iter().flat_map(LongLived::lives);
    let before: Vec<_> = answered().map(|life| life.answered).collect();
    let look = || async {
        let silent =
            answered().zip(&before).filter(|(now, then)| now.broken.is_none() && now.answered < **then + count);
        let silent = silent.count();
        ensure!(silent == 0, "{silent} connections are silent");
        Ok(())
    };
    wait::until("answers on every connection", PATIENCE, look).await.unwrap();
}

/// One agent after the other ends and starts again, as an upgrade has it.
#[tokio::test]
async fn a_rolling_restart_withdraws_nothing_and_breaks_no_connection() {
    let _kept = promises::keeps(&["F09"], "BIRD");
    let mut bed = build(false, USUAL_LIFETIME).await;
    let connections = open_connections(&bed);
    carry_data(&connections, 2).await;
    let received = |bed: &Cluster| bed.routing.as_ref().unwrap().received(&bed.scope).unwrap();
    let before = received(&bed);
    assert!(before.0 >= 6, "three nodes announced two VIPs: {before:?}");
    let watch = |netns, of| Monitor::start(&bed.scope, netns, of).unwrap();
    let nodes: Vec<_> = bed.topology.nodes.iter().map(|node| watch(&node.netns, Of::Addresses)).collect();
    let router = watch(&bed.topology.router, Of::Routes);

    for agent in &mut bed.agents {
        agent.process().terminate().unwrap();
        carry_data(&connections, 3).await;
        agent.start_again(&bed.scope).unwrap();
        agent.wait_ready(PATIENCE).await.unwrap();
        carry_data(&connections, 3).await;
    }

    for vip in VIPS {
        for node in &nodes {
            let renewed = || async {
                let told = node.told_of(vip)?;
                ensure!(!told.is_empty(), "nothing");
                Ok(())
            };
            wait::until("the new agent to renew the address", PATIENCE, renewed).await.unwrap();
            assert_eq!(node.deleted(vip).unwrap(), Vec::<String>::new());
        }
        assert_eq!(router.told_of(vip).unwrap(), Vec::<String>::new(), "no route changed");
    }
    assert_eq!(received(&bed), before, "updates and withdrawals that the router got");
    for connections in connections {
        let broken: Vec<_> = connections.close().await.into_iter().filter(|life| life.broken.is_some()).collect();
        assert!(broken.is_empty(), "{broken:?}");
    }
}

#[tokio::test]
async fn a_restarted_director_gives_ten_thousand_flows_the_same_backends() {
    let mut bed = build(true, USUAL_LIFETIME).await;
    let (IpAddr::V4(client), IpAddr::V4(vip)) = (CLIENT[0], VIPS[0]) else { panic!("{CLIENT:?}, {VIPS:?}") };
    let flows: Vec<_> = (1..=FLOWS).map(|port| SocketAddrV4::new(client, port)).collect();
    let choose = |agent: &Agent| choices(agent, &flows, SocketAddrV4::new(vip, PORT)).unwrap();
    let before = choose(&bed.agents[0]);
    for node in &bed.topology.nodes {
        let count = before.iter().filter(|chosen| **chosen == Some(node.addresses[0])).count();
        assert!(count > usize::from(FLOWS) / 4, "{count} flows go to {}", node.name);
    }
    for cold in [false, true] {
        let agent = &mut bed.agents[0];
        agent.process().kill().unwrap();
        if cold {
            agent.lbctl(&["detach"]).unwrap();
        }
        agent.start_again(&bed.scope).unwrap();
        agent.wait_ready(PATIENCE).await.unwrap();
        assert!(choose(&bed.agents[0]) == before, "another choice; from nothing: {cold}");
    }
    // For a moment the other one may have found this node silent.
    let agrees = || async {
        ensure!(choose(&bed.agents[1]) == before, "it chooses otherwise");
        Ok(())
    };
    wait::until("another director to agree", PATIENCE, agrees).await.unwrap();
}

/// The whole way: the router stops sending to the node whose address expired, and the held route serves what the other
/// directors send.
#[tokio::test]
async fn the_network_leaves_out_a_node_whose_agent_hangs_and_takes_it_back() {
    let _kept = promises::keeps(&["F06"], "routing daemons");
    let mut bed = build(false, LIFETIME).await;
    let streams: Vec<_> = VIPS
        .iter()
        .map(|&vip| Stream::start(&bed.runtime, bed.client(vip, LIMIT).unwrap(), Duration::from_millis(20)))
        .collect();
    bed.agents[VICTIM].process().signal(Signal::SIGSTOP).unwrap();
    wait_for_addresses(&bed, false, LIFETIME * 2).await;
    bed.wait_for_routes(2, PATIENCE).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    bed.agents[VICTIM].thaw().unwrap();
    wait_for_addresses(&bed, true, LIFETIME).await;
    bed.wait_for_routes(3, PATIENCE).await.unwrap();
    for stream in streams {
        let tally = Tally::of(&stream.stop().await);
        assert_eq!(tally.failed(), 0, "{tally:?}");
        assert_eq!(tally.answers.keys().cloned().collect::<Vec<_>>(), bed.names());
    }
}
