//! `/healthz`, `/readyz` and `/metrics` of the controller.

use std::io;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{metrics, report::SharedReport};

/// Serves until `cancel`.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, report: SharedReport, cancel: CancellationToken) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(report);
    axum::serve(listener, router).with_graceful_shutdown(async move { cancel.cancelled().await }).await
}

async fn readyz(State(report): State<SharedReport>) -> (StatusCode, String) {
    match report.read().not_ready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn metrics_text(State(report): State<SharedReport>) -> Response {
    ([(header::CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], metrics::render(&report.read())).into_response()
}
