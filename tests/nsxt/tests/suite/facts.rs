//! The stand-in's Policy API, sessions and lists against recorded and documented facts. Expected values come from there.

use std::time::Duration;

use nsxt_tests::{ADMIN, Action, Fault, Reply, Server};
use reqwest::{Certificate, Method, Response};
use serde_json::{Value, json};

pub const T1: &str = "/infra/tier-1s/t1";
pub const ROUTES: &str = "/policy/api/v1/infra/tier-1s/t1/static-routes";

/// Asks node 0 as the administrator.
pub async fn ask(server: &Server, method: Method, path: &str, body: Value) -> (u16, Value) {
    let response = send(server, 0, method, path, body, |request| request.basic_auth(ADMIN.0, Some(ADMIN.1))).await;
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

pub async fn send(
    server: &Server,
    node: usize,
    method: Method,
    path: &str,
    body: Value,
    with: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
) -> Response {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authority = Certificate::from_pem(server.authority.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let mut request = client.request(method, format!("{}{path}", server.urls()[node]));
    if !body.is_null() {
        request = request.json(&body);
    }
    with(request).send().await.unwrap()
}

/// Whether all that is expected is there.
pub fn holds(actual: &Value, expected: &Value) -> bool {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => {
            expected.iter().all(|(key, value)| actual.get(key).is_some_and(|actual| holds(actual, value)))
        }
        (Value::Array(actual), Value::Array(expected)) => {
            actual.len() == expected.len()
                && actual.iter().zip(expected).all(|(actual, expected)| holds(actual, expected))
        }
        (actual, expected) => actual == expected,
    }
}

/// Sends the requests one after the other; each has a method, path, body, and the status and part of the body that follow.
pub async fn check(server: &Server, table: &[(&str, Method, &str, Value, u16, Value)]) {
    for (name, method, path, body, status, expected) in table {
        let (got, answer) = ask(server, method.clone(), path, body.clone()).await;
        assert!(got == *status && holds(&answer, expected), "{name}: {got} {answer:#}\nexpected {status} {expected:#}");
    }
}

pub async fn server() -> Server {
    let server = Server::start(1).await;
    server.world.add_gateway(T1, "pks-1-cluster-router", None);
    server
}

fn route(hops: &[&str]) -> Value {
    let hops: Vec<_> = hops.iter().map(|hop| json!({"ip_address": hop})).collect();
    json!({"network": "192.168.160.249/32", "next_hops": hops})
}

const GET: Method = Method::GET;
const PUT: Method = Method::PUT;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

const ROUTE: &str = "/policy/api/v1/infra/tier-1s/t1/static-routes/to-192.168.160.249";

/// The usual route with these fields beside.
fn route_with(fields: &Value) -> Value {
    let mut body = route(&["10.20.4.2"]);
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_route_is_filled_with_what_the_schema_has() {
    let server = server().await;
    // The sample of a GET in the schema of StaticRoutes.
    let filled = json!({
        "network": "192.168.160.249/32", "next_hops": [{"ip_address": "10.20.4.2", "admin_distance": 1}],
        "enabled_on_secondary": false, "resource_type": "StaticRoutes", "id": "to-192.168.160.249",
        "display_name": "to-192.168.160.249", "tags": [], "path": "/infra/tier-1s/t1/static-routes/to-192.168.160.249",
        "relative_path": "to-192.168.160.249", "parent_path": T1, "remote_path": "", "marked_for_delete": false,
        "overridden": false, "_system_owned": false, "_protection": "NOT_PROTECTED", "_create_user": "admin",
        "_last_modified_user": "admin", "_revision": 0,
    });
    let absent = json!({"httpStatus": "NOT_FOUND", "error_code": 600, "module_name": "common-services"});
    let listed = json!({"result_count": 1, "results": [filled.clone()]});
    let table = [
        ("absent", GET, ROUTE, Value::Null, 404, absent),
        ("PUT makes it and answers with it", PUT, ROUTE, route(&["10.20.4.2"]), 200, filled.clone()),
        ("GET", GET, ROUTE, Value::Null, 200, filled),
        ("the list", GET, ROUTES, Value::Null, 200, listed),
    ];
    check(&server, &table).await;
}

#[tokio::test]
async fn put_needs_the_revision_and_patch_does_not() {
    let server = server().await;
    let hop = |address: &str| json!({"ip_address": address, "admin_distance": 1});
    let patched =
        json!({"next_hops": [hop("10.20.4.3"), hop("10.20.4.4")], "network": "192.168.160.249/32", "_revision": 1});
    let patch = json!({"next_hops": [{"ip_address": "10.20.4.3"}, {"ip_address": "10.20.4.4"}]});
    let stale = json!({"error_code": 206, "module_name": "common-services"});
    let servers = route_with(&json!({"_revision": 1, "path": "/x", "unique_id": "x", "_create_user": "x"}));
    let table = [
        ("made", PUT, ROUTE, route(&["10.20.4.2"]), 200, json!({"_revision": 0})),
        ("no revision", PUT, ROUTE, route(&["10.20.4.3"]), 400, json!({"error_code": 500_127})),
        ("an old one", PUT, ROUTE, route_with(&json!({"_revision": 7})), 412, stale.clone()),
        ("no change", PUT, ROUTE, route_with(&json!({"_revision": 0})), 200, json!({"_revision": 0})),
        ("PATCH has no body", PATCH, ROUTE, patch, 200, json!("")),
        ("lists are replaced whole, the rest stays", GET, ROUTE, Value::Null, 200, patched),
        ("PATCH without change", PATCH, ROUTE, json!({"network": "192.168.160.249/32"}), 200, json!("")),
        ("its revision stays", GET, ROUTE, Value::Null, 200, json!({"_revision": 1})),
        ("the server's own fields", PUT, ROUTE, servers, 200, json!({"_create_user": "admin", "_revision": 2})),
    ];
    check(&server, &table).await;
    server.world.switch(|switches| switches.missing_revision_is_412 = true);
    check(&server, &[("other releases", PUT, ROUTE, route(&["10.20.4.3"]), 412, stale)]).await;
}

#[tokio::test]
async fn what_the_schema_forbids_is_refused() {
    let server = server().await;
    let far = json!({"next_hops": [{"ip_address": "10.20.4.2", "admin_distance": 256}]});
    let no_network = json!({"next_hops": [{"ip_address": "10.20.4.2"}]});
    let refused = json!({"httpStatus": "BAD_REQUEST"});
    let table = [
        ("made", PUT, ROUTE, route(&["10.20.4.2"]), 200, json!({})),
        ("unknown fields", PATCH, ROUTE, json!({"colour": "red"}), 400, refused.clone()),
        ("no next hops", PATCH, ROUTE, json!({"next_hops": []}), 400, refused.clone()),
        ("distances are 1..=255", PATCH, ROUTE, far, 400, refused.clone()),
        ("a network is required", PUT, &format!("{ROUTES}/x"), no_network, 400, refused.clone()),
        ("next hops are, too", PUT, &format!("{ROUTES}/x"), json!({"network": "192.0.2.1/32"}), 400, refused),
    ];
    check(&server, &table).await;
}

#[tokio::test]
async fn what_is_deleted_keeps_its_id_for_a_while() {
    let server = server().await;
    let absent = json!({"error_code": 600});
    let table = [
        ("made", PUT, ROUTE, route(&["10.20.4.2"]), 200, json!({})),
        ("DELETE has no body", DELETE, ROUTE, Value::Null, 200, json!("")),
        ("gone at once", GET, ROUTE, Value::Null, 404, absent.clone()),
        ("from the list, too", GET, ROUTES, Value::Null, 200, json!({"results": []})),
        ("the id is taken", PUT, ROUTE, route(&["10.20.4.2"]), 400, json!({"error_code": 500_045})),
        ("DELETE of what is gone", DELETE, ROUTE, Value::Null, 404, absent),
    ];
    check(&server, &table).await;
    server.world.switch(|switches| {
        switches.purge = Duration::ZERO;
        switches.missing_delete_is_404 = false;
        switches.no_content = true;
    });
    let table = [
        ("after the purge the id is free", PUT, ROUTE, route(&["10.20.4.2"]), 200, json!({"_revision": 0})),
        ("other releases answer 204", DELETE, ROUTE, Value::Null, 204, json!("")),
        ("for what is gone as well", DELETE, ROUTE, Value::Null, 204, json!("")),
    ];
    check(&server, &table).await;
}

#[tokio::test]
async fn projects_have_gateways_of_their_own_and_missing_ones_are_told_in_two_ways() {
    let server = server().await;
    let project = "/orgs/default/projects/p1/infra/tier-1s/t2";
    server.world.add_gateway(project, "t2", None);
    let missing = "/policy/api/v1/infra/tier-1s/none/static-routes";
    check(
        &server,
        &[
            (
                "of the project",
                GET,
                &format!("/policy/api/v1{project}"),
                Value::Null,
                200,
                json!({"id": "t2", "path": project}),
            ),
            (
                "not of the default",
                GET,
                "/policy/api/v1/infra/tier-1s/t2",
                Value::Null,
                404,
                json!({"error_code": 600}),
            ),
            (
                "each lists its own",
                GET,
                "/policy/api/v1/infra/tier-1s",
                Value::Null,
                200,
                json!({"result_count": 1, "results": [{"id": "t1"}]}),
            ),
            (
                "a route there",
                PUT,
                &format!("/policy/api/v1{project}/static-routes/r"),
                route(&["10.20.4.2"]),
                200,
                json!({"parent_path": project}),
            ),
            ("routes of none", GET, missing, Value::Null, 404, json!({"error_code": 600})),
        ],
    )
    .await;
    server.world.switch(|switches| switches.missing_gateway_is_404 = false);
    let text = json!({"error_code": 500_012, "module_name": "Policy", "error_message": "The path=[/infra/tier-1s/none] is invalid"});
    check(&server, &[("routes of none", GET, missing, Value::Null, 400, text)]).await;
}

#[tokio::test]
async fn realization_comes_late_or_fails() {
    let server = server().await;
    let path = format!("{ROUTES}/r");
    let look =
        "/policy/api/v1/infra/realized-state/realized-entities?intent_path=%2Finfra%2Ftier-1s%2Ft1%2Fstatic-routes%2Fr";
    server.world.switch(|switches| switches.unrealized = 2);
    let state =
        |state: &str| json!({"results": [{"state": state, "intent_paths": ["/infra/tier-1s/t1/static-routes/r"]}]});
    check(
        &server,
        &[
            ("written", PUT, &path, route(&["10.20.4.2"]), 200, json!({})),
            ("nothing yet", GET, look, Value::Null, 200, json!({"results": []})),
            ("unrealized", GET, look, Value::Null, 200, state("UNREALIZED")),
            ("realized", GET, look, Value::Null, 200, state("REALIZED")),
            (
                "status",
                GET,
                &look.replace("realized-entities", "status"),
                Value::Null,
                200,
                json!({"publish_status": "REALIZED", "consolidated_status": {"consolidated_status": "SUCCESS"}}),
            ),
            (
                "advertised",
                GET,
                "/policy/api/v1/infra/tier-1s/t1/advertised-networks",
                Value::Null,
                200,
                json!({"results": [{"network": "192.168.160.249/32", "status": "SUCCESS"}]}),
            ),
        ],
    )
    .await;
    server.world.switch(|switches| switches.realization_fails = true);
    let (_, answer) = ask(&server, GET, look, Value::Null).await;
    assert_eq!(answer["results"][0]["state"], "ERROR");
    assert_ne!(answer["results"][0]["alarms"], json!([]));
}

#[tokio::test]
async fn advertisement_is_changed_by_patch_and_protection_by_its_owner() {
    let server = server().await;
    let path = "/policy/api/v1/infra/tier-1s/t1";
    let types = json!({"route_advertisement_types": ["TIER1_NAT"]});
    let networks = format!("{path}/advertised-networks");
    check(
        &server,
        &[
            ("a route", PUT, &format!("{ROUTES}/r"), route(&["10.20.4.2"]), 200, json!({})),
            ("PATCH of the types", PATCH, path, types.clone(), 200, json!("")),
            (
                "took them whole",
                GET,
                path,
                Value::Null,
                200,
                json!({"route_advertisement_types": ["TIER1_NAT"], "tier0_path": "/infra/tier-0s/t0"}),
            ),
            ("nothing is advertised", GET, &networks, Value::Null, 200, json!({"results": []})),
        ],
    )
    .await;
    server.world.add_gateway("/infra/tier-1s/ncp", "ncp", Some("ncp"));
    let path = "/policy/api/v1/infra/tier-1s/ncp";
    check(
        &server,
        &[
            (
                "protected",
                PATCH,
                path,
                types.clone(),
                400,
                json!({"error_code": 289, "module_name": "common-services"}),
            ),
            (
                "a child of one's own",
                PUT,
                &format!("{path}/static-routes/r"),
                route(&["10.20.4.2"]),
                200,
                json!({"_create_user": "admin"}),
            ),
        ],
    )
    .await;
    let overwrite = send(&server, 0, PATCH, path, types, |request| {
        request.basic_auth(ADMIN.0, Some(ADMIN.1)).header("X-Allow-Overwrite", "true")
    });
    assert_eq!(overwrite.await.status(), 200);
}

#[tokio::test]
async fn searching_takes_escapes_and_finds_beginnings_and_what_is_deleted() {
    let server = server().await;
    server.world.add_gateway("/infra/tier-1s/t1b", "pks-1-cluster-router-b", None);
    let search = |query: &str| {
        let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!("/policy/api/v1/search/query?query={query}")
    };
    let escaped = search(r"resource_type:Tier1 AND display_name:pks\-1\-cluster\-router AND marked_for_delete:false");
    let deleted = search("resource_type:StaticRoutes AND id:r");
    let not_deleted = search("resource_type:StaticRoutes AND id:r AND marked_for_delete:false");
    check(&server, &[
        ("a beginning is found, too; the cursor is there at the end", GET, &escaped, Value::Null, 200, json!({"result_count": 2, "cursor": "2", "results": [{"id": "t1"}, {"id": "t1b"}]})),
        ("without backslashes", GET, &search("display_name:pks-1"), Value::Null, 400, json!({"error_code": 60_508})),
        ("a path", GET, &search(r"path:\/infra* AND resource_type:Tier1"), Value::Null, 200, json!({"result_count": 2})),
        ("a route", PUT, &format!("{ROUTES}/r"), json!({"network": "192.0.2.1/32", "next_hops": [{"ip_address": "10.20.4.2"}], "tags": [{"scope": "a", "tag": "b"}]}), 200, json!({})),
        ("by tag", GET, &search("tags.scope:a AND tags.tag:b"), Value::Null, 200, json!({"results": [{"id": "r"}]})),
        ("deleted", DELETE, &format!("{ROUTES}/r"), Value::Null, 200, json!("")),
        ("is found", GET, &deleted, Value::Null, 200, json!({"results": [{"id": "r", "marked_for_delete": true}]})),
        ("unless that is excluded", GET, &not_deleted, Value::Null, 200, json!({"results": []})),
    ]).await;
}

#[tokio::test]
async fn pages_count_once_and_the_cursor_stays() {
    let server = server().await;
    for number in 0..3 {
        let body = json!({"network": format!("192.0.2.{number}/32"), "next_hops": [{"ip_address": "10.20.4.2"}]});
        ask(&server, PUT, &format!("{ROUTES}/r{number}"), body).await;
    }
    let (_, first) = ask(&server, GET, &format!("{ROUTES}?page_size=2"), Value::Null).await;
    assert!(
        holds(&first, &json!({"result_count": 3, "cursor": "2", "results": [{"id": "r0"}, {"id": "r1"}]})),
        "{first}"
    );
    let (_, last) = ask(&server, GET, &format!("{ROUTES}?page_size=2&cursor=2"), Value::Null).await;
    assert!(holds(&last, &json!({"cursor": "3", "results": [{"id": "r2"}]})), "{last}");
    assert_eq!(last.get("result_count"), None, "on the first page only");
}

#[tokio::test]
async fn a_session_is_of_one_node_and_needs_cookie_and_token() {
    let server = Server::start(2).await;
    server.world.add_gateway(T1, "t1", None);
    let log_in = async |node, form: &'static str| {
        send(&server, node, Method::POST, "/api/session/create", Value::Null, |request| {
            request.header("content-type", "application/x-www-form-urlencoded").body(form)
        })
        .await
    };
    let answer = log_in(0, "j_username=admin&j_password=s3cr%2Bt%20%26%20100%25").await;
    assert_eq!(answer.status(), 200);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(
        cookie.starts_with("JSESSIONID=") && cookie.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    let token = answer.headers()["x-xsrf-token"].to_str().unwrap().to_owned();
    assert_eq!(answer.text().await.unwrap(), "");
    let cookie = cookie.split(';').next().unwrap();
    let path = "/policy/api/v1/infra/tier-1s";
    let status = async |node, with_token: bool| {
        let response = send(&server, node, GET, path, Value::Null, |request| {
            let request = request.header("cookie", cookie);
            if with_token { request.header("x-xsrf-token", &token) } else { request }
        });
        let response = response.await;
        (response.status().as_u16(), response.json::<Value>().await.unwrap()["error_code"].clone())
    };
    assert_eq!(status(0, true).await, (200, Value::Null));
    assert_eq!(status(0, false).await, (403, json!(98)), "the token is missing");
    assert_eq!(status(1, true).await, (403, json!(98)), "another node knows nothing of it");
    server.world.switch(|switches| switches.session_idle = Duration::ZERO);
    assert_eq!(status(0, true).await, (403, json!(98)), "it expired");
    // A raw `+` is a blank.
    assert_eq!(log_in(0, "j_username=admin&j_password=s3cr+t%20%26%20100%25").await.status(), 403);
}

#[tokio::test]
async fn five_bad_logins_lock_the_account_of_a_node() {
    let server = Server::start(2).await;
    server.world.add_gateway(T1, "t1", None);
    let status = async |node, password: &str| {
        let path = "/policy/api/v1/infra/tier-1s";
        let response =
            send(&server, node, GET, path, Value::Null, |request| request.basic_auth("admin", Some(password)));
        let response = response.await;
        (response.status().as_u16(), response.json::<Value>().await.unwrap()["error_code"].clone())
    };
    for _ in 0..5 {
        assert_eq!(status(0, "wrong").await, (403, json!(403)));
    }
    assert_eq!(status(0, ADMIN.1).await, (403, json!(403)), "locked");
    assert_eq!(status(1, ADMIN.1).await, (200, Value::Null), "but not on the other node");
    server.world.switch(|switches| switches.basic_auth = false);
    assert_eq!(status(1, ADMIN.1).await.0, 403, "Basic can be switched off");
}

#[tokio::test]
async fn faults_strike_and_secrets_are_not_recorded() {
    let server = server().await;
    let world = &server.world;
    world.fault(Fault::on("GET", "tier-1s", 1, Action::Answer(Reply::too_many().with("retry-after", "3"))));
    let (status, body) = ask(&server, GET, "/policy/api/v1/infra/tier-1s", Value::Null).await;
    // The code of a 429 was seen as a string, and without `httpStatus`.
    let expected = json!({"module_name": "common-services", "error_message": "Client 'admin' exceeded request rate of 100 per second", "error_code": "102"});
    assert_eq!((status, body), (429, expected));
    world.switch(|switches| switches.codes_are_strings = true);
    let (_, body) = ask(&server, GET, "/policy/api/v1/infra/tier-1s/none", Value::Null).await;
    assert_eq!(body["error_code"], "600");
    let recorded = format!("{:?}", world.requests());
    assert!(!recorded.contains("authorization") && !recorded.contains("Basic"), "{recorded}");
    assert_eq!(world.requests().iter().map(|record| record.status).collect::<Vec<_>>(), [429, 404]);
}
