//! Puts the tracing program on the interfaces while somebody listens, and hands its events on.

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, block_in_place, spawn_blocking},
    time::{MissedTickBehavior, interval},
};

use crate::{
    dataplane::{DataplaneError, EventReader, Kernel, LoadedTracing},
    trace::{Hub, Line, Request, SharedHub},
};

/// How often the ring buffer is emptied.
const READ_EVERY: Duration = Duration::from_millis(20);

/// How often listeners are told what they missed. Writing to one that is gone fails, which is how its death shows.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Who listens, and the tasks that load and read for them.
pub struct Tracing {
    requests: mpsc::Receiver<Request>,
    hub: SharedHub,
    left: (mpsc::UnboundedSender<()>, mpsc::UnboundedReceiver<()>),
    /// Loads the program, for those who wait.
    loading: Option<JoinHandle<Loading>>,
    waiting: Vec<(Answer, mpsc::Receiver<Line>)>,
    /// Runs while the program is on the interfaces.
    reader: Option<JoinHandle<()>>,
}

type Loading = Result<LoadedTracing, DataplaneError>;
type Answer = oneshot::Sender<Result<mpsc::Receiver<Line>, String>>;

/// What has to be dealt with.
pub enum Change {
    /// Somebody wants to listen.
    Came(Request),
    /// Somebody has left.
    Left,
    /// The program is loaded, or was refused.
    Loaded(Box<Loading>),
}

impl Tracing {
    /// Serves these requests.
    pub fn new(requests: mpsc::Receiver<Request>) -> Self {
        Self {
            requests,
            hub: SharedHub::default(),
            left: mpsc::unbounded_channel(),
            loading: None,
            waiting: Vec::new(),
            reader: None,
        }
    }

    /// Waits until there is something to deal with. Nothing is lost if it is given up.
    pub async fn change(&mut self) -> Change {
        tokio::select! {
            Some(request) = self.requests.recv() => Change::Came(request),
            Some(()) = self.left.1.recv() => Change::Left,
            loaded = finished(&mut self.loading) => Change::Loaded(Box::new(loaded)),
            else => std::future::pending().await,
        }
    }

    /// Deals with it.
    pub fn follow(&mut self, change: Change, kernel: &mut Kernel) {
        match change {
            Change::Came(request) => self.welcome(request, kernel),
            Change::Left => {
                if let Err(error) = block_in_place(|| self.adapt(kernel)) {
                    tracing::error!(%error, "the tracing program could not be set right");
                }
            }
            Change::Loaded(loaded) => {
                self.loading = None;
                let begun = (*loaded).and_then(|loaded| block_in_place(|| self.begin(loaded, kernel)));
                for (answer, lines) in std::mem::take(&mut self.waiting) {
                    // Who has left already does not take it.
                    let _ = answer.send(begun.as_ref().map(|()| lines).map_err(ToString::to_string));
                }
                if begun.is_err() {
                    self.end(kernel);
                }
            }
        }
    }

    /// Sends everybody away and puts the plain program back.
    pub fn end(&mut self, kernel: &mut Kernel) {
        self.waiting.clear();
        self.hub().clear();
        if let Err(error) = self.adapt(kernel) {
            tracing::error!(%error, "the tracing program stays; the next agent replaces it");
        }
    }

    /// Takes somebody in; where the program is not there yet, loads it first.
    fn welcome(&mut self, request: Request, kernel: &mut Kernel) {
        let (lines, sender) = self.hub().add(request.selection);
        let left = self.left.0.clone();
        tokio::spawn(async move {
            sender.closed().await;
            let _ = left.send(()); // nobody follows any more: the agent ends
        });
        if self.reader.is_some() {
            let adapted = self.adapt(kernel).map(|()| lines).map_err(|error| error.to_string());
            let _ = request.answer.send(adapted); // it may have left already
            return;
        }
        self.waiting.push((request.answer, lines));
        if self.loading.is_none() {
            let loader = kernel.tracing_loader();
            self.loading = Some(spawn_blocking(move || loader.load()));
        }
    }

    /// Puts the program on the interfaces and reads what it tells.
    fn begin(&mut self, loaded: LoadedTracing, kernel: &mut Kernel) -> Result<(), DataplaneError> {
        let reader = kernel.start_tracing(loaded)?;
        tracing::info!("somebody listens: the tracing program is on the interfaces");
        self.reader = Some(tokio::spawn(read(reader, Arc::clone(&self.hub))));
        self.adapt(kernel)
    }

    /// Sets the filter as those who are there need it, or takes the program away from the last who left.
    fn adapt(&mut self, kernel: &mut Kernel) -> Result<(), DataplaneError> {
        let filter = self.hub().sweep();
        if let Some(filter) = filter {
            return kernel.filter_trace(&filter); // nothing, while the program is not there
        }
        if let Some(reader) = self.reader.take() {
            reader.abort();
            kernel.stop_tracing()?;
            tracing::info!("nobody listens any more: the plain program is back on the interfaces");
        }
        Ok(())
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        lock(&self.hub)
    }
}

/// The end of loading; never, if nothing is being loaded.
async fn finished(loading: &mut Option<JoinHandle<Loading>>) -> Loading {
    match loading {
        Some(task) => task
            .await
            .unwrap_or_else(|error| Err(DataplaneError::Load { program: "levee_trace", reason: error.to_string() })),
        None => std::future::pending().await,
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
