//! Real TCP and UDP through a director to backends on this and on other nodes, by every delivery, in every combination
//! of families.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_agent::model::{Delivery, Protocol};
use netns_tests::{
    cluster::{Cluster, PORT},
    config::{AgentConfig, ServiceConfig},
    echo,
    observe::{Counters, backends, counters_at_rest, wait_for_hops, wait_until_settled},
    scope::{Scope, residue},
    topology::{CLIENT, Fabric, Topology, VIPS},
    traffic::{Tally, burst},
    wait,
};

/// Limit of a request: two retransmissions of a SYN fit.
const LIMIT: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(20);
/// How long flows are remembered: soon every slot is settled, and nothing is sent on by a second chance.
const FLOW_TIMEOUT: Duration = Duration::from_secs(1);
/// Port of the UDP service.
const ECHO: u16 = 7;
/// Payload bytes of a datagram. The largest, with number and name in the answer, fills the client's MTU over IPv6:
/// 1500 - 40 - 8 - 8 - 7.
const SIZES: [usize; 6] = [0, 1, 63, 500, 1400, 1437];

/// Three nodes, all of them backends by their address of one family. The VIPs' traffic enters by the first, statically.
async fn build(fabric: Fabric, delivery: Delivery, family: usize) -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), fabric, 3, &VIPS).unwrap();
    bed.start_servers().unwrap();
    bed.start_udp_echoes(&[ECHO]).unwrap();
    let complete = |topology: &Topology, config: AgentConfig| {
        let service = |name: &str, protocol, port| ServiceConfig {
            delivery,
            backends: topology.nodes.iter().map(|node| (node.addresses[family], 1)).collect(),
            flow_timeout: Some(FLOW_TIMEOUT),
            ..ServiceConfig::on_all_nodes(topology, name, &VIPS, protocol, port)
        };
        let mut config = config.with_service(service("api", Protocol::Tcp, PORT));
        config.services.push(service("echo", Protocol::Udp, ECHO));
        config
    };
    bed.start_agents(complete).unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    wait_until_settled(&bed.agents, PATIENCE).await.unwrap();
    for vip in VIPS {
        bed.topology.enter_by(vip, &[0]).unwrap();
    }
    bed
}

/// The client reaches every backend over TCP and UDP, servers see the client itself, and the director counts `sent`
/// where a backend's node counts `taken`.
async fn every_backend_answers(fabric: Fabric, delivery: Delivery, family: usize, sent: &str, taken: &str) {
    let mut bed = build(fabric, delivery, family).await;
    let before = counters(&bed).await;
    for vip in VIPS {
        answers_over_udp(&mut bed, vip).await;
        answers_over_tls(&bed, vip).await;
    }
    let grown: Vec<_> = counters(&bed).await.iter().zip(&before).map(|(now, then)| now.since(then)).collect();
    // Probes connect to the nodes' addresses, not to the VIP, so every packet that is counted is the client's.
    let own = ["local", sent].map(|label| grown[0].get(label));
    assert!(own.iter().all(|&packets| packets > 0), "the director: {grown:?}");
    for node in &grown[1..] {
        assert!(node.get(taken) > 0, "a backend's node: {grown:?}");
        assert_eq!(*node, node.only(&[taken]), "a backend's node: {grown:?}");
    }
    assert_eq!(grown[0], grown[0].only(&["local", sent]), "the director: {grown:?}");
    let arrived: u64 = grown[1..].iter().map(|node| node.get(taken)).sum();
    assert_eq!(arrived, grown[0].get(sent), "what is sent arrives: {grown:?}");
    for backend in ["api", "echo"].iter().flat_map(|service| backends(&bed.agents[0], service).unwrap()) {
        assert!(backend.packets > 0 && backend.bytes > 0, "{backend:?}");
    }
    let series = format!("levee_verdicts_total{{verdict=\"{sent}\"}}");
    let shown = bed.agents[0].metric(&series).unwrap().unwrap();
    assert!(shown >= grown[0].get(sent) as f64, "{series} {shown}, {grown:?}");
    let prefix = bed.scope.prefix().to_owned();
    drop(bed);
    assert_eq!(residue(&prefix), Vec::<String>::new());
}

async fn counters(bed: &Cluster) -> Vec<Counters> {
    counters_at_rest(&bed.agents, PATIENCE).await.unwrap()
}

async fn answers_over_udp(bed: &mut Cluster, vip: IpAddr) {
    let target = SocketAddr::new(vip, ECHO);
    let mut servers = BTreeSet::new();
    // Each question comes from another port, and so may go to another backend.
    for round in 0..12 {
        for size in SIZES {
            let ask = || echo::ask_udp(target, size, LIMIT);
            let answered = bed.topology.client.enter(ask).unwrap();
            let what = format!("round {round}, {size} bytes to {target}");
            servers.insert(answered.unwrap_or_else(|error| panic!("{what}: {error:#}\n{}", bed.log_tails())));
        }
    }
    assert_eq!(servers.into_iter().collect::<Vec<_>>(), bed.names(), "by {target}");
}

async fn answers_over_tls(bed: &Cluster, vip: IpAddr) {
    let client = bed.client(vip, LIMIT).unwrap();
    let tally = Tally::of(&burst(&bed.runtime, &client, 60, 8).await);
    assert_eq!((tally.answered(), tally.failed()), (60, 0), "{tally:?}");
    assert_eq!(tally.answers.keys().cloned().collect::<Vec<_>>(), bed.names(), "by {vip}");

    let source = CLIENT[usize::from(vip.is_ipv6())];
    for port in 30_000..30_006 {
        let client = client.clone();
        let asked = bed.runtime.spawn(async move { client.connect(port).await?.ask(1).await });
        let greeting = asked.await.unwrap().unwrap();
        assert_eq!(greeting.client, SocketAddr::new(source, port), "{greeting:?}");
    }
}

#[tokio::test]
async fn l2_delivers_on_a_segment() {
    every_backend_answers(Fabric::Segment, Delivery::L2, 0, "l2", "local").await;
}

#[tokio::test]
async fn l2_delivers_to_backends_that_are_known_by_ipv6_addresses() {
    every_backend_answers(Fabric::Segment, Delivery::L2, 1, "l2", "local").await;
}

#[tokio::test]
async fn ipip_delivers_both_families_over_ipv4() {
    every_backend_answers(Fabric::Routed, Delivery::Ipip, 0, "ipip", "terminated").await;
}

#[tokio::test]
async fn ipip_delivers_both_families_over_ipv6() {
    every_backend_answers(Fabric::Routed, Delivery::Ipip, 1, "ipip", "terminated").await;
}

#[tokio::test]
async fn gue_delivers_both_families_over_ipv4() {
    every_backend_answers(Fabric::Routed, Delivery::Gue, 0, "gue", "terminated").await;
}

#[tokio::test]
async fn gue_delivers_both_families_over_ipv6() {
    every_backend_answers(Fabric::Routed, Delivery::Gue, 1, "gue", "terminated").await;
}

#[tokio::test]
async fn tunnels_also_work_between_neighbours() {
    every_backend_answers(Fabric::Segment, Delivery::Gue, 0, "gue", "terminated").await;
}

#[tokio::test]
async fn auto_rewrites_mac_addresses_on_a_segment() {
    every_backend_answers(Fabric::Segment, Delivery::Auto, 0, "l2", "local").await;
}

#[tokio::test]
async fn auto_uses_gue_behind_a_router() {
    every_backend_answers(Fabric::Routed, Delivery::Auto, 0, "gue", "terminated").await;
}

/// A drained backend's node does not choose itself, but takes what a director sends that has not drained it yet.
#[tokio::test]
async fn what_a_director_chose_is_taken_by_a_node_that_would_choose_another() {
    for (fabric, taken) in [(Fabric::Segment, "directed"), (Fabric::Routed, "terminated")] {
        let bed = build(fabric, Delivery::Auto, 0).await;
        let node = &bed.topology.nodes[1];
        let mut config = AgentConfig::for_node(&bed.scope, &bed.topology, 1).unwrap();
        let service = ServiceConfig::on_all_nodes(&bed.topology, "api", &VIPS, Protocol::Tcp, PORT);
        config = config.with_service(ServiceConfig { flow_timeout: Some(FLOW_TIMEOUT), ..service });
        config.services[0].backends[1].1 = 0;
        bed.agents[1].reconfigure(&config).unwrap();
        let drained = || async {
            let own = backends(&bed.agents[1], "api")?;
            let own = own.iter().find(|backend| backend.address == node.addresses[0]);
            anyhow::ensure!(own.is_some_and(|backend| !backend.in_ring), "{own:?}");
            Ok(())
        };
        wait::until("node-2 to be drained", PATIENCE, drained).await.unwrap();
        wait_until_settled(&bed.agents, PATIENCE).await.unwrap();
        let before = Counters::of(&bed.agents[1]).unwrap();
        for vip in VIPS {
            answers_over_tls(&bed, vip).await;
        }
        let grown = Counters::of(&bed.agents[1]).unwrap().since(&before);
        assert!(grown.get(taken) > 0, "{grown:?}");
        assert_eq!(grown, grown.only(&[taken]));
    }
}

/// Directors agree: whichever a flow enters by, its backend is the same.
#[tokio::test]
async fn a_flow_has_the_same_backend_through_every_director() {
    let bed = build(Fabric::Routed, Delivery::Auto, 0).await;
    for vip in VIPS {
        let client = bed.client(vip, LIMIT).unwrap();
        let mut answers = Vec::new();
        for director in 0..3 {
            bed.topology.enter_by(vip, &[director]).unwrap();
            let mut servers = Vec::new();
            for port in 31_000..31_012 {
                let client = client.clone();
                let asked = bed.runtime.spawn(async move { client.connect(port).await?.ask(1).await });
                servers.push(asked.await.unwrap().unwrap().server);
            }
            answers.push(servers);
        }
        assert_eq!((&answers[0], &answers[0]), (&answers[1], &answers[2]), "{vip}");
        assert!(answers[0].iter().collect::<BTreeSet<_>>().len() > 1, "{answers:?}");
    }
}
