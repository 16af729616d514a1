//! Whether anybody hears of the routes.

use serde_json::json;

use crate::bed::{Bed, T1};

const HOPS: [&str; 1] = ["10.20.4.2"];

#[tokio::test]
async fn a_gateway_that_does_not_advertise_is_hinted_at_and_not_changed() {
    let bed = Bed::new(1).await;
    bed.world().edit_gateway(T1, |gateway| gateway["route_advertisement_types"] = json!(["TIER1_NAT"]));
    let mut run = bed.keep(bed.config(&[]), &HOPS);
    let status = run.has(&HOPS).await;
    assert!(status.hints[0].contains("does not advertise static routes (TIER1_STATIC_ROUTES)"), "{:?}", status.hints);
    assert!(bed.world().writes().iter().all(|write| write.method == "PUT"));
    bed.world().edit_gateway(T1, |gateway| gateway["tier0_path"] = json!(""));
    run.until("another hint", |status| status.hints.iter().any(|hint| hint.contains("has no Tier-0 gateway"))).await;
    bed.world().add_gateway(T1, "t1", None);
    run.until("no hint", |status| status.hints.is_empty()).await;
}

#[tokio::test]
async fn it_is_switched_on_where_that_is_allowed_and_other_types_stay() {
    let bed = Bed::new(1).await;
    bed.world().edit_gateway(T1, |gateway| gateway["route_advertisement_types"] = json!(["TIER1_NAT"]));
    let mut run = bed.keep(bed.config(&["fixAdvertisement: true"]), &HOPS);
    let status = run.has(&HOPS).await;
    assert_eq!(status.hints, Vec::<String>::new());
    run.passes(2).await;
    let types = json!(["TIER1_NAT", "TIER1_STATIC_ROUTES"]);
    assert_eq!(bed.world().gateway(T1).unwrap()["route_advertisement_types"], types);
    let patches: Vec<_> = bed.world().writes().into_iter().filter(|write| write.method == "PATCH").collect();
    assert_eq!((patches.len(), &patches[0].body), (1, &json!({"route_advertisement_types": types})));
}

#[tokio::test]
async fn a_protected_gateway_is_changed_by_overwriting_only() {
    let bed = Bed::new(1).await;
    let path = "/infra/tier-1s/ncp";
    bed.world().add_gateway(path, "ncp", Some("ncp"));
    bed.world().edit_gateway(path, |gateway| gateway["route_advertisement_types"] = json!([]));
    let lines = ["tier1: ncp", "fixAdvertisement: true"];
    let mut run = bed.keep(bed.config(&lines), &HOPS);
    let status = run.until("a hint", |status| !status.hints.is_empty()).await;
    assert!(
        status.hints[0].contains("is protected") && status.hints[0].contains("`allowOverwrite: true`"),
        "{:?}",
        status.hints
    );
    assert!(
        bed.world().route(&format!("{path}/static-routes/to-192.168.160.249")).is_some(),
        "the route is there all the same"
    );
    drop(run);
    bed.keep(bed.config(&[lines[0], lines[1], "allowOverwrite: true"]), &HOPS).has(&HOPS).await;
    assert_eq!(bed.world().gateway(path).unwrap()["route_advertisement_types"], json!(["TIER1_STATIC_ROUTES"]));
}

#[tokio::test]
async fn a_router_of_the_manager_api_is_switched_on_with_its_revision() {
    let bed = Bed::new(1).await;
    let id = bed.world().add_router("old-router", None);
    let mut run = bed.keep(bed.config(&["tier1: old-router"]), &HOPS);
    run.until("a hint", |status| !status.hints.is_empty()).await;
    let before = bed.world().advertisement(&id);
    drop(run);
    bed.keep(bed.config(&["tier1: old-router", "fixAdvertisement: true"]), &HOPS).has(&HOPS).await;
    let mut expected = before;
    expected["advertise_static_routes"] = json!(true);
    expected["_revision"] = json!(4);
    assert_eq!(bed.world().advertisement(&id), expected);
}
