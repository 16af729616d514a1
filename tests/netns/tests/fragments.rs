//! Datagrams that come in fragments, and clients that a service does not admit, with real traffic.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use lb_agent::model::{Delivery, Protocol};
use netns_tests::{
    cluster::Cluster,
    config::ServiceConfig,
    echo,
    observe::{Counters, wait_for_hops},
    scope::Scope,
    topology::{Fabric, UPLINK, VIPS},
};

const PATIENCE: Duration = Duration::from_secs(40);
const LIMIT: Duration = Duration::from_secs(4);
/// How long a datagram that must not be answered is waited for.
const SILENCE: Duration = Duration::from_millis(300);
/// Port of the service that admits everybody.
const ECHO: u16 = 7;
/// Port of the service that admits nobody there is.
const CLOSED: u16 = 9;
/// Payload bytes of a datagram: three fragments at the client's MTU of 1500.
const SIZE: usize = 4_000;

async fn build(fabric: Fabric, delivery: Delivery) -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), fabric, 3, &VIPS).unwrap();
    bed.start_udp_echoes(&[ECHO, CLOSED]).unwrap();
    for node in &bed.topology.nodes {
        // Or the first large answer over IPv6 is lost to the client's smaller MTU.
        node.netns.sysctl(&format!("net/ipv6/conf/{UPLINK}/mtu"), "1500").unwrap();
    }
    bed.start_agents(|topology, config| {
        let service = |name, port| ServiceConfig {
            delivery,
            ..ServiceConfig::on_all_nodes(topology, name, &VIPS, Protocol::Udp, port)
        };
        let mut config = config.with_service(service("echo", ECHO));
        let source_ranges = ["203.0.113.0/24", "2001:db8:ffff::/48"].map(str::to_owned).to_vec();
        config.services.push(ServiceConfig { source_ranges, ..service("closed", CLOSED) });
        config
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    bed
}

/// What each node has counted.
fn counters(bed: &Cluster) -> Vec<Counters> {
    bed.agents.iter().map(|agent| Counters::of(agent).unwrap().since(&Counters::default())).collect()
}

/// Datagrams of either family come back whole, whichever director they entered by.
async fn large_datagrams_are_answered(fabric: Fabric, delivery: Delivery) {
    let bed = build(fabric, delivery).await;
    for directors in [&[0][..], &[1], &[0, 1]] {
        for vip in VIPS {
            bed.topology.enter_by(vip, directors).unwrap();
            let target = SocketAddr::new(vip, ECHO);
            let mut servers = BTreeSet::new();
            // Each question comes from another port, and so may go to another backend.
            for round in 0..24 {
                let answered = bed.topology.client.enter(|| echo::ask_udp(target, SIZE, LIMIT)).unwrap();
                let what = format!("round {round} to {target} by {directors:?}");
                servers.insert(answered.unwrap_or_else(|error| panic!("{what}: {error:#}\n{:#?}", counters(&bed))));
            }
            assert_eq!(servers.into_iter().collect::<Vec<_>>(), bed.names(), "by {target}");
        }
    }
}

#[tokio::test]
async fn fragments_reach_their_backend_on_a_segment() {
    large_datagrams_are_answered(Fabric::Segment, Delivery::L2).await;
}

#[tokio::test]
async fn fragments_reach_their_backend_through_tunnels() {
    large_datagrams_are_answered(Fabric::Routed, Delivery::Gue).await;
}

#[tokio::test]
async fn a_client_outside_of_the_source_ranges_is_refused_and_counted() {
    let bed = build(Fabric::Routed, Delivery::Gue).await;
    for vip in VIPS {
        bed.topology.enter_by(vip, &[0]).unwrap();
        let before = Counters::of(&bed.agents[0]).unwrap();
        let ask = |port, limit| bed.topology.client.enter(|| echo::ask_udp(SocketAddr::new(vip, port), 100, limit));
        assert!(ask(CLOSED, SILENCE).unwrap().is_err(), "by {vip}");
        ask(ECHO, LIMIT).unwrap().unwrap();
        let grown = Counters::of(&bed.agents[0]).unwrap().since(&before);
        assert_eq!(grown.get("source_denied"), 1, "{grown:?}");
    }
    let series = "levee_drops_total{reason=\"source_denied\"}";
    assert_eq!(bed.agents[0].metric(series).unwrap(), Some(2.0));
}
