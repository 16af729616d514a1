//! The Policy API: gateways, their static routes, realization.

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    Reply,
    reply::{Cursor, page},
    routes::{Route, check, new_route},
    world::{Call, State},
};

pub(crate) fn add_gateway(state: &mut State, path: &str, display_name: &str, owner: Option<&str>) {
    let id = path.rsplit('/').next().unwrap_or_default();
    let gateway = json!({
        "resource_type": "Tier1", "id": id, "display_name": display_name, "path": path, "relative_path": id,
        "parent_path": "/infra", "tier0_path": "/infra/tier-0s/t0", "type": "ROUTED", "tags": [],
        "route_advertisement_types": ["TIER1_CONNECTED", "TIER1_NAT", "TIER1_STATIC_ROUTES"],
        "marked_for_delete": false, "_protection": if owner.is_some() { "REQUIRE_OVERRIDE" } else { "NOT_PROTECTED" },
        "_create_user": owner.unwrap_or("admin"), "_revision": 0,
    });
    state.gateways.insert(path.to_owned(), gateway);
}

/// Somebody else changes a route.
pub(crate) fn touch(state: &mut State, path: &str) {
    if let Some(route) = state.routes.get_mut(path) {
        let next = route.revision() + 1;
        route.body["_revision"] = json!(next);
        route.body["description"] = json!(format!("changed by another tool to revision {next}"));
    }
}

/// Serves what stands behind `/policy/api/v1`.
pub(crate) fn serve(state: &mut State, user: &str, rest: &str, call: &Call) -> Reply {
    let Some((root, below)) = split_root(rest) else { return Reply::no_such_api() };
    let parts: Vec<&str> = below.split('/').filter(|part| !part.is_empty()).collect();
    match (call.method.as_str(), parts.as_slice()) {
        ("GET", ["tier-1s"]) => {
            let all: Vec<_> = state.gateways.values().filter(|gateway| is_below(gateway, root)).cloned().collect();
            page(&all, &call.query, state.switches.largest_page, Cursor::Offset)
        }
        ("GET", ["realized-state", "realized-entities"]) => realized(state, call),
        ("GET", ["realized-state", "status"]) => realized_status(state, call),
        (_, ["tier-1s", id, below @ ..]) => {
            let path = format!("{root}/tier-1s/{id}");
            if !state.gateways.contains_key(&path) {
                return missing_gateway(state, &path, below.is_empty());
            }
            gateway(state, user, &path, below, call)
        }
        _ => Reply::no_such_api(),
    }
}

/// `/infra` or `/orgs/O/projects/P/infra`, and what follows.
fn split_root(rest: &str) -> Option<(&str, &str)> {
    let at = rest.find("/infra")? + "/infra".len();
    let (root, below) = rest.split_at(at);
    let is_root = root == "/infra" || (root.starts_with("/orgs/") && root.contains("/projects/"));
    (is_root && (below.is_empty() || below.starts_with('/'))).then_some((root, below))
}

fn is_below(gateway: &Value, root: &str) -> bool {
    gateway["path"].as_str().is_some_and(|path| path.starts_with(&format!("{root}/tier-1s/")))
}

fn missing_gateway(state: &State, path: &str, itself: bool) -> Reply {
    if itself || state.switches.missing_gateway_is_404 {
        return Reply::not_found(path);
    }
    Reply::error(400, 500_012, "Policy", &format!("The path=[{path}] is invalid"))
}

fn gateway(state: &mut State, user: &str, path: &str, below: &[&str], call: &Call) -> Reply {
    match (call.method.as_str(), below) {
        ("GET", []) => Reply::json(&state.gateways[path]),
        ("PATCH" | "PUT", []) => change_gateway(state, user, path, call),
        ("GET", ["static-routes"]) => {
            let prefix = format!("{path}/static-routes/");
            let there = state.routes.iter().filter(|(path, route)| path.starts_with(&prefix) && !route.is_marked());
            let all: Vec<_> = there.map(|(_, route)| route.body.clone()).collect();
            page(&all, &call.query, state.switches.largest_page, Cursor::Offset)
        }
        ("GET", ["advertised-networks"]) => Reply::json(&advertised(state, path)),
        (_, ["static-routes", id]) => route(state, user, &format!("{path}/static-routes/{id}"), call),
        _ => Reply::no_such_api(),
    }
}

fn change_gateway(state: &mut State, user: &str, path: &str, call: &Call) -> Reply {
    let gateway = state.gateways.get_mut(path).expect("the caller looked");
    let owner = gateway["_create_user"].as_str().unwrap_or_default().to_owned();
    if gateway["_protection"] != "NOT_PROTECTED" && owner != user && !call.overwrites(user) {
        return Reply::not_owner(user, "LogicalRouter", &owner);
    }
    let Some(fields) = call.json() else { return Reply::error(400, 255, "common-services", "no JSON object") };
    if call.method == "PUT" && fields.get("_revision") != Some(&gateway["_revision"]) {
        return Reply::stale("Tier1", path);
    }
    for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with('_')) {
        gateway[name] = value.clone();
    }
    gateway["_revision"] = json!(gateway["_revision"].as_i64().unwrap_or(0) + 1);
    if call.method == "PUT" { Reply::json(gateway) } else { Reply::empty() }
}

fn advertised(state: &State, path: &str) -> Value {
    let gateway = &state.gateways[path];
    let is_linked = gateway["tier0_path"].as_str().is_some_and(|path| !path.is_empty());
    let types = gateway["route_advertisement_types"].as_array().cloned().unwrap_or_default();
    let is_on = is_linked && types.contains(&json!("TIER1_STATIC_ROUTES"));
    let prefix = format!("{path}/static-routes/");
    let routes = state.routes.iter().filter(|(path, route)| is_on && path.starts_with(&prefix) && !route.is_marked());
    let networks: Vec<_> = routes
        .map(|(_, route)| json!({"network": route.body["network"], "rule_filter_type": "TIER1_STATIC_ROUTES", "status": "SUCCESS"}))
        .collect();
    json!({"results": networks, "result_count": networks.len()})
}

fn route(state: &mut State, user: &str, path: &str, call: &Call) -> Reply {
    purge(state);
    let is_there = state.routes.get(path).is_some_and(|route| !route.is_marked());
    if call.method == "GET" {
        return if is_there { Reply::json(&state.routes[path].body) } else { Reply::not_found(path) };
    }
    let parent = path.split("/static-routes/").next().unwrap_or_default();
    let owner = state.gateways[parent]["_create_user"].as_str().unwrap_or_default().to_owned();
    if state.switches.children_protected && owner != user && !call.overwrites(user) {
        return Reply::not_owner(user, "StaticRoutes", &owner);
    }
    match call.method.as_str() {
        "DELETE" if is_there => {
            let route = state.routes.get_mut(path).expect("it is there");
            route.marked = Some(Instant::now());
            route.body["marked_for_delete"] = json!(true);
            Reply::empty()
        }
        "DELETE" if state.switches.missing_delete_is_404 => Reply::not_found(path),
        "DELETE" => Reply::empty(),
        "PUT" | "PATCH" => write(state, user, path, is_there, call),
        _ => Reply::no_such_api(),
    }
}

fn write(state: &mut State, user: &str, path: &str, is_there: bool, call: &Call) -> Reply {
    let Some(fields) = call.json() else { return Reply::error(400, 255, "common-services", "no JSON object") };
    if let Some(hops) = fields.get("next_hops").and_then(Value::as_array) {
        state.hop_counts.push(hops.len());
    }
    let is_put = call.method == "PUT";
    if let Some(reply) = check(&fields, is_put || !is_there, state.switches.extra_fields) {
        return reply;
    }
    let id = path.rsplit('/').next().unwrap_or_default().to_owned();
    if state.routes.get(path).is_some_and(Route::is_marked) {
        let message = format!(
            "The object path=[{path}] is marked for deletion. Either use another path or wait for the purge cycle."
        );
        return Reply::error(400, 500_045, "Policy", &message);
    }
    if !is_there {
        let (uuid, extra) = (state.uuid(), state.switches.extra_fields);
        let route = new_route(path, &fields, user, &uuid, extra);
        let reply = if is_put { Reply::json(&route.body) } else { Reply::empty() };
        state.routes.insert(path.to_owned(), route);
        return reply;
    }
    if let Some(reply) = revision_problem(state, path, &id, &fields, is_put) {
        return reply;
    }
    let route = state.routes.get_mut(path).expect("it is there");
    route.take(&fields, user);
    if is_put { Reply::json(&route.body) } else { Reply::empty() }
}

/// PUT has to name the current revision. PATCH wins over everybody.
fn revision_problem(state: &State, path: &str, id: &str, fields: &Map<String, Value>, is_put: bool) -> Option<Reply> {
    match fields.get("_revision").and_then(Value::as_i64) {
        _ if !is_put => None,
        Some(revision) if revision == state.routes[path].revision() => None,
        None if !state.switches.missing_revision_is_412 => {
            let message = format!("Cannot create an object with path=[{path}] as it already exists.");
            Some(Reply::error(400, 500_127, "Policy", &message))
        }
        _ => Some(Reply::stale("StaticRoutes", id)),
    }
}

/// Forgets what was deleted long enough ago.
fn purge(state: &mut State) {
    let purge = state.switches.purge;
    state.routes.retain(|_, route| route.marked.is_none_or(|since| since.elapsed() < purge));
}

/// Nothing first, then unrealized, then the end.
fn realized(state: &mut State, call: &Call) -> Reply {
    let (looks, fails) = (state.switches.unrealized, state.switches.realization_fails);
    let path = call.query.get("intent_path").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(route) = state.routes.get_mut(&path).filter(|route| !route.is_marked()) else {
        return Reply::json(&json!({"results": [], "result_count": 0}));
    };
    route.looks += 1;
    if looks > 0 && route.looks == 1 {
        return Reply::json(&json!({"results": [], "result_count": 0}));
    }
    let end = if fails { "ERROR" } else { "REALIZED" };
    let found = if route.looks <= looks { "UNREALIZED" } else { end };
    let alarms =
        if found == "ERROR" { json!([{"message": "No edge cluster is there for the gateway."}]) } else { json!([]) };
    Reply::json(&json!({"result_count": 1, "results": [{
        "id": "r1", "resource_type": "GenericPolicyRealizedResource", "entity_type": "RealizedStaticRoute", "state": found,
        "intent_paths": [path], "path": "/infra/realized-state/enforcement-points/default/r1", "alarms": alarms,
    }]}))
}

fn realized_status(state: &mut State, call: &Call) -> Reply {
    let entities = realized(state, call).value();
    let found = entities["results"][0]["state"].as_str().unwrap_or("UNREALIZED").to_owned();
    let consolidated = match found.as_str() {
        "REALIZED" => "SUCCESS",
        "ERROR" => "ERROR",
        _ => "IN_PROGRESS",
    };
    Reply::json(&json!({
        "intent_path": call.query.get("intent_path"), "intent_version": "0", "publish_status": found,
        "consolidated_status": {"consolidated_status": consolidated},
    }))
}
