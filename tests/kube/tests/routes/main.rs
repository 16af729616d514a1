//! Controllers as processes, which keep the route to the API servers' VIP in NSX-T.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

mod bed;
mod beyond;
mod cleanup;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bed::{BUDGET, Bed, Controller, PATIENCE, VIP};
use kube_tests::stub::{
    faults::{Fault, Only, Verb},
    status::Failure,
};
use netns_tests::wait;
use tokio::time::sleep;

/// How long reads of the Lease fail.
const OUTAGE: Duration = Duration::from_secs(20);
/// The same change is written once; so long is waited for another.
const QUIET: Duration = Duration::from_secs(2);

/// A controller that follows and knows which servers answer.
async fn follower(bed: &Bed, number: usize) -> Controller {
    let controller = bed.controller(number).unwrap();
    controller.says("attempting to acquire leader lease levee-system/levee-controller", 1).await.unwrap();
    controller.says("backend answers its probe", 3).await.unwrap();
    controller
}

fn shows(controller: &Controller, line: &str) -> Result<()> {
    let metrics = controller.metrics()?;
    ensure!(metrics.iter().any(|found| found == line), "{line} is not in {metrics:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_become_next_hops_and_are_told() {
    let _kept = promises::keeps(&["S0-02", "S0-12", "S0-13", "S0-16"], "the stand-ins");
    let bed = Bed::new(1).await.unwrap();
    let controller = bed.controller(0).unwrap();
    bed.has(&[0, 1, 2], PATIENCE).await.unwrap_or_else(|error| panic!("{error}\n{}", controller.process.log_tail(40)));
    let routes = bed.world().routes();
    let [(_, route)] = &routes.iter().collect::<Vec<_>>()[..] else { panic!("{routes:#?}") };
    assert_eq!(
        (route["id"].as_str(), route["network"].as_str()),
        (Some("to-192.168.160.249"), Some("192.168.160.249/32"))
    );

    controller.says("static route is created", 1).await.unwrap();
    assert_eq!(controller.logged("starting the keeper of NSX-T routes").len(), 1);
    let [seen] = &controller.logged("processing EndpointSlice")[..] else { panic!("one change") };
    assert_eq!((seen["name"].as_str(), seen["endpoints"].as_u64()), (Some("default/kubernetes"), Some(3)));
    let [made] = &controller.logged("static route is created")[..] else { panic!("one route") };
    assert_eq!(
        (made["name"].as_str(), made["hops"].as_str()),
        (Some("to-192.168.160.249"), Some(&*bed.hops().join(",")))
    );

    let hops = |count: u8| format!("levee_nsxt_route_hops{{vip=\"{VIP}\"}} {count}");
    for line in ["levee_nsxt_route_updates_total 1", "levee_nsxt_leading 1", &hops(3)] {
        wait::until(line, PATIENCE, || async { shows(&controller, line) }).await.unwrap();
    }
    // One that is not ready is none.
    bed.name(&[true, false, true]).unwrap();
    bed.has(&[0, 2], BUDGET).await.unwrap();
    for line in ["levee_nsxt_route_updates_total 2", &hops(2)] {
        wait::until(line, PATIENCE, || async { shows(&controller, line) }).await.unwrap();
    }
    // None at all, or none ready, is not believed.
    for nothing in [&[][..], &[false, false, false]] {
        bed.name(nothing).unwrap();
        sleep(QUIET).await;
        bed.has(&[0, 2], Duration::ZERO).await.unwrap();
    }
    assert_eq!((bed.world().writes().len(), bed.world().fewest_hops()), (2, Some(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_with_its_server_is_replaced_and_its_hop_leaves() {
    let _kept = promises::keeps(&["S0-07", "S0-09", "S0-10"], "the stand-ins");
    let mut bed = Bed::new(2).await.unwrap();
    let mut first = bed.controller(0).unwrap();
    bed.has(&[0, 1, 2], PATIENCE).await.unwrap_or_else(|error| panic!("{error}\n{}", first.process.log_tail(40)));
    let second = follower(&bed, 1).await;
    bed.name(&[true, true, false]).unwrap();
    bed.has(&[0, 1], BUDGET).await.unwrap();
    bed.name(&[true, true, true]).unwrap();
    bed.has(&[0, 1, 2], BUDGET).await.unwrap();
    assert_eq!(bed.asked(), [0].into(), "only the leader asks and writes");
    shows(&second, "levee_nsxt_leading 0").unwrap();
    shows(&second, "levee_nsxt_requests_total 0").unwrap();

    first.process.kill().unwrap();
    bed.world().forget_requests();
    bed.apis[0].fall_silent().await.unwrap();
    let took =
        bed.has(&[1, 2], BUDGET).await.unwrap_or_else(|error| panic!("{error}\n{}", second.process.log_tail(40)));
    eprintln!("a node that died left the next hops after {took:?}");
    assert_eq!(bed.asked(), [1].into(), "the other leads");

    // The node returns, with a controller that does not lead.
    let first = bed.controller(0).unwrap();
    bed.apis[0].speak().await.unwrap();
    bed.has(&[0, 1, 2], BUDGET).await.unwrap();
    first.says("attempting to acquire leader lease levee-system/levee-controller", 2).await.unwrap();
    sleep(QUIET).await;
    assert_eq!((bed.asked(), bed.world().fewest_hops()), ([1].into(), Some(2)), "no list was empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_cannot_be_read_is_survived() {
    let _kept = promises::keeps(&["S0-14"], "the stand-ins");
    let bed = Bed::new(2).await.unwrap();
    let mut first = bed.controller(0).unwrap();
    bed.has(&[0, 1, 2], PATIENCE).await.unwrap_or_else(|error| panic!("{error}\n{}", first.process.log_tail(40)));
    let mut second = follower(&bed, 1).await;
    let unavailable = Failure::new(503, "ServiceUnavailable", "etcdserver: request timed out");
    let fault = bed.stub.fault(Only::verbs(&[Verb::Get, Verb::List]).of("leases"), Fault::Fails(unavailable, None));
    let begin = Instant::now();
    first.process.kill().unwrap();
    bed.world().forget_requests();
    bed.name(&[false, true, true]).unwrap();
    bed.stub.forget_requests();
    sleep(OUTAGE).await;
    assert_eq!(bed.world().requests(), [], "nobody leads");
    let tries = bed.stub.requests().iter().filter(|request| request.path.contains("/leases/")).count();
    assert!(tries >= 10, "asked {tries} times in {:?}", begin.elapsed());
    assert_eq!(second.process.exit_status().unwrap(), None, "it goes on trying");
    bed.stub.heal(fault);
    let took =
        bed.has(&[1, 2], BUDGET).await.unwrap_or_else(|error| panic!("{error}\n{}", second.process.log_tail(40)));
    eprintln!("the lead was taken over and the route changed {took:?} after the Lease could be read again");
    assert_eq!(bed.asked(), [1].into());
}
