//! What the connections of a stand-in share.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::{faults::Faults, record::Record, store::Store};

/// What can differ between stand-ins.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Time between the bookmarks of a watch.
    pub bookmark_every: Duration,
    /// Whether watches may begin with the whole list; 422 if not.
    pub streaming_lists: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { bookmark_every: Duration::from_mins(1), streaming_lists: true }
    }
}

/// The state.
#[derive(Debug)]
pub struct Shared {
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    records: Mutex<Vec<Record>>,
    settings: Mutex<Settings>,
    /// Names of users by their certificate (DER) or token.
    users: Mutex<BTreeMap<Vec<u8>, String>>,
    /// The store's version, for those who wait for a change.
    pub version: watch::Sender<u64>,
    /// Counts the bookmarks that were asked for.
    pub bookmarks: watch::Sender<u64>,
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections open.
    pub open: AtomicUsize,
}

impl Shared {
    /// With nothing in it.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            store: Mutex::default(),
            faults: Mutex::default(),
            records: Mutex::default(),
            settings: Mutex::new(settings),
            users: Mutex::default(),
            version: watch::Sender::default(),
            bookmarks: watch::Sender::default(),
            accepted: AtomicU64::new(0),
            open: AtomicUsize::new(0),
        }
    }

    /// The objects, to read.
    pub fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    /// Changes the objects, and tells those who wait.
    pub fn change<T>(&self, work: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store();
        let result = work(&mut store);
        self.version.send_replace(store.version());
        result
    }

    /// The faults.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    /// The requests until now.
    pub fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        lock(&self.records)
    }

    /// The settings.
    pub fn settings(&self) -> Settings {
        *lock(&self.settings)
    }

    /// The users that are known.
    pub fn users(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, String>> {
        lock(&self.users)
    }
}

/// Counts a connection while it lives.
pub struct Counted<'a>(&'a Shared);

impl<'a> Counted<'a> {
    /// One more.
    pub fn new(shared: &'a Shared) -> Self {
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        shared.open.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
