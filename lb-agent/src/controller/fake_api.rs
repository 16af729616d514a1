//! An API server in this process, with as much of it as the controller uses: lists, watches, statuses by apply and merge
//! patch with versions that conflict, Events. It can fail at random, before or after it did what was asked.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::stream;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

/// What the server does when it is asked to write a status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    /// What a server of today does.
    Current,
    /// It knows no `ipMode` and no conditions of Services, and says so with 500 to an apply.
    Old,
}

/// A server that runs as long as its runtime.
#[derive(Clone)]
pub(super) struct FakeApi {
    state: Arc<Mutex<Cluster>>,
    version: watch::Sender<u64>,
    uri: String,
}

pub(super) struct Cluster {
    mode: Mode,
    /// Of a hundred status writes, so many fail.
    failures: u64,
    random: u64,
    version: u64,
    objects: BTreeMap<(String, String), Value>,
    /// Kind, type of the change and object, in the order of versions.
    history: Vec<(String, &'static str, Value)>,
    /// Status writes that arrived: kind and path.
    pub(super) writes: Vec<String>,
    /// Reason and note of Events.
    pub(super) events: Vec<(String, String)>,
}

impl Cluster {
    pub(super) fn get(&self, kind: &str, name: &str) -> Value {
        self.objects.get(&(kind.to_owned(), name.to_owned())).cloned().unwrap_or_default()
    }

    /// Addresses of a Service, now.
    pub(super) fn addresses(&self, name: &str) -> Vec<String> {
        addresses(&self.get("services", name))
    }

    /// A condition of an object, as status and reason.
    pub(super) fn condition(&self, kind: &str, name: &str, type_: &str) -> Option<(String, String)> {
        let object = self.get(kind, name);
        let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.into_iter().find(|condition| condition["type"] == type_)?;
        Some((found["status"].as_str()?.to_owned(), found["reason"].as_str()?.to_owned()))
    }

    /// Addresses of Services after every change that there was.
    pub(super) fn address_history(&self) -> Vec<(String, Vec<String>)> {
        let services = self.history.iter().filter(|(kind, _, _)| kind == "services");
        services.map(|(_, _, object)| (name_of(object), addresses(object))).collect()
    }

    fn put(&mut self, kind: &str, mut object: Value) -> Value {
        let key = (kind.to_owned(), name_of(&object));
        let before = self.objects.get(&key);
        let change = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key, object.clone());
        self.history.push((kind.to_owned(), change, object.clone()));
        object
    }

    fn chance(&mut self, of: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % of
    }

    /// Writes a status, or does not.
    fn patch(&mut self, kind: &str, key: &str, manager: &str, is_apply: bool, patch: &Value) -> Response {
        self.writes.push(format!("{kind} {key}"));
        let fault = if self.chance(100) < self.failures { Some(self.chance(4)) } else { None };
        match fault {
            Some(0) => return failure(409, "the object has been modified (or so it says)"),
            Some(1) => return failure(500, "etcdserver: request timed out, and nothing was done"),
            Some(2) => return failure(429, "too many requests"),
            _ => {}
        }
        let Some(mut object) = self.objects.get(&(kind.to_owned(), key.to_owned())).cloned() else {
            return failure(404, "not found");
        };
        let base = &patch["metadata"]["resourceVersion"];
        if !base.is_null() && *base != object["metadata"]["resourceVersion"] {
            return failure(409, "the object has been modified; apply your changes to the latest version");
        }
        if is_apply && self.mode == Mode::Old && kind == "services" {
            return failure(500, ".status.loadBalancer.ingress[0].ipMode: field not declared in schema");
        }
        let before = object["status"].clone();
        if is_apply {
            apply(&mut object["status"], &patch["status"]);
        } else {
            merge(&mut object["status"], &patch["status"]);
        }
        if self.mode == Mode::Old && kind == "services" {
            drop_unknown(&mut object["status"]);
        }
        if object["status"] != before {
            let fields = json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}});
            if !addresses(&object).is_empty() {
                object["metadata"]["managedFields"] =
                    json!([{"manager": manager, "operation": "Apply", "fieldsV1": fields}]);
            }
            object = self.put(kind, object);
        }
        match fault {
            Some(_) => failure(500, "it was done, but you will not know"),
            None => axum::Json(object).into_response(),
        }
    }
}

impl FakeApi {
    pub(super) async fn start(mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let cluster = Cluster {
            mode,
            failures: 0,
            random: 1,
            version: 1,
            objects: BTreeMap::new(),
            history: Vec::new(),
            writes: Vec::new(),
            events: Vec::new(),
        };
        let api = Self { state: Arc::new(Mutex::new(cluster)), version: watch::Sender::new(1), uri };
        let router = Router::new()
            .route("/api/v1/{kind}", get(list))
            .route("/apis/levee.dev/v1alpha1/{kind}", get(list))
            .route("/api/v1/namespaces/{namespace}/services/{name}/status", axum::routing::patch(patch_service))
            .route("/apis/levee.dev/v1alpha1/vippools/{name}/status", axum::routing::patch(patch_pool))
            .route("/apis/events.k8s.io/v1/namespaces/{namespace}/events", post(event))
            .with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        api
    }

    pub(super) fn client(&self) -> Client {
        Client::try_from(Config::new(self.uri.parse().unwrap())).unwrap()
    }

    /// Of a hundred status writes, so many fail from now on.
    pub(super) fn fail(&self, failures: u64, seed: u64) {
        let mut cluster = self.state.lock().unwrap();
        (cluster.failures, cluster.random) = (failures, seed);
    }

    /// Creates an object or puts another in its place, status and all.
    pub(super) fn put(&self, kind: &str, object: Value) {
        let version = {
            let mut cluster = self.state.lock().unwrap();
            cluster.put(kind, object);
            cluster.version
        };
        self.version.send_replace(version);
    }

    /// Changes an object.
    pub(super) fn change(&self, kind: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.read(|cluster| cluster.get(kind, name));
        change(&mut object);
        self.put(kind, object);
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Cluster) -> T) -> T {
        read(&self.state.lock().unwrap())
    }

    /// Returns when the cluster is as wanted; fails after a long time.
    pub(super) async fn until(&self, what: &str, wanted: impl Fn(&Cluster) -> bool) {
        let mut version = self.version.subscribe();
        let wait = async {
            while !self.read(&wanted) {
                version.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(Duration::from_secs(30), wait).await.is_err() {
            let objects = self.read(|cluster| json!(cluster.objects.values().collect::<Vec<_>>()).to_string());
            panic!("not within 30 s: {what}\n{objects}");
        }
    }

    fn answer(&self, act: impl FnOnce(&mut Cluster) -> Response) -> Response {
        let (response, version) = {
            let mut cluster = self.state.lock().unwrap();
            (act(&mut cluster), cluster.version)
        };
        // Also without a new version: whoever waits may wait for a write or an Event.
        self.version.send_replace(version);
        response
    }
}

/// The parameters of a request; none that matters here is escaped.
fn parameters(uri: &Uri) -> BTreeMap<String, String> {
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

async fn list(State(api): State<FakeApi>, Path(kind): Path<String>, uri: Uri) -> Response {
    let query = parameters(&uri);
    if query.contains_key("watch") {
        let from = query.get("resourceVersion").and_then(|version| version.parse::<u64>().ok()).unwrap_or(0);
        return watch_from(api, kind, from);
    }
    api.answer(|cluster| {
        let items: Vec<_> =
            cluster.objects.iter().filter(|((of, _), _)| *of == kind).map(|(_, object)| object).collect();
        let metadata = json!({"resourceVersion": cluster.version.to_string()});
        axum::Json(json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items})).into_response()
    })
}

fn watch_from(api: FakeApi, kind: String, from: u64) -> Response {
    let version = api.version.subscribe();
    let lines = stream::unfold((api, kind, from, version), async |(api, kind, from, mut version)| {
        loop {
            let (lines, now) = api.read(|cluster| {
                let newer = cluster.history.iter().filter(|(of, _, object)| *of == kind && version_of(object) > from);
                let line = |(_, change, object): &(String, &'static str, Value)| {
                    format!("{}\n", json!({"type": change, "object": object}))
                };
                (newer.map(line).collect::<String>(), cluster.version)
            });
            if !lines.is_empty() {
                return Some((Ok::<_, Infallible>(lines), (api, kind, now, version)));
            }
            version.changed().await.ok()?;
        }
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response()
}

async fn patch_service(
    State(api): State<FakeApi>,
    Path((namespace, name)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    patch(&api, "services", &format!("{namespace}/{name}"), &uri, &headers, &body)
}

async fn patch_pool(
    State(api): State<FakeApi>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    patch(&api, "vippools", &name, &uri, &headers, &body)
}

fn patch(api: &FakeApi, kind: &str, key: &str, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Response {
    let query = parameters(uri);
    let is_apply = match headers[header::CONTENT_TYPE].to_str().unwrap() {
        "application/apply-patch+yaml" => true,
        "application/merge-patch+json" => false,
        other => panic!("content type {other}"),
    };
    assert!(!is_apply || query.get("force").is_some_and(|force| force == "true"));
    let patch = serde_json::from_slice(body).unwrap();
    let manager = query["fieldManager"].clone();
    api.answer(|cluster| cluster.patch(kind, key, &manager, is_apply, &patch))
}

async fn event(State(api): State<FakeApi>, axum::Json(event): axum::Json<Value>) -> Response {
    api.answer(|cluster| {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        cluster.events.push((text("reason"), text("note")));
        (StatusCode::CREATED, axum::Json(event.clone())).into_response()
    })
}

fn failure(code: u16, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "Injected", "code": code});
    (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
}

/// One manager's apply: its fields are put in, those of its own that it leaves out go. Conditions merge by type.
fn apply(status: &mut Value, patch: &Value) {
    let mut next = patch.clone();
    let theirs = status["conditions"].as_array().cloned().unwrap_or_default();
    let theirs = theirs.into_iter().filter(|condition| {
        let type_ = condition["type"].as_str().unwrap();
        !type_.starts_with("levee.dev/") && type_ != "Ready"
    });
    let ours = patch["conditions"].as_array().cloned().unwrap_or_default();
    let conditions: Vec<_> = theirs.chain(ours).collect();
    if !conditions.is_empty() {
        next["conditions"] = json!(conditions);
    }
    *status = next;
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

fn drop_unknown(status: &mut Value) {
    status.as_object_mut().unwrap().remove("conditions");
    for entry in status["loadBalancer"]["ingress"].as_array_mut().into_iter().flatten() {
        entry.as_object_mut().unwrap().remove("ipMode");
    }
}

fn name_of(object: &Value) -> String {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap();
    metadata["namespace"].as_str().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

fn version_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn addresses(object: &Value) -> Vec<String> {
    let ingress = object["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    ingress.iter().map(|entry| entry["ip"].as_str().unwrap_or_default().to_owned()).collect()
}
