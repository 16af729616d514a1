//! Runs the controller: its own process, with its own configuration and rights.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use ring::rand::{self, SystemRandom};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{cluster_source::credentials, logging, notify, routes};
use crate::{
    config::{ControllerConfig, LogFormat, LogLevel},
    controller::{self, Lead, Settings, SharedReport},
    election::{
        Election,
        lease::{self, LeaseElection, LeaseSettings},
    },
    kubernetes::client::{Access, Limits},
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
    // The address of the credentials alone: the controller is a pod, or has the kubeconfig of its own node.
    let access =
        Access::new(credentials(config.kubeconfig.clone()), watch::Sender::default().subscribe(), Limits::default());
    let client = access.client();
    let (report, cancel) = (SharedReport::default(), CancellationToken::new());
    let listener = match config.http {
        Some(address) => Some(TcpListener::bind(address).await.with_context(|| {
            format!("listening on {address} for health and metrics; free the port, or set `http` to another address or `off`")
        })?),
        None => None,
    };
    let identity = config.identity.clone().unwrap_or_else(host_name);
    let (lead, election) = lead(&config, &access, &identity)?;
    let routes = config.routes.map(|routes| {
        let margin = config.election.as_ref().map_or(Duration::ZERO, |election| routes::margin(election.timing));
        routes::keep(routes, &access, lead.clone(), margin, &cancel)
    });
    if let Some(listener) = listener {
        tokio::spawn(controller::serve(listener, report.clone(), routes.clone(), cancel.clone()));
    }
    let settings = Settings {
        class: config.class,
        reserved: config.reserved,
        identity,
        write_timeout: config.write_timeout,
        lease_namespace: lease::NAMESPACE.to_owned(),
        lease_grace: config.lease_grace,
    };
    let work = tokio::spawn(controller::run(client, settings, lead, report, cancel.clone()));
    notify::ready();
    terminated().await?;
    notify::stopping();
    cancel.cancel();
    work.await.context("the controller's task failed")?;
    routes::ended(routes).await;
    // Nothing is written any more: somebody else may.
    if let Some(election) = election {
        election.resign().await;
    }
    Ok(())
}

/// Until when this process leads, and the election that says so. Without one it always does.
fn lead(config: &ControllerConfig, access: &Access, identity: &str) -> Result<(Lead, Option<LeaseElection>)> {
    let Some(settings) = &config.election else {
        let (sender, lead) = watch::channel(Some(Instant::now() + ALWAYS));
        tokio::spawn(async move { sender.closed().await });
        return Ok((lead, None));
    };
    let random = rand::generate(&SystemRandom::new()).ok().context("the system gives no random numbers")?;
    let election = LeaseElection::start(
        access.client(),
        LeaseSettings {
            namespace: settings.namespace.clone(),
            name: settings.name.clone(),
            timing: settings.timing,
            ..LeaseSettings::controller(lease::identity(identity, u32::from_ne_bytes(random.expose())))
        },
    );
    let mut leadership = election.leadership();
    let (sender, lead) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            let until = leadership.borrow_and_update().ours_until.map(Instant::from_std);
            sender.send_replace(until);
            if leadership.changed().await.is_err() {
                return;
            }
        }
    });
    Ok((lead, Some(election)))
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
