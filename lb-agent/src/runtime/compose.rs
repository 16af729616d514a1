//! Puts what the file asks and what the cluster holds together, whenever one of them changes, for the reconciler.
//!
//! Invariant: a configuration that the reconciler gets has the services of the latest inventory in it, and those of a
//! running cluster are never left out for want of one: at the start the first is waited for.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    checked,
    followed::{Errand, Followed, SharedSource, SpawnSource},
    report,
};
use crate::{
    cluster::{Composed, Composer, Room, Sources},
    config::{Capacities, Config, ConfigErrors},
    model::{ClusterAccess, Network, Origin, Snapshot, network::Subnet},
    status::{ClusterStatus, WithheldStatus},
};

/// How long to wait for the first inventory: longer than a source looks for API servers before it takes the saved one.
const FIRST_INVENTORY: Duration = Duration::from_secs(5);

/// What the reconciler is told.
#[derive(Debug)]
pub enum Update {
    /// What is wanted now.
    Wanted(Box<Wanted>),
    /// An edit of the file that is refused.
    Refused(ConfigErrors),
}

/// A configuration with what the cluster adds to it.
#[derive(Debug)]
pub struct Wanted {
    /// The configuration.
    pub config: Config,
    /// Whether the file was read for it, or only the cluster is another.
    pub is_edit: bool,
    /// What there is to say of the cluster, if one is followed.
    pub cluster: Option<ClusterStatus>,
}

/// A source that runs.
struct Source {
    access: ClusterAccess,
    node: String,
    snapshots: watch::Receiver<Option<Snapshot>>,
    _running: DropGuard,
}

/// The last good file, the latest inventory, and what comes of both.
pub struct Compositor {
    spawn: SpawnSource,
    network: watch::Receiver<Network>,
    /// Subnets on this node's links, as they were composed last.
    connected: Vec<Subnet>,
    cancel: CancellationToken,
    config: Config,
    source: Option<Source>,
    followed: SharedSource,
    composer: Composer,
    api_servers: watch::Sender<Vec<SocketAddr>>,
    fingerprint: watch::Sender<String>,
    began: Instant,
    /// When the result becomes another by itself.
    changes_at: Option<Instant>,
    /// The latest configuration or inventory is not composed yet.
    is_due: bool,
    /// The file was read since the last one that was handed on.
    is_edit: bool,
    refused: Option<ConfigErrors>,
    compositions: u64,
    seconds: f64,
}

impl Compositor {
    /// Begins with a configuration that was checked.
    pub fn new(
        spawn: SpawnSource,
        config: Config,
        network: watch::Receiver<Network>,
        cancel: CancellationToken,
    ) -> Result<Self> {
        let fingerprint = watch::Sender::new(config.agent.secret.fingerprint());
        let mut compositor = Self {
            spawn,
            network,
            connected: Vec::new(),
            cancel,
            config,
            source: None,
            followed: SharedSource::default(),
            composer: Composer::default(),
            api_servers: watch::Sender::default(),
            fingerprint,
            began: Instant::now(),
            changes_at: None,
            is_due: false,
            is_edit: false,
            refused: None,
            compositions: 0,
            seconds: 0.0,
        };
        // The servers that are known without an inventory are those that can give one.
        compositor.compose();
        compositor.follow()?;
        Ok(compositor)
    }

    /// How the source fares, at any time.
    pub fn followed(&self) -> SharedSource {
        self.followed.clone()
    }

    /// The first of all, with the first inventory if there is one within a while: the maps of an earlier agent are as
    /// that one left them until then, and Services that an inventory does not name would be taken out of them.
    pub async fn first(&mut self) -> Wanted {
        if let Some(source) = &mut self.source {
            let first = source.snapshots.wait_for(Option::is_some);
            if tokio::time::timeout(FIRST_INVENTORY, first).await.is_err() {
                tracing::warn!("no API server has answered and no inventory was saved: going on without Services");
            }
        }
        self.compose()
    }

    /// Hands on what is wanted until nobody reads the file any more.
    pub fn run(mut self, mut outcomes: mpsc::Receiver<Result<Config, ConfigErrors>>) -> mpsc::Receiver<Update> {
        let (updates, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let is_pending = self.is_due || self.refused.is_some();
                tokio::select! {
                    outcome = outcomes.recv() => match outcome {
                        Some(outcome) => self.take(outcome),
                        None => return,
                    },
                    changed = changed(&mut self.source) => {
                        self.is_due = true;
                        if !changed {
                            tracing::error!("the cluster is not followed any more; the last inventory stays in force");
                            self.source = None;
                        }
                    }
                    Ok(()) = self.network.changed() => {
                        self.is_due |= self.network.borrow().connected() != self.connected;
                    }
                    () = super::reconcile::due(self.changes_at), if self.changes_at.is_some() => {
                        self.is_due = true;
                        self.changes_at = None;
                    }
                    // What comes while the reconciler is busy is composed once.
                    permit = updates.reserve(), if is_pending => match permit {
                        Ok(permit) => permit.send(self.next()),
                        Err(_) => return,
                    },
                }
            }
        });
        receiver
    }

    fn next(&mut self) -> Update {
        if self.is_due {
            return Update::Wanted(Box::new(tokio::task::block_in_place(|| self.compose())));
        }
        match self.refused.take() {
            Some(errors) => Update::Refused(errors),
            None => Update::Wanted(Box::new(self.compose())),
        }
    }

    /// Takes what reading the file came to, if it fits this host.
    fn take(&mut self, outcome: Result<Config, ConfigErrors>) {
        match outcome.and_then(|config| checked(config, &self.network.borrow())) {
            Ok(mut config) => {
                config.desired.keep(&self.config.desired);
                self.config = config;
                (self.is_due, self.is_edit, self.refused) = (true, true, None);
                if let Err(error) = self.follow() {
                    tracing::error!(error = format!("{error:#}"), "the cluster cannot be followed as configured");
                }
            }
            Err(errors) => self.refused = Some(errors),
        }
    }

    /// Follows the cluster of the configuration, and no other.
    fn follow(&mut self) -> Result<()> {
        let fingerprint = self.config.agent.secret.fingerprint();
        self.fingerprint.send_if_modified(|shown| std::mem::replace(shown, fingerprint) != *shown);
        let wanted = self.config.kubernetes.as_ref().map(|settings| (&settings.access, &settings.node_name));
        if self.source.as_ref().map(|source| (&source.access, &source.node)) == wanted {
            return Ok(());
        }
        self.source = None;
        self.followed.set(None);
        if let Some((access, node)) = wanted {
            let cancel = self.cancel.child_token();
            let running = cancel.clone().drop_guard();
            let Followed { snapshots, status, lease } = (self.spawn)(Errand {
                access: access.clone(),
                node: node.clone(),
                servers: self.api_servers.subscribe(),
                fingerprint: self.fingerprint.subscribe(),
                cancel,
            })?;
            self.followed.set(Some((status, lease)));
            self.source = Some(Source { access: access.clone(), node: node.clone(), snapshots, _running: running });
        }
        Ok(())
    }

    fn compose(&mut self) -> Wanted {
        let started = Instant::now();
        self.connected = self.network.borrow_and_update().connected();
        let snapshot = self.source.as_mut().and_then(|source| source.snapshots.borrow_and_update().clone());
        let age = match &snapshot {
            Some(Snapshot { origin: Origin::Saved { age }, .. }) => *age + self.began.elapsed(),
            _ => Duration::ZERO,
        };
        let composed = self.composer.compose(&Sources {
            desired: &self.config.desired,
            kubernetes: self.config.kubernetes.as_ref(),
            control_plane: self.config.control_plane.as_ref(),
            snapshot: snapshot.as_ref(),
            age,
            room: room(&self.config.agent.capacities),
            connected: &self.connected,
        });
        self.changes_at = composed.changes_in.map(|left| started + left);
        self.api_servers.send_if_modified(|servers| {
            let differs = *servers != composed.api_servers;
            servers.clone_from(&composed.api_servers);
            differs
        });
        self.compositions += 1;
        self.seconds += started.elapsed().as_secs_f64();
        let is_edit = std::mem::take(&mut self.is_edit);
        self.is_due = false;
        let follows = self.config.kubernetes.is_some() || self.config.control_plane.is_some();
        let cluster = follows.then(|| self.status(snapshot.as_ref(), age, &composed));
        let mut config = self.config.clone();
        config.desired = composed.desired;
        Wanted { config, is_edit, cluster }
    }

    fn status(&self, snapshot: Option<&Snapshot>, age: Duration, composed: &Composed) -> ClusterStatus {
        let inventory = snapshot.map(|snapshot| &snapshot.inventory);
        let origin = match snapshot.map(|snapshot| snapshot.origin) {
            None => "none",
            Some(Origin::Live) => "live",
            Some(Origin::Saved { .. }) => "saved",
        };
        let withheld = composed.withheld.iter();
        ClusterStatus {
            origin: origin.to_owned(),
            saved: (origin == "saved").then(|| report::unix_now().saturating_sub(age.as_secs())),
            nodes: inventory.map_or(0, |inventory| inventory.nodes.len()),
            services: inventory.map_or(0, |inventory| inventory.services.len()),
            pools: inventory.map_or(0, |inventory| inventory.pools.len()),
            served: composed.served,
            judgements: composed.judgements.clone(),
            withheld: withheld.map(|(vip, reason)| WithheldStatus { vip: *vip, reason: reason.clone() }).collect(),
            compositions: self.compositions,
            compose_seconds: self.seconds,
            source: None, // `followed` enters it
        }
    }
}

/// Waits until the inventory is another; false if there will be none any more.
async fn changed(source: &mut Option<Source>) -> bool {
    match source {
        Some(source) => source.snapshots.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

fn room(capacities: &Capacities) -> Room {
    Room {
        services: capacities.services.into(),
        backends: capacities.backends.into(),
        ring_slots: capacities.ring_slots.into(),
        addresses: capacities.addresses.into(),
        source_ranges: capacities.source_ranges.into(),
        peers: capacities.peers.into(),
    }
}

#[cfg(test)]
#[path = "compose_tests.rs"]
mod tests;
