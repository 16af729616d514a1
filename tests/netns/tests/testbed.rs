//! The testbed itself, without agents: plain routing reaches every node, clients notice what breaks, nothing is left.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use netns_tests::{
    authority::Authority,
    client::{Client, Failure},
    echo::{self, Kind},
    flood::{Flood, Plan},
    netns::NetnsRuntime,
    process::Process,
    routes::wait_for_route,
    routing::{Routing, Suite},
    scope::{Scope, residue},
    server,
    topology::{Fabric, Topology, VIPS},
    traffic::{LongLived, Stream, Tally, burst},
    wait,
};

const PORT: u16 = 6443;
const PATIENCE: Duration = Duration::from_secs(20);

/// A topology whose nodes hold the VIPs and run servers. Fields in the order in which they must go.
struct Bed {
    runtime: NetnsRuntime,
    servers: Vec<Process>,
    routing: Routing,
    topology: Topology,
    authority: Authority,
    scope: Scope,
}

impl Bed {
    fn build(fabric: Fabric, router: Suite, nodes: Suite) -> Self {
        let scope = Scope::new().unwrap();
        let topology = Topology::build(&scope, fabric, 3).unwrap();
        let authority = Authority::new().unwrap();
        let mut servers = Vec::new();
        for node in &topology.nodes {
            for vip in VIPS {
                node.netns.ip(&format!("addr add {vip} dev lo")).unwrap();
            }
            let identity = authority.issue(&scope, &node.name, &VIPS).unwrap();
            servers.push(server::spawn(&scope, &node.netns, &node.name, &identity, PORT).unwrap());
        }
        let routing = Routing::start(&scope, &topology, router, nodes).unwrap();
        let runtime = NetnsRuntime::start(&topology.client).unwrap();
        Self {
            runtime,
            servers,
            routing,
            topology,
            authority,
            scope,
        }
    }

    fn client(&self, vip: IpAddr) -> Client {
        Client::new(
            self.authority.client_config().unwrap(),
            SocketAddr::new(vip, PORT),
            Duration::from_secs(2),
        )
    }

    async fn wait_for_routes(&self, count: usize) {
        for vip in VIPS {
            if let Err(error) = wait_for_route(&self.topology.router, vip, count, PATIENCE).await {
                let daemons = self.routing.nodes.iter().chain([&self.routing.router]);
                let logs: Vec<_> = daemons
                    .flat_map(|daemon| &daemon.processes)
                    .map(|p| p.log_tail(30))
                    .collect();
                panic!("{error:#}\n{}", logs.join("\n"));
            }
        }
    }

    fn names(&self) -> BTreeSet<String> {
        self.topology.nodes.iter().map(|node| node.name.clone()).collect()
    }
}

/// Every node answers over plain ECMP, in both families, and nothing is left afterwards.
async fn every_node_answers(fabric: Fabric, router: Suite, nodes: Suite) {
    let bed = Bed::build(fabric, router, nodes);
    bed.wait_for_routes(3).await;
    for vip in VIPS {
        let attempts = burst(&bed.runtime, &bed.client(vip), 60, 8).await;
        let tally = Tally::of(&attempts);
        assert_eq!((attempts.len(), tally.failed()), (60, 0), "{tally:?}");
        assert_eq!(
            tally.answers.into_keys().collect::<BTreeSet<_>>(),
            bed.names(),
            "by {vip}"
        );
    }
    let prefix = bed.scope.prefix().to_owned();
    assert_ne!(
        residue(&prefix),
        Vec::<String>::new(),
        "the search for residue has to find a living testbed"
    );
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
    let mut bed = Bed::build(Fabric::Routed, Suite::Bird, Suite::Bird);
    bed.wait_for_routes(3).await;
    let client = bed.client(VIPS[0]);
    let connections = LongLived::open(&bed.runtime, &client, 24, 0, Duration::from_millis(50));
    let stream = Stream::start(&bed.runtime, client, Duration::from_millis(10));
    let all_speak = || async {
        let silent = connections.lives().iter().filter(|life| life.answered < 2).count();
        anyhow::ensure!(silent == 0, "{silent} connections without two answers");
        Ok(())
    };
    wait::until("answers on every connection", PATIENCE, all_speak)
        .await
        .unwrap();

    bed.servers[1].kill().unwrap();
    let broken = || async {
        let whole = connections
            .lives()
            .into_iter()
            .filter(|life| is_of_second(life) && life.broken.is_none())
            .count();
        anyhow::ensure!(whole == 0, "{whole} connections to the killed server seem whole");
        Ok(())
    };
    wait::until("the end of node-2's connections", PATIENCE, broken)
        .await
        .unwrap();

    let tally = Tally::of(&stream.stop().await);
    assert!(tally.failures.contains_key(&Failure::Refused.to_string()), "{tally:?}");
    let lives = connections.close().await;
    assert!(lives.iter().any(is_of_second), "{lives:?}");
    for life in lives {
        assert_eq!(life.broken.is_some(), is_of_second(&life), "{life:?}");
    }
}

fn is_of_second(life: &netns_tests::traffic::Life) -> bool {
    life.server.as_deref() == Some("node-2")
}

#[tokio::test]
async fn a_node_that_loses_its_link_leaves_the_routes_and_comes_back() {
    for suite in [Suite::Bird, Suite::Frr] {
        let bed = Bed::build(Fabric::Routed, suite, suite);
        bed.wait_for_routes(3).await;
        bed.topology.nodes[2].set_link(false).unwrap();
        bed.wait_for_routes(2).await;
        let tally = Tally::of(&burst(&bed.runtime, &bed.client(VIPS[1]), 30, 8).await);
        assert_eq!((tally.answered(), tally.failed()), (30, 0), "{tally:?}");
        assert!(!tally.answers.contains_key("node-3"), "{tally:?}");
        bed.topology.nodes[2].set_link(true).unwrap();
        bed.wait_for_routes(3).await;
    }
}

#[tokio::test]
async fn echoes_come_from_the_vip_at_every_size() {
    let bed = Bed::build(Fabric::Segment, Suite::Bird, Suite::Bird);
    let targets = VIPS.map(|vip| SocketAddr::new(vip, 7));
    let mut peers = Vec::new();
    for node in &bed.topology.nodes {
        peers.push(echo::spawn(&bed.scope, &node.netns, Kind::Udp, &node.name, &targets).unwrap());
        let any = "[::]:7".parse().unwrap();
        peers.push(echo::spawn(&bed.scope, &node.netns, Kind::Tcp, &node.name, &[any]).unwrap());
    }
    bed.wait_for_routes(3).await;
    let limit = Duration::from_secs(1);
    for (target, size) in targets
        .into_iter()
        .flat_map(|target| [(target, 0), (target, 1400), (target, 20_000)])
    {
        for kind in [Kind::Udp, Kind::Tcp] {
            let ask = move || if kind == Kind::Udp { echo::ask_udp } else { echo::ask_tcp }(target, size, limit);
            // The servers may just be starting.
            let look = || async { bed.topology.client.enter(ask)? };
            let what = format!("an answer of {size} bytes from {target} by {kind:?}");
            let (server, _) = wait::until(&what, Duration::from_secs(5), look).await.unwrap();
            assert!(bed.names().contains(&server));
        }
    }
}

#[tokio::test]
async fn a_flood_counts_what_is_lost_and_what_goes_astray() {
    let bed = Bed::build(Fabric::Routed, Suite::Bird, Suite::Bird);
    let target = SocketAddr::new(VIPS[0], 7);
    let mut peers = Vec::new();
    for node in &bed.topology.nodes[..2] {
        peers.push(echo::spawn(&bed.scope, &node.netns, Kind::Udp, &node.name, &[target]).unwrap());
    }
    bed.wait_for_routes(3).await;
    let ask = || echo::ask_udp(target, 0, Duration::from_millis(200));
    for peer in ["node-1", "node-2"] {
        let look = || async {
            let server = bed.topology.client.enter(ask)??;
            anyhow::ensure!(server == peer, "{server}");
            Ok(())
        };
        wait::until(&format!("an answer of {peer}"), PATIENCE, look)
            .await
            .unwrap();
    }

    // node-3 has no server: its third of the flows is lost, and node-2 is not what this caller accepts.
    let plan = Plan {
        window: 32,
        patience: Duration::from_millis(20),
        ..Plan::new(target, 640)
    };
    let report = Flood::start(&bed.topology.client, plan, |_, server| server == "node-1")
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(
        (report.sent, report.answered + report.lost, report.stray),
        (640, 640, 0),
        "{report:?}"
    );
    assert!(report.lost > 0 && report.servers["node-1"] > 0, "{report:?}");
    assert_eq!(report.misdirected, report.servers["node-2"], "{report:?}");

    bed.topology.nodes[2].set_link(false).unwrap();
    bed.wait_for_routes(2).await;
    let report = Flood::start(&bed.topology.client, Plan::new(target, 50_000), |_, _| true)
        .unwrap()
        .join()
        .unwrap();
    assert_eq!((report.lost, report.misdirected), (0, 0), "{report:?}");
    assert!(report.answered >= 50_000, "{report:?}");
}
