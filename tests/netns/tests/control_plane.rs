//! The VIP of the API servers: nodes whose own server does not run reach it over the wire, like anybody else.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Result, ensure};
use lb_agent::config::{ControllerConfig, NsxtAuth, RouteConfig};
use netns_tests::{
    client::Client,
    cluster::{Cluster, PORT},
    netns::{NetnsRuntime, run},
    observe::wait_for_hops,
    scope::{Scope, binary},
    server::set_readiness,
    topology::{Fabric, VIPS},
    traffic::LongLived,
    wait,
};

const PATIENCE: Duration = Duration::from_secs(40);
/// Limit of a request.
const LIMIT: Duration = Duration::from_secs(5);
/// A file that is not there: no test of this program has an API server.
const KUBECONFIG: &str = "admin.conf";
/// The node whose server comes last, and goes.
const JOINING: usize = 2;

/// Three nodes, of which the last has no server yet. No service is configured but the control plane.
async fn build() -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 3, &VIPS[..1]).unwrap();
    bed.start_servers().unwrap();
    bed.servers[JOINING].kill().unwrap();
    bed.start_agents(|topology, mut config| {
        let servers: Vec<_> = topology.nodes.iter().map(|node| node.addresses[0].to_string()).collect();
        config.extra = format!(
            "controlPlane:\n  vips: [{}]\n  port: {PORT}\n  backends: [{}]\n  \
             probe: {{https: {{insecureSkipVerify: true}}, interval: 500ms, timeout: 500ms, rise: 1, fall: 2}}\n",
            VIPS[0],
            servers.join(", ")
        );
        config
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    bed.topology.enter_by(VIPS[0], &[0]).unwrap();
    bed
}

/// Whether a node's kernel holds the VIP, and whether it announces it.
fn held_and_announced(bed: &Cluster, node: usize) -> (bool, bool) {
    let netns = &bed.topology.nodes[node].netns;
    let routes = netns.ip("-4 route show table local proto 76").unwrap();
    let addresses = netns.ip("-4 -o addr show dev lo").unwrap();
    let vip = VIPS[0].to_string();
    (routes.split_whitespace().any(|word| word == vip), addresses.contains(&format!(" {vip}/")))
}

/// Waits until a node holds and announces the VIP, or does not.
async fn wait_for(bed: &Cluster, node: usize, expected: (bool, bool)) {
    let look = || async {
        let now = held_and_announced(bed, node);
        ensure!(now == expected, "(held, announced) is {now:?}");
        Ok(())
    };
    wait::until(&format!("node {node} to be {expected:?}"), PATIENCE, look).await.unwrap();
}

/// What a node has on `lo`.
fn addresses_of_lo(bed: &Cluster, node: usize) -> String {
    bed.topology.nodes[node].netns.ip("-o addr show dev lo").unwrap()
}

/// The file of the agents and that of the controller, as `lbctl migrate` makes them of the flags of the former one.
fn migrated(bed: &Cluster) -> [String; 2] {
    let flags = [
        &format!("--kubeconfig={}", bed.scope.file(KUBECONFIG).display()),
        "--nsxhost=https://nsx.example.com",
        "--nsxuser=admin",
        "--nsxpassword=s3cret",
        &format!("--clustervip={}", VIPS[0]),
        "--clusterrouterid=pks-1-cluster-router",
        "--setvipenabled=false",
        &format!("--port={PORT}"),
    ];
    ["--agent", ""].map(|which| {
        let mut command = bed.topology.nodes[0].netns.command(binary("lbctl").unwrap());
        command.args(["migrate", "nsxt-lite-lb"]).args(flags).args(Some(which).filter(|which| !which.is_empty()));
        run(&mut command).unwrap()
    })
}

/// The controller's file says what its flags said.
fn says_what_the_flags_said(bed: &Cluster, text: &str) {
    let config = ControllerConfig::parse("controller.yaml", text, Path::new("/etc/levee")).unwrap();
    assert_eq!(config.kubeconfig, Some(bed.scope.file(KUBECONFIG)));
    let RouteConfig { control_plane, nsxt } = config.routes.unwrap();
    assert_eq!((control_plane.vips, control_plane.port), (vec![VIPS[0]], PORT));
    assert_eq!(
        (nsxt.managers, nsxt.tier1.as_str()),
        (vec!["https://nsx.example.com".to_owned()], "pks-1-cluster-router")
    );
    let NsxtAuth::Basic(login) = nsxt.auth else { panic!("{:?}", nsxt.auth) };
    assert_eq!(login.username, "admin");
    assert!(!text.contains("s3cret") && text.contains("passwordFile: "), "{text}");
}

/// The servers that answer clients who enter by this node.
async fn answering(bed: &Cluster, node: usize) -> BTreeSet<String> {
    bed.topology.enter_by(VIPS[0], &[node]).unwrap();
    let client = bed.client(VIPS[0], LIMIT).unwrap();
    let mut servers = BTreeSet::new();
    for _ in 0..20 {
        servers.insert(asked_on(&bed.runtime, client.clone()).await.unwrap());
    }
    servers
}

/// Waits until a node gives what enters there to its own server alone, or does not.
async fn wait_until_own_alone(bed: &Cluster, node: usize, expected: bool) {
    let look = || async {
        let status = bed.agents[node].lbctl_json(&["status"])?;
        let told = &status["status"]["services"][0]["localFirst"];
        ensure!(*told == expected, "localFirst is {told}");
        Ok(())
    };
    wait::until(&format!("node {node}: own server alone is {expected}"), PATIENCE, look).await.unwrap();
}

/// The server that answers a client on this node.
async fn asked_on(runtime: &NetnsRuntime, client: Client) -> Result<String> {
    let (greeting, _) =
        runtime.spawn(async move { client.request().await }).await?.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok(greeting.server)
}

#[tokio::test]
async fn a_node_without_a_server_reaches_the_vip_over_the_wire() {
    let mut bed = build().await;
    let names = bed.names();
    let runtime = NetnsRuntime::start(&bed.topology.nodes[JOINING].netns).unwrap();
    for node in [0, 1] {
        wait_for(&bed, node, (true, true)).await;
    }
    wait_for(&bed, JOINING, (false, false)).await;
    for _ in 0..10 {
        let server = asked_on(&runtime, bed.client(VIPS[0], LIMIT).unwrap()).await.unwrap();
        assert_ne!(server, names[JOINING]);
    }
    // It joins: its server starts, and no agent restarts.
    bed.start_server(JOINING).unwrap();
    wait_for(&bed, JOINING, (true, true)).await;
    // Its server is not ready: it goes on holding for the connections that it has.
    set_readiness(&bed.scope, &names[JOINING], 500).unwrap();
    wait_for(&bed, JOINING, (true, false)).await;
    // No credentials are no failure.
    set_readiness(&bed.scope, &names[JOINING], 401).unwrap();
    wait_for(&bed, JOINING, (true, true)).await;
    let told = || async {
        let told = bed.agents[0].lbctl_json(&["status"])?["status"]["backends"].to_string();
        ensure!(told.contains("the server wants credentials"), "{told}");
        Ok(())
    };
    wait::until("the director to report it", PATIENCE, told).await.unwrap();
    // It dies: clients on its node are served by others again.
    bed.servers[JOINING].kill().unwrap();
    wait_for(&bed, JOINING, (false, false)).await;
    let server = asked_on(&runtime, bed.client(VIPS[0], LIMIT).unwrap()).await.unwrap();
    assert_ne!(server, names[JOINING]);
}

#[tokio::test]
async fn with_the_settings_of_the_former_controller_lo_is_untouched_and_flows_stay_where_they_enter() {
    let _kept = promises::keeps(&["S0-11"], "the namespaces");
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 3, &VIPS[..1]).unwrap();
    bed.start_servers().unwrap();
    let before: Vec<_> = (0..3).map(|node| addresses_of_lo(&bed, node)).collect();
    let [agents, controller] = migrated(&bed);
    says_what_the_flags_said(&bed, &controller);
    let state = bed.scope.file("inventory.json").display().to_string();
    bed.start_agents(|topology, mut config| {
        let servers: Vec<_> = topology.nodes.iter().map(|node| node.addresses[0].to_string()).collect();
        // There is no API in this test, and two keys that the former controller had not.
        let agents = agents.replace("kubernetes: {", &format!("kubernetes: {{stateFile: {state}, "));
        config.extra = format!("{agents}  localFirst: true\n  backends: [{}]\n", servers.join(", "));
        config
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    let names = bed.names();
    let only = |node: usize| BTreeSet::from([names[node].clone()]);
    for node in 0..3 {
        wait_for(&bed, node, (true, false)).await;
        wait_until_own_alone(&bed, node, true).await;
        assert_eq!(answering(&bed, node).await, only(node), "what enters node {node}");
    }
    // Its server dies: what enters there goes to the others, and stays with them when it is back.
    bed.servers[0].kill().unwrap();
    wait_for(&bed, 0, (false, false)).await;
    assert_eq!(answering(&bed, 0).await, BTreeSet::from([names[1].clone(), names[2].clone()]));
    let client = bed.client(VIPS[0], LIMIT).unwrap();
    let open = LongLived::open(&bed.runtime, &client, 20, 0, Duration::from_millis(100));
    let all_open = || async {
        let lives = open.lives();
        ensure!(lives.iter().all(|life| life.answered > 0), "{lives:?}");
        Ok(())
    };
    wait::until("connections to the others", PATIENCE, all_open).await.unwrap();
    bed.start_server(0).unwrap();
    wait_for(&bed, 0, (true, false)).await;
    wait_until_own_alone(&bed, 0, true).await;
    assert_eq!(answering(&bed, 0).await, only(0));
    let broken: Vec<_> = open.close().await.into_iter().filter(|life| life.broken.is_some()).collect();
    assert!(broken.is_empty(), "{broken:?}");
    let after: Vec<_> = (0..3).map(|node| addresses_of_lo(&bed, node)).collect();
    assert_eq!(after, before, "`lo` is left alone");
}
