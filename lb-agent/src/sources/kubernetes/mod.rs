//! The Kubernetes source: watches what the API holds and yields whole inventories, the last of which stays in force while
//! no API server answers, across restarts too.
//!
//! Four watches (nodes, Services, slices, pools) bring notes to one task, whose pure part is `keeper`. An inventory is
//! published when every kind had a complete list that is believed; until then the saved one is, once no API server has
//! answered for a while.

mod backoff;
mod belief;
mod change;
mod follow;
mod keeper;
mod pools;
mod saved;
mod saver;
mod scope;
mod shelf;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use belief::Belief;
use change::{Entry, Note};
pub use follow::Retry;
use follow::{Follower, Line};
use keeper::Keeper;
use saved::Saved;
use saver::Saver;
pub use scope::Scope;

use crate::{
    kubernetes::{beta::BetaSlice, client::Access, convert},
    model::{
        inventory::{Origin, Snapshot},
        pool::ClusterPool,
        source::{Kind, SaveStatus, SourceStatus},
    },
};

/// Notes that wait to be taken.
const QUEUED: usize = 256;
/// Time between two publications; a change alone waits for its like only as long as [`BREATH`].
const COALESCE: Duration = Duration::from_millis(10);
/// What comes together is published together.
const BREATH: Duration = Duration::from_millis(1);
/// How long a new status waits for more.
const STATUS_DELAY: Duration = Duration::from_millis(20);
/// How often it is asked whether the API has a kind of object that it did not have.
const ABSENT_INTERVAL: Duration = Duration::from_secs(30);

/// How the source works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// File of the saved inventory; `None` keeps none.
    pub saved: Option<PathBuf>,
    /// How long an API server may take before the saved inventory is published. Default 2 s.
    pub first_answer: Duration,
    /// Which lists are doubted.
    pub belief: Belief,
    /// Waits between failures.
    pub retry: Retry,
    /// How long a streaming list may be silent before lists by pages are used, for a server that does not know them sends
    /// its objects and never the end; `None` tries none. Default 10 s.
    pub streaming: Option<Duration>,
    /// How much of the cluster is watched. Default everything.
    pub scope: Scope,
}

impl Default for Settings {
    fn default() -> Self {
        let (belief, retry) = (Belief::default(), Retry::default());
        let streaming = Some(Duration::from_secs(10));
        let (scope, first_answer) = (Scope::default(), Duration::from_secs(2));
        Self { saved: None, first_answer, belief, retry, streaming, scope }
    }
}

/// What the source yields. Both end when it is cancelled.
#[derive(Clone, Debug)]
pub struct Source {
    /// The inventory in force; `None` while nothing is known.
    pub snapshots: watch::Receiver<Option<Snapshot>>,
    /// How the source fares.
    pub status: watch::Receiver<SourceStatus>,
}

/// An object of the API that is a pool.
pub trait PoolObject: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static {
    /// The pool, or why it is none: then the version before stays in force.
    ///
    /// # Errors
    /// The reason, for people.
    fn pool(&self) -> Result<ClusterPool, String>;
}

/// Watches until `cancel`. `P` is the kind of object that pools are of. Needs a tokio runtime.
#[must_use]
pub fn spawn<P: PoolObject>(settings: Settings, access: Access, cancel: CancellationToken) -> Source {
    let (snapshots, receiver) = watch::channel(None);
    let (status, status_receiver) = watch::channel(SourceStatus::default());
    let source = Source { snapshots: receiver, status: status_receiver };
    tokio::spawn(async move {
        cancel.run_until_cancelled(run::<P>(settings, access, snapshots, status)).await;
    });
    source
}

async fn run<P: PoolObject>(
    settings: Settings,
    access: Access,
    snapshots: watch::Sender<Option<Snapshot>>,
    status: watch::Sender<SourceStatus>,
) {
    let begin = Instant::now();
    let (save_status, save_receiver) = watch::channel(SaveStatus::default());
    let saved = load(settings.saved.clone(), &save_status).await;
    let is_true = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new(); // all end with this function
    if let Some(path) = settings.saved.clone() {
        let (hash, is_true) = (saved.as_ref().map(|saved| saved.hash), Arc::clone(&is_true));
        tasks.spawn(Saver { path, hash, snapshots: snapshots.subscribe(), is_true, status: save_status }.run());
    }
    let (sender, notes) = mpsc::channel(QUEUED);
    let again: BTreeMap<Kind, Arc<Notify>> = Kind::ALL.into_iter().map(|kind| (kind, Arc::default())).collect();
    follow_all::<P>(&mut tasks, &settings, &access, &sender, &again);
    let inventory = saved.as_ref().map(|saved| Arc::clone(&saved.inventory));
    let task = Task {
        keeper: Keeper::new(settings.belief, inventory),
        saved_at: saved.as_ref().map(|_| begin + settings.first_answer),
        saved,
        interval: settings.belief.interval,
        has_file: settings.saved.is_some(),
        notes,
        again,
        access,
        snapshots,
        status,
        save_status: save_receiver,
        is_true,
        lists_at: BTreeMap::new(),
        publish_at: None,
        published_at: None,
        status_at: Some(begin),
        publications: 0,
    };
    task.run().await;
}

/// The saved inventory, if there is one that can be used.
async fn load(path: Option<PathBuf>, status: &watch::Sender<SaveStatus>) -> Option<Saved> {
    let path = path?;
    match spawn_blocking(move || saved::read(&path)).await {
        Ok(Ok(saved)) => saved,
        Ok(Err(error)) => {
            let error = crate::kubernetes::client::chain(&error);
            warn!(error, "no saved inventory");
            status.send_modify(|status| status.error = Some(error));
            None
        }
        Err(_) => None,
    }
}

/// Begins to follow every kind.
fn follow_all<P: PoolObject>(
    tasks: &mut JoinSet<()>,
    settings: &Settings,
    access: &Access,
    notes: &mpsc::Sender<(Kind, Note)>,
    again: &BTreeMap<Kind, Arc<Notify>>,
) {
    let line = |kind: Kind| Line {
        access: access.clone(),
        notes: notes.clone(),
        again: again.get(&kind).map(Arc::clone).unwrap_or_default(),
        retry: settings.retry,
        streaming: settings.streaming,
    };
    tasks.spawn(keep_following(follower::<Node>(Kind::Nodes, line(Kind::Nodes), |node| {
        convert::node(node).map_or(Entry::Nothing, |(_, value)| Entry::Node(value))
    })));
    tasks.spawn(follow_slices(line(Kind::Slices), settings.scope));
    if settings.scope == Scope::ApiServers {
        tasks.spawn(scope::tell_none(notes.clone(), [Kind::Services, Kind::Pools]));
        return;
    }
    tasks.spawn(keep_following(follower::<Service>(Kind::Services, line(Kind::Services), |service| {
        convert::service(service).map_or(Entry::Nothing, |(_, value)| Entry::Service(value.into()))
    })));
    tasks.spawn(keep_following(follower::<P>(Kind::Pools, line(Kind::Pools), |object| {
        object.pool().map_or_else(Entry::Unreadable, |pool| Entry::Pool(Box::new(pool)))
    })));
}

fn follower<K>(kind: Kind, line: Line, read: fn(K) -> Entry) -> Follower<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    Follower { kind, api: Api::all(line.access.client()), read, line }
}

/// Follows a kind. A server that does not have pools (nobody defined them yet) has none; one without nodes or Services is
/// no API server.
async fn keep_following<K>(follower: Follower<K>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    loop {
        follower.run().await;
        follower.tell(absent(follower.kind)).await;
        sleep(ABSENT_INTERVAL).await;
    }
}

/// Follows slices, of `v1beta1` where the server has no others (before Kubernetes 1.21).
async fn follow_slices(line: Line, scope: Scope) {
    let mut current = follower::<EndpointSlice>(Kind::Slices, line.clone(), slice);
    let mut beta = follower::<BetaSlice>(Kind::Slices, line, |object| slice(object.into()));
    if scope == Scope::ApiServers {
        let client = current.line.access.client();
        (current.api, beta.api) = (Api::namespaced(client.clone(), "default"), Api::namespaced(client, "default"));
    }
    loop {
        current.run().await;
        beta.run().await;
        current.tell(absent(Kind::Slices)).await;
        sleep(ABSENT_INTERVAL).await;
    }
}

/// What it means that a server does not have a kind.
fn absent(kind: Kind) -> Note {
    match kind {
        Kind::Pools => Note::List { objects: Vec::new(), streaming: false },
        _ => Note::Failed(format!("the server has no {kind}: is it an API server?")),
    }
}

fn slice(slice: EndpointSlice) -> Entry {
    convert::slice(slice).map_or(Entry::Nothing, |(_, service, value)| Entry::Slice(service, value.into()))
}

/// Takes notes and publishes.
struct Task {
    keeper: Keeper,
    saved: Option<Saved>,
    /// When the saved inventory is published, if none is live before.
    saved_at: Option<Instant>,
    /// Time between lists that confirm each other.
    interval: Duration,
    has_file: bool,
    notes: mpsc::Receiver<(Kind, Note)>,
    again: BTreeMap<Kind, Arc<Notify>>,
    access: Access,
    snapshots: watch::Sender<Option<Snapshot>>,
    status: watch::Sender<SourceStatus>,
    save_status: watch::Receiver<SaveStatus>,
    is_true: Arc<AtomicBool>,
    /// When a list has to be confirmed.
    lists_at: BTreeMap<Kind, Instant>,
    publish_at: Option<Instant>,
    published_at: Option<Instant>,
    status_at: Option<Instant>,
    publications: u64,
}

impl Task {
    async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            let next_list = self.lists_at.values().min().copied();
            tokio::select! {
                count = self.notes.recv_many(&mut batch, QUEUED) => {
                    if count == 0 {
                        return;
                    }
                    self.take(&mut batch);
                }
                () = reached(self.publish_at) => self.publish(),
                () = reached(self.saved_at) => self.publish_saved(),
                () = reached(next_list) => self.list_again(),
                () = reached(self.status_at) => self.report(),
                Ok(()) = self.save_status.changed(), if self.has_file => self.report_soon(),
            }
        }
    }

    fn take(&mut self, batch: &mut Vec<(Kind, Note)>) {
        let now = Instant::now();
        for (kind, note) in batch.drain(..) {
            if self.keeper.handle(kind, note, now.into_std()) {
                self.lists_at.insert(kind, now + self.interval);
            }
        }
        self.is_true.store(self.keeper.is_well(), Ordering::Relaxed);
        if self.keeper.is_due() && self.publish_at.is_none() {
            let soon = now + BREATH;
            self.publish_at = Some(self.published_at.map_or(soon, |last| soon.max(last + COALESCE)));
        }
        self.report_soon();
    }

    fn publish(&mut self) {
        let now = Instant::now();
        (self.publish_at, self.published_at) = (None, Some(now));
        if self.snapshots.borrow().as_ref().is_none_or(|snapshot| snapshot.origin != Origin::Live) {
            info!(server = self.access.state().server, "the inventory is live");
        }
        (self.saved, self.saved_at) = (None, None);
        let snapshot = Snapshot { inventory: self.keeper.publish(), origin: Origin::Live };
        self.snapshots.send_replace(Some(snapshot));
        self.publications += 1;
        self.report_soon();
    }

    fn publish_saved(&mut self) {
        self.saved_at = None;
        let Some(saved) = self.saved.take() else { return };
        warn!(age = ?saved.age, "no API server has told all yet: the saved inventory is in force");
        self.snapshots
            .send_replace(Some(Snapshot { inventory: saved.inventory, origin: Origin::Saved { age: saved.age } }));
        self.publications += 1;
        self.report_soon();
    }

    fn list_again(&mut self) {
        let now = Instant::now();
        let due: Vec<Kind> = self.lists_at.iter().filter(|(_, at)| **at <= now).map(|(kind, _)| *kind).collect();
        for kind in due {
            self.lists_at.remove(&kind);
            if let Some(again) = self.again.get(&kind) {
                again.notify_one();
            }
        }
    }

    fn report_soon(&mut self) {
        self.status_at.get_or_insert_with(|| Instant::now() + STATUS_DELAY);
    }

    fn report(&mut self) {
        self.status_at = None;
        let access = self.access.state();
        let status = SourceStatus {
            server: access.server,
            error: access.error,
            origin: self.snapshots.borrow().as_ref().map(|snapshot| snapshot.origin),
            publications: self.publications,
            kinds: self.keeper.status(),
            saved: self.has_file.then(|| self.save_status.borrow().clone()),
        };
        self.status.send_replace(status);
    }
}

/// Waits for a moment; for ever if there is none.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
