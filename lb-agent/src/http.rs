//! The HTTP endpoint for people, probes and Prometheus: `/healthz`, `/readyz`, `/metrics`.

use std::{io, path::PathBuf, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    inspect::{Inspection, Inspector, Rings},
    metrics,
    status::AgentStatus,
};

/// Tells the agent's state as it is when called.
pub type StatusSource = Arc<dyn Fn() -> AgentStatus + Send + Sync>;

const INDEX: &str = "\
Levee agent
  /healthz  200 while the process lives
  /readyz   200 once the first complete plan is applied, before that 503 with the reason
  /metrics  OpenMetrics text for Prometheus
";

/// Serves until `cancel`. `pin_path` is where the maps are that `/metrics` reads.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    state: StatusSource,
    pin_path: PathBuf,
    cancel: CancellationToken,
) -> io::Result<()> {
    axum::serve(listener, router(state, pin_path)).with_graceful_shutdown(async move { cancel.cancelled().await }).await
}

#[derive(Clone)]
struct Shared {
    status: StatusSource,
    pin_path: Arc<PathBuf>,
}

fn router(status: StatusSource, pin_path: PathBuf) -> Router {
    Router::new()
        .route("/", get(async || INDEX))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(Shared { status, pin_path: Arc::new(pin_path) })
}

async fn readyz(State(shared): State<Shared>) -> (StatusCode, String) {
    let status = (shared.status)();
    match not_ready(&status) {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

/// Why the agent is not ready; `None` if it is. It stays ready once it was.
fn not_ready(status: &AgentStatus) -> Option<String> {
    if status.ready {
        return None;
    }
    let error = status.dataplane.error.as_deref();
    let failed = error.map(|error| format!("the first plan failed and is tried again: {error}"));
    Some(failed.unwrap_or_else(|| "the first complete plan is not applied yet".to_owned()))
}

async fn metrics_text(State(shared): State<Shared>) -> Response {
    let status = (shared.status)();
    let pin_path = Arc::clone(&shared.pin_path);
    let text = tokio::task::spawn_blocking(move || metrics::render(&status, read(&pin_path).as_ref())).await;
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("reading the maps: {error}\n")).into_response(),
    }
}

fn read(pin_path: &std::path::Path) -> Option<Inspection> {
    let inspection = Inspector::open(pin_path).and_then(|inspector| inspector.read(Rings::Skip));
    inspection
        .inspect_err(|error| tracing::debug!(error = error as &dyn std::error::Error, "no metrics of the maps"))
        .ok()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;
    use crate::examples;

    async fn start(status: AgentStatus) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let source: StatusSource = Arc::new(move || status.clone());
        let served = serve(listener, source, "/nowhere/levee".into(), cancel.clone());
        (address, cancel, tokio::spawn(served))
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: levee\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_ready_agent_says_so_and_ends_when_cancelled() {
        let (address, cancel, task) = start(examples::status()).await;
        let healthz = ask(address, "/healthz").await;
        assert!(healthz.starts_with("HTTP/1.1 200 ") && healthz.ends_with("\r\n\r\nok\n"), "{healthz}");
        let readyz = ask(address, "/readyz").await;
        assert!(readyz.starts_with("HTTP/1.1 200 ") && readyz.ends_with("\r\n\r\nready\n"), "{readyz}");
        assert!(ask(address, "/").await.contains("/metrics"));
        assert!(ask(address, "/nothing").await.starts_with("HTTP/1.1 404 "));
        cancel.cancel();
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_agent_without_a_plan_is_healthy_and_says_why_it_is_not_ready() {
        let mut status = examples::status();
        status.ready = false;
        let (address, _cancel, _task) = start(status.clone()).await;
        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
        let readyz = ask(address, "/readyz").await;
        assert!(readyz.starts_with("HTTP/1.1 503 "), "{readyz}");
        assert!(readyz.ends_with("not ready: the first complete plan is not applied yet\n"), "{readyz}");

        status.dataplane.error = Some("map SERVICES is full".to_owned());
        let (address, _cancel, _task) = start(status).await;
        assert!(ask(address, "/readyz").await.contains("tried again: map SERVICES is full\n"));
    }

    #[tokio::test]
    async fn metrics_come_as_open_metrics_also_without_maps() {
        let (address, _cancel, _task) = start(examples::status()).await;
        let answer = ask(address, "/metrics").await;
        assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
        assert!(answer.contains("levee_maps_readable 0\n") && answer.contains("# EOF\n"), "{answer}");
    }
}
