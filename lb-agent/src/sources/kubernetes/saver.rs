//! Writes live inventories to disk: when they change, at most once a second, and less often where writing takes long.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tracing::warn;

use super::saved;
use crate::model::{
    inventory::{Origin, Snapshot},
    source::SaveStatus,
};

/// Shortest time between two writes.
const GAP: Duration = Duration::from_secs(1);
/// Writing takes at most one part of so many of the time.
const SHARE: u32 = 20;
/// Longest time between two writes that this leads to.
const MAX_GAP: Duration = Duration::from_secs(60);
/// How often the file's time is set while the watches are well.
const TOUCH: Duration = Duration::from_secs(30);

/// Writes inventories.
pub(super) struct Saver {
    pub(super) path: PathBuf,
    /// Hash of what is on disk.
    pub(super) hash: Option<u64>,
    pub(super) snapshots: watch::Receiver<Option<Snapshot>>,
    /// What was published is true now.
    pub(super) is_true: Arc<AtomicBool>,
    pub(super) status: watch::Sender<SaveStatus>,
}

impl Saver {
    /// Writes until nothing comes any more.
    pub(super) async fn run(mut self) {
        let mut touch = interval(TOUCH);
        touch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        touch.reset();
        loop {
            tokio::select! {
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let took = self.save().await;
                    sleep((took * SHARE).clamp(GAP, MAX_GAP)).await;
                }
                _ = touch.tick() => self.touch().await,
            }
        }
    }

    /// Writes the newest inventory, if it is live, and tells how long that took.
    async fn save(&mut self) -> Duration {
        let snapshot = self.snapshots.borrow_and_update().clone();
        let Some(Snapshot { inventory, origin: Origin::Live }) = snapshot else { return Duration::ZERO };
        let (path, before, begin) = (self.path.clone(), self.hash, Instant::now());
        let work = spawn_blocking(move || saved::write(&path, &inventory, before)).await;
        match work.map_err(Into::into).flatten() {
            Ok(written) => {
                self.hash = Some(written.hash);
                self.status.send_modify(|status| {
                    status.writes += u64::from(before != Some(written.hash));
                    status.bytes = written.bytes;
                    status.error = None;
                });
            }
            Err(error) => {
                let error = format!("{}: {error}", self.path.display());
                if self.status.borrow().error.as_ref() != Some(&error) {
                    warn!(
                        error,
                        "can't save the inventory: a restart without an API server would begin with an older one"
                    );
                }
                self.status.send_modify(|status| status.error = Some(error));
            }
        }
        begin.elapsed()
    }

    async fn touch(&self) {
        if self.hash.is_none() || !self.is_true.load(Ordering::Relaxed) {
            return;
        }
        let path = self.path.clone();
        let _ = spawn_blocking(move || saved::touch(&path)).await; // a lost file is written with the next change
    }
}
