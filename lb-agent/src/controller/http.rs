//! `/healthz`, `/readyz` and `/metrics` of the controller.

use std::io;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{metrics, report::SharedReport};
use crate::nsxt;

/// How the routes in NSX-T are; `None` if none are kept.
pub type Routes = Option<watch::Receiver<nsxt::Status>>;

/// Serves until `cancel`.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    report: SharedReport,
    routes: Routes,
    cancel: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state((report, routes));
    axum::serve(listener, router).with_graceful_shutdown(async move { cancel.cancelled().await }).await
}

async fn readyz(State((report, _)): State<(SharedReport, Routes)>) -> (StatusCode, String) {
    match report.read().not_ready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn metrics_text(State((report, routes)): State<(SharedReport, Routes)>) -> Response {
    let routes = routes.map_or_else(Vec::new, |routes| routes.borrow().metrics());
    ([(header::CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], metrics::render(&report.read(), routes)).into_response()
}
