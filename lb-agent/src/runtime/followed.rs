//! A cluster that is followed: what the source is told, what it yields, and how it fares for whoever asks.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::Result;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::report::unix_now;
use crate::{
    model::{ClusterAccess, Doubted, Kind, KindStatus, LeaseStatus, Snapshot, SourceStatus},
    status::{AgentStatus, DoubtedStatus, FollowStatus, NodeLeaseStatus, SavedStatus, WatchStatus},
};

/// Follows a cluster as the errand says.
pub type SpawnSource = fn(Errand) -> Result<Followed>;

/// What is to be followed, for whom, and what the source is told all the while.
#[derive(Debug)]
pub struct Errand {
    /// How the cluster is read.
    pub access: ClusterAccess,
    /// Name of this node's object.
    pub node: String,
    /// API servers to try, the best first.
    pub servers: watch::Receiver<Vec<SocketAddr>>,
    /// Fingerprint of the secret.
    pub fingerprint: watch::Receiver<String>,
    /// The end.
    pub cancel: CancellationToken,
}

/// What a source yields.
#[derive(Debug)]
pub struct Followed {
    /// Whole inventories.
    pub snapshots: watch::Receiver<Option<Snapshot>>,
    /// How the source fares.
    pub status: watch::Receiver<SourceStatus>,
    /// How the node's Lease fares.
    pub lease: watch::Receiver<LeaseStatus>,
}

/// How the source fares that runs at present.
#[derive(Clone, Debug, Default)]
pub struct SharedSource(Arc<Mutex<Option<Receivers>>>);

type Receivers = (watch::Receiver<SourceStatus>, watch::Receiver<LeaseStatus>);

impl SharedSource {
    /// Another source runs, or none.
    pub(super) fn set(&self, receivers: Option<Receivers>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = receivers;
    }

    /// Enters how it fares now.
    pub fn enter(&self, status: &mut AgentStatus) {
        let receivers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let (Some(cluster), Some((source, lease))) = (&mut status.cluster, receivers) {
            let moment = Moment { now: Instant::now(), unix: unix_now() };
            cluster.source = Some(moment.source(&source.borrow(), &lease.borrow()));
        }
    }
}

/// The present by both clocks.
struct Moment {
    now: Instant,
    unix: u64,
}

impl Moment {
    /// A moment in seconds of Unix time.
    fn unix(&self, at: Instant) -> u64 {
        self.unix.saturating_sub(self.now.saturating_duration_since(at).as_secs())
    }

    fn source(&self, source: &SourceStatus, lease: &LeaseStatus) -> FollowStatus {
        FollowStatus {
            server: source.server.clone(),
            error: source.error.clone(),
            publications: source.publications,
            kinds: source.kinds.iter().map(|(kind, status)| self.kind(*kind, status)).collect(),
            saved: source.saved.as_ref().map(|saved| SavedStatus {
                writes: saved.writes,
                bytes: saved.bytes,
                error: saved.error.clone(),
            }),
            lease: NodeLeaseStatus {
                name: lease.name.clone(),
                renewed: lease.renewed_at.map(|at| self.unix(at)),
                error: lease.error.clone(),
            },
        }
    }

    fn kind(&self, kind: Kind, status: &KindStatus) -> WatchStatus {
        let doubted = |Doubted { listed, held, lists, needed }| DoubtedStatus { listed, held, lists, needed };
        WatchStatus {
            resource: kind.resource().to_owned(),
            objects: status.objects,
            complete: status.is_complete,
            streaming: status.is_streaming,
            listed: status.listed_at.map(|at| self.unix(at)),
            heard: status.heard_at.map(|at| self.unix(at)),
            lists: status.lists,
            failures: status.failures,
            error: status.error.clone(),
            doubted: status.doubted.map(doubted),
            unreadable: status.unreadable.clone(),
        }
    }
}
