//! An address stands where ready pods are, moves with them, and disturbs no other.

use std::{collections::BTreeMap, time::Instant};

use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};
use kube_tests::follow::Pod;
use netns_tests::{client::Client, cluster::PORT, routing::Suite, topology::CLIENT, wait};
use serde_json::json;

use super::bed::{Bed, PATIENCE, vip};

/// Lines of a log that have all of these words.
fn lines<'l>(log: &'l str, words: &[&str]) -> Vec<&'l str> {
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).collect()
}

#[tokio::test]
async fn addresses_stand_where_ready_pods_are_and_move_with_them() {
    let _kept =
        promises::keeps(&["S1-01", "S1-02", "S1-03", "S1-06", "S1-07", "S1-08", "S1-10", "S1-15"], "the stand-in, FRR");
    let mut bed = Bed::start(Suite::Frr, 3).await.unwrap();
    // Four Services, placed differently; nobody's address is anywhere else.
    for (name, address, nodes) in [("a", 1, &[0][..]), ("b", 2, &[0, 1, 2]), ("c", 3, &[1]), ("d", 4, &[2])] {
        bed.serve(name, address).unwrap();
        bed.place(name, nodes).unwrap();
    }
    for (node, expected) in [(0, [1, 2]), (1, [2, 3]), (2, [2, 4])] {
        bed.has(node, &expected).await.unwrap();
    }
    for (address, nodes) in [(1, &[0][..]), (2, &[0, 1, 2]), (3, &[1]), (4, &[2])] {
        bed.goes_to(address, nodes).await.unwrap();
        let tally = bed.ask(address, 30).await.unwrap();
        let names: Vec<_> = nodes.iter().map(|node| format!("node-{}", node + 1)).collect();
        assert_eq!((tally.failed(), tally.answers.into_keys().collect::<Vec<_>>()), (0, names), "{address}");
    }
    let log = bed.log(0);
    assert_eq!(lines(&log, &["announced on lo", "192.0.2.1"]).len(), 1, "{log}");

    sees_the_client(&bed).await;
    another_address(&mut bed).await;
    another_node(&bed).await;
    only_ready_ones(&bed).await;
    any_selector(&bed).await;
}

/// The server is told the client's own address.
async fn sees_the_client(bed: &Bed) {
    let client: Client = bed.cluster.client(vip(2), PATIENCE).unwrap();
    let answer = bed.cluster.runtime.spawn(async move { client.request().await }).await.unwrap();
    let (greeting, _) = answer.unwrap();
    assert_eq!(greeting.client.ip(), CLIENT[0]);
}

/// A Service has another address: that one is assumed, and the old one given up before the data plane forgets it.
async fn another_address(bed: &mut Bed) {
    bed.serve("c", 5).unwrap();
    bed.has(1, &[2, 5]).await.unwrap();
    bed.goes_to(5, &[1]).await.unwrap();
    bed.goes_to(3, &[]).await.unwrap();
    let log = bed.log(1);
    let at = |words: &[&str]| -> SignedDuration {
        let found = lines(&log, words);
        assert_eq!(found.len(), 1, "{words:?} in\n{log}");
        let stamp: Timestamp = found[0].split(' ').next().unwrap().parse().unwrap();
        stamp.as_duration()
    };
    let (assumed, given_up) = (at(&["announced on lo", "192.0.2.5"]), at(&["withdrawn from lo", "192.0.2.3"]));
    assert!((assumed - given_up).abs() < SignedDuration::from_secs(1), "{log}");
    assert!(given_up < at(&["released", "192.0.2.3"]), "{log}");
    assert_eq!(lines(&log, &["192.0.2.2", "withdrawn"]).len(), 0, "another Service was disturbed\n{log}");
}

/// A node is drained: its pods end, and others start elsewhere.
async fn another_node(bed: &Bed) {
    let began = Instant::now();
    let nodes = &bed.cluster.topology.nodes;
    bed.endpoints("c", &[Pod { ready: false, terminating: true, ..Pod::on(&nodes[1]) }, Pod::on(&nodes[2])]).unwrap();
    bed.goes_to(5, &[2]).await.unwrap();
    eprintln!("the route moved {:.2} s after the pods did", began.elapsed().as_secs_f64());
    bed.has(1, &[2]).await.unwrap();
    bed.has(2, &[2, 4, 5]).await.unwrap();
    let tally = bed.ask(5, 20).await.unwrap();
    assert_eq!(tally.answers, BTreeMap::from([("node-3".to_owned(), 20)]), "{tally:?}");
    bed.place("c", &[2]).unwrap();
    bed.has(2, &[2, 4, 5]).await.unwrap();
}

/// Pods that are not ready, or end, do not count.
async fn only_ready_ones(bed: &Bed) {
    let [first, second, third] = [0, 1, 2].map(|node| Pod::on(&bed.cluster.topology.nodes[node]));
    let starting = Pod { ready: false, ..first };
    let ending = Pod { ready: false, terminating: true, ..second };
    bed.endpoints("b", &[starting, ending, third]).unwrap();
    bed.goes_to(2, &[2]).await.unwrap();
    bed.has(0, &[1]).await.unwrap();
    bed.has(1, &[]).await.unwrap();
    bed.place("b", &[0, 1, 2]).unwrap();
    bed.goes_to(2, &[0, 1, 2]).await.unwrap();
}

/// A Service selects by two labels, another not at all: whoever keeps its slice writes no node.
async fn any_selector(bed: &Bed) {
    bed.serve_with("picky", 6, &json!({ "selector": { "app": "web", "tier": "front" } })).unwrap();
    bed.place("picky", &[1]).unwrap();
    bed.serve("by-hand", 7).unwrap();
    bed.endpoints("by-hand", &[Pod { node: None, ..Pod::on(&bed.cluster.topology.nodes[0]) }]).unwrap();
    bed.goes_to(6, &[1]).await.unwrap();
    bed.goes_to(7, &[0]).await.unwrap();
    let tally = bed.ask(7, 10).await.unwrap();
    assert_eq!(tally.answers, BTreeMap::from([("node-1".to_owned(), 10)]), "{tally:?}");
}

#[tokio::test]
async fn what_is_stale_goes_at_the_start_and_what_is_foreign_stays() {
    let _kept = promises::keeps(&["S1-11", "S1-12", "F20"], "the stand-in, BIRD");
    let mut bed = Bed::start(Suite::Bird, 2).await.unwrap();
    for (name, address) in [("kept", 1), ("gone", 2), ("changed", 3), ("moved", 4)] {
        bed.serve(name, address).unwrap();
        bed.place(name, &[0]).unwrap();
    }
    bed.has(0, &[1, 2, 3, 4]).await.unwrap();
    let foreign = "198.51.100.7";
    bed.cluster.topology.nodes[0].netns.ip(&format!("addr add {foreign}/32 dev lo")).unwrap();

    // While the agent sleeps, a Service is deleted, one has another address, one is no load balancer any more.
    bed.cluster.agents[0].freeze().unwrap();
    change_while_nobody_looks(&bed);
    bed.cluster.agents[0].thaw().unwrap();
    let expected = |bed: &Bed| {
        let now = bed.on_lo(0)?;
        let wanted = [vip(1), vip(5), foreign.parse()?].into_iter().collect();
        ensure!(now == wanted, "{now:?} instead of {wanted:?}");
        Ok(())
    };
    wait::until("what changed to be right", PATIENCE, || async { expected(&bed) }).await.unwrap();

    // The same while there is none: what an agent left is known for its own.
    bed.cluster.agents[0].process().kill().unwrap();
    bed.stub.delete("/api/v1/namespaces/default/services/changed").unwrap();
    bed.serve("late", 6).unwrap();
    bed.place("late", &[0]).unwrap();
    let scope = &bed.cluster.scope;
    bed.cluster.agents[0].start_again(scope).unwrap();
    let look = || async {
        let now = bed.on_lo(0)?;
        let wanted = [vip(1), vip(6), foreign.parse()?].into_iter().collect();
        ensure!(now == wanted, "{now:?} instead of {wanted:?}");
        Ok(())
    };
    wait::until("the start to tidy up", PATIENCE, look).await.unwrap();

    // How long it takes is measured.
    for part in ["kubernetes_compose", "plan", "apply"] {
        let of = |what: &str| bed.cluster.agents[0].metric(&format!("levee_{part}_duration_seconds_{what}")).unwrap();
        assert!(of("count") >= Some(1.0) && of("sum") > Some(0.0), "{part}: {:?} {:?}", of("count"), of("sum"));
    }
}

fn change_while_nobody_looks(bed: &Bed) {
    bed.stub.delete("/api/v1/namespaces/default/services/gone").unwrap();
    bed.serve("changed", 5).unwrap();
    bed.serve_with("moved", 4, &json!({ "type": "ClusterIP", "externalIPs": [], "ports": [{ "port": PORT }] }))
        .unwrap();
}
