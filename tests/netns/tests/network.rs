//! The network changes under a director: traffic follows without a new configuration.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::ensure;
use lb_agent::{
    inspect::BackendView,
    model::{MacAddr, Protocol},
};
use netns_tests::{
    cluster::Cluster,
    config::ServiceConfig,
    echo,
    link::{End, attach_pass, connect},
    netns::Netns,
    observe::{backends, wait_for_hops},
    scope::Scope,
    topology::{Fabric, UPLINK, VIPS},
    wait,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long traffic may take to follow a change that the kernel knows of.
const FOLLOW: Duration = Duration::from_secs(3);
const ECHO: u16 = 7;
/// A second link of the director, for routes to move to.
const SECOND: &str = "eth1";

/// Echo servers on all nodes, whose traffic enters by the first. Nothing is probed: only netlink tells of changes.
fn build(fabric: Fabric, nodes: u8) -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), fabric, nodes, &VIPS).unwrap();
    bed.start_udp_echoes(&[ECHO]).unwrap();
    bed
}

async fn start(bed: &mut Cluster, interfaces: &[&str]) {
    bed.start_agents(|topology, mut config| {
        if config.node.0 == "node-1" {
            config.interfaces = interfaces.iter().map(ToString::to_string).collect();
        }
        config.with_service(ServiceConfig::on_all_nodes(topology, "echo", &VIPS, Protocol::Udp, ECHO))
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for vip in VIPS {
        bed.topology.enter_by(vip, &[0]).unwrap();
    }
}

/// Waits until every flow of a few is answered, and all nodes answer some.
async fn wait_for_answers(bed: &Cluster, limit: Duration) {
    for vip in VIPS {
        let target = SocketAddr::new(vip, ECHO);
        let ask = || -> anyhow::Result<BTreeSet<String>> {
            let answers = (0..24).map(|_| echo::ask_udp(target, 100, Duration::from_millis(200)));
            answers.collect()
        };
        let look = || async {
            let servers = bed.topology.client.enter(ask)??;
            ensure!(servers.into_iter().eq(bed.names()), "not all nodes answer");
            Ok(())
        };
        let what = format!("answers of all nodes by {target}");
        let waited = wait::until(&what, limit, look).await;
        let hops = backends(&bed.agents[0], "echo");
        waited.unwrap_or_else(|error| panic!("{error:#}\n{hops:#?}"));
    }
}

/// The director's entries for a backend, one per VIP.
fn entries(bed: &Cluster, address: IpAddr) -> Vec<BackendView> {
    let all = backends(&bed.agents[0], "echo").unwrap().into_iter();
    all.filter(|backend| backend.address == address).collect()
}

async fn wait_for_mac(bed: &Cluster, address: IpAddr, mac: MacAddr, limit: Duration) {
    let look = || async {
        let entries = entries(bed, address);
        let follows = entries.iter().all(|backend| backend.hop.next_hop_mac == Some(mac));
        ensure!(follows && !entries.is_empty(), "{entries:?}");
        Ok(())
    };
    wait::until(&format!("{address} at {mac}"), limit, look).await.unwrap();
}

/// Gives an interface another MAC address and lets it tell its neighbours, as hosts with failover do.
fn change_mac(netns: &Netns, device: &str) -> MacAddr {
    for notify in ["ipv4/conf/{}/arp_notify", "ipv6/conf/{}/ndisc_notify"] {
        netns.sysctl(&format!("net/{}", notify.replace("{}", device)), "1").unwrap();
    }
    netns.ip(&format!("link set {device} address 02:00:00:00:77:01")).unwrap();
    MacAddr([2, 0, 0, 0, 0x77, 1])
}

#[tokio::test]
async fn traffic_follows_a_backend_to_another_mac_address() {
    let mut bed = build(Fabric::Segment, 2);
    start(&mut bed, &[UPLINK]).await;
    wait_for_hops(&bed.agents[0], PATIENCE).await.unwrap();
    wait_for_answers(&bed, PATIENCE).await;
    let node = &bed.topology.nodes[1];
    let mac = change_mac(&node.netns, UPLINK);
    wait_for_mac(&bed, node.addresses[0], mac, FOLLOW).await;
    wait_for_answers(&bed, FOLLOW).await;
}

#[tokio::test]
async fn traffic_follows_a_backend_that_does_not_tell_its_new_mac_address() {
    let mut bed = build(Fabric::Segment, 2);
    let [director, backend] = &bed.topology.nodes[..] else { unreachable!("there are two nodes") };
    // The kernel believes what it learnt for 30 s by default, which is longer than a test should last.
    for netns in [&director.netns, &backend.netns] {
        for family in ["ipv4", "ipv6"] {
            let path = format!("net/{family}/neigh/{UPLINK}/base_reachable_time_ms");
            netns.sysctl(&path, "1000").unwrap();
        }
    }
    start(&mut bed, &[UPLINK]).await;
    wait_for_hops(&bed.agents[0], PATIENCE).await.unwrap();
    wait_for_answers(&bed, PATIENCE).await;
    let node = &bed.topology.nodes[1];
    node.netns.ip("link set eth0 address 02:00:00:00:77:02").unwrap();
    wait_for_mac(&bed, node.addresses[0], MacAddr([2, 0, 0, 0, 0x77, 2]), PATIENCE).await;
    wait_for_answers(&bed, FOLLOW).await;
}

#[tokio::test]
async fn traffic_follows_a_router_to_another_mac_address() {
    let mut bed = build(Fabric::Routed, 2);
    start(&mut bed, &[UPLINK]).await;
    wait_for_hops(&bed.agents[0], PATIENCE).await.unwrap();
    wait_for_answers(&bed, PATIENCE).await;
    let mac = change_mac(&bed.topology.router, "node1");
    wait_for_mac(&bed, bed.topology.nodes[1].addresses[0], mac, FOLLOW).await;
    wait_for_answers(&bed, FOLLOW).await;
}

#[tokio::test]
async fn traffic_follows_a_route_to_another_interface() {
    let mut bed = build(Fabric::Routed, 2);
    let (netns, router) = (&bed.topology.nodes[0].netns, &bed.topology.router);
    let far = End { netns: router, device: "second" };
    connect(End { netns, device: SECOND }, far, 1600).unwrap();
    attach_pass(&bed.scope, far).unwrap();
    netns.ip(&format!("addr add 10.0.101.2/24 dev {SECOND}")).unwrap();
    router.ip("addr add 10.0.101.1/24 dev second").unwrap();
    start(&mut bed, &[UPLINK, SECOND]).await;
    wait_for_hops(&bed.agents[0], PATIENCE).await.unwrap();
    wait_for_answers(&bed, PATIENCE).await;

    let (netns, backend) = (&bed.topology.nodes[0].netns, bed.topology.nodes[1].addresses[0]);
    let link = |key: &str| {
        let shown = netns.ip(&format!("-j link show {SECOND}")).unwrap();
        let links: serde_json::Value = serde_json::from_str(&shown).unwrap();
        links[0][key].clone()
    };
    netns.ip(&format!("route add {backend} via 10.0.101.1 dev {SECOND}")).unwrap();
    let look = || async {
        let entries = entries(&bed, backend);
        let index = link("ifindex").as_u64();
        let moved = entries.iter().all(|entry| entry.hop.interface.map(u64::from) == index);
        ensure!(moved && entries.iter().all(|entry| entry.hop.next_hop_mac.is_some()), "{entries:?}");
        Ok(())
    };
    wait::until("the way by eth1", FOLLOW, look).await.unwrap();
    wait_for_answers(&bed, FOLLOW).await;

    netns.ip(&format!("route del {backend}")).unwrap();
    let look = || async {
        let entries = entries(&bed, backend);
        let index = link("ifindex").as_u64();
        ensure!(entries.iter().all(|entry| entry.hop.interface.map(u64::from) != index), "{entries:?}");
        Ok(())
    };
    wait::until("the way by eth0", FOLLOW, look).await.unwrap();
    wait_for_answers(&bed, FOLLOW).await;
}

#[tokio::test]
async fn an_interface_that_vanishes_and_returns_carries_the_program_again() {
    let mut bed = build(Fabric::Routed, 2);
    start(&mut bed, &[UPLINK]).await;
    wait_for_hops(&bed.agents[0], PATIENCE).await.unwrap();
    wait_for_answers(&bed, PATIENCE).await;
    bed.topology.replace_link(&bed.scope, 0).unwrap();
    let look = || async {
        let status = bed.agents[0].lbctl_json(&["status"])?;
        let interface = &status["status"]["interfaces"][0];
        ensure!(interface["mode"] == "native", "{interface}");
        let links: serde_json::Value = serde_json::from_str(&bed.topology.nodes[0].netns.ip("-j link show eth0")?)?;
        ensure!(links[0].get("xdp").is_some(), "{links}");
        Ok(())
    };
    wait::until("the program on eth0", FOLLOW, look).await.unwrap();
    for vip in VIPS {
        bed.topology.enter_by(vip, &[0]).unwrap();
    }
    wait_for_answers(&bed, PATIENCE).await;
}

#[tokio::test]
async fn a_backend_that_was_silent_at_the_start_gets_its_flows_when_it_answers() {
    let mut bed = build(Fabric::Segment, 2);
    // Its agent will not find its way either, and need not.
    bed.topology.nodes[1].set_link(false).unwrap();
    start(&mut bed, &[UPLINK]).await;
    let silent = entries(&bed, bed.topology.nodes[1].addresses[0]);
    assert!(silent.iter().all(|entry| entry.hop.mode == "unknown"), "{silent:?}");
    bed.topology.nodes[1].set_link(true).unwrap();
    wait_for_hops(&bed.agents[0], PATIENCE).await.unwrap();
    wait_for_answers(&bed, PATIENCE).await;
}
