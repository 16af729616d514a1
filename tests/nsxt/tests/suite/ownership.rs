//! Routes of others are left alone.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    bed::{Bed, ROUTE, T1, hops_of},
    facts::ask,
};

const HOPS: [&str; 2] = ["10.20.4.2", "10.20.4.3"];

async fn put(bed: &Bed, id: &str, network: &str, tags: Value) {
    let body = json!({"network": network, "next_hops": [{"ip_address": "10.20.4.9"}], "tags": tags});
    let path = format!("/policy/api/v1{T1}/static-routes/{id}");
    assert_eq!(ask(&bed.server, Method::PUT, &path, body).await.0, 200);
}

#[tokio::test]
async fn a_foreign_route_of_our_name_or_network_is_not_touched() {
    for (id, network) in [("to-192.168.160.249", "10.0.0.0/8"), ("by-hand", "192.168.160.249/32")] {
        let bed = Bed::new(1).await;
        put(&bed, id, network, json!([{"scope": "team", "tag": "net"}])).await;
        bed.world().forget_requests();
        let mut run = bed.keep(bed.config(&["allowOverwrite: true"]), &HOPS);
        run.refuses(&format!("route `{id}` to {network} is not ours; remove it, or set `adopt: true`")).await;
        run.passes(2).await;
        assert_eq!(bed.world().writes(), []);
    }
}

#[tokio::test]
async fn a_foreign_route_is_taken_over_where_that_is_allowed() {
    let bed = Bed::new(1).await;
    put(&bed, "by-hand", "192.168.160.249/32", json!([{"scope": "team", "tag": "net"}])).await;
    bed.keep(bed.config(&["adopt: true"]), &HOPS).has(&HOPS).await;
    let routes = bed.world().routes();
    let (path, route) = routes.first_key_value().unwrap();
    assert_eq!((routes.len(), path.as_str()), (1, "/infra/tier-1s/t1/static-routes/by-hand"));
    assert_eq!(hops_of(route), HOPS);
    let tags = json!([{"scope": "team", "tag": "net"}, {"scope": "levee.dev/cluster", "tag": "c1"}]);
    assert_eq!(route["tags"], tags, "the tags of others stay");
}

#[tokio::test]
async fn a_route_of_another_cluster_is_never_taken_over() {
    let bed = Bed::new(1).await;
    bed.keep(bed.config(&["cluster: c2"]), &["10.20.4.9"]).has(&["10.20.4.9"]).await;
    let mut run = bed.keep(bed.config(&["adopt: true", "allowOverwrite: true"]), &HOPS);
    run.refuses("belongs to cluster `c2`").await;
    assert_eq!(bed.hops().unwrap(), ["10.20.4.9"]);
}

#[tokio::test]
async fn a_child_of_a_protected_gateway_is_ours_unless_the_manager_says_otherwise() {
    let bed = Bed::new(1).await;
    bed.world().add_gateway("/infra/tier-1s/ncp", "ncp", Some("ncp"));
    bed.keep(bed.config(&["tier1: ncp"]), &HOPS)
        .until("the route", |status| status.is_good() && status.passes > 1)
        .await;
    bed.world().switch(|switches| switches.children_protected = true);
    let mut run = bed.keep(bed.config(&["tier1: ncp"]), &HOPS[..1]);
    run.refuses("is protected").await;
    let route = "/infra/tier-1s/ncp/static-routes/to-192.168.160.249";
    assert_eq!(hops_of(&bed.world().route(route).unwrap()), HOPS);
    bed.keep(bed.config(&["tier1: ncp", "allowOverwrite: true"]), &HOPS[..1]).has(&HOPS[..1]).await;
    assert_eq!(hops_of(&bed.world().route(route).unwrap()), HOPS[..1]);
}

#[tokio::test]
async fn a_route_that_waits_for_its_purge_is_made_when_its_id_is_free() {
    let bed = Bed::new(1).await;
    put(&bed, "to-192.168.160.249", "192.168.160.249/32", json!([])).await;
    ask(&bed.server, Method::DELETE, &format!("/policy/api/v1{ROUTE}"), Value::Null).await;
    let mut run = bed.keep(bed.config(&[]), &HOPS);
    run.refuses("marked for deletion").await;
    bed.world().switch(|switches| switches.purge = std::time::Duration::ZERO);
    run.has(&HOPS).await;
}
