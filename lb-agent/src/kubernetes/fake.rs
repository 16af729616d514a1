//! An API server in this process that keeps objects, serves lists and watches, and fails as tests want.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use futures::{StreamExt, channel::mpsc, future, stream};
use serde_json::{Value, json};
use tokio::runtime::{self, Runtime};

pub(crate) const NODES: &str = "/api/v1/nodes";
pub(crate) const SERVICES: &str = "/api/v1/services";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
pub(crate) const BETA_SLICES: &str = "/apis/discovery.k8s.io/v1beta1/endpointslices";
pub(crate) const POOLS: &str = "/apis/levee.dev/v1alpha1/vippools";

pub(crate) const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/levee-system/leases";
pub(crate) const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

/// What requests meet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// A body that is no JSON.
    Garbage,
    /// No answer at all.
    Hang,
    /// A status, with `Retry-After` in seconds.
    Status(u16, Option<u64>),
}

/// What asking for a streaming list meets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Streaming {
    Works,
    /// The feature is off: 422.
    Refused,
    /// The data store is too old: an ERROR event.
    Error,
    /// The parameter is unknown: objects, and no end.
    Ignored,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: String,
    pub(crate) at: Instant,
}

struct Watcher {
    path: String,
    events: mpsc::UnboundedSender<String>,
}

/// What the server holds; it can outlive a server and be given to the next.
pub(crate) struct Store {
    pub(crate) objects: BTreeMap<String, BTreeMap<String, Value>>,
    pub(crate) version: u64,
    /// Watches from before this version are told that it is too old.
    pub(crate) oldest: u64,
    history: Vec<(u64, String, String)>,
    watchers: Vec<Watcher>,
    pub(crate) fault: Option<Fault>,
    /// Only requests with this in their URI meet the fault.
    pub(crate) fault_for: String,
    pub(crate) streaming: Streaming,
    pub(crate) token: Option<String>,
    pub(crate) asked: Vec<Asked>,
}

/// The server. It ends with this value, as if it were killed.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<Mutex<Store>>,
    runtime: Option<Runtime>,
}

impl Fake {
    /// A server with these resources.
    pub(crate) fn new(paths: &[&str]) -> Self {
        let store = Store {
            objects: paths.iter().map(|path| ((*path).to_owned(), BTreeMap::new())).collect(),
            version: 100,
            oldest: 0,
            history: Vec::new(),
            watchers: Vec::new(),
            fault: None,
            fault_for: String::new(),
            streaming: Streaming::Works,
            token: None,
            asked: Vec::new(),
        };
        Self::on(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::new(Mutex::new(store)))
    }

    /// A server of all resources.
    pub(crate) fn complete() -> Self {
        Self::new(&[NODES, SERVICES, SLICES, POOLS])
    }

    /// A server at this address with what another held.
    pub(crate) fn on(address: SocketAddr, store: Arc<Mutex<Store>>) -> Self {
        store.lock().unwrap().watchers.clear();
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _guard = runtime.enter();
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(address).unwrap();
            socket.listen(64).unwrap()
        };
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&store));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, store, runtime: Some(runtime) }
    }

    /// Ends all connections and refuses new ones; what it held is for the next.
    pub(crate) fn kill(mut self) -> (SocketAddr, Arc<Mutex<Store>>) {
        self.end();
        (self.address, Arc::clone(&self.store))
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.store.lock().unwrap().watchers.clear();
        // The runtime ends when it gets to it; the port is free then.
        let end = Instant::now() + Duration::from_secs(5);
        while TcpListener::bind(self.address).is_err() && Instant::now() < end {
            std::thread::yield_now();
        }
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// A kubeconfig for this server.
    pub(crate) fn kubeconfig(&self, folder: &Path) -> PathBuf {
        kubeconfig(folder, &format!("http://{}", self.address), "{}", "{}")
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.end();
    }
}

/// Writes a kubeconfig; `cluster` and `user` are JSON.
pub(crate) fn kubeconfig(folder: &Path, server: &str, cluster: &str, user: &str) -> PathBuf {
    let mut cluster: Value = serde_json::from_str(cluster).unwrap();
    cluster["server"] = server.into();
    let user: Value = serde_json::from_str(user).unwrap();
    let value = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": "me", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}]
    });
    let path = folder.join("kubeconfig");
    std::fs::write(&path, value.to_string()).unwrap();
    path
}

impl Store {
    /// Puts an object there and tells watchers. `name` is `namespace/name` or a name.
    pub(crate) fn put(&mut self, path: &str, name: &str, mut object: Value) {
        self.version += 1;
        let (namespace, short) = name.split_once('/').map_or((None, name), |(space, short)| (Some(space), short));
        object["metadata"]["name"] = short.into();
        if let Some(namespace) = namespace {
            object["metadata"]["namespace"] = namespace.into();
        }
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let before = self.objects.get_mut(path).unwrap().insert(name.to_owned(), object.clone());
        self.tell(path, if before.is_some() { "MODIFIED" } else { "ADDED" }, &object);
    }

    /// Takes an object away and tells watchers.
    pub(crate) fn delete(&mut self, path: &str, name: &str) {
        self.version += 1;
        let mut object = self.objects.get_mut(path).unwrap().remove(name).unwrap();
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.tell(path, "DELETED", &object);
    }

    /// Goes back to a version before, as a data store restored from a backup does.
    pub(crate) fn go_back(&mut self, version: u64) {
        self.version = version;
        self.history.retain(|(of, ..)| *of <= version);
    }

    /// Sends a line to watchers, and to nobody later.
    pub(crate) fn send(&mut self, path: &str, line: &str) {
        self.watchers
            .retain(|watcher| watcher.path != path || watcher.events.unbounded_send(format!("{line}\n")).is_ok());
    }

    /// Ends all watches of a resource, as at the end of their time.
    pub(crate) fn end_watches(&mut self, path: &str) {
        self.watchers.retain(|watcher| watcher.path != path);
    }

    /// How many watches of a resource run.
    pub(crate) fn watches(&mut self, path: &str) -> usize {
        self.watchers.retain(|watcher| !watcher.events.is_closed());
        self.watchers.iter().filter(|watcher| watcher.path == path).count()
    }

    /// How many requests came with this in their path and query.
    pub(crate) fn count(&self, path: &str, query: &str) -> usize {
        self.asked.iter().filter(|asked| asked.path == path && asked.query.contains(query)).count()
    }

    fn tell(&mut self, path: &str, kind: &str, object: &Value) {
        let line = event(kind, object);
        self.history.push((self.version, path.to_owned(), line.clone()));
        self.send(path, line.trim_end());
    }
}

fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": "Test"})
}

fn plain(code: u16, body: &Value) -> Response {
    Response::builder().status(code).body(Body::from(body.to_string())).unwrap()
}

fn types(path: &str) -> (String, String) {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let kind = match parts.pop() {
        Some("nodes") => "Node",
        Some("services") => "Service",
        Some("vippools") => "VipPool",
        _ => "EndpointSlice",
    };
    (parts[1..].join("/"), kind.to_owned())
}

async fn answer(State(store): State<Arc<Mutex<Store>>>, request: Request) -> Response {
    let uri = request.uri().clone();
    let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
    let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let method = request.method().to_string();
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap_or_default();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let written = (method != "GET").then(|| body.clone());
    let fault = {
        let mut store = store.lock().unwrap();
        store.asked.push(Asked {
            method,
            path: path.clone(),
            query: query.clone(),
            authorization: authorization.clone(),
            body,
            at: Instant::now(),
        });
        if store.token.as_ref().is_some_and(|token| authorization != Some(format!("Bearer {token}"))) {
            return plain(401, &status(401, "who are you?"));
        }
        store.fault.filter(|_| uri.to_string().contains(&store.fault_for))
    };
    match fault {
        Some(Fault::Hang) => future::pending().await,
        Some(Fault::Garbage) => Response::new(Body::from("<html>welcome</html>")),
        Some(Fault::Status(code, after)) => {
            let mut response = plain(code, &status(code, "as the test wants"));
            if let Some(after) = after {
                response.headers_mut().insert("retry-after", after.into());
            }
            response
        }
        None => match written {
            Some(written) => write(&store.lock().unwrap(), &path, written),
            None => serve(&mut store.lock().unwrap(), &path, &query),
        },
    }
}

/// Takes what is written to a resource that there is, or to one object of it, and keeps it nowhere but in `asked`.
fn write(store: &Store, path: &str, body: String) -> Response {
    let is_there = store.objects.contains_key(path)
        || path.rsplit_once('/').is_some_and(|(resource, _)| store.objects.contains_key(resource));
    if is_there { Response::new(Body::from(body)) } else { plain(404, &status(404, "no such resource")) }
}

fn serve(store: &mut Store, path: &str, query: &str) -> Response {
    let Some(objects) = store.objects.get(path) else { return plain(404, &status(404, "no such resource")) };
    let parameter = |name: &str| query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let (api, kind) = types(path);
    let typed = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = api.clone().into();
        object["kind"] = kind.clone().into();
        object
    };
    if parameter("watch") == Some("true") {
        let objects: Vec<Value> = objects.values().map(typed).collect();
        return watch(store, path, parameter("sendInitialEvents").is_some(), parameter("resourceVersion"), &objects);
    }
    let skip: usize = parameter("continue").map_or(0, |token| token.parse().unwrap());
    let limit: usize = parameter("limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
    let items: Vec<Value> = objects.values().skip(skip).take(limit).map(typed).collect();
    let next = skip.saturating_add(limit);
    let token = if next < objects.len() { next.to_string() } else { String::new() };
    let metadata = json!({"resourceVersion": store.version.to_string(), "continue": token});
    plain(200, &json!({"apiVersion": api, "kind": format!("{kind}List"), "metadata": metadata, "items": items}))
}

fn watch(store: &mut Store, path: &str, initial: bool, from: Option<&str>, objects: &[Value]) -> Response {
    let mut lines = Vec::new();
    if initial {
        if store.streaming == Streaming::Refused {
            return plain(422, &status(422, "sendInitialEvents is forbidden"));
        }
        lines.extend(objects.iter().map(|object| event("ADDED", object)));
        let (api, kind) = types(path);
        let mark = json!({
            "apiVersion": api, "kind": kind,
            "metadata": {
                "resourceVersion": store.version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}
            }
        });
        match store.streaming {
            Streaming::Works => lines.push(event("BOOKMARK", &mark)),
            Streaming::Error => lines = vec![event("ERROR", &status(500, "the store is too old"))],
            Streaming::Ignored | Streaming::Refused => {}
        }
    } else {
        let from: u64 = from.unwrap().parse().unwrap();
        if from < store.oldest {
            lines.push(event("ERROR", &status(410, "too old resource version")));
        } else {
            let later = store.history.iter().filter(|(version, of, _)| *version > from && of == path);
            lines.extend(later.map(|(_, _, line)| line.clone()));
        }
    }
    let (events, receiver) = mpsc::unbounded();
    store.watchers.push(Watcher { path: path.to_owned(), events });
    let body = stream::iter(lines).chain(receiver).map(Ok::<_, Infallible>);
    Response::new(Body::from_stream(body))
}
