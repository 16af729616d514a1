//! Puts the tracing program on the interfaces while somebody listens, and hands its events on.

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, block_in_place},
    time::{MissedTickBehavior, interval},
};

use crate::{
    dataplane::{DataplaneError, EventReader, Kernel},
    trace::{Hub, Request, SharedHub},
};

/// How often the ring buffer is emptied.
const READ_EVERY: Duration = Duration::from_millis(20);

/// How often listeners are told what they missed. Writing to one that is gone fails, which is how its death shows.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Who listens, and the task that reads for them.
pub struct Tracing {
    requests: mpsc::Receiver<Request>,
    hub: SharedHub,
    left: (mpsc::UnboundedSender<()>, mpsc::UnboundedReceiver<()>),
    reader: Option<JoinHandle<()>>,
}

/// What has to be dealt with.
pub enum Change {
    /// Somebody wants to listen.
    Came(Request),
    /// Somebody has left.
    Left,
}

impl Tracing {
    /// Serves these requests.
    pub fn new(requests: mpsc::Receiver<Request>) -> Self {
        Self { requests, hub: SharedHub::default(), left: mpsc::unbounded_channel(), reader: None }
    }

    /// Waits until somebody comes or leaves. Nothing is lost if it is given up.
    pub async fn change(&mut self) -> Change {
        tokio::select! {
            Some(request) = self.requests.recv() => Change::Came(request),
            Some(()) = self.left.1.recv() => Change::Left,
            else => std::future::pending().await,
        }
    }

    /// Deals with who came or left.
    pub fn follow(&mut self, change: Change, kernel: &mut Kernel) {
        match change {
            Change::Came(request) => {
                let (lines, sender) = self.hub().add(request.selection);
                let applied = block_in_place(|| self.apply(kernel));
                if applied.is_err() {
                    self.hub().clear();
                    self.end(kernel);
                }
                let left = self.left.0.clone();
                tokio::spawn(async move {
                    sender.closed().await;
                    let _ = left.send(()); // nobody follows any more: the agent ends
                });
                let _ = request.answer.send(applied.map(|()| lines).map_err(|error| error.to_string())); // it may have left already
            }
            Change::Left => {
                if let Err(error) = block_in_place(|| self.apply(kernel)) {
                    tracing::error!(%error, "the tracing program could not be set right");
                }
            }
        }
    }

    /// Sends everybody away and puts the plain program back.
    pub fn end(&mut self, kernel: &mut Kernel) {
        self.hub().clear();
        if let Err(error) = self.apply(kernel) {
            tracing::error!(%error, "the tracing program stays; the next agent replaces it");
        }
    }

    /// Loads or unloads the tracing program and sets its filter, as those who are there need it.
    fn apply(&mut self, kernel: &mut Kernel) -> Result<(), DataplaneError> {
        let filter = self.hub().sweep();
        match filter {
            Some(filter) => {
                if self.reader.is_none() {
                    let reader = kernel.start_tracing()?;
                    tracing::info!("somebody listens: the tracing program is on the interfaces");
                    self.reader = Some(tokio::spawn(read(reader, Arc::clone(&self.hub))));
                }
                kernel.filter_trace(&filter)
            }
            None => {
                if let Some(reader) = self.reader.take() {
                    reader.abort();
                    kernel.stop_tracing()?;
                    tracing::info!("nobody listens any more: the plain program is back on the interfaces");
                }
                Ok(())
            }
        }
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        lock(&self.hub)
    }
}

/// Hands on what the program tells, until aborted.
async fn read(mut reader: EventReader, hub: SharedHub) {
    let (mut turn, mut beat) = (interval(READ_EVERY), interval(BEAT_EVERY));
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lost_before = 0;
    loop {
        tokio::select! {
            _ = turn.tick() => {
                let to_unix = monotonic_to_unix();
                let mut hub = lock(&hub);
                while let Some(event) = reader.next_event() {
                    hub.tell(&event, to_unix);
                }
            }
            _ = beat.tick() => {
                let lost = reader.lost().unwrap_or(lost_before);
                lock(&hub).beat(lost.saturating_sub(lost_before));
                lost_before = lost;
            }
        }
    }
}

fn lock(hub: &SharedHub) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What to add to `CLOCK_MONOTONIC` to get Unix time, nanoseconds.
fn monotonic_to_unix() -> u64 {
    let monotonic = clock_gettime(ClockId::Monotonic);
    let monotonic = Duration::new(monotonic.tv_sec.unsigned_abs(), u32::try_from(monotonic.tv_nsec).unwrap_or(0));
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(unix.saturating_sub(monotonic).as_nanos()).unwrap_or(0)
}
