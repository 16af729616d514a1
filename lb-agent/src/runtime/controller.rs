//! Runs the controller: its own process, with its own configuration and rights.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{logging, notify};
use crate::{
    config::{ControllerConfig, LogFormat, LogLevel},
    controller::{self, Settings, SharedReport},
};

/// Runs the controller until SIGTERM or SIGINT. `log_level` and `log_format` go before the configuration's.
///
/// # Errors
/// Whatever keeps it from starting: the configuration, the credentials, the address to listen on.
pub fn run(config_path: &Path, log_level: Option<LogLevel>, log_format: Option<LogFormat>) -> Result<()> {
    let config = ControllerConfig::load(config_path)?;
    logging::start(log_level.unwrap_or(config.log.level), log_format.unwrap_or(config.log.format))?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?;
    let result = runtime.block_on(serve(config));
    runtime.shutdown_background();
    result
}

async fn serve(config: ControllerConfig) -> Result<()> {
    let client = controller::connect(config.kubeconfig.as_deref()).await?;
    let (report, cancel) = (SharedReport::default(), CancellationToken::new());
    if let Some(address) = config.http {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("listening on {address} for health and metrics; free the port, or set `http` to another address or `off`")
        })?;
        tokio::spawn(controller::serve(listener, report.clone(), cancel.clone()));
    }
    let identity = config.identity.clone().unwrap_or_else(host_name);
    let lead = lead(&config);
    let settings =
        Settings { class: config.class, reserved: config.reserved, identity, write_timeout: config.write_timeout };
    let work = tokio::spawn(controller::run(client, settings, lead.subscribe(), report, cancel.clone()));
    notify::ready();
    terminated().await?;
    notify::stopping();
    cancel.cancel();
    work.await.context("the controller's task failed")
}

/// Until when this process leads.
fn lead(config: &ControllerConfig) -> watch::Sender<Option<Instant>> {
    if config.election.is_some() {
        tracing::warn!("this build holds no election: run one controller only");
    }
    watch::Sender::new(Some(Instant::now() + ALWAYS))
}

/// Longer than any process lives.
const ALWAYS: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

async fn terminated() -> Result<()> {
    let listen = |kind| signal(kind).context("installing a signal handler");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
    }
    Ok(())
}
