//! Routes follow what is wanted.

use std::time::Duration;

use lb_agent::nsxt::Realization;
use nsxt_tests::{Action, Fault};
use serde_json::json;

use crate::bed::{Bed, ROUTE, Run, T1, VIP, hops_of, wanted};

const THREE: [&str; 3] = ["10.20.4.2", "10.20.4.3", "10.20.4.4"];

#[tokio::test]
async fn the_first_write_is_the_route_that_was_asked_for() {
    // By PUT with the revision that was read, where the former controller sent PATCH: a write that a leader sent before it
    // lost the lead must not undo what the next one wrote.
    let _kept = promises::keeps(&["S0-03"], "the stand-in");
    let bed = Bed::new(1).await;
    bed.keep(bed.config(&["allowOverwrite: true"]), &THREE).has(&THREE).await;
    let writes = bed.world().writes();
    let [write] = &writes[..] else { panic!("{writes:#?}") };
    assert_eq!((write.method.as_str(), write.path.as_str()), ("PUT", &*format!("/policy/api/v1{ROUTE}")));
    assert_eq!(write.headers["x-allow-overwrite"], "true");
    assert_eq!(write.headers["content-type"], "application/json");
    let hop = |address: &str| json!({"ip_address": address, "admin_distance": 1});
    let expected = json!({
        "resource_type": "StaticRoutes", "id": "to-192.168.160.249", "display_name": "to-192.168.160.249",
        "description": "VIP of cluster c1, kept by Levee", "network": "192.168.160.249/32",
        "next_hops": [hop("10.20.4.2"), hop("10.20.4.3"), hop("10.20.4.4")],
        "tags": [{"scope": "levee.dev/cluster", "tag": "c1"}],
    });
    assert_eq!(write.body, expected);
    let before: Vec<_> = bed.world().requests().into_iter().take_while(|request| request.method == "GET").collect();
    assert!(before.iter().any(|request| request.path.ends_with("/tier-1s/t1/static-routes")), "the list is read first");
}

#[tokio::test]
async fn hops_shrink_and_grow_and_equal_ones_are_not_written() {
    let bed = Bed::new(1).await;
    let mut run = bed.keep(bed.config(&[]), &THREE);
    run.has(&THREE).await;
    run.wanted.send_replace(wanted(&[VIP], &THREE[1..]));
    run.has(&THREE[1..]).await;
    assert_eq!(bed.hops().unwrap(), &THREE[1..]);
    run.wanted.send_replace(wanted(&[VIP], &THREE));
    run.has(&THREE).await;
    let status = run.passes(3).await;
    assert_eq!(bed.hops().unwrap(), THREE);
    assert_eq!((bed.world().writes().len(), status.updates), (3, 3), "three changes, three writes");
    assert!(bed.world().writes().iter().all(|write| !write.headers.contains_key("x-allow-overwrite")));
    assert_eq!(bed.world().fewest_hops(), Some(2));
}

#[tokio::test]
async fn empty_hops_are_never_sent() {
    let _kept = promises::keeps(&["S0-16"], "the stand-in");
    let bed = Bed::new(1).await;
    let mut run = bed.keep(bed.config(&[]), &[]);
    run.refuses("the route is made when there is one").await;
    run.wanted.send_replace(wanted(&[VIP], &THREE));
    run.has(&THREE).await;
    run.wanted.send_replace(wanted(&[VIP], &[]));
    let status = run.refuses("the last good ones stay: 10.20.4.2, 10.20.4.3, 10.20.4.4").await;
    assert!(!status.is_good());
    run.passes(2).await;
    assert_eq!(bed.hops().unwrap(), THREE);
    assert_eq!((bed.world().writes().len(), bed.world().fewest_hops()), (1, Some(3)));
}

#[tokio::test]
async fn both_families_have_routes_of_their_own_and_a_former_vip_has_none() {
    let bed = Bed::new(1).await;
    let hops = ["10.20.4.2", "2001:db8::2", "2001:db8::3"];
    let mut run = Run::start(bed.config(&[]), wanted(&[VIP, "2001:db8::10"], &hops), true);
    run.until("both", |status| status.routes.len() == 2 && status.is_good()).await;
    let routes = bed.world().routes();
    let six = &routes["/infra/tier-1s/t1/static-routes/to-2001-db8--10"];
    assert_eq!(
        (six["network"].as_str(), hops_of(six)),
        (Some("2001:db8::10/128"), hops[1..].iter().map(|hop| (*hop).to_owned()).collect())
    );
    assert_eq!(hops_of(&routes[ROUTE]), ["10.20.4.2"]);
    run.wanted.send_replace(wanted(&[VIP], &hops));
    run.until("one", |status| status.routes.len() == 1 && status.is_good()).await;
    assert_eq!(bed.world().routes().keys().collect::<Vec<_>>(), [ROUTE]);
    // Nothing wanted is no order to remove everything.
    run.wanted.send_replace(wanted(&[], &[]));
    run.passes(0).await;
    run.until("nothing", |status| status.routes.is_empty()).await;
    assert_eq!(bed.world().routes().keys().collect::<Vec<_>>(), [ROUTE]);
}

#[tokio::test]
async fn too_many_hops_are_cut_and_told() {
    let bed = Bed::new(1).await;
    let mut run = bed.keep(bed.config(&["maxNextHops: 2"]), &THREE);
    let status = run.has(&THREE[..2]).await;
    assert_eq!(status.routes[&VIP.parse().unwrap()].left_out, 1);
    assert_eq!(bed.hops().unwrap(), &THREE[..2]);
}

#[tokio::test]
async fn what_others_change_or_remove_is_put_back() {
    let bed = Bed::new(1).await;
    bed.world().switch(|switches| switches.purge = Duration::ZERO);
    let mut run = bed.keep(bed.config(&[]), &THREE);
    run.has(&THREE).await;
    let path = format!("/policy/api/v1{ROUTE}");
    let less = json!({"next_hops": [{"ip_address": "10.20.4.9"}]});
    crate::facts::ask(&bed.server, reqwest::Method::PATCH, &path, less).await;
    assert_eq!(bed.hops().unwrap(), ["10.20.4.9"]);
    let updates = run.status.borrow().updates;
    run.until("the repair", |status| status.updates > updates).await;
    assert_eq!(bed.hops().unwrap(), THREE);
    crate::facts::ask(&bed.server, reqwest::Method::DELETE, &path, serde_json::Value::Null).await;
    let updates = run.status.borrow().updates;
    run.until("the repair", |status| status.updates > updates).await;
    assert_eq!(bed.hops().unwrap(), THREE);
}

#[tokio::test]
async fn only_the_leader_asks_and_writes() {
    let bed = Bed::new(1).await;
    let mut first = Run::start(bed.config(&["cluster: c1"]), wanted(&[VIP], &THREE), true);
    let mut second = Run::start(bed.config(&["cluster: c1"]), wanted(&[VIP], &THREE[..1]), false);
    first.has(&THREE).await;
    assert!(!second.status.borrow().leading);
    assert_eq!(second.status.borrow().counts.requests, 0, "who does not lead asks nothing");
    first.leader.send_replace(false);
    first.until("the end", |status| !status.leading).await;
    bed.world().forget_requests();
    first.wanted.send_replace(wanted(&[VIP], &THREE[2..]));
    second.leader.send_replace(true);
    second.has(&THREE[..1]).await;
    second.passes(3).await;
    assert_eq!((bed.hops().unwrap(), bed.world().writes().len()), (vec![THREE[0].to_owned()], 1));
}

#[tokio::test]
async fn a_request_under_way_is_dropped_when_leadership_ends() {
    let bed = Bed::new(1).await;
    bed.world().fault(Fault::on("GET", "static-routes", 1, Action::Slow(Duration::from_secs(3600))));
    let mut config = bed.config(&[]);
    config.timeout = Duration::from_secs(3600);
    let mut run = Run::start(config, wanted(&[VIP], &THREE), true);
    let world = bed.world().clone();
    while !world.requests().iter().any(|request| request.path.ends_with("static-routes")) {
        tokio::task::yield_now().await;
    }
    run.leader.send_replace(false);
    run.until("the end", |status| !status.leading && status.attempts == 1).await;
    assert_eq!(world.writes(), []);
}

#[tokio::test]
async fn realization_is_followed_and_its_failure_reported() {
    let bed = Bed::new(1).await;
    bed.world().switch(|switches| switches.unrealized = 3);
    let mut run = bed.keep(bed.config(&[]), &THREE);
    run.has(&THREE).await;
    bed.world().switch(|switches| {
        switches.unrealized = 0;
        switches.realization_fails = true;
    });
    run.wanted.send_replace(wanted(&[VIP], &THREE[..2]));
    let failed = Realization::Failed("No edge cluster is there for the gateway.".to_owned());
    let vip = VIP.parse().unwrap();
    run.until("the alarm", |status| status.routes.get(&vip).is_some_and(|route| route.realization == failed)).await;
    assert_eq!(bed.hops().unwrap(), &THREE[..2], "the route is not rolled back");
}

#[tokio::test]
async fn a_changed_set_is_written_while_the_last_one_is_not_realized_yet() {
    let bed = Bed::new(1).await;
    bed.world().switch(|switches| switches.unrealized = u32::MAX);
    let mut config = bed.config(&[]);
    config.resync = Duration::from_secs(3600);
    let mut run = Run::start(config, wanted(&[VIP], &THREE), true);
    run.until("the route", |status| status.updates == 1).await;
    run.wanted.send_replace(wanted(&[VIP], &THREE[..2]));
    run.until("the change", |status| status.updates == 2).await;
    assert_eq!(bed.hops().unwrap(), &THREE[..2]);
}

#[tokio::test]
async fn a_gateway_that_goes_is_reported_and_one_that_comes_back_is_served() {
    for missing_is_404 in [true, false] {
        let bed = Bed::new(1).await;
        bed.world().switch(|switches| switches.missing_gateway_is_404 = missing_is_404);
        let mut run = bed.keep(bed.config(&[]), &THREE);
        run.has(&THREE).await;
        bed.world().remove_gateway(T1);
        run.fails("there is no Tier-1 gateway with path, id or name `t1`").await;
        bed.world().add_gateway(T1, "again", None);
        run.has(&THREE).await;
        run.until("the route", |status| status.error.is_none()).await;
        run.passes(1).await;
        assert_eq!(bed.hops().unwrap(), THREE);
    }
}
