//! The API goes away, and comes back.

use std::time::{Duration, Instant};

use kube_tests::follow::LIFETIME;
use netns_tests::{routing::Suite, traffic::Tally, watches::Watches};
use tokio::time::sleep;

use super::{
    bed::{Bed, PATIENCE, vip},
    plug,
};

/// Longer than an announced address lives without somebody who renews it.
const OUTAGE: Duration = Duration::from_secs(LIFETIME + LIFETIME / 2);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn an_outage_of_the_api_changes_nothing_and_its_end_brings_what_was_missed() {
    let _kept = promises::keeps(&["S1-14"], "the stand-in, BIRD");
    let mut bed = Bed::start(Suite::Bird, 3).await.unwrap();
    for (name, address, nodes) in [("a", 1, &[0, 1][..]), ("b", 2, &[2])] {
        bed.serve(name, address).unwrap();
        bed.place(name, nodes).unwrap();
        bed.goes_to(address, nodes).await.unwrap();
    }
    plug::make_service(&bed).await;
    let client = bed.cluster.client(vip(1), PATIENCE).unwrap();
    let watches = Watches::open(&bed.cluster.runtime, &client, 20, Duration::from_millis(200));

    bed.stub.refuse().await.unwrap();
    let began = Instant::now();
    let mut total = Tally::default();
    while began.elapsed() < OUTAGE {
        assert_eq!(bed.ways(1).unwrap(), [0, 1].into(), "after {:?}", began.elapsed());
        assert_eq!(bed.ways(2).unwrap(), [2].into(), "after {:?}", began.elapsed());
        for (node, expected) in [(0, vip(1)), (1, vip(1)), (2, vip(2))] {
            let expected = [expected, vip(plug::ADDRESS)];
            assert_eq!(bed.on_lo(node).unwrap(), expected.into(), "node {node} after {:?}", began.elapsed());
        }
        let tally = bed.ask(1, 5).await.unwrap();
        total.failures.extend(tally.failures);
        sleep(PAUSE).await;
    }
    assert_eq!(total.failed(), 0, "{total:?}");

    plug::is_pulled_and_put_in_again(&mut bed).await;

    // What happened meanwhile is there when it is back.
    bed.serve("c", 3).unwrap();
    bed.place("c", &[1]).unwrap();
    bed.place("b", &[0]).unwrap();
    bed.stub.accept().await.unwrap();
    bed.goes_to(3, &[1]).await.unwrap();
    bed.goes_to(2, &[0]).await.unwrap();
    let sessions = watches.close().await;
    let broken: Vec<_> = sessions.iter().filter(|sessions| sessions.len() != 1 || !sessions[0].lives()).collect();
    assert!(broken.is_empty(), "{broken:?}");
}
