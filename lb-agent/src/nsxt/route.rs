//! A static route as the two APIs of NSX-T write it. They differ in the names of a few fields only.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

/// Scope of the tag that names the cluster whose controller keeps a route. Together with its value it says "ours".
pub const CLUSTER_SCOPE: &str = "levee.dev/cluster";
/// Type of the advertisement that carries static routes of a Tier-1 gateway to its Tier-0.
pub const STATIC_ROUTES: &str = "TIER1_STATIC_ROUTES";

/// Whose words a route is written in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// Policy API: the id is ours to choose.
    Policy,
    /// Manager API: the server chooses the id.
    Manager,
}

impl Dialect {
    const fn resource_type(self) -> &'static str {
        match self {
            Self::Policy => "StaticRoutes",
            Self::Manager => "StaticRoute",
        }
    }

    const fn distance(self) -> &'static str {
        match self {
            Self::Policy => "admin_distance",
            Self::Manager => "administrative_distance",
        }
    }
}

/// One next hop as it was read.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Hop {
    /// `None`: packets are dropped.
    pub address: Option<IpAddr>,
    /// 1..=255; 1 if the server left it out.
    pub distance: u64,
}

/// A static route that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// Where packets have to be going; `None` if that is no prefix, which no VIP is equal to.
    pub network: Option<IpNet>,
    /// Next hops in the order of the server.
    pub hops: Vec<Hop>,
    /// The cluster that its tags name.
    pub cluster: Option<String>,
    /// All of it, with fields that we do not know.
    pub body: Map<String, Value>,
}

impl Found {
    /// Reads a route; `None` if it has no id, or was deleted and is only not gone yet.
    #[must_use]
    pub fn read(dialect: Dialect, value: &Value) -> Option<Self> {
        let body = value.as_object()?;
        if body.get("marked_for_delete").and_then(Value::as_bool) == Some(true) {
            return None;
        }
        let hops = body.get("next_hops").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        Some(Self {
            id: body.get("id")?.as_str()?.to_owned(),
            network: body.get("network").and_then(Value::as_str).and_then(prefix),
            hops: hops.iter().map(|hop| read_hop(dialect, hop)).collect(),
            cluster: tags(body).find(|(scope, _)| *scope == CLUSTER_SCOPE).map(|(_, tag)| tag.to_owned()),
            body: body.clone(),
        })
    }

    /// Whether the cluster's controller keeps it.
    #[must_use]
    pub fn is_of(&self, cluster: &str) -> bool {
        self.cluster.as_deref() == Some(cluster)
    }

    /// The addresses of its next hops.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.hops.iter().filter_map(|hop| hop.address)
    }
}

/// What a route has to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Content {
    /// The VIP: a network of one address.
    pub vip: IpAddr,
    /// Next hops in order, of the VIP's family, at least one.
    pub hops: Vec<IpAddr>,
    /// Distance of all of them.
    pub distance: u8,
    /// Name of the cluster, for the tag.
    pub cluster: String,
}

impl Content {
    /// Whether the route says it already. The server promises no order of next hops, and tags of others are theirs.
    #[must_use]
    pub fn is_in(&self, found: &Found) -> bool {
        let distance = u64::from(self.distance);
        let mut wanted: Vec<_> = self.hops.iter().map(|hop| Hop { address: Some(*hop), distance }).collect();
        let mut hops = found.hops.clone();
        wanted.sort_unstable();
        hops.sort_unstable();
        found.network == Some(IpNet::from(self.vip)) && hops == wanted && found.is_of(&self.cluster)
    }

    /// A new route.
    #[must_use]
    pub fn new_body(&self, dialect: Dialect) -> Value {
        let mut body = json!({
            "resource_type": dialect.resource_type(),
            "display_name": format!("to-{}", self.vip),
            "description": format!("VIP of cluster {}, kept by Levee", self.cluster),
            "network": IpNet::from(self.vip).to_string(),
            "next_hops": self.hops.iter().map(|hop| self.hop(dialect, *hop)).collect::<Vec<_>>(),
            "tags": [self.tag()],
        });
        if dialect == Dialect::Policy {
            body["id"] = json!(route_id(self.vip));
        }
        body
    }

    /// The route with this content in place of its own. What we do not know stays, its revision too.
    #[must_use]
    pub fn changed_body(&self, dialect: Dialect, found: &Found) -> Value {
        let mut body = found.body.clone();
        let hops = self.hops.iter().map(|hop| self.kept_hop(dialect, found, *hop)).collect();
        let foreign = found.body.get("tags").and_then(Value::as_array).into_iter().flatten();
        let foreign = foreign.filter(|tag| tag["scope"] != CLUSTER_SCOPE).cloned();
        let tags = foreign.chain([self.tag()]).collect();
        body.insert("network".to_owned(), json!(IpNet::from(self.vip).to_string()));
        body.insert("next_hops".to_owned(), Value::Array(hops));
        body.insert("tags".to_owned(), Value::Array(tags));
        Value::Object(body)
    }

    fn hop(&self, dialect: Dialect, hop: IpAddr) -> Value {
        json!({ "ip_address": hop.to_string(), (dialect.distance()): self.distance })
    }

    /// The next hop as it is there (an interface can be its scope), with our distance; a new one if there is none.
    fn kept_hop(&self, dialect: Dialect, found: &Found, hop: IpAddr) -> Value {
        let there = found.body.get("next_hops").and_then(Value::as_array).into_iter().flatten();
        let mut there = there.filter(|value| read_hop(dialect, value).address == Some(hop)).cloned();
        match there.next() {
            Some(Value::Object(mut kept)) => {
                kept.insert(dialect.distance().to_owned(), json!(self.distance));
                Value::Object(kept)
            }
            _ => self.hop(dialect, hop),
        }
    }

    fn tag(&self) -> Value {
        json!({ "scope": CLUSTER_SCOPE, "tag": self.cluster })
    }
}

/// Id of the route to a VIP: `to-<vip>`, with `-` for the colons of IPv6.
#[must_use]
pub fn route_id(vip: IpAddr) -> String {
    format!("to-{vip}").replace(':', "-")
}

/// Scopes and values of an object's tags.
pub fn tags(body: &Map<String, Value>) -> impl Iterator<Item = (&str, &str)> {
    let tags = body.get("tags").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    tags.iter().map(|tag| {
        let part = |key| tag.get(key).and_then(Value::as_str).unwrap_or_default();
        (part("scope"), part("tag"))
    })
}

fn read_hop(dialect: Dialect, value: &Value) -> Hop {
    Hop {
        address: value.get("ip_address").and_then(Value::as_str).and_then(|text| text.parse().ok()),
        distance: value.get(dialect.distance()).and_then(Value::as_u64).unwrap_or(1),
    }
}

/// A prefix, or an address as the prefix that holds only it.
fn prefix(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().map(|net| net.trunc()).or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(hops: &[&str]) -> Content {
        Content {
            vip: "192.168.160.249".parse().unwrap(),
            hops: hops.iter().map(|hop| hop.parse().unwrap()).collect(),
            distance: 1,
            cluster: "c1".to_owned(),
        }
    }

    #[test]
    fn a_new_route_reads_as_the_apis_document_it() {
        let policy = content(&["10.20.4.2", "10.20.4.3"]).new_body(Dialect::Policy);
        let expected = json!({
            "resource_type": "StaticRoutes", "id": "to-192.168.160.249", "display_name": "to-192.168.160.249",
            "description": "VIP of cluster c1, kept by Levee", "network": "192.168.160.249/32",
            "next_hops": [{"ip_address": "10.20.4.2", "admin_distance": 1}, {"ip_address": "10.20.4.3", "admin_distance": 1}],
            "tags": [{"scope": "levee.dev/cluster", "tag": "c1"}],
        });
        assert_eq!(policy, expected);
        let manager = content(&["10.20.4.2"]).new_body(Dialect::Manager);
        assert_eq!(manager["resource_type"], "StaticRoute");
        assert_eq!(manager["next_hops"], json!([{"ip_address": "10.20.4.2", "administrative_distance": 1}]));
        assert_eq!(manager.get("id"), None);
    }

    #[test]
    fn order_and_a_default_distance_make_no_difference_but_tags_do() {
        let wanted = content(&["10.20.4.2", "10.20.4.3"]);
        let mut body = wanted.new_body(Dialect::Policy);
        body["next_hops"] = json!([{"ip_address": "10.20.4.3"}, {"ip_address": "10.20.4.2", "admin_distance": 1}]);
        assert!(wanted.is_in(&Found::read(Dialect::Policy, &body).unwrap()));
        body["tags"] = json!([]);
        assert!(!wanted.is_in(&Found::read(Dialect::Policy, &body).unwrap()));
        body["tags"] = json!([{"scope": "levee.dev/cluster", "tag": "c1"}]);
        body["next_hops"][1]["admin_distance"] = json!(2);
        assert!(!wanted.is_in(&Found::read(Dialect::Policy, &body).unwrap()));
    }

    #[test]
    fn what_others_wrote_stays() {
        let wanted = content(&["10.20.4.2", "10.20.4.4"]);
        let there = json!({
            "id": "x", "network": "192.168.160.249/32", "_revision": 7, "enabled_on_secondary": true,
            "next_hops": [{"ip_address": "10.20.4.2", "admin_distance": 5, "scope": ["/infra/x"]}, {"ip_address": "10.20.4.3"}],
            "tags": [{"scope": "team", "tag": "net"}],
        });
        let body = wanted.changed_body(Dialect::Policy, &Found::read(Dialect::Policy, &there).unwrap());
        let expected = json!({
            "id": "x", "network": "192.168.160.249/32", "_revision": 7, "enabled_on_secondary": true,
            "next_hops": [{"ip_address": "10.20.4.2", "admin_distance": 1, "scope": ["/infra/x"]},
                          {"ip_address": "10.20.4.4", "admin_distance": 1}],
            "tags": [{"scope": "team", "tag": "net"}, {"scope": "levee.dev/cluster", "tag": "c1"}],
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn ids_hold_nothing_that_a_path_cannot() {
        assert_eq!(route_id("2001:db8::10".parse().unwrap()), "to-2001-db8--10");
        assert_eq!(route_id("192.0.2.10".parse().unwrap()), "to-192.0.2.10");
    }

    #[test]
    fn what_is_deleted_is_not_there() {
        let body = json!({"id": "x", "network": "192.0.2.1/32", "marked_for_delete": true});
        assert_eq!(Found::read(Dialect::Policy, &body), None);
    }
}
