//! Nodes that the API thinks ill of, that lose a link, and Services that ask for what is not theirs.

use std::{fmt::Write, time::Duration};

use anyhow::{Context, ensure};
use kube_tests::{follow::node, stub::record::Record};
use netns_tests::{
    cluster::PORT,
    link::{End, connect},
    routing::Suite,
    wait,
};
use serde_json::{Value, json};

use super::bed::{Bed, PATIENCE, vip};

/// Last byte of the control plane's VIP.
const CONTROL_PLANE: u8 = 10;
/// A lost link is seen by the router after this.
const BY_LINK: Duration = Duration::from_secs(1);

/// Three nodes whose agents know the control plane's VIP and probe every server.
async fn with_control_plane() -> Bed {
    let mut bed = Bed::build(Suite::Bird, 3).unwrap();
    let servers: Vec<_> = bed.cluster.topology.nodes.iter().map(|node| node.addresses[0].to_string()).collect();
    let keys = format!(
        "controlPlane:\n  vips: [{}]\n  port: {PORT}\n  from: static\n  backends: [{}]\n  \
         probe: {{https: {{insecureSkipVerify: true}}, interval: 500ms, timeout: 500ms, rise: 2, fall: 2}}\n",
        vip(CONTROL_PLANE),
        servers.join(", ")
    );
    bed.start_agents(|mut config| {
        config.extra.write_str(&keys).unwrap();
        config
    })
    .await
    .unwrap();
    bed
}

#[tokio::test]
async fn a_node_that_is_told_not_ready_keeps_the_control_plane() {
    let _kept = promises::keeps(&["F14", "F18"], "the stand-in, BIRD");
    let mut bed = with_control_plane().await;
    bed.serve("web", 1).unwrap();
    bed.place("web", &[0, 1]).unwrap();
    bed.goes_to(CONTROL_PLANE, &[0, 1, 2]).await.unwrap();
    bed.goes_to(1, &[0, 1]).await.unwrap();

    // What Kubernetes does with a node that is silent: a condition, and its endpoints are not ready.
    let mut object = node(&bed.cluster.topology.nodes[0]);
    object["status"]["conditions"] = json!([{ "type": "Ready", "status": "Unknown" }]);
    bed.put("/api/v1/nodes/node-1", object).unwrap();
    bed.place("web", &[1]).unwrap();
    bed.goes_to(1, &[1]).await.unwrap();
    bed.has(0, &[CONTROL_PLANE]).await.unwrap();
    assert_eq!(bed.ways(CONTROL_PLANE).unwrap(), [0, 1, 2].into());
    asks_for_what_is_not_its_own(&bed).await;

    // Only its server's failure takes it out.
    bed.cluster.servers[0].kill().unwrap();
    bed.goes_to(CONTROL_PLANE, &[1, 2]).await.unwrap();
}

/// A Service that wants the control plane's VIP is refused with an Event, and its own address is served.
async fn asks_for_what_is_not_its_own(bed: &Bed) {
    let taken = vip(CONTROL_PLANE);
    let controller = bed.controller(&json!({ "controlPlane": { "vips": [taken], "probe": "none" } })).unwrap();
    bed.serve_with("greedy", 3, &json!({ "externalIPs": [taken, vip(3)] })).unwrap();
    bed.place("greedy", &[2]).unwrap();
    bed.serve_with("field", 3, &json!({ "externalIPs": [], "loadBalancerIP": taken })).unwrap();
    bed.goes_to(3, &[2]).await.unwrap();
    for (name, reason) in [("greedy", "AddressRefused"), ("field", "AllocationFailed")] {
        let told = || async {
            let events = bed.stub.all("events");
            let is_it = |event: &&Value| event["regarding"]["name"] == name && event["reason"] == reason;
            events.iter().find(is_it).cloned().with_context(|| format!("{events:?}\n{}", controller.log_tail()))
        };
        let (event, _) = wait::until(&format!("{reason} of {name}"), PATIENCE, told).await.unwrap();
        assert!(event["note"].to_string().contains(&taken.to_string()) && event["type"] == "Warning", "{event}");
    }
    assert_eq!(bed.ways(CONTROL_PLANE).unwrap(), [0, 1, 2].into());
    let tally = bed.ask(CONTROL_PLANE, 30).await.unwrap();
    assert_eq!((tally.failed(), tally.answers.len()), (0, 3), "the control plane suffered: {tally:?}");
}

#[tokio::test]
async fn a_lost_link_is_noticed_though_the_api_is_reached_by_another() {
    let _kept = promises::keeps(&["F15"], "the stand-in, BIRD");
    let mut bed = Bed::build(Suite::Bird, 3).unwrap();
    // The first node reaches the API by a link of its own.
    let topology = &bed.cluster.topology;
    let (here, there) = (&topology.nodes[0].netns, &topology.client);
    connect(End { netns: here, device: "mgmt" }, End { netns: there, device: "mgmt" }, 1500).unwrap();
    here.ip("addr add 10.8.0.2/24 dev mgmt").unwrap();
    there.ip("addr add 10.8.0.1/24 dev mgmt").unwrap();
    here.ip("route add 10.9.0.2/32 via 10.8.0.1 dev mgmt").unwrap();
    bed.start_agents(|config| config).await.unwrap();
    bed.serve("web", 1).unwrap();
    bed.place("web", &[0, 1, 2]).unwrap();
    bed.goes_to(1, &[0, 1, 2]).await.unwrap();

    bed.cluster.topology.nodes[0].set_link(false).unwrap();
    let waited = bed.goes_to(1, &[1, 2]).await.unwrap();
    assert!(waited < BY_LINK, "the router went on for {waited:?}");
    bed.directs(&[1, 2], "web", &[1, 2]).await.unwrap();
    let tally = bed.ask(1, 40).await.unwrap();
    assert_eq!((tally.failed(), tally.answers.len()), (0, 2), "{tally:?}");
    // The API hears of it as ever: nobody went by its Lease.
    bed.stub.forget_requests();
    let renewed = || async {
        let requests = bed.stub.requests();
        let is_it = |request: &Record| request.verb.writes() && request.name == "levee-node-node-1";
        ensure!(requests.iter().any(is_it), "no renewal yet");
        Ok(())
    };
    wait::until("a renewal of its Lease", PATIENCE, renewed).await.unwrap();
}
