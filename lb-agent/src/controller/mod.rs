//! The controller: gives Services their addresses and says so in their status. The one writer to the API.
//!
//! Watches end in tables of plain values (`follow`); `cluster` decides; `desired` says what the status should be;
//! `writer` writes what differs, and only while this process leads. It is level-triggered: a round can be run again at
//! any time, and after a failed write it is.
//!
//! Invariant: every write to a Service is based on a version of it, and the server refuses it if there is a later one.
//! So a writer that lost the lead, or whose cache is behind, changes no address.

mod desired;
mod events;
mod follow;
mod http;
mod judge;
mod ledger;
mod metrics;
mod news;
mod objects;
mod pace;
mod pool_status;
mod reconcile;
mod removed;
mod report;
mod writer;

#[cfg(test)]
mod fake_api;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ipnet::IpNet;
use kube::Client;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

pub use http::{Routes, serve};
pub use report::{Report, SharedReport};

use crate::cluster::claim::ClassRule;

/// Field manager of what the controller writes, and reporter of its Events.
pub const MANAGER: &str = "levee-controller";

/// What the controller is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Which Services are ours.
    pub class: ClassRule,
    /// Networks whose addresses are never given: the Service range, gateways.
    pub reserved: Vec<IpNet>,
    /// Name of this process, in Events.
    pub identity: String,
    /// How long to wait for an answer to a write. Default 10 s.
    pub write_timeout: Duration,
    /// Namespace of the nodes' Leases.
    pub lease_namespace: String,
    /// How long a node has to be gone until its Lease is removed. Default 10 min.
    pub lease_grace: Duration,
}

/// Until when this process leads; `None` while it does not. Asked again before each write.
pub type Lead = watch::Receiver<Option<Instant>>;

/// Works whenever this process leads, until `cancel`.
///
/// Every time it begins to lead it lists everything anew: what the leader before wrote is in these lists.
pub async fn run(client: Client, settings: Settings, mut lead: Lead, report: SharedReport, cancel: CancellationToken) {
    while let Some(()) = cancel.run_until_cancelled(until(&mut lead, true)).await {
        tracing::info!(identity = settings.identity, "leading: giving addresses to Services");
        report.change(|report| report.leading = true);
        let work = reconcile::Reconciler::new(client.clone(), settings.clone(), lead.clone(), report.clone());
        let ended = tokio::select! {
            () = work.run() => Some(()),
            () = until(&mut lead, false) => Some(()),
            () = cancel.cancelled() => None,
        };
        report.change(Report::stop_leading);
        if ended.is_none() {
            return;
        }
        tracing::info!(identity = settings.identity, "not leading any more: writing nothing");
    }
}

/// Returns when this process leads, or does not.
async fn until(lead: &mut Lead, wanted: bool) {
    loop {
        let end = *lead.borrow_and_update();
        let leads = end.is_some_and(|end| Instant::now() < end);
        if leads == wanted {
            return;
        }
        tokio::select! {
            changed = lead.changed() => if changed.is_err() {
                // Whoever decides it is gone: it stays as it is until its time is over.
                match end.filter(|_| leads) {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            },
            () = sleep_until(end.filter(|_| leads)) => {}
        }
    }
}

async fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
