//! Static routes of the Policy API: what is accepted, what the server adds, when a revision grows.

use std::time::SystemTime;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::Reply;

/// Fields that a client may write.
const OWN: [&str; 7] =
    ["network", "next_hops", "enabled_on_secondary", "display_name", "description", "tags", "resource_type"];
/// Fields that it may send, but that are the server's: its values are ignored.
const SERVERS: [&str; 17] = [
    "id",
    "path",
    "parent_path",
    "relative_path",
    "remote_path",
    "unique_id",
    "realization_id",
    "owner_id",
    "marked_for_delete",
    "overridden",
    "_create_time",
    "_last_modified_time",
    "_create_user",
    "_last_modified_user",
    "_system_owned",
    "_protection",
    "_revision",
];

/// A route.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) body: Value,
    /// When it was deleted.
    pub(crate) marked: Option<Instant>,
    /// Looks at its realization since it was written.
    pub(crate) looks: u32,
}

impl Route {
    pub(crate) const fn is_marked(&self) -> bool {
        self.marked.is_some()
    }

    /// Its revision.
    pub(crate) fn revision(&self) -> i64 {
        self.body["_revision"].as_i64().unwrap_or(-1)
    }

    /// Takes the client's fields; whether that made a difference. Only then the revision grows.
    pub(crate) fn take(&mut self, fields: &Map<String, Value>, user: &str) -> bool {
        let before = self.body.clone();
        for (name, value) in fields.iter().filter(|(name, _)| OWN.contains(&name.as_str())) {
            self.body[name] = value.clone();
        }
        fill_hops(&mut self.body);
        if self.body == before {
            return false;
        }
        self.body["_revision"] = json!(self.revision() + 1);
        self.body["_last_modified_user"] = json!(user);
        self.body["_last_modified_time"] = json!(now());
        self.looks = 0;
        true
    }
}

/// A new route with everything the server adds.
pub(crate) fn new_route(path: &str, fields: &Map<String, Value>, user: &str, uuid: &str, extra: bool) -> Route {
    let (parent, id) = path.rsplit_once("/static-routes/").unwrap_or(("", path));
    let mut body = json!({
        "enabled_on_secondary": false, "resource_type": "StaticRoutes", "id": id, "display_name": id, "tags": [],
        "path": path, "relative_path": id, "parent_path": parent, "remote_path": "", "unique_id": uuid,
        "realization_id": uuid, "owner_id": uuid, "marked_for_delete": false, "overridden": false,
        "_system_owned": false, "_protection": "NOT_PROTECTED", "_create_time": now(), "_create_user": user,
        "_last_modified_time": now(), "_last_modified_user": user, "_revision": 0,
    });
    for (name, value) in fields.iter().filter(|(name, _)| OWN.contains(&name.as_str())) {
        body[name] = value.clone();
    }
    if extra {
        body["origin_site_id"] = json!("site-1");
    }
    fill_hops(&mut body);
    Route { body, marked: None, looks: 0 }
}

/// What is wrong with the fields that a client sent; `all` if the required ones have to be there.
pub(crate) fn check(fields: &Map<String, Value>, all: bool, extra: bool) -> Option<Reply> {
    let bad = |message: &str| Some(Reply::error(400, 255, "common-services", message));
    let known = |name: &str| OWN.contains(&name) || SERVERS.contains(&name) || (extra && name == "origin_site_id");
    if let Some(name) = fields.keys().find(|name| !known(name)) {
        return bad(&format!("Unrecognized field {name}."));
    }
    match fields.get("network").and_then(Value::as_str) {
        None if all => return bad("network is required."),
        Some(network) if !is_prefix(network) => return bad("network is no prefix."),
        _ => {}
    }
    let hops = fields.get("next_hops");
    let Some(hops) = hops else {
        return if all { bad("next_hops is required.") } else { None };
    };
    let Some(hops) = hops.as_array().filter(|hops| !hops.is_empty()) else { return bad("next_hops is empty.") };
    for hop in hops {
        let distance = hop.get("admin_distance").map_or(Some(1), Value::as_u64);
        let fields = hop.as_object().into_iter().flat_map(Map::keys);
        let all_known =
            fields.into_iter().all(|name| ["ip_address", "admin_distance", "scope"].contains(&name.as_str()));
        if !all_known || !distance.is_some_and(|distance| (1..=255).contains(&distance)) {
            return bad("a next hop is not valid.");
        }
    }
    None
}

fn fill_hops(body: &mut Value) {
    for hop in body["next_hops"].as_array_mut().into_iter().flatten() {
        if hop.get("admin_distance").is_none() {
            hop["admin_distance"] = json!(1);
        }
    }
}

fn is_prefix(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, length)| {
        let longest = match address.parse() {
            Ok(std::net::IpAddr::V4(_)) => 32,
            Ok(std::net::IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        length.parse::<u8>().is_ok_and(|length| length <= longest)
    })
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}
