//! The stand-in's Manager API against recorded and documented facts.

use reqwest::Method;
use serde_json::{Value, json};

use crate::facts::{ask, check, server};

const GET: Method = Method::GET;
const PUT: Method = Method::PUT;

fn route(revision: Option<i64>) -> Value {
    json!({
        "resource_type": "StaticRoute", "display_name": "to-192.168.160.249", "network": "192.168.160.249/32",
        "next_hops": [{"ip_address": "10.20.4.2", "administrative_distance": 1}], "_revision": revision,
    })
}

#[tokio::test]
async fn routes_have_ids_of_the_server_and_need_a_revision() {
    let server = server().await;
    let id = server.world.add_router("pks-1-cluster-router", None);
    let routes = format!("/api/v1/logical-routers/{id}/routing/static-routes");
    let (status, made) = ask(&server, Method::POST, &routes, route(None)).await;
    assert_eq!((status, &made["_revision"], &made["logical_router_id"]), (201, &json!(0), &json!(id)));
    let path = format!("{routes}/{}", made["id"].as_str().unwrap());
    let policy_words =
        json!({"network": "192.0.2.1/32", "next_hops": [{"ip_address": "10.20.4.2", "admin_distance": 1}]});
    check(
        &server,
        &[
            (
                "by kind",
                GET,
                "/api/v1/logical-routers?router_type=TIER1",
                Value::Null,
                200,
                json!({"result_count": 1, "results": [{"id": id, "router_type": "TIER1"}]}),
            ),
            (
                "of another kind",
                GET,
                "/api/v1/logical-routers?router_type=TIER0",
                Value::Null,
                200,
                json!({"results": []}),
            ),
            ("one more of the same network", Method::POST, &routes, route(None), 201, json!({})),
            ("the words of the other API", Method::POST, &routes, policy_words, 400, json!({})),
            ("an old revision", PUT, &path, route(Some(7)), 412, json!({"error_code": 206})),
            ("without revision", PUT, &path, route(None), 412, json!({"error_code": 206})),
            ("the right one", PUT, &path, route(Some(0)), 200, json!({"_revision": 1})),
            (
                "there is no PATCH",
                Method::PATCH,
                &path,
                route(Some(1)),
                404,
                json!("<html><body><h1>404 Not Found</h1></body></html>"),
            ),
            ("DELETE", Method::DELETE, &path, Value::Null, 200, json!("")),
            ("gone", GET, &path, Value::Null, 404, json!({"error_code": 600})),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_policy_made_is_read_only_and_nsx_9_has_none_of_it() {
    let server = server().await;
    let id = server.world.add_router("t1", Some("/infra/tier-1s/t1"));
    let list = "/api/v1/logical-routers?router_type=TIER1";
    let advertisement = format!("/api/v1/logical-routers/{id}/routing/advertisement");
    let shown = json!({"results": [{"_create_user": "nsx_policy", "_protection": "REQUIRE_OVERRIDE",
                       "tags": [{"scope": "policyPath", "tag": "/infra/tier-1s/t1"}]}]});
    check(
        &server,
        &[
            ("marked", GET, list, Value::Null, 200, shown),
            ("read", GET, &advertisement, Value::Null, 200, json!({"advertise_static_routes": false, "_revision": 3})),
            ("not written", PUT, &advertisement, json!({"_revision": 3}), 400, json!({"error_code": 289})),
        ],
    )
    .await;
    server.world.switch(|switches| switches.nsx9 = true);
    assert_eq!(ask(&server, GET, list, Value::Null).await.0, 404);
    assert_eq!(ask(&server, GET, "/policy/api/v1/infra/tier-1s/t1", Value::Null).await.0, 200);
}
