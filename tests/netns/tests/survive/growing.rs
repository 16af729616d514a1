//! Nodes join one after the other, as directors and as backends: whoever has a connection, any of them finds it.

use netns_tests::{cluster::Cluster, scope::Scope, topology::Fabric};

use crate::bed::{State, VIP, apply, broken, expect_takers, of_node, open, start, wait_for_answers};

/// Nodes in the end, and those that are there at the beginning.
const NODES: usize = 8;
const FIRST: usize = 2;
/// Connections that are opened before each node joins, and the port of the first of all.
const COUNT: u16 = 25;
const FIRST_PORT: u16 = 20_000;

/// Every node starts from nothing, with the backends that are there, and then becomes one. The network gives new connections
/// to all that are there, and in the end every connection to each in turn.
#[tokio::test]
async fn no_connection_breaks_when_nodes_join_one_after_the_other() {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, u8::try_from(NODES).unwrap(), &[VIP]).unwrap();
    bed.start_servers().unwrap();
    for _ in 0..FIRST {
        start(&mut bed, &State::of_first(FIRST)).await;
    }
    let mut batches = Vec::new();
    for count in FIRST..=NODES {
        let there: Vec<usize> = (0..count).collect();
        if count > FIRST {
            start(&mut bed, &State::of_first(count - 1)).await;
            // Who holds the VIP first, then those who send to it.
            apply(&bed, &there[count - 1..], &State::of_first(count)).await;
            apply(&bed, &there[..count - 1], &State::of_first(count)).await;
        }
        bed.topology.enter_by(VIP, &there).unwrap();
        let port = FIRST_PORT + COUNT * u16::try_from(count).unwrap();
        batches.push(open(&bed, COUNT, port).await);
    }
    expect_takers(&bed, &State::of_first(NODES)).await;
    let first = batches[0].lives();
    assert!((0..FIRST).all(|node| of_node(&bed, &first, node) > 0), "{first:?}");

    let mut lost = Vec::new();
    for director in 0..NODES {
        bed.topology.enter_by(VIP, &[director]).unwrap();
        for batch in &batches {
            wait_for_answers(batch).await;
        }
        lost.push(batches.iter().map(|batch| broken(&batch.lives()).len()).collect::<Vec<_>>());
    }
    for batch in batches {
        let lives = batch.close().await;
        assert_eq!(broken(&lives), [], "broken by batch, through one director after the other: {lost:?}");
    }
}
