//! The router stops sending to a director: its flows go through others, which never saw them.

use netns_tests::cluster::Cluster;

use crate::bed::{
    DIRECTORS, JOINER, State, VIP, apply, broken, build, directed, of_node, open, unsettled, wait_for_agreement,
    wait_for_answers,
};

/// Long-lived connections of one batch, and the port of the first.
const COUNT: u16 = 100;
const FIRST_PORT: u16 = 20_000;

/// The router sends to these nodes alone, from now on.
fn enter_by(bed: &Cluster, nodes: &[usize]) {
    bed.topology.enter_by(VIP, nodes).unwrap();
}

/// Packets that each director got in from the router between two looks; 0 is what a director left out has.
fn grown(bed: &Cluster, before: [u64; 3]) -> [u64; 3] {
    let now = directed(bed);
    [0, 1, 2].map(|node| now[node] - before[node])
}

#[tokio::test]
async fn the_flows_of_a_director_go_on_through_others_with_settled_rings() {
    let bed = build().await;
    enter_by(&bed, &DIRECTORS);
    let connections = open(&bed, 2 * COUNT, FIRST_PORT).await;
    for out in DIRECTORS {
        let before = directed(&bed);
        wait_for_answers(&connections).await;
        assert!(grown(&bed, before)[out] > 0, "no flow through node {out}");

        let others: Vec<usize> = DIRECTORS.into_iter().filter(|&node| node != out).collect();
        enter_by(&bed, &others);
        wait_for_answers(&connections).await;
        enter_by(&bed, &DIRECTORS);
        wait_for_answers(&connections).await;
        assert_eq!(broken(&connections.lives()), [], "without node {out}");
    }
    for agent in &bed.agents[..3] {
        assert_eq!(unsettled(agent).unwrap(), 0);
    }
    let lives = connections.close().await;
    assert_eq!(broken(&lives), []);
}

/// The first director hears of the new backend some time before the others, and flows begin in between: on slots that the
/// new backend took over, those through the first director are the new backend's and those through the others their
/// former owner's. No director knows of the flows of another.
#[tokio::test]
async fn the_flows_of_a_director_go_on_through_others_with_unsettled_rings() {
    let bed = build().await;
    enter_by(&bed, &DIRECTORS);
    let before = open(&bed, COUNT, FIRST_PORT).await;
    let joined = State::first().joined();
    apply(&bed, &[JOINER, 0], &joined).await;
    let between = open(&bed, COUNT, FIRST_PORT + COUNT).await;
    apply(&bed, &[1, 2], &joined).await;
    wait_for_agreement(&bed, &DIRECTORS, &joined).await;
    let after = open(&bed, COUNT, FIRST_PORT + 2 * COUNT).await;
    let batches = [&before, &between, &after];
    assert_eq!(of_node(&bed, &before.lives(), JOINER), 0, "it was no backend yet");
    for batch in [&between, &after] {
        assert!(of_node(&bed, &batch.lives(), JOINER) > 0, "the new backend has no connection");
    }
    for agent in &bed.agents[..3] {
        assert!(unsettled(agent).unwrap() > 0);
    }

    let mut lost = Vec::new();
    for out in DIRECTORS {
        let others: Vec<usize> = DIRECTORS.into_iter().filter(|&node| node != out).collect();
        enter_by(&bed, &others);
        for batch in batches {
            wait_for_answers(batch).await;
        }
        enter_by(&bed, &DIRECTORS);
        for batch in batches {
            wait_for_answers(batch).await;
        }
        lost.push(batches.map(|batch| broken(&batch.lives()).len()));
    }
    for (batch, name) in [(before, "before"), (between, "between"), (after, "after")] {
        let lives = batch.close().await;
        assert_eq!(broken(&lives), [], "begun {name}; broken by batch, node after node left out: {lost:?}");
    }
}
