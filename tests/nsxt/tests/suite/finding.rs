//! The gateway is found by path, id or display name, in either API.

use lb_agent::nsxt::Dialect;
use serde_json::json;

use crate::bed::{Bed, ROUTE, Run, T1, VIP, hops_of, wanted};

const HOPS: [&str; 2] = ["10.20.4.2", "10.20.4.3"];

#[tokio::test]
async fn by_path_id_or_display_name() {
    for name in ["/infra/tier-1s/t1", "/infra/tier-1s/t1/", "t1", "pks-1-cluster-router"] {
        let bed = Bed::new(1).await;
        // Names that only begin like it are others.
        bed.world().add_gateway("/infra/tier-1s/t2", "pks-1-cluster-router-2", None);
        let status = bed.keep(bed.config(&[&format!("tier1: {name}")]), &HOPS).has(&HOPS).await;
        assert_eq!((status.gateway.as_deref(), status.api), (Some(T1), Some(Dialect::Policy)), "{name}");
        assert_eq!(bed.hops().unwrap(), HOPS);
    }
}

#[tokio::test]
async fn in_a_project() {
    let bed = Bed::new(1).await;
    let path = "/orgs/default/projects/p1/infra/tier-1s/t9";
    bed.world().add_gateway(path, "router of p1", None);
    for name in [path, "router of p1"] {
        let status = bed.keep(bed.config(&[&format!("tier1: \"{name}\"")]), &HOPS).has(&HOPS).await;
        assert_eq!(status.gateway.as_deref(), Some(path));
    }
    assert!(bed.world().route(&format!("{path}/static-routes/to-192.168.160.249")).is_some());
    let look = "/policy/api/v1/orgs/default/projects/p1/infra/realized-state/realized-entities";
    assert!(bed.world().requests().iter().any(|request| request.path == look));
}

#[tokio::test]
async fn none_and_several_are_told() {
    let bed = Bed::new(1).await;
    bed.world().add_gateway("/infra/tier-1s/a", "twin", None);
    bed.world().add_gateway("/infra/tier-1s/b", "twin", None);
    for (name, part) in [
        ("none", "there is no Tier-1 gateway with path, id or name `none`"),
        ("/infra/tier-1s/none", "there is no Tier-1 gateway with path, id or name `/infra/tier-1s/none`"),
        ("/infra/tier-0s/t0", "there is no Tier-1 gateway with path"),
        ("twin", "several Tier-1 gateways are named `twin`: /infra/tier-1s/a, /infra/tier-1s/b"),
    ] {
        bed.keep(bed.config(&[&format!("tier1: {name}")]), &HOPS).fails(part).await;
    }
    assert_eq!(bed.world().writes(), []);
}

#[tokio::test]
async fn a_search_that_lags_is_asked_again() {
    let bed = Bed::new(1).await;
    bed.world().switch(|switches| switches.search_lags = true);
    let mut run = bed.keep(bed.config(&["tier1: pks-1-cluster-router"]), &HOPS);
    run.fails("there is no Tier-1 gateway").await;
    bed.world().switch(|switches| switches.search_lags = false);
    run.has(&HOPS).await;
}

#[tokio::test]
async fn a_router_of_the_manager_api_is_served_there() {
    for (api, no_policy) in [("api: auto", false), ("api: auto", true), ("api: manager", false)] {
        let bed = Bed::new(1).await;
        bed.world().switch(|switches| switches.no_policy = no_policy);
        let id = bed.world().add_router("old-router", None);
        let mut run = bed.keep(bed.config(&["tier1: old-router", api]), &HOPS);
        let status = run.has(&HOPS).await;
        assert_eq!((status.gateway.as_deref(), status.api), (Some(id.as_str()), Some(Dialect::Manager)), "{api}");
        let routes = bed.world().router_routes(&id);
        let hop = |address: &str| json!({"ip_address": address, "administrative_distance": 1});
        assert_eq!((routes.len(), &routes[0]["next_hops"]), (1, &json!([hop(HOPS[0]), hop(HOPS[1])])));
        run.wanted.send_replace(wanted(&[VIP], &HOPS[..1]));
        run.has(&HOPS[..1]).await;
        run.passes(2).await;
        let routes = bed.world().router_routes(&id);
        assert_eq!(
            (routes.len(), hops_of(&routes[0]), &routes[0]["_revision"]),
            (1, vec![HOPS[0].to_owned()], &json!(1))
        );
    }
}

#[tokio::test]
async fn a_route_of_the_manager_api_whose_answer_was_lost_is_made_once() {
    use nsxt_tests::{Action, Fault};
    let bed = Bed::new(1).await;
    let id = bed.world().add_router("old-router", None);
    bed.world().fault(Fault::on("POST", "static-routes", 1, Action::ResetAfter));
    let mut run = bed.keep(bed.config(&["tier1: old-router"]), &HOPS);
    run.has(&HOPS).await;
    run.passes(2).await;
    assert_eq!(bed.world().router_routes(&id).len(), 1);
    // Two of ours, as a controller that did not look would leave them.
    let double = bed.world().router_routes(&id)[0].clone();
    let path = format!("/api/v1/logical-routers/{id}/routing/static-routes");
    assert_eq!(crate::facts::ask(&bed.server, reqwest::Method::POST, &path, double).await.0, 201);
    assert_eq!(bed.world().router_routes(&id).len(), 2);
    let updates = run.status.borrow().updates;
    run.until("the double goes", |status| status.updates > updates).await;
    assert_eq!(bed.world().router_routes(&id).len(), 1);
}

#[tokio::test]
async fn what_policy_made_is_written_through_policy() {
    let bed = Bed::new(1).await;
    bed.world().add_router("t1 by its other name", Some(T1));
    let lines = ["tier1: t1 by its other name", "api: auto"];
    let status = bed.keep(bed.config(&lines), &HOPS).has(&HOPS).await;
    assert_eq!((status.gateway.as_deref(), status.api), (Some(T1), Some(Dialect::Policy)));
    assert!(bed.world().route(ROUTE).is_some());
    let lines = ["tier1: t1 by its other name", "api: manager"];
    bed.keep(bed.config(&lines), &HOPS).fails("was made through the Policy API").await;
}

#[tokio::test]
async fn releases_without_the_manager_api_are_served() {
    let bed = Bed::new(1).await;
    bed.world().add_router("old-router", None);
    bed.world().switch(|switches| switches.nsx9 = true);
    bed.keep(bed.config(&[]), &HOPS).has(&HOPS).await;
    bed.keep(bed.config(&["tier1: old-router"]), &HOPS).fails("there is no Tier-1 gateway").await;
}

#[tokio::test]
async fn a_path_is_no_matter_for_the_manager_api() {
    let bed = Bed::new(1).await;
    let mut run = Run::start(bed.config(&["tier1: /infra/tier-1s/x", "api: manager"]), wanted(&[VIP], &HOPS), true);
    run.fails("there is no Tier-1 gateway").await;
    assert_eq!(bed.world().requests(), []);
}
