//! Starts the parts, joins them, and orders their end: withdraw first, the data plane stays unless told otherwise.

mod cluster_source;
mod compose;
pub mod controller;
mod drains;
mod followed;
mod heap;
mod interfaces;
mod listeners;
mod logging;
mod notify;
mod reconcile;
mod report;
mod routes;
mod sockets;
mod sweep;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use self::{compose::Compositor, reconcile::Reconciler, report::Report};
use crate::{
    announce, api,
    config::{self, AgentConfig, Config, ConfigErrors, LogFormat, LogLevel, OnTerminate, Reader},
    dataplane::{KernelVersion, PinDirectory},
    health,
    http::{self, StatusSource},
    membership::{self, Farewell},
    netlink,
    sources::file::FileSource,
    trace::Request,
};

/// The agent's state, shared with whoever reports it.
type SharedStatus = Arc<Mutex<Report>>;

/// Runs the agent until SIGTERM or SIGINT. `log_level` and `log_format` go before the configuration's.
///
/// # Errors
/// Whatever keeps it from starting: the configuration, the kernel, an agent that is there already.
pub fn run(config_path: &Path, log_level: Option<LogLevel>, log_format: Option<LogFormat>) -> Result<()> {
    let config = Reader::default().load(config_path)?;
    let log = &config.agent.log;
    logging::start(log_level.unwrap_or(log.level), log_format.unwrap_or(log.format))?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?;
    let result = runtime.block_on(serve(config_path.to_owned(), config));
    runtime.shutdown_background();
    result
}

async fn serve(path: PathBuf, config: Config) -> Result<()> {
    let pins = PinDirectory::new(&config.agent.pin_path);
    let lock = pins.lock()?;
    let cancel = CancellationToken::new();
    let (wanted_hops, hops) = watch::channel(reconcile::wanted_hops(&config.desired));
    let network = netlink::start(hops, cancel.clone()).await.context("following the network over netlink")?;
    let config = checked(config, &network.borrow())?;
    let mut compositor = Compositor::new(cluster_source::follow, config, network.clone(), cancel.clone())?;
    let compose::Wanted { config, cluster, .. } = compositor.first().await;
    wanted_hops.send_replace(reconcile::wanted_hops(&config.desired));
    let (wanted_probes, probes) = watch::channel(reconcile::wanted_probes(&config.desired));
    let health = health::spawn(probes, cancel.clone());
    let announce_cancel = CancellationToken::new();
    let (wanted_announcements, announcements) = watch::channel(None);
    let announced = announce::spawn(announcements, announce_cancel.clone()).context("following the VIPs on lo")?;

    let status = SharedStatus::default();
    let (listeners, requests) = mpsc::channel(1);
    let (commands, drains) = mpsc::channel(api::COMMANDS);
    let source = source_of(&status, compositor.followed());
    let mut servers = serve_status(&config.agent, source, listeners, commands, &cancel).await?;
    let (source, outcomes) = FileSource::spawn(&path, cancel.clone()).context("watching the configuration")?;
    let agent = config.agent.clone();
    let (speaking, wanted_speaking) = watch::channel(None);
    let membership = membership::spawn(wanted_speaking);
    let outputs = reconcile::Outputs { wanted_hops, wanted_probes, wanted_announcements, speaking };
    let tracing = listeners::Tracing::new(requests);
    let members = membership.members.clone();
    let inputs = reconcile::Streams { network, health, announced: announced.clone(), tracing, drains, members };
    status.lock().unwrap_or_else(PoisonError::into_inner).cluster = cluster;
    let updates = compositor.run(outcomes);
    let mut reconciler = Reconciler::open(&lock, &path, config, inputs, outputs, status.clone())?;
    let on_terminate = watch::Sender::new(agent.on_terminate);
    let ending = tokio::select! {
        ended = reconciler.run(updates, &on_terminate) => ended,
        ended = signals(&source) => ended,
        Some(ended) = servers.recv() => ended,
    };
    notify::stopping();
    reconciler.end_tracing();
    let on_terminate = *on_terminate.borrow();
    end(on_terminate, announce_cancel, announced).await;
    let is_back_soon = on_terminate == OnTerminate::Keep;
    membership.end(if is_back_soon { Farewell::BackSoon } else { Farewell::Silent }).await;
    cancel.cancel();
    ending
}

/// The agent's state with how the source of inventories fares at that moment.
fn source_of(status: &SharedStatus, followed: followed::SharedSource) -> StatusSource {
    let shared = status.clone();
    Arc::new(move || {
        let mut status = shared.lock().unwrap_or_else(PoisonError::into_inner).status();
        followed.enter(&mut status);
        status
    })
}

/// Serves the status over HTTP and the local socket. The receiver yields why one of them ended.
async fn serve_status(
    agent: &AgentConfig,
    source: StatusSource,
    listeners: mpsc::Sender<Request>,
    drains: mpsc::Sender<api::DrainCommand>,
    cancel: &CancellationToken,
) -> Result<mpsc::Receiver<Result<()>>> {
    let (failed, failures) = mpsc::channel(2);
    let socket = api::bind(&agent.socket)?;
    let serving = api::serve(socket, source.clone(), listeners, drains, cancel.clone());
    let report = failed.clone();
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            let _ = report.send(Err(error).context("serving the local socket")).await;
        }
    });
    if let Some(address) = agent.http {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("listening on {address} for health and metrics; free the port, or set `http` to another address or `off`")
        })?;
        let serving = http::serve(listener, source, agent.pin_path.clone(), cancel.clone());
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                let _ = failed.send(Err(error).context("serving health and metrics")).await;
            }
        });
    }
    Ok(failures)
}

/// Passes SIGHUP on to the source; returns at SIGTERM or SIGINT.
async fn signals(source: &FileSource) -> Result<()> {
    let listen = |kind| signal(kind).context("installing a signal handler");
    let (mut hangup, mut terminate) = (listen(SignalKind::hangup())?, listen(SignalKind::terminate())?);
    let mut interrupt = listen(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                tracing::info!("SIGHUP: loading the configuration again");
                source.reload();
            }
            _ = terminate.recv() => { tracing::info!("SIGTERM: stopping"); return Ok(()); }
            _ = interrupt.recv() => { tracing::info!("SIGINT: stopping"); return Ok(()); }
        }
    }
}

/// Ends the announcing: by default everything stays as it is, for the agent that comes next.
async fn end(
    on_terminate: OnTerminate,
    cancel: CancellationToken,
    mut announced: watch::Receiver<announce::AnnounceStatus>,
) {
    cancel.cancel();
    while announced.changed().await.is_ok() {}
    match on_terminate {
        OnTerminate::Keep => {
            tracing::info!("keeping the data plane, held routes and announced addresses (onTerminate: keep)");
        }
        OnTerminate::Withdraw => match announce::withdraw_all().await {
            Ok(applied) => tracing::info!(withdrawn = applied.removed.len(), "withdrew (onTerminate: withdraw)"),
            Err(error) => tracing::error!(%error, "withdrawing failed"),
        },
    }
}

/// Whether a new configuration asks for what only a restart can give.
fn pending_restart(now: &AgentConfig, wanted: &AgentConfig) -> Vec<String> {
    let differences = [
        (now.pin_path != wanted.pin_path, "pinPath"),
        (now.http != wanted.http, "http"),
        (now.socket != wanted.socket, "socket"),
        (now.log != wanted.log, "log"),
        (now.capacities != wanted.capacities, "capacities"),
    ];
    differences.into_iter().filter(|(differs, _)| *differs).map(|(_, key)| key.to_owned()).collect()
}

/// Refuses a configuration that does not fit this host.
fn checked(config: Config, network: &crate::model::Network) -> Result<Config, ConfigErrors> {
    config::check_against(&config, network)?;
    let kernel = KernelVersion::running();
    config::check_rewrites(&config, kernel >= KernelVersion::TCX, &format!("Linux {kernel}"))?;
    Ok(config)
}
