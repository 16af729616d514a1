//! The task that keeps the routes while this process leads.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{error::NsxtError, keeper::Keeper, pace::jittered, plan::Wanted, status::Status};
use crate::config::NsxtConfig;

/// Times that are not configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// First pause after a failure; it doubles from one to the next. Default 1 s.
    pub first_retry: Duration,
    /// The longest. Default 60 s.
    pub longest_retry: Duration,
    /// Between two looks whether a route is realized. Default 1 s.
    pub poll: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first_retry: Duration::from_secs(1),
            longest_retry: Duration::from_secs(60),
            poll: Duration::from_secs(1),
        }
    }
}

/// How long ending the sessions may take.
const CLOSING: Duration = Duration::from_secs(2);

/// Starts the task that keeps the static routes of `wanted` while `leader` is true, until `cancel`.
///
/// When `leader` becomes false, a request under way is dropped at once; should the manager perform it all the same, then only
/// on the revision that was read while leading. Routes stay when the task ends.
#[must_use]
pub fn spawn(
    config: NsxtConfig,
    timing: Timing,
    wanted: watch::Receiver<Wanted>,
    leader: watch::Receiver<bool>,
    cancel: CancellationToken,
) -> watch::Receiver<Status> {
    let (sender, receiver) = watch::channel(Status::default());
    tokio::spawn(run(config, timing, wanted, leader, cancel, sender));
    receiver
}

async fn run(
    config: NsxtConfig,
    timing: Timing,
    mut wanted: watch::Receiver<Wanted>,
    mut leader: watch::Receiver<bool>,
    cancel: CancellationToken,
    sender: watch::Sender<Status>,
) {
    tracing::info!(cluster = config.cluster, tier1 = config.tier1, "starting the keeper of NSX-T routes");
    let resync = config.resync;
    let mut keeper = Keeper::new(config);
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            leads = leader.wait_for(|leads| *leads) => if leads.is_err() { break },
        }
        keeper.begin();
        keeper.status.leading = true;
        let is_over = tokio::select! {
            biased;
            () = cancel.cancelled() => true,
            // Whoever said so is gone: nobody would say when it ends.
            ended = leader.wait_for(|leads| !*leads) => ended.is_err(),
            () = lead(&mut keeper, timing, resync, &mut wanted, &sender) => true,
        };
        keeper.status.leading = false;
        sender.send_replace(keeper.status.clone());
        if is_over {
            break;
        }
    }
    let _ = timeout(CLOSING, keeper.close()).await;
}

/// Compares when something changes, when something failed, and now and then. Does not end.
async fn lead(
    keeper: &mut Keeper,
    timing: Timing,
    resync: Duration,
    wanted: &mut watch::Receiver<Wanted>,
    sender: &watch::Sender<Status>,
) {
    let mut retry = timing.first_retry;
    let mut last_error = None;
    let mut last_wanted = None;
    loop {
        let now_wanted = wanted.borrow_and_update().clone();
        if last_wanted.as_ref() != Some(&now_wanted) && !now_wanted.vips.is_empty() {
            tracing::info!(name = now_wanted.source, endpoints = now_wanted.hops.len(), "processing EndpointSlice");
        }
        let result = keeper.pass(&now_wanted).await;
        last_wanted = Some(now_wanted);
        sender.send_replace(keeper.status.clone());
        let pause = match &result {
            Ok(()) => {
                retry = timing.first_retry;
                resync
            }
            Err(error) => {
                let pause = error.pause().unwrap_or_else(|| jittered(retry)).min(timing.longest_retry);
                retry = (retry * 2).min(timing.longest_retry);
                pause
            }
        };
        tell(&mut last_error, result.err());
        let next = Instant::now() + pause;
        wait(keeper, timing, next, wanted, sender).await;
    }
}

/// Waits for the next comparison. Meanwhile it looks whether what was written is in force, and whether managers that failed
/// are well again; a change of what is wanted does not wait for that.
async fn wait(
    keeper: &mut Keeper,
    timing: Timing,
    next: Instant,
    wanted: &mut watch::Receiver<Wanted>,
    sender: &watch::Sender<Status>,
) {
    let looks = async {
        while keeper.is_waiting() {
            sleep(timing.poll).await;
            keeper.poll().await;
            sender.send_replace(keeper.status.clone());
        }
        keeper.check_health().await;
        sender.send_replace(keeper.status.clone());
        std::future::pending::<()>().await;
    };
    let changed = async {
        if wanted.changed().await.is_err() {
            // What was wanted last stays wanted.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = changed => {}
        () = sleep_until(next) => {}
        () = looks => {}
    }
}

/// Logs a failure when it begins, changes its kind or ends.
fn tell(last: &mut Option<NsxtError>, error: Option<NsxtError>) {
    let kind = |error: &NsxtError| std::mem::discriminant(error);
    match &error {
        Some(error) if last.as_ref().map(kind) == Some(kind(error)) => {
            tracing::debug!(%error, "NSX-T routes are still not up to date");
        }
        Some(error) => tracing::warn!(%error, "NSX-T routes are not up to date"),
        None if last.is_some() => tracing::info!("NSX-T routes are up to date again"),
        None => {}
    }
    *last = error;
}
