//! The VIP of the API servers: nodes whose own server does not run reach it over the wire, like anybody else.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::{
    client::Client,
    cluster::{Cluster, PORT},
    netns::NetnsRuntime,
    observe::wait_for_hops,
    scope::Scope,
    server::set_readiness,
    topology::{Fabric, VIPS},
    wait,
};

const PATIENCE: Duration = Duration::from_secs(40);
/// Limit of a request.
const LIMIT: Duration = Duration::from_secs(5);
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
