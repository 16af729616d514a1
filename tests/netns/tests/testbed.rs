//! The testbed itself, without agents: plain routing reaches every node, clients notice what breaks, nothing is left.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{net::SocketAddr, time::Duration};

use netns_tests::{
    client::Failure,
    cluster::Cluster,
    echo::{self, Kind},
    flood::{Flood, Plan},
    link::{End, attach, attach_pass, connect},
    netns::Netns,
    pass::Action,
    routing::Suite,
    scope::{Scope, residue},
    topology::{Fabric, Topology, VIPS},
    traffic::{Life, LongLived, Stream, Tally, burst},
    wait,
};

/// Limit of a request.
const LIMIT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster without agents, whose nodes hold the VIPs and run servers.
fn build(fabric: Fabric, router: Suite, nodes: Suite) -> Cluster {
    let mut cluster = Cluster::build(Scope::new().unwrap(), fabric, 3, &VIPS).unwrap();
    for node in &cluster.topology.nodes {
        for vip in VIPS {
            node.netns.ip(&format!("addr add {vip} dev lo nodad")).unwrap();
        }
    }
    cluster.start_servers().unwrap();
    cluster.start_routing(router, nodes).unwrap();
    cluster
}

/// Every node answers over plain ECMP, in both families, and nothing is left afterwards.
async fn every_node_answers(fabric: Fabric, router: Suite, nodes: Suite) {
    let mut bed = build(fabric, router, nodes);
    bed.wait_for_routes(3, PATIENCE).await.unwrap();
    for vip in VIPS {
        let attempts = burst(&bed.runtime, &bed.client(vip, LIMIT).unwrap(), 60, 8).await;
        let tally = Tally::of(&attempts);
        assert_eq!((attempts.len(), tally.failed()), (60, 0), "{tally:?}");
        assert_eq!(tally.answers.into_keys().collect::<Vec<_>>(), bed.names(), "by {vip}");
    }
    let prefix = bed.scope.prefix().to_owned();
    assert_ne!(residue(&prefix), Vec::<String>::new(), "the search for residue has to find a living testbed");
    drop(bed);
    assert_eq!(residue(&prefix), Vec::<String>::new());
}

#[tokio::test]
async fn the_far_end_of_every_node_carries_an_xdp_program() {
    for fabric in [Fabric::Routed, Fabric::Segment] {
        let scope = Scope::new().unwrap();
        let topology = Topology::build(&scope, fabric, 2).unwrap();
        let links = topology.far_side().ip("-j link show").unwrap();
        let links: Vec<serde_json::Value> = serde_json::from_str(&links).unwrap();
        for name in ["node1", "node2"] {
            let link = links.iter().find(|link| link["ifname"] == name).unwrap();
            assert_eq!(link["xdp"]["mode"], 1, "native mode on {link}");
        }
    }
}

#[test]
fn what_xdp_sends_back_arrives_only_where_an_xdp_program_is() {
    let scope = Scope::new().unwrap();
    let (sender, mirror) = (Netns::create(&scope, "sender").unwrap(), Netns::create(&scope, "mirror").unwrap());
    for netns in [&sender, &mirror] {
        // The kernel's own IPv6 packets would be counted, too.
        netns.sysctl("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    }
    let end = End { netns: &sender, device: "eth0" };
    let opposite = End { netns: &mirror, device: "eth0" };
    connect(end, opposite, 1500).unwrap();
    attach(&scope, opposite, Action::Tx).unwrap();
    sender.ip("addr add 10.1.0.1/24 dev eth0").unwrap();
    sender.ip("neigh add 10.1.0.2 lladdr 02:00:00:00:00:02 dev eth0 nud permanent").unwrap();
    let received = || {
        let links: Vec<serde_json::Value> = serde_json::from_str(&sender.ip("-j -s link show eth0").unwrap()).unwrap();
        links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    };
    let send = || {
        let refused = sender.enter(|| echo::ask_udp("10.1.0.2:7".parse().unwrap(), 16, Duration::from_millis(100)));
        assert!(refused.unwrap().is_err(), "a mirror does not answer");
    };
    let before = received();
    send();
    assert_eq!(received(), before, "this kernel needs no XDP program at the far end");
    attach_pass(&scope, end).unwrap();
    send();
    assert!(received() > before, "the frame did not come back");
}

#[tokio::test]
async fn bird_spreads_over_routed_links() {
    every_node_answers(Fabric::Routed, Suite::Bird, Suite::Bird).await;
}

#[tokio::test]
async fn frr_spreads_over_routed_links() {
    every_node_answers(Fabric::Routed, Suite::Frr, Suite::Frr).await;
}

#[tokio::test]
async fn bird_spreads_over_what_frr_announces_on_one_segment() {
    every_node_answers(Fabric::Segment, Suite::Bird, Suite::Frr).await;
}

#[tokio::test]
async fn frr_spreads_over_what_bird_announces_on_one_segment() {
    every_node_answers(Fabric::Segment, Suite::Frr, Suite::Bird).await;
}

#[tokio::test]
async fn clients_notice_a_killed_server() {
    let mut bed = build(Fabric::Routed, Suite::Bird, Suite::Bird);
    bed.wait_for_routes(3, PATIENCE).await.unwrap();
    let client = bed.client(VIPS[0], LIMIT).unwrap();
    let connections = LongLived::open(&bed.runtime, &client, 24, 0, Duration::from_millis(50));
    let stream = Stream::start(&bed.runtime, client.clone(), Duration::from_millis(10));
    let all_speak = || async {
        // A second's worth, in which the stream has met every server, too.
        let silent = connections.lives().iter().filter(|life| life.answered < 20).count();
        anyhow::ensure!(silent == 0, "{silent} connections without twenty answers");
        Ok(())
    };
    wait::until("answers on every connection", PATIENCE, all_speak).await.unwrap();

    bed.servers[1].kill().unwrap();
    let broken = || async {
        let whole = connections.lives().into_iter().filter(|life| is_of_second(life) && life.broken.is_none()).count();
        anyhow::ensure!(whole == 0, "{whole} connections to the killed server seem whole");
        Ok(())
    };
    wait::until("the end of node-2's connections", PATIENCE, broken).await.unwrap();

    let tally = Tally::of(&burst(&bed.runtime, &client, 60, 8).await);
    assert!(tally.failures.contains_key(&Failure::Refused.to_string()), "{tally:?}");
    assert!(!tally.answers.contains_key("node-2"), "{tally:?}");
    let tally = Tally::of(&stream.stop().await);
    assert!(tally.answers.contains_key("node-2"), "{tally:?}");
    let lives = connections.close().await;
    assert!(lives.iter().any(is_of_second), "{lives:?}");
    for life in lives {
        assert_eq!(life.broken.is_some(), is_of_second(&life), "{life:?}");
    }
}

fn is_of_second(life: &Life) -> bool {
    life.server.as_deref() == Some("node-2")
}

#[tokio::test]
async fn a_node_that_loses_its_link_leaves_the_routes_and_comes_back() {
    for suite in [Suite::Bird, Suite::Frr] {
        let mut bed = build(Fabric::Routed, suite, suite);
        bed.wait_for_routes(3, PATIENCE).await.unwrap();
        bed.topology.nodes[2].set_link(false).unwrap();
        bed.wait_for_routes(2, PATIENCE).await.unwrap();
        let tally = Tally::of(&burst(&bed.runtime, &bed.client(VIPS[1], LIMIT).unwrap(), 30, 8).await);
        assert_eq!((tally.answered(), tally.failed()), (30, 0), "{tally:?}");
        assert!(!tally.answers.contains_key("node-3"), "{tally:?}");
        bed.topology.nodes[2].set_link(true).unwrap();
        bed.wait_for_routes(3, PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn echoes_come_from_the_vip_at_every_size() {
    let mut bed = build(Fabric::Segment, Suite::Bird, Suite::Bird);
    let targets = VIPS.map(|vip| SocketAddr::new(vip, 7));
    let mut peers = Vec::new();
    for node in &bed.topology.nodes {
        peers.push(echo::spawn(&bed.scope, &node.netns, Kind::Udp, &node.name, &targets).unwrap());
        let any = "[::]:7".parse().unwrap();
        peers.push(echo::spawn(&bed.scope, &node.netns, Kind::Tcp, &node.name, &[any]).unwrap());
    }
    bed.wait_for_routes(3, PATIENCE).await.unwrap();
    let limit = Duration::from_secs(1);
    for (target, size) in targets.into_iter().flat_map(|target| [(target, 0), (target, 1400), (target, 20_000)]) {
        for kind in [Kind::Udp, Kind::Tcp] {
            let ask = move || if kind == Kind::Udp { echo::ask_udp } else { echo::ask_tcp }(target, size, limit);
            // The servers may just be starting.
            let look = || async { bed.topology.client.enter(ask)? };
            let what = format!("an answer of {size} bytes from {target} by {kind:?}");
            let (server, _) = wait::until(&what, PATIENCE, look).await.unwrap();
            assert!(bed.names().contains(&server));
        }
    }
}

#[tokio::test]
async fn a_flood_counts_what_is_lost_and_what_goes_astray() {
    let mut bed = build(Fabric::Routed, Suite::Bird, Suite::Bird);
    let target = SocketAddr::new(VIPS[0], 7);
    let mut peers = Vec::new();
    for node in &bed.topology.nodes[..2] {
        peers.push(echo::spawn(&bed.scope, &node.netns, Kind::Udp, &node.name, &[target]).unwrap());
    }
    bed.wait_for_routes(3, PATIENCE).await.unwrap();
    let ask = || echo::ask_udp(target, 0, Duration::from_millis(200));
    for peer in ["node-1", "node-2"] {
        let look = || async {
            let server = bed.topology.client.enter(ask)??;
            anyhow::ensure!(server == peer, "{server}");
            Ok(())
        };
        wait::until(&format!("an answer of {peer}"), PATIENCE, look).await.unwrap();
    }

    // node-3 has no server: its third of the flows is lost, and node-2 is not what this caller accepts.
    let plan = Plan { window: 32, patience: Duration::from_millis(100), ..Plan::new(target, 640) };
    let report = Flood::start(&bed.topology.client, plan, |_, server| server == "node-1").unwrap().join().unwrap();
    assert_eq!((report.sent, report.answered + report.lost), (640, 640), "{report:?}");
    assert!(report.lost > 0 && report.servers["node-1"] > 0, "{report:?}");
    assert_eq!(report.misdirected, report.servers["node-2"], "{report:?}");

    bed.topology.nodes[2].set_link(false).unwrap();
    bed.wait_for_routes(2, PATIENCE).await.unwrap();
    let report = Flood::start(&bed.topology.client, Plan::new(target, 50_000), |_, _| true).unwrap().join().unwrap();
    assert_eq!((report.lost, report.misdirected), (0, 0), "{report:?}");
    assert!(report.answered >= 50_000, "{report:?}");
}
