//! The Tier-1 gateway whose routes are kept: how it is found, and what is asked of it in either API.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{
    client::Client,
    error::NsxtError,
    route::{Dialect, Found, STATIC_ROUTES, tags},
    transport::{Request, encode},
};
use crate::config::NsxtApi;

/// Root of the Policy API.
const POLICY: &str = "/policy/api/v1";
/// Root of the Manager API's routers.
const ROUTERS: &str = "/api/v1/logical-routers";
/// Characters with a meaning in a search.
const SPECIAL: &str = "()[]+-=&|><!{}^~*?:/\"\\";

/// A gateway that was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Gateway {
    /// By the Policy API: its path, such as `/infra/tier-1s/t1`.
    Policy(String),
    /// By the Manager API: the id of its router.
    Manager(String),
}

/// How far a route is from being in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Realization {
    /// It is.
    Realized,
    /// Not yet.
    Pending,
    /// It will not be, for this reason.
    Failed(String),
}

/// What keeps a gateway's static routes from being told to its neighbours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Advertising {
    /// Nothing that can be seen here.
    On,
    /// They are not advertised.
    Off {
        /// What was read, to be written back with the mend.
        object: Map<String, Value>,
    },
    /// There is no Tier-0 gateway to advertise to.
    Isolated,
}

impl Gateway {
    /// Finds the gateway that the configuration names by path, id or display name.
    ///
    /// # Errors
    /// There is none or more than one, or the managers could not be asked.
    pub async fn find(client: &mut Client, api: NsxtApi, name: &str) -> Result<Self, NsxtError> {
        let of_policy = match api {
            NsxtApi::Manager => None,
            NsxtApi::Auto | NsxtApi::Policy => policy_gateway(client, name).await?,
        };
        if let Some(path) = of_policy {
            return Ok(Self::Policy(path));
        }
        if api == NsxtApi::Policy || name.starts_with('/') {
            return Err(NsxtError::NoGateway(name.to_owned()));
        }
        manager_gateway(client, api, name).await
    }

    /// Whose words it takes.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        match self {
            Self::Policy(_) => Dialect::Policy,
            Self::Manager(_) => Dialect::Manager,
        }
    }

    /// Its path or id.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Policy(name) | Self::Manager(name) => name,
        }
    }

    fn object_path(&self) -> String {
        match self {
            Self::Policy(path) => format!("{POLICY}{path}"),
            Self::Manager(id) => format!("{ROUTERS}/{}", encode(id)),
        }
    }

    fn routes_path(&self) -> String {
        match self {
            Self::Policy(_) => format!("{}/static-routes", self.object_path()),
            Self::Manager(_) => format!("{}/routing/static-routes", self.object_path()),
        }
    }

    fn route_path(&self, id: &str) -> String {
        format!("{}/{}", self.routes_path(), encode(id))
    }

    /// Its static routes.
    ///
    /// # Errors
    /// It could not be asked, or is gone.
    pub async fn routes(&self, client: &mut Client) -> Result<Vec<Found>, NsxtError> {
        let routes = client.list(&self.routes_path()).await?;
        Ok(routes.iter().filter_map(|route| Found::read(self.dialect(), route)).collect())
    }

    /// Makes a route. Where one of this id is there meanwhile, that is an error that says so ([`NsxtError::is_stale`]).
    ///
    /// # Errors
    /// It was refused.
    pub async fn create(&self, client: &mut Client, id: &str, body: Value) -> Result<(), NsxtError> {
        let request = match self {
            Self::Policy(_) => Request::write(Method::PUT, self.route_path(id), Some(body)),
            Self::Manager(_) => Request::write(Method::POST, self.routes_path(), Some(body)),
        };
        client.send(&request).await.map(drop)
    }

    /// Replaces a route by a body with the revision that was read.
    ///
    /// # Errors
    /// It was refused; if the revision is an old one, the error says so ([`NsxtError::is_stale`]).
    pub async fn replace(&self, client: &mut Client, id: &str, body: Value) -> Result<(), NsxtError> {
        client.send(&Request::write(Method::PUT, self.route_path(id), Some(body))).await.map(drop)
    }

    /// Removes a route. One that is not there any more is removed; ask only while the gateway itself is there.
    ///
    /// # Errors
    /// It was refused.
    pub async fn remove(&self, client: &mut Client, id: &str) -> Result<(), NsxtError> {
        match client.send(&Request::write(Method::DELETE, self.route_path(id), None)).await {
            Err(error) if !error.is_absence() => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether a route is there.
    ///
    /// # Errors
    /// It could not be asked.
    pub async fn has(&self, client: &mut Client, id: &str) -> Result<bool, NsxtError> {
        let route = client.find(&self.route_path(id)).await?;
        Ok(route.is_some_and(|route| Found::read(self.dialect(), &route).is_some()))
    }

    /// How far a route is from being in force. The Manager API applies what it accepts.
    ///
    /// # Errors
    /// It could not be asked.
    pub async fn realization(&self, client: &mut Client, id: &str) -> Result<Realization, NsxtError> {
        let Self::Policy(path) = self else { return Ok(Realization::Realized) };
        let root = path.split_once("/tier-1s/").map_or("/infra", |(root, _)| root);
        let intent = format!("{path}/static-routes/{id}");
        let query = format!("{POLICY}{root}/realized-state/realized-entities?intent_path={}", encode(&intent));
        let entities = client.get(&query).await?;
        Ok(realization(entities["results"].as_array().map(Vec::as_slice).unwrap_or_default()))
    }

    /// Whether its static routes are advertised.
    ///
    /// # Errors
    /// It could not be asked.
    pub async fn advertising(&self, client: &mut Client) -> Result<Advertising, NsxtError> {
        let path = match self {
            Self::Policy(_) => self.object_path(),
            Self::Manager(_) => format!("{}/routing/advertisement", self.object_path()),
        };
        let object = client.get(&path).await?.as_object().cloned().unwrap_or_default();
        let is_on = match self {
            Self::Policy(_) if object.get("tier0_path").and_then(Value::as_str).unwrap_or_default().is_empty() => {
                return Ok(Advertising::Isolated);
            }
            Self::Policy(_) => types(&object).iter().any(|kind| kind == STATIC_ROUTES),
            Self::Manager(_) => {
                ["enabled", "advertise_static_routes"].iter().all(|key| object.get(*key) == Some(&json!(true)))
            }
        };
        Ok(if is_on { Advertising::On } else { Advertising::Off { object } })
    }

    /// Switches the advertisement of static routes on, and leaves the rest of it.
    ///
    /// # Errors
    /// It was refused.
    pub async fn advertise(&self, client: &mut Client, mut object: Map<String, Value>) -> Result<(), NsxtError> {
        let request = match self {
            Self::Policy(_) => {
                let mut all = types(&object);
                all.push(STATIC_ROUTES.to_owned());
                let body = json!({ "route_advertisement_types": all });
                Request::write(Method::PATCH, self.object_path(), Some(body))
            }
            Self::Manager(_) => {
                for key in ["enabled", "advertise_static_routes"] {
                    object.insert(key.to_owned(), json!(true));
                }
                let path = format!("{}/routing/advertisement", self.object_path());
                Request::write(Method::PUT, path, Some(Value::Object(object)))
            }
        };
        client.send(&request).await.map(drop)
    }
}

fn types(object: &Map<String, Value>) -> Vec<String> {
    let types = object.get("route_advertisement_types").and_then(Value::as_array).into_iter().flatten();
    types.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// All entities have to be there; none yet is normal right after a write.
fn realization(entities: &[Value]) -> Realization {
    if let Some(failed) = entities.iter().find(|entity| entity["state"] == "ERROR") {
        let alarms = failed["alarms"].as_array().into_iter().flatten();
        let alarms: Vec<_> = alarms.filter_map(|alarm| alarm["message"].as_str()).collect();
        let reason = if alarms.is_empty() { "NSX-T names no reason".to_owned() } else { alarms.join("; ") };
        return Realization::Failed(reason);
    }
    let all = !entities.is_empty() && entities.iter().all(|entity| entity["state"] == "REALIZED");
    if all { Realization::Realized } else { Realization::Pending }
}

/// The path of the gateway in the Policy API, if it knows it.
async fn policy_gateway(client: &mut Client, name: &str) -> Result<Option<String>, NsxtError> {
    if name.starts_with('/') {
        let is_tier1 = name.split_once("/tier-1s/").is_some_and(|(_, id)| !id.is_empty() && !id.contains('/'));
        let found = if is_tier1 { client.find(&format!("{POLICY}{name}")).await? } else { None };
        return Ok(found.map(|_| name.to_owned()));
    }
    if client.find(&format!("{POLICY}/infra/tier-1s/{}", encode(name))).await?.is_some() {
        return Ok(Some(format!("/infra/tier-1s/{}", encode(name))));
    }
    let escaped: String =
        name.chars().flat_map(|c| SPECIAL.contains(c).then_some('\\').into_iter().chain([c])).collect();
    let query = format!("resource_type:Tier1 AND display_name:{escaped} AND marked_for_delete:false");
    let found = client.list(&format!("{POLICY}/search/query?query={}", encode(&query))).await;
    let found = match found {
        Err(error) if error.is_absence() => return Ok(None),
        found => found?,
    };
    // A search finds parts of names, too.
    let exact = found.iter().filter(|item| item["display_name"] == name).filter_map(|item| item["path"].as_str());
    one(name, exact.map(str::to_owned).collect())
}

async fn manager_gateway(client: &mut Client, api: NsxtApi, name: &str) -> Result<Gateway, NsxtError> {
    let routers = match client.list(&format!("{ROUTERS}?router_type=TIER1")).await {
        // NSX-T 9.0 has no such thing.
        Err(error) if error.is_absence() => return Err(NsxtError::NoGateway(name.to_owned())),
        routers => routers?,
    };
    let named = |router: &&Value| router["id"] == name || router["display_name"] == name;
    let ids = routers.iter().filter(named).filter_map(|router| router["id"].as_str().map(str::to_owned)).collect();
    let Some(id) = one(name, ids)? else { return Err(NsxtError::NoGateway(name.to_owned())) };
    let router = routers.iter().find(|router| router["id"] == *id).and_then(Value::as_object);
    let path = router.and_then(|router| tags(router).find(|(scope, _)| *scope == "policyPath"));
    match path {
        Some(_) if api == NsxtApi::Manager => Err(NsxtError::OfPolicy(name.to_owned())),
        Some((_, path)) => Ok(Gateway::Policy(path.to_owned())),
        None => Ok(Gateway::Manager(id)),
    }
}

fn one(name: &str, mut found: Vec<String>) -> Result<Option<String>, NsxtError> {
    found.sort_unstable();
    found.dedup();
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => Err(NsxtError::Ambiguous { name: name.to_owned(), paths: found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_in_force_when_all_its_entities_are() {
        let entity = |state: &str| json!({"state": state, "alarms": [{"message": "no edge"}]});
        assert_eq!(realization(&[]), Realization::Pending);
        assert_eq!(realization(&[entity("REALIZED"), entity("UNREALIZED")]), Realization::Pending);
        assert_eq!(realization(&[entity("REALIZED"), entity("REALIZED")]), Realization::Realized);
        assert_eq!(realization(&[entity("REALIZED"), entity("ERROR")]), Realization::Failed("no edge".to_owned()));
    }
}
