//! What the managers of one cluster share, and the switches of their behaviour.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde_json::{Map, Value, json};

use crate::{
    Action, Fault, Reply,
    auth::{self, Sessions},
    manager::{self, Router},
    policy,
    reply::{Cursor, page},
    routes::Route,
    search,
};

/// How the managers behave where that differs between releases, settings, or is not known.
#[derive(Clone, Debug)]
pub struct Switches {
    /// Whether Basic is accepted (`basic_authentication_enabled`).
    pub basic_auth: bool,
    /// Failed logins in a row that lock an account (`api_max_auth_failures`).
    pub lock_after: u32,
    /// How long (`api_failed_auth_lockout_period`); really 900 s.
    pub lock_period: Duration,
    /// Idle time after which a session is unknown (`session_timeout`).
    pub session_idle: Duration,
    /// Whether a missing gateway is 404/600; else 400/500012.
    pub missing_gateway_is_404: bool,
    /// Whether DELETE of an absent route is 404; else 200.
    pub missing_delete_is_404: bool,
    /// Whether PUT without `_revision` on an existing object is 412; else 400/500127.
    pub missing_revision_is_412: bool,
    /// Whether DELETE and PATCH answer 204; else 200 without a body.
    pub no_content: bool,
    /// Whether error codes are strings.
    pub codes_are_strings: bool,
    /// Whether objects carry fields that nobody documents.
    pub extra_fields: bool,
    /// How long an id can't be used again after DELETE; really 5 minutes.
    pub purge: Duration,
    /// Looks at a realization that find nothing, and then nothing realized.
    pub unrealized: u32,
    /// Whether realizations end in an error.
    pub realization_fails: bool,
    /// Whether the Manager API is gone, as in NSX 9.
    pub nsx9: bool,
    /// Whether the Policy API does not exist, as before NSX-T 2.4.
    pub no_policy: bool,
    /// Whether the search has not seen the latest changes.
    pub search_lags: bool,
    /// Whether routes below a protected gateway are protected as well.
    pub children_protected: bool,
    /// The most items of a page, whatever was asked for.
    pub largest_page: usize,
    /// What the health report says.
    pub healthy: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            basic_auth: true,
            lock_after: 5,
            lock_period: Duration::from_secs(900),
            session_idle: Duration::from_secs(1800),
            missing_gateway_is_404: true,
            missing_delete_is_404: true,
            missing_revision_is_412: false,
            no_content: false,
            codes_are_strings: false,
            extra_fields: false,
            purge: Duration::from_secs(300),
            unrealized: 1,
            realization_fails: false,
            nsx9: false,
            no_policy: false,
            search_lags: false,
            children_protected: false,
            largest_page: 1000,
            healthy: true,
        }
    }
}

/// A request as it came, without its secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Which node it came to.
    pub node: usize,
    /// Method.
    pub method: String,
    /// Path, decoded.
    pub path: String,
    /// Query, decoded.
    pub query: Map<String, Value>,
    /// Headers in lower case, those with secrets left out.
    pub headers: BTreeMap<String, String>,
    /// JSON, or `null`; that of a login is never kept.
    pub body: Value,
    /// How it was answered; 0 for not at all.
    pub status: u16,
}

/// A request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Map<String, Value>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    /// Common name of the client's certificate.
    pub(crate) certificate: Option<String>,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn json(&self) -> Option<Map<String, Value>> {
        serde_json::from_str::<Value>(&self.body).ok()?.as_object().cloned()
    }

    /// Whether an administrator asks for the right to change what is protected.
    pub(crate) fn overwrites(&self, user: &str) -> bool {
        user == crate::ADMIN.0
            && self.header("x-allow-overwrite").is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

/// What becomes of a request.
pub(crate) enum Outcome {
    Reply(Reply),
    Late(Reply, Duration),
    Reset,
}

/// Everything, behind one lock.
pub(crate) struct State {
    pub(crate) switches: Switches,
    pub(crate) faults: VecDeque<Fault>,
    pub(crate) sessions: Vec<Sessions>,
    pub(crate) logins: u64,
    /// Gateways by path.
    pub(crate) gateways: BTreeMap<String, Value>,
    /// Routes of the Policy API by path.
    pub(crate) routes: BTreeMap<String, Route>,
    /// Routers of the Manager API by id.
    pub(crate) routers: BTreeMap<String, Router>,
    /// Every list of next hops that was ever written.
    pub(crate) hop_counts: Vec<usize>,
    pub(crate) numbers: u64,
    records: Vec<Recorded>,
}

impl State {
    /// Another number for an id.
    pub(crate) fn uuid(&mut self) -> String {
        self.numbers += 1;
        format!("00000000-0000-4000-8000-{:012x}", self.numbers)
    }
}

/// The cluster, for its nodes and for whoever looks at it.
#[derive(Clone)]
pub struct World(Arc<Mutex<State>>);

impl World {
    /// A cluster of so many nodes with nothing in it.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        let sessions = (0..nodes).map(|_| Sessions::default()).collect();
        Self(Arc::new(Mutex::new(State {
            switches: Switches::default(),
            faults: VecDeque::new(),
            sessions,
            logins: 0,
            gateways: BTreeMap::new(),
            routes: BTreeMap::new(),
            routers: BTreeMap::new(),
            hop_counts: Vec::new(),
            numbers: 0,
            records: Vec::new(),
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with the lock")
    }

    /// Changes the behaviour.
    pub fn switch(&self, change: impl FnOnce(&mut Switches)) {
        change(&mut self.state().switches);
    }

    /// Adds a fault; those that were added first strike first.
    pub fn fault(&self, fault: Fault) {
        self.state().faults.push_back(fault);
    }

    /// Ends all faults.
    pub fn mend(&self) {
        self.state().faults.clear();
    }

    /// Adds a gateway of the Policy API with the usual advertisement; `owner` is a principal identity that protects it.
    pub fn add_gateway(&self, path: &str, display_name: &str, owner: Option<&str>) {
        policy::add_gateway(&mut self.state(), path, display_name, owner);
    }

    /// Changes a gateway as another tool would.
    pub fn edit_gateway(&self, path: &str, change: impl FnOnce(&mut Value)) {
        if let Some(gateway) = self.state().gateways.get_mut(path) {
            change(gateway);
        }
    }

    /// Removes a gateway with its routes.
    pub fn remove_gateway(&self, path: &str) {
        let mut state = self.state();
        state.gateways.remove(path);
        state.routes.retain(|route, _| !route.starts_with(&format!("{path}/")));
    }

    /// A gateway, if it is there.
    #[must_use]
    pub fn gateway(&self, path: &str) -> Option<Value> {
        self.state().gateways.get(path).cloned()
    }

    /// Adds a router of the Manager API; its id. `policy_path` marks one that the Policy API made.
    pub fn add_router(&self, display_name: &str, policy_path: Option<&str>) -> String {
        manager::add_router(&mut self.state(), display_name, policy_path)
    }

    /// The static routes of a router of the Manager API, as they are read.
    #[must_use]
    pub fn router_routes(&self, id: &str) -> Vec<Value> {
        self.state().routers.get(id).map(|router| router.routes.values().cloned().collect()).unwrap_or_default()
    }

    /// The advertisement of a router of the Manager API.
    #[must_use]
    pub fn advertisement(&self, id: &str) -> Value {
        self.state().routers.get(id).map(|router| router.advertisement.clone()).unwrap_or_default()
    }

    /// A route of the Policy API, if it is there.
    #[must_use]
    pub fn route(&self, path: &str) -> Option<Value> {
        self.state().routes.get(path).filter(|route| !route.is_marked()).map(|route| route.body.clone())
    }

    /// All routes of the Policy API that are there, by path.
    #[must_use]
    pub fn routes(&self) -> BTreeMap<String, Value> {
        let state = self.state();
        let there = state.routes.iter().filter(|(_, route)| !route.is_marked());
        there.map(|(path, route)| (path.clone(), route.body.clone())).collect()
    }

    /// The requests so far, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.state().records.clone()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.state().records.clear();
    }

    /// Those that wanted to change something, logins apart.
    #[must_use]
    pub fn writes(&self) -> Vec<Recorded> {
        let writes = |record: &Recorded| record.method != "GET" && !record.path.starts_with("/api/session/");
        self.requests().into_iter().filter(writes).collect()
    }

    /// How often somebody tried to log in with name and password in a form.
    #[must_use]
    pub fn logins(&self) -> u64 {
        self.state().logins
    }

    /// Sessions that are open on a node.
    #[must_use]
    pub fn sessions(&self, node: usize) -> usize {
        self.state().sessions[node].count()
    }

    /// Forgets the sessions of a node, as a restart does.
    pub fn drop_sessions(&self, node: usize) {
        self.state().sessions[node].drop_all();
    }

    /// The fewest next hops that any write asked for.
    #[must_use]
    pub fn fewest_hops(&self) -> Option<usize> {
        self.state().hop_counts.iter().min().copied()
    }

    /// Serves a request.
    pub(crate) fn serve(&self, node: usize, call: &Call) -> Outcome {
        let mut state = self.state();
        let strikes = state
            .faults
            .iter_mut()
            .find_map(|fault| fault.strikes(node, &call.method, &call.path).then(|| fault.action.clone()));
        let outcome = match strikes {
            None => Outcome::Reply(answer(&mut state, node, call)),
            Some(Action::Answer(reply)) => Outcome::Reply(reply),
            Some(Action::ResetBefore) => Outcome::Reset,
            Some(Action::ResetAfter) => {
                answer(&mut state, node, call);
                Outcome::Reset
            }
            Some(Action::Slow(delay)) => Outcome::Late(answer(&mut state, node, call), delay),
            Some(Action::ChangedBefore) => {
                policy::touch(&mut state, call.path.trim_start_matches("/policy/api/v1"));
                Outcome::Reply(answer(&mut state, node, call))
            }
        };
        let status = match &outcome {
            Outcome::Reply(reply) | Outcome::Late(reply, _) => reply.status,
            Outcome::Reset => 0,
        };
        state.records.push(record(node, call, status));
        outcome
    }
}

fn record(node: usize, call: &Call, status: u16) -> Recorded {
    let secret = ["authorization", "cookie", "x-xsrf-token", "csp-auth-token"];
    let headers = call.headers.iter().filter(|(name, _)| !secret.contains(&name.as_str()));
    Recorded {
        node,
        method: call.method.clone(),
        path: call.path.clone(),
        query: call.query.clone(),
        headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
        body: call.json().map_or(Value::Null, Value::Object),
        status,
    }
}

fn answer(state: &mut State, node: usize, call: &Call) -> Reply {
    let mut reply = dispatch(state, node, call);
    if state.switches.no_content && reply.status == 200 && reply.body.is_empty() && call.method != "POST" {
        reply.status = 204;
    }
    if reply.status >= 400 && state.switches.codes_are_strings {
        let mut body = reply.value();
        if let Some(code) = body.get("error_code").map(ToString::to_string) {
            body["error_code"] = json!(code.trim_matches('"'));
            reply.body = body.to_string().into_bytes();
        }
    }
    reply
}

fn dispatch(state: &mut State, node: usize, call: &Call) -> Reply {
    let path = call.path.as_str();
    if (call.method.as_str(), path) == ("POST", "/api/session/create") {
        return auth::create_session(state, node, &call.body);
    }
    let user = match auth::principal(state, node, call) {
        Ok(user) => user,
        Err(reply) => return reply,
    };
    if call.method != "GET" && user == crate::AUDITOR {
        return Reply::error(403, 98, "common-services", "The user is not authorized to perform this operation.");
    }
    match (call.method.as_str(), path) {
        ("POST", "/api/session/destroy") => auth::destroy_session(state, node, call),
        ("GET", "/api/v1/node/version") => {
            Reply::json(&json!({"node_version": "4.2.0.0.0.1", "product_version": "4.2.0.0.0.24105824"}))
        }
        ("GET", "/api/v1/reverse-proxy/node/health") => {
            let state = if state.switches.healthy { "UP" } else { "DOWN" };
            let components = format!("POLICY:{state}, SEARCH:UP, MANAGER:UP, NODE_MGMT:UP, UI:UP");
            Reply::json(&json!({"healthy": state == "UP", "components_health": components}))
        }
        ("GET", "/policy/api/v1/search/query") if !state.switches.no_policy => {
            let items = match search::find(state, call) {
                Ok(items) => items,
                Err(reply) => return reply,
            };
            page(&items, &call.query, state.switches.largest_page, Cursor::Offset)
        }
        _ => match path.strip_prefix("/policy/api/v1") {
            Some(rest) if !state.switches.no_policy => policy::serve(state, &user, rest, call),
            None if path.starts_with("/api/v1/logical-routers") && !state.switches.nsx9 => {
                manager::serve(state, &user, call)
            }
            _ => Reply::no_such_api(),
        },
    }
}
