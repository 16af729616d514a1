//! Backends come and drain, the ring gets another size, agents end and hang: no connection notices.

use netns_tests::{cluster::Cluster, routing::Suite, traffic::LongLived};

use crate::bed::{
    DIRECTORS, JOINER, PATIENCE, State, apply, broken, build, directed, expect_takers, of_node, open, unsettled,
    wait_for_agreement, wait_for_answers,
};

/// Long-lived connections, and the port of the first.
const COUNT: u16 = 200;
const FIRST_PORT: u16 = 20_000;
/// The node that is drained.
const DRAINED: usize = 1;

/// All directors announce the VIP to the router, which spreads the flows over them.
async fn announced() -> Cluster {
    let mut bed = build().await;
    bed.start_routing(Suite::Bird, Suite::Bird).unwrap();
    bed.wait_for_routes(DIRECTORS.len(), PATIENCE).await.unwrap();
    bed
}

/// Opens the connections; each director forwards a share of them, and each backend has one.
async fn open_all(bed: &Cluster) -> LongLived {
    let before = directed(bed);
    let connections = open(bed, COUNT, FIRST_PORT).await;
    for (now, then) in directed(bed).into_iter().zip(before) {
        assert!(now > then, "a director without packets: {before:?}, {:?}", directed(bed));
    }
    let lives = connections.lives();
    for node in DIRECTORS {
        assert!(of_node(bed, &lives, node) >= 20, "{} of node {node}", of_node(bed, &lives, node));
    }
    connections
}

async fn close_whole(connections: LongLived) {
    wait_for_answers(&connections).await;
    let lives = connections.close().await;
    assert_eq!(broken(&lives), [], "of {}", lives.len());
}

#[tokio::test]
async fn no_connection_breaks_when_backends_come_and_drain_and_the_ring_is_resized() {
    let bed = announced().await;
    let connections = open_all(&bed).await;

    let joined = State::first().joined();
    let drained = joined.clone().drained(DRAINED);
    let larger = drained.clone().resized(4096);
    let smaller = drained.clone().resized(256);
    for state in [joined, drained, larger, smaller] {
        // Who holds the VIP first, then those who send to it.
        apply(&bed, &[JOINER], &state).await;
        apply(&bed, &DIRECTORS, &state).await;
        expect_takers(&bed, &state).await;
        wait_for_answers(&connections).await;
        assert_eq!(broken(&connections.lives()), [], "after {state:?}");
    }
    assert!(unsettled(&bed.agents[0]).unwrap() > 0, "the flows of changed slots are remembered");
    close_whole(connections).await;
}

#[tokio::test]
async fn no_connection_breaks_when_every_agent_ends_and_hangs_amid_changes() {
    let mut bed = announced().await;
    let connections = open_all(&bed).await;
    let state = State::first().joined().drained(DRAINED).resized(4096);
    apply(&bed, &[JOINER], &state).await;
    apply(&bed, &DIRECTORS, &state).await;
    // A node whose server takes no new connections is announced no longer.
    let announcing = DIRECTORS.len() - 1;
    bed.wait_for_routes(announcing, PATIENCE).await.unwrap();

    for node in 0..bed.agents.len() {
        bed.agents[node].process().terminate().unwrap();
        wait_for_answers(&connections).await;
        let scope = &bed.scope;
        bed.agents[node].start_again(scope).unwrap();
        bed.agents[node].wait_ready(PATIENCE).await.unwrap();
        wait_for_agreement(&bed, &[node], &state).await;
    }
    bed.wait_for_routes(announcing, PATIENCE).await.unwrap();
    expect_takers(&bed, &state).await;
    assert_eq!(broken(&connections.lives()), [], "after the agents ended");

    for node in 0..bed.agents.len() {
        let expires = usize::from(DIRECTORS.contains(&node) && node != DRAINED);
        bed.agents[node].freeze().unwrap();
        bed.wait_for_routes(announcing - expires, PATIENCE).await.unwrap();
        wait_for_answers(&connections).await;
        bed.agents[node].thaw().unwrap();
        bed.wait_for_routes(announcing, PATIENCE).await.unwrap();
        wait_for_answers(&connections).await;
    }
    expect_takers(&bed, &state).await;
    close_whole(connections).await;
}
