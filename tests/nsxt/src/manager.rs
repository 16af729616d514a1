//! The Manager API: routers, their static routes and advertisement. The server chooses ids; there is no PATCH.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    Reply,
    reply::{Cursor, page},
    world::{Call, State},
};

/// A logical router.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    body: Value,
    pub(crate) routes: BTreeMap<String, Value>,
    pub(crate) advertisement: Value,
}

pub(crate) fn add_router(state: &mut State, display_name: &str, policy_path: Option<&str>) -> String {
    let id = state.uuid();
    let mut body = json!({
        "resource_type": "LogicalRouter", "id": id, "display_name": display_name, "router_type": "TIER1", "tags": [],
        "_create_user": "admin", "_protection": "NOT_PROTECTED", "_revision": 0,
    });
    if let Some(path) = policy_path {
        body["tags"] = json!([{"scope": "policyPath", "tag": path}]);
        body["_create_user"] = json!("nsx_policy");
        body["_protection"] = json!("REQUIRE_OVERRIDE");
    }
    let advertisement = json!({
        "resource_type": "AdvertisementConfig", "enabled": true, "advertise_static_routes": false,
        "advertise_nsx_connected_routes": true, "advertise_nat_routes": true, "advertise_lb_vip": false,
        "advertise_lb_snat_ip": false, "advertise_dns_forwarder": false, "advertise_ipsec_local_ip": false, "_revision": 3,
    });
    state.routers.insert(id.clone(), Router { body, routes: BTreeMap::new(), advertisement });
    id
}

/// Serves what stands below `/api/v1/logical-routers`.
pub(crate) fn serve(state: &mut State, user: &str, call: &Call) -> Reply {
    let below = call.path.trim_start_matches("/api/v1/logical-routers");
    let parts: Vec<&str> = below.split('/').filter(|part| !part.is_empty()).collect();
    let largest = state.switches.largest_page;
    let [router, rest @ ..] = parts.as_slice() else {
        let kind = call.query.get("router_type");
        let fits = |router: &&Value| kind.is_none_or(|kind| *kind == router["router_type"]);
        let all: Vec<_> = state.routers.values().map(|router| &router.body).filter(fits).cloned().collect();
        return page(&all, &call.query, largest, Cursor::Manager);
    };
    let uuid = state.uuid();
    let hop_count = call.json().and_then(|body| Some(body.get("next_hops")?.as_array()?.len()));
    state.hop_counts.extend(hop_count);
    let Some(router) = state.routers.get_mut(*router) else { return Reply::not_found(&call.path) };
    let owner = router.body["_create_user"].as_str().unwrap_or_default();
    if call.method != "GET" && router.body["_protection"] == "REQUIRE_OVERRIDE" && !call.overwrites(user) {
        return Reply::not_owner(user, "LogicalRouter", owner);
    }
    match (call.method.as_str(), rest) {
        ("GET", []) => Reply::json(&router.body),
        ("GET", ["routing", "static-routes"]) => {
            let all: Vec<_> = router.routes.values().cloned().collect();
            page(&all, &call.query, largest, Cursor::Manager)
        }
        ("POST", ["routing", "static-routes"]) => create(router, user, uuid, call),
        ("GET", ["routing", "static-routes", id]) => {
            router.routes.get(*id).map_or_else(|| Reply::not_found(&call.path), Reply::json)
        }
        ("PUT", ["routing", "static-routes", id]) => match router.routes.get_mut(*id) {
            Some(route) => replace(route, call, "StaticRoute"),
            None => Reply::not_found(&call.path),
        },
        ("DELETE", ["routing", "static-routes", id]) => match router.routes.remove(*id) {
            Some(_) => Reply::empty(),
            None => Reply::not_found(&call.path),
        },
        ("GET", ["routing", "advertisement"]) => Reply::json(&router.advertisement),
        ("PUT", ["routing", "advertisement"]) => replace(&mut router.advertisement, call, "AdvertisementConfig"),
        _ => Reply::no_such_api(),
    }
}

fn create(router: &mut Router, user: &str, uuid: String, call: &Call) -> Reply {
    let Some(fields) = valid(call) else {
        return Reply::error(400, 255, "common-services", "The static route is not valid.");
    };
    let mut body = fields;
    body["id"] = json!(uuid);
    body["logical_router_id"] = router.body["id"].clone();
    body["_create_user"] = json!(user);
    body["_protection"] = json!("NOT_PROTECTED");
    body["_revision"] = json!(0);
    router.routes.insert(uuid, body.clone());
    Reply { status: 201, ..Reply::json(&body) }
}

fn replace(object: &mut Value, call: &Call, kind: &str) -> Reply {
    let Some(fields) = call.json() else { return Reply::error(400, 255, "common-services", "no JSON object") };
    if fields.get("_revision") != Some(&object["_revision"]) {
        return Reply::stale(kind, object["id"].as_str().unwrap_or_default());
    }
    if kind == "StaticRoute" && valid(call).is_none() {
        return Reply::error(400, 255, "common-services", "The static route is not valid.");
    }
    let revision = object["_revision"].as_i64().unwrap_or(0);
    for (name, value) in fields {
        object[&name] = value;
    }
    object["_revision"] = json!(revision + 1);
    Reply::json(object)
}

/// The route in a request, if it is one of this API: it knows no `admin_distance`.
fn valid(call: &Call) -> Option<Value> {
    let fields = call.json()?;
    let hops = fields.get("next_hops")?.as_array().filter(|hops| !hops.is_empty())?;
    let is_hop = |hop: &Value| hop.get("ip_address").is_some() && hop.get("admin_distance").is_none();
    (fields.contains_key("network") && hops.iter().all(is_hop)).then(|| Value::Object(fields.clone()))
}
