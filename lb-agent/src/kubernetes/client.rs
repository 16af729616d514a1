//! The way to the Kubernetes API: one client that asks the servers it is told of, in order, and goes on to the next when
//! one refuses, hangs or fails.
//!
//! The API server can be what is being balanced, so the address of the kubeconfig (as a rule the VIP) comes last, behind
//! the node's own server and the other healthy ones. A server that failed is asked last for a while.
//!
//! Invariant: a request that may have had an effect (anything but GET, once it was sent) is never sent twice.

mod body;
mod connect;
mod credentials;
mod ranking;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    error::Error,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, RETRY_AFTER},
    http::request,
};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use kube::client::Body;
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tower_service::Service;
use tracing::{debug, info, warn};

use body::Guarded;
use connect::Connector;
pub use credentials::Credentials;
use credentials::Loaded;
use ranking::Ranking;

/// How long credentials that were read count: tokens and certificates are replaced while the agent runs.
const RELOAD: Duration = Duration::from_secs(10);
/// Longest wait that a server can ask for with `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// How often a connection with several streams (HTTP/2) is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(3);
/// Idle connections are closed behind this.
const POOL_IDLE: Duration = Duration::from_secs(60);

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// To take a connection and shake hands. Default 2 s.
    pub connect: Duration,
    /// From the request to the head of the answer, and between parts of an answer that is no watch. Default 10 s.
    pub answer: Duration,
    /// Between events of a watch. Default 90 s: servers send a bookmark each minute.
    pub watch_idle: Duration,
    /// To answer a ping, where the server speaks HTTP/2. Default 3 s.
    pub ping: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(2), answer: seconds(10), watch_idle: seconds(90), ping: seconds(3) }
    }
}

/// The way to the API of one cluster. Clones share connections and what is known of the servers.
#[derive(Clone)]
pub struct Access {
    client: kube::Client,
    shared: Arc<Shared>,
}

/// What the client knows of its servers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AccessState {
    /// The server that answered last (host and port).
    pub server: Option<String>,
    /// The last failure, if no server has answered since.
    pub error: Option<String>,
}

/// Why the API could not be asked. No variant carries a secret.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The credentials can't be used.
    #[error("{what}: {why}")]
    Credentials {
        /// Which credentials.
        what: String,
        /// What is wrong with them, and what to do.
        why: String,
    },
    /// No server answered.
    #[error("no API server answers; {0}")]
    NoServer(String),
    /// A server failed with a request that may have had an effect.
    #[error("{server}: {why}")]
    Failed {
        /// Host and port.
        server: String,
        /// What happened.
        why: String,
    },
}

impl Access {
    /// The way by these credentials and servers; the address in the credentials comes last. Nothing is read or asked yet:
    /// a kubeconfig may appear later. Needs a tokio runtime.
    #[must_use]
    pub fn new(credentials: Credentials, servers: watch::Receiver<Vec<SocketAddr>>, limits: Limits) -> Self {
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { credentials, servers, limits, state });
        let http = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(2)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(limits.ping)
            .http2_keep_alive_while_idle(true)
            .build(Connector::new(Arc::clone(&shared)));
        let client = kube::Client::new(Failover { http, shared: Arc::clone(&shared) }, "default");
        Self { client, shared }
    }

    /// A client of the API.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// What is known of the servers now.
    #[must_use]
    pub fn state(&self) -> AccessState {
        let state = self.shared.state();
        AccessState { server: state.server.clone(), error: state.error.clone() }
    }

    /// How long from `now` servers want to be left alone (`Retry-After`), zero if they do not.
    #[must_use]
    pub fn hold_off(&self, now: Instant) -> Duration {
        self.shared.state().ranking.hold_off(now)
    }
}

/// What the client, its connections and its answers share.
struct Shared {
    credentials: Credentials,
    servers: watch::Receiver<Vec<SocketAddr>>,
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    loaded: Option<(Arc<Loaded>, Instant)>,
    ranking: Ranking,
    server: Option<String>,
    error: Option<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The credentials, read again if they are old.
    async fn loaded(&self) -> Result<Arc<Loaded>, AccessError> {
        if let Some((loaded, at)) = &self.state().loaded
            && at.elapsed() < RELOAD
        {
            return Ok(Arc::clone(loaded));
        }
        let read = self.credentials.load().await;
        let mut state = self.state();
        let loaded = match (read, &state.loaded) {
            (Ok(loaded), _) => Arc::new(loaded),
            (Err(error), None) => return Err(error),
            (Err(error), Some((before, _))) => {
                warn!(%error, "the credentials of before stay in use");
                Arc::clone(before)
            }
        };
        state.loaded = Some((Arc::clone(&loaded), Instant::now()));
        Ok(loaded)
    }

    /// The servers to ask, in order.
    fn candidates(&self, loaded: &Loaded) -> Vec<String> {
        let mut servers: Vec<String> = self.servers.borrow().iter().map(ToString::to_string).collect();
        servers.push(loaded.authority.clone());
        self.state().ranking.order(servers, Instant::now())
    }

    /// Asks one server after the other.
    async fn send(self: &Arc<Self>, http: &Http, request: Request<Body>) -> Result<Response<Guarded>, AccessError> {
        let loaded = match self.loaded().await {
            Ok(loaded) => loaded,
            Err(error) => {
                self.state().error = Some(error.to_string());
                return Err(error);
            }
        };
        let (parts, body) = request.into_parts();
        let mut failures = Vec::new();
        for server in self.candidates(&loaded) {
            let Some(copy) = body.try_clone() else { break };
            let request = aimed(&parts, copy, &server, &loaded)?;
            match self.ask(http, &server, request).await {
                Ok(response) => return Ok(self.answered(&server, &parts, response)),
                Err(failure) => {
                    self.failed(&server, &failure.why);
                    if failure.sent && parts.method != Method::GET {
                        return Err(AccessError::Failed { server, why: failure.why });
                    }
                    failures.push(format!("{server}: {}", failure.why));
                }
            }
        }
        Err(AccessError::NoServer(failures.join("; ")))
    }

    async fn ask(
        &self,
        http: &Http,
        server: &str,
        request: Request<Body>,
    ) -> Result<Response<hyper::body::Incoming>, Failure> {
        debug!(%server, method = %request.method(), path = request.uri().path(), "asking the API");
        match timeout(self.limits.connect + self.limits.answer, http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Failure { sent: !error.is_connect(), why: chain(&error) }),
            Err(_) => Err(Failure { sent: true, why: format!("no answer within {:?}", self.limits.answer) }),
        }
    }

    /// Notes what an answer says about its server, and guards its body.
    fn answered(
        self: &Arc<Self>,
        server: &str,
        parts: &request::Parts,
        response: Response<hyper::body::Incoming>,
    ) -> Response<Guarded> {
        let is_watch = parts.uri.query().is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
        let idle = if is_watch { self.limits.watch_idle } else { self.limits.answer };
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let now = Instant::now();
        let mut state = self.state();
        if status == StatusCode::TOO_MANY_REQUESTS {
            let wait = retry_after.map_or(Duration::from_secs(1), Duration::from_secs).min(MAX_RETRY_AFTER);
            state.ranking.busy(server, wait, now);
        } else if status.is_server_error() || status == StatusCode::UNAUTHORIZED {
            state.ranking.failed(server, now); // the next request goes to another
        } else {
            state.ranking.answered(server);
        }
        if status == StatusCode::UNAUTHORIZED {
            // The token may have been replaced.
            state.loaded = state.loaded.take().map(|(loaded, at)| (loaded, at.checked_sub(RELOAD).unwrap_or(at)));
        }
        if state.server.as_deref() != Some(server) {
            info!(%server, "the API is reached through this server");
            state.server = Some(server.to_owned());
        }
        state.error = None;
        drop(state);
        response.map(|body| Guarded::new(body, idle, server.to_owned(), Arc::clone(self)))
    }

    /// Notes that a server failed.
    fn failed(&self, server: &str, why: &str) {
        debug!(%server, why, "an API server failed");
        let mut state = self.state();
        state.ranking.failed(server, Instant::now());
        state.error = Some(format!("{server}: {why}"));
    }
}

/// Why one server gave no answer.
struct Failure {
    /// The request may have reached it.
    sent: bool,
    why: String,
}

/// The request, for this server.
fn aimed(parts: &request::Parts, body: Body, server: &str, loaded: &Loaded) -> Result<Request<Body>, AccessError> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let scheme = if loaded.tls.is_some() { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(server).path_and_query(path).build();
    let uri = uri.map_err(|error| AccessError::Failed { server: server.to_owned(), why: error.to_string() })?;
    let mut parts = parts.clone();
    parts.uri = uri;
    if let Some(authorization) = &loaded.authorization {
        parts.headers.insert(AUTHORIZATION, authorization.clone());
    }
    Ok(Request::from_parts(parts, body))
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = next.source();
    }
    text
}

type Http = legacy::Client<Connector, Body>;
type Answer = Pin<Box<dyn Future<Output = Result<Response<Guarded>, AccessError>> + Send>>;

/// The service below `kube::Client`.
struct Failover {
    http: Http,
    shared: Arc<Shared>,
}

impl Service<Request<Body>> for Failover {
    type Response = Response<Guarded>;
    type Error = AccessError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), AccessError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let (http, shared) = (self.http.clone(), Arc::clone(&self.shared));
        Box::pin(async move { shared.send(&http, request).await })
    }
}
