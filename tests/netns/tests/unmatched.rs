//! What is for a VIP but for none of its services: dropped and counted, unless configured otherwise; ping works.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_agent::model::Protocol;
use netns_tests::{
    cluster::{Cluster, PORT},
    config::{AgentConfig, ServiceConfig},
    echo::{self, Kind},
    observe::{Counters, wait_for_hops},
    scope::Scope,
    topology::{Fabric, Topology, VIPS},
    wait,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long silence has to last.
const SILENCE: Duration = Duration::from_millis(600);
/// Port of a server on the node that is none of the VIP's services, as ssh would be.
const OTHER: u16 = 2222;

fn config(topology: &Topology, config: AgentConfig, drop_unmatched: bool) -> AgentConfig {
    config.with_service(ServiceConfig {
        drop_unmatched,
        ..ServiceConfig::on_all_nodes(topology, "api", &VIPS, Protocol::Tcp, PORT)
    })
}

/// Two nodes with a server on every address; the VIPs' traffic enters by the first.
async fn build() -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 2, &VIPS).unwrap();
    bed.start_servers().unwrap();
    for node in &bed.topology.nodes {
        let any = SocketAddr::from(([0u16; 8], OTHER));
        bed.echoes.push(echo::spawn(&bed.scope, &node.netns, Kind::Tcp, &node.name, &[any]).unwrap());
    }
    bed.start_agents(|topology, own| config(topology, own, true)).unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    wait_for_hops(&bed.agents[0], PATIENCE).await.unwrap();
    for vip in VIPS {
        bed.topology.enter_by(vip, &[0]).unwrap();
    }
    // The VIPs are on lo, so that the node's stack would answer for every port.
    for vip in VIPS {
        let own = || echo::ask_tcp(SocketAddr::new(vip, OTHER), 8, SILENCE);
        let look = || async { bed.topology.nodes[0].netns.enter(own)? };
        wait::until("the VIP on the node itself", PATIENCE, look).await.unwrap();
    }
    bed
}

fn ask(bed: &Cluster, address: IpAddr) -> anyhow::Result<String> {
    let target = SocketAddr::new(address, OTHER);
    bed.topology.client.enter(|| echo::ask_tcp(target, 8, SILENCE)).unwrap()
}

#[tokio::test]
async fn a_port_without_service_is_silent_and_counted() {
    let bed = build().await;
    let node = bed.topology.nodes[0].addresses;
    for (vip, own) in VIPS.into_iter().zip(node) {
        let before = Counters::of(&bed.agents[0]).unwrap();
        let error = format!("{:#}", ask(&bed, vip).unwrap_err());
        assert!(error.contains("timed out"), "{error}");
        let udp = || echo::ask_udp(SocketAddr::new(vip, OTHER), 8, SILENCE);
        assert!(bed.topology.client.enter(udp).unwrap().is_err());
        let grown = Counters::of(&bed.agents[0]).unwrap().since(&before);
        // A SYN at least, and the datagram.
        assert!(grown.get("no_service") >= 2, "{grown:?}");
        assert_eq!(grown, grown.only(&["no_service"]));
        assert_eq!(ask(&bed, own).unwrap(), "node-1", "the node's own address is none of ours");
    }
}

#[tokio::test]
async fn drop_unmatched_false_lets_other_ports_through() {
    let bed = build().await;
    let own = AgentConfig::for_node(&bed.scope, &bed.topology, 0).unwrap();
    bed.agents[0].reconfigure(&config(&bed.topology, own, false)).unwrap();
    for vip in VIPS {
        let before = Counters::of(&bed.agents[0]).unwrap();
        let look = || async { ask(&bed, vip) };
        let (server, _) = wait::until("an answer from another port", PATIENCE, look).await.unwrap();
        assert_eq!(server, "node-1");
        assert!(Counters::of(&bed.agents[0]).unwrap().since(&before).get("unmatched") > 0);
    }
}

#[tokio::test]
async fn a_holder_answers_pings_to_the_vip() {
    let bed = build().await;
    for vip in VIPS {
        let before = Counters::of(&bed.agents[0]).unwrap();
        let arguments = ["-c", "3", "-i", "0.1", "-W", "2", &vip.to_string()];
        bed.topology.client.run("ping", &arguments).unwrap();
        let grown = Counters::of(&bed.agents[0]).unwrap().since(&before);
        assert_eq!((grown.get("icmp"), &grown), (3, &grown.only(&["icmp"])));
    }
}
