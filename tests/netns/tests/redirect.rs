//! Servers on another port than the service's, and connections that a node's own processes make to a VIP which they cannot
//! reach over the wire.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use lb_agent::model::{Delivery, Protocol};
use netns_tests::{
    cgroup::Cgroup,
    cluster::Cluster,
    config::{AgentConfig, ServiceConfig},
    echo::{self, Kind},
    observe::wait_for_hops,
    scope::Scope,
    topology::{Fabric, Topology, UPLINK, VIPS},
    wait,
};

const PATIENCE: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(2);
/// Port of the services.
const PORT: u16 = 8443;
/// Port of their servers, TCP and UDP.
const TARGET: u16 = 6443;

/// Three nodes with servers on [`TARGET`] for clients that know [`PORT`].
async fn three_nodes(fabric: Fabric, delivery: Delivery) -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), fabric, 3, &VIPS).unwrap();
    start_echoes(&mut bed);
    bed.start_agents(|topology, config| served(topology, config, delivery, &[])).unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    for vip in VIPS {
        bed.topology.enter_by(vip, &[0, 1, 2]).unwrap();
    }
    bed
}

/// TCP and UDP servers on every node, on [`TARGET`] of any address; for UDP of the VIPs and of the node's own.
fn start_echoes(bed: &mut Cluster) {
    for node in &bed.topology.nodes {
        let any = format!("[::]:{TARGET}").parse().unwrap();
        bed.echoes.push(echo::spawn(&bed.scope, &node.netns, Kind::Tcp, &node.name, &[any]).unwrap());
        let own = VIPS.into_iter().chain(node.addresses).map(|address| SocketAddr::new(address, TARGET));
        let own: Vec<_> = own.collect();
        bed.echoes.push(echo::spawn(&bed.scope, &node.netns, Kind::Udp, &node.name, &own).unwrap());
    }
}

fn served(topology: &Topology, config: AgentConfig, delivery: Delivery, extra: &[&str]) -> AgentConfig {
    let extra: Vec<String> =
        [&format!("targetPort: {TARGET}")[..]].iter().chain(extra).map(|&s| s.to_owned()).collect();
    let service = |name, protocol| ServiceConfig {
        delivery,
        extra: extra.clone(),
        ..ServiceConfig::on_all_nodes(topology, name, &VIPS, protocol, PORT)
    };
    config.with_service(service("tcp", Protocol::Tcp)).also(service("udp", Protocol::Udp))
}

/// With a service whose VIPs are announced already.
trait Also {
    fn also(self, service: ServiceConfig) -> Self;
}

impl Also for AgentConfig {
    fn also(mut self, service: ServiceConfig) -> Self {
        self.services.push(service);
        self
    }
}

/// Asks as often as it takes to meet every node, for as long as nothing fails.
fn meets_every_node(bed: &Cluster, vip: IpAddr) -> Result<(), String> {
    let target = SocketAddr::new(vip, PORT);
    let all: BTreeSet<String> = bed.names().into_iter().collect();
    let (mut by_tcp, mut by_udp) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..60 {
        let answers =
            bed.topology.client.enter(|| (echo::ask_tcp(target, 3_000, LIMIT), echo::ask_udp(target, 100, LIMIT)));
        let (tcp, udp) = answers.map_err(|error| format!("{error:#}"))?;
        by_tcp.insert(tcp.map_err(|error| format!("TCP to {target}: {error:#}"))?);
        by_udp.insert(udp.map_err(|error| format!("UDP to {target}: {error:#}"))?);
    }
    if by_tcp == all && by_udp == all { Ok(()) } else { Err(format!("met {by_tcp:?} and {by_udp:?}")) }
}

async fn servers_answer_on_their_own_port(fabric: Fabric, delivery: Delivery) {
    let mut bed = three_nodes(fabric, delivery).await;
    for vip in VIPS {
        let met = meets_every_node(&bed, vip);
        met.unwrap_or_else(|error| panic!("{error}\n{}", bed.log_tails()));
    }
    // The device completes the checksums from here on, if it is told to, and takes segments that are cut later.
    for node in &bed.topology.nodes {
        node.netns.run("ethtool", &["-K", UPLINK, "tx", "on"]).unwrap();
    }
    for agent in &mut bed.agents {
        agent.process().kill().unwrap();
    }
    for vip in VIPS {
        meets_every_node(&bed, vip).unwrap();
        let exchange = || echo::exchange_tcp(SocketAddr::new(vip, PORT), 64_000, 20, LIMIT);
        bed.topology.client.enter(exchange).unwrap().unwrap();
    }
}

#[tokio::test]
async fn servers_on_another_port_answer_through_l2() {
    servers_answer_on_their_own_port(Fabric::Segment, Delivery::L2).await;
}

#[tokio::test]
async fn servers_on_another_port_answer_through_gue() {
    servers_answer_on_their_own_port(Fabric::Routed, Delivery::Gue).await;
}

#[tokio::test]
async fn servers_on_another_port_answer_through_ipip() {
    servers_answer_on_their_own_port(Fabric::Routed, Delivery::Ipip).await;
}

/// Generic mode sees segments that were merged: one header, and a checksum that is still to be made.
#[tokio::test]
async fn servers_on_another_port_answer_behind_offloads_that_merge() {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 1, &VIPS).unwrap();
    start_echoes(&mut bed);
    let node = &bed.topology.nodes[0];
    node.netns.run("ethtool", &["-K", UPLINK, "gro", "on", "tx", "on"]).unwrap();
    bed.start_agents(|topology, config| {
        let config = served(topology, config, Delivery::Local, &[]);
        AgentConfig { mode: "generic".to_owned(), ..config }
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for vip in VIPS {
        bed.topology.enter_by(vip, &[0]).unwrap();
        meets_every_node(&bed, vip).unwrap_or_else(|error| panic!("{error}\n{}", bed.log_tails()));
        let exchange = || echo::exchange_tcp(SocketAddr::new(vip, PORT), 64_000, 50, LIMIT);
        bed.topology.client.enter(exchange).unwrap().unwrap();
    }
}

/// The VIPs lead nowhere. Nodes 1 and 2 have servers; the agent of node 3 translates connections of the cgroup's processes,
/// which stand for those of node 3: the other agents attach nowhere.
async fn without_a_way(scope: Scope, cgroup: &Cgroup) -> Cluster {
    let mut bed = Cluster::build(scope, Fabric::Routed, 3, &VIPS).unwrap();
    start_echoes(&mut bed);
    let extra = format!("cgroupPath: {}\n", cgroup.path().display());
    bed.start_agents(|topology, config| {
        let is_third = config.node.0 == "node-3";
        let keys: &[&str] = if is_third { &["connectTranslation: on"] } else { &[] };
        let mut config = served(topology, config, Delivery::Auto, keys);
        for service in &mut config.services {
            // Of both families, so that each VIP has backends of its own.
            let nodes = topology.nodes[..2].iter();
            service.backends = nodes.flat_map(|node| node.addresses.map(|address| (address, 1))).collect();
        }
        config.extra = extra.clone();
        config
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    bed
}

#[tokio::test]
async fn a_process_reaches_a_live_backend_of_a_vip_that_leads_nowhere() {
    let scope = Scope::new().unwrap();
    let cgroup = Cgroup::create(&scope).unwrap();
    let mut bed = without_a_way(scope, &cgroup).await;
    let ask = |bed: &Cluster, vip: IpAddr, over: &[&str]| {
        let target = SocketAddr::new(vip, PORT).to_string();
        cgroup.testpeer(&bed.topology.nodes[2].netns, &[&["ask", "--to", &target], over].concat())
    };
    for vip in VIPS {
        let outside =
            bed.topology.nodes[2].netns.enter(|| echo::ask_tcp(SocketAddr::new(vip, PORT), 10, LIMIT)).unwrap();
        assert!(outside.is_err(), "{vip} is reached from outside the cgroup: {outside:?}");
        for over in [&[][..], &["--udp"]] {
            let mut met = BTreeSet::new();
            for _ in 0..30 {
                let answer = ask(&bed, vip, over).unwrap_or_else(|error| panic!("{error:#}"));
                let (server, peer) = answer.trim().split_once(' ').unwrap();
                assert_eq!(peer, SocketAddr::new(vip, PORT).to_string(), "the program sees the VIP");
                met.insert(server.to_owned());
            }
            assert_eq!(met, BTreeSet::from(["node-1".to_owned(), "node-2".to_owned()]), "{vip} {over:?}");
        }
    }
    let shown = bed.agents[2].lbctl(&["explain", "tcp"]).unwrap();
    assert!(shown.contains("connections of this node's own processes go to"), "{shown}");

    // A backend dies. Once the probes know (2 failures, 200 ms apart), every connection goes to the other.
    let died = Instant::now();
    bed.echoes[0].kill().unwrap();
    wait_for_ways(&bed, 1).await;
    assert!(died.elapsed() < 20 * Duration::from_millis(200), "it took {:?}", died.elapsed());
    let other_answers = |bed: &Cluster| {
        for vip in VIPS {
            for _ in 0..10 {
                let answer = ask(bed, vip, &[]).unwrap_or_else(|error| panic!("{error:#}"));
                assert!(answer.starts_with("node-2 "), "{answer}");
            }
        }
    };
    other_answers(&bed);
    // No agent, the same; the next one goes on with what it finds.
    bed.agents[2].process().kill().unwrap();
    other_answers(&bed);
    bed.agents[2].start_again(&bed.scope).unwrap();
    bed.agents[2].wait_ready(PATIENCE).await.unwrap();
    other_answers(&bed);
    let node = &bed.topology.nodes[0];
    let any = format!("[::]:{TARGET}").parse().unwrap();
    bed.echoes[0] = echo::spawn(&bed.scope, &node.netns, Kind::Tcp, &node.name, &[any]).unwrap();
    wait_for_ways(&bed, 2).await;

    bed.agents[2].process().terminate().unwrap();
    ask(&bed, VIPS[0], &[]).unwrap();
    bed.agents[2].lbctl(&["detach"]).unwrap();
    assert!(ask(&bed, VIPS[0], &[]).is_err(), "a detached node translates nothing");
}

/// Waits until connections of node 3 go to so many backends of each VIP.
async fn wait_for_ways(bed: &Cluster, count: usize) {
    let look = || {
        let view = bed.agents[2].lbctl_json(&["services"]);
        async move {
            let view = view?;
            let services = view["services"].as_array().into_iter().flatten().filter(|service| service["name"] == "tcp");
            let ways: Vec<_> = services.map(|service| service["connectsTo"].as_array().map_or(0, Vec::len)).collect();
            anyhow::ensure!(ways == [count; VIPS.len()], "connections go to {ways:?} backends: {view}");
            Ok(())
        }
    };
    wait::until("connections to go elsewhere", PATIENCE, look).await.unwrap();
}
