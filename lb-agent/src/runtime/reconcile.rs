//! The loop in the middle: whenever anything that a plan depends on changes, decide anew and perform what differs.

mod configure;
mod drains;
mod holding;
mod members;
mod perform;
mod settle;
mod start;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::{MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use lb_common::{hash::HashKey, maps::addresses::AddressEntry};
use tokio::sync::{mpsc, watch};

use self::wanted::Wanted;
pub use self::wanted::{wanted_hops, wanted_probes};
use super::{
    SharedStatus,
    compose::Update,
    drains::DrainBook,
    heap, interfaces,
    listeners::Tracing,
    notify, pending_restart,
    report::{self, Report},
    sweep::Sweeper,
};
use crate::{
    announce::{AnnounceStatus, DesiredAnnouncements},
    api::DrainCommand,
    config::{Config, OnTerminate},
    dataplane::{DataplaneError, Kernel, PinLock, monotonic},
    membership::Speaking,
    model::{BackendAddress, Delivery, HealthReport, Members, Network, ProbeTarget, Shared},
    plan::{Decider, Decision, Inputs, MapState, Sizes, Takers},
    status::AnnouncementStatus,
};

/// How long to wait before a failed plan is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long to wait for neighbours to answer before backends take flows.
const WAYS: Duration = Duration::from_secs(1);

/// What the loop listens to.
pub struct Streams {
    /// Snapshots of links, addresses and ways.
    pub network: watch::Receiver<Network>,
    /// The probes' verdicts.
    pub health: watch::Receiver<HealthReport>,
    /// What the announcers did.
    pub announced: watch::Receiver<AnnounceStatus>,
    /// Who wants to hear of packets.
    pub tracing: Tracing,
    /// What operators want drained.
    pub drains: mpsc::Receiver<DrainCommand>,
    /// What is heard of the peers.
    pub members: watch::Receiver<Members>,
}

/// What the loop tells the other parts.
pub struct Outputs {
    /// Addresses whose way is wanted.
    pub wanted_hops: watch::Sender<BTreeSet<IpAddr>>,
    /// What is to be probed.
    pub wanted_probes: watch::Sender<BTreeSet<ProbeTarget>>,
    /// What is to be held and announced.
    pub wanted_announcements: watch::Sender<Option<DesiredAnnouncements>>,
    /// Whom to speak to.
    pub speaking: watch::Sender<Option<Speaking>>,
}

/// The loop's state.
pub struct Reconciler {
    config: Config,
    running: crate::config::AgentConfig,
    kernel: Kernel,
    state: MapState,
    distrusted: BTreeSet<(String, BackendAddress)>,
    unproven: BTreeSet<(String, BackendAddress)>,
    /// Whether the maps are an earlier agent's.
    is_adopted: bool,
    /// Whether the program is on its interfaces. Before that nothing is held or announced: if an interface refuses it,
    /// the agent ends, and nobody would take back what draws traffic here.
    is_attached: bool,
    /// Whether the last scan found recorded flows.
    flows_recorded: bool,
    /// Where the time that plans know begins.
    began: Instant,
    decider: Decider,
    /// What the services of the configuration ask of the other parts.
    wanted: Wanted,
    /// What the latest decision announces.
    decided: Vec<AnnouncementStatus>,
    takers: Takers,
    drains: DrainBook,
    /// When the latest decision becomes another by itself.
    next_change: Option<Instant>,
    /// What was said of interfaces on which what leaves cannot be rewritten.
    unclamped: Vec<String>,
    /// What was said of connections that cannot be translated.
    untranslated: Option<String>,
    streams: Streams,
    outputs: Outputs,
    status: SharedStatus,
}

impl Reconciler {
    /// Opens the data plane and reads what an earlier agent left there.
    pub fn open(
        lock: &PinLock,
        path: &Path,
        config: Config,
        streams: Streams,
        outputs: Outputs,
        status: SharedStatus,
    ) -> Result<Self> {
        let capacities = &config.agent.capacities;
        let sizes = Sizes {
            services: capacities.services,
            backends: capacities.backends,
            ring_slots: capacities.ring_slots,
            flows: capacities.flows,
            flows_per_service: capacities.flows_per_service,
            peers: capacities.peers,
            addresses: capacities.addresses,
            source_ranges: capacities.source_ranges,
            fragments: capacities.fragments,
        };
        let kernel = Kernel::open(lock, sizes)?;
        let state = kernel.state()?;
        let distrusted = start::failed_before(&state);
        let unproven = start::unproven(&state, &config.desired);
        let is_adopted = !state.services.is_empty();
        let drains = DrainBook::adopted(&config.desired, &state, kernel.node_drain()?);
        let (running, wanted) = (config.agent.clone(), Wanted::of(&config.desired.services));
        let reconciler = Self {
            config,
            running,
            kernel,
            state,
            distrusted,
            unproven,
            is_adopted,
            is_attached: false,
            flows_recorded: true, // an earlier agent may have left some
            began: Instant::now(),
            decider: Decider::default(),
            wanted,
            decided: Vec::new(),
            takers: Takers::default(),
            drains,
            next_change: None,
            unclamped: Vec::new(),
            untranslated: None,
            streams,
            outputs,
            status,
        };
        reconciler.introduce(path);
        Ok(reconciler)
    }

    /// Runs until the source of configurations ends. Fails if an interface refuses the program at the start.
    pub async fn run(
        &mut self,
        mut updates: mpsc::Receiver<Update>,
        on_terminate: &watch::Sender<OnTerminate>,
    ) -> Result<()> {
        self.await_ways(&wanted_hops(&self.config.desired)).await;
        self.reconcile().await?;
        self.await_membership().await;
        let mut failed = self.begin().await?;
        let mut sweeper = Sweeper::new(self.kernel.flow_tables()?);
        let mut watchdog = tokio::time::interval(notify::watchdog_interval().unwrap_or(Duration::from_secs(3600)));
        loop {
            let retry = failed.then_some(RETRY);
            sweeper.schedule(self.slots_wait(), self.flows_recorded);
            let window = self.window_ends();
            tokio::select! {
                update = updates.recv() => match update {
                    Some(update) => self.update(update, on_terminate).await,
                    None => return Err(anyhow!("the configuration is not watched any more")),
                },
                Ok(()) = self.streams.network.changed() => {}
                Ok(()) = self.streams.health.changed() => {}
                Ok(()) = self.streams.members.changed() => {}
                Ok(()) = self.streams.announced.changed() => {
                    self.report_announced();
                    continue;
                }
                () = tokio::time::sleep(window.unwrap_or(Duration::MAX)), if window.is_some() => {
                    failed |= self.settle(None).await?;
                    continue;
                }
                Some(command) = self.streams.drains.recv() => {
                    failed |= self.command(command).await?;
                    continue;
                }
                () = self.drains.due(), if !self.drains.drains.is_empty() => {
                    self.report_drains();
                    continue;
                }
                scanned = sweeper.scanned() => {
                    failed |= self.scanned(scanned).await?;
                    continue;
                }
                () = tokio::time::sleep(retry.unwrap_or(Duration::MAX)), if retry.is_some() => {}
                () = due(self.next_change), if self.next_change.is_some() => {}
                change = self.streams.tracing.change() => {
                    self.streams.tracing.follow(change, &mut self.kernel);
                    continue;
                }
                _ = watchdog.tick() => {
                    notify::alive();
                    continue;
                }
            }
            failed = self.reconcile().await?;
            self.attach().await;
        }
    }

    /// Puts the plain program back on the interfaces if somebody listens.
    pub fn end_tracing(&mut self) {
        self.streams.tracing.end(&mut self.kernel);
    }

    /// The end of the start: the maps are filled, so packets may meet them, and be drawn here. True if the plan has to be
    /// tried again.
    async fn begin(&mut self) -> Result<bool> {
        if let Some(refused) = self.attach().await.into_iter().next() {
            return Err(refused.into());
        }
        self.kernel.commit()?;
        self.sign()?;
        self.is_attached = true;
        let failed = self.reconcile().await?;
        self.status().ready = true;
        notify::ready();
        heap::trim();
        tracing::info!(services = self.state.services.len(), "ready");
        Ok(failed)
    }

    /// Decides anew and performs what differs; true if that has to be tried again.
    async fn reconcile(&mut self) -> Result<bool> {
        let started = Instant::now();
        let mut decision = self.decide();
        self.announce_less(&decision);
        self.await_held(&mut decision).await;
        if let Err(error) = self.fulfil(&decision.target, started) {
            return self.plan_failed(&error);
        }
        if self.is_attached {
            self.announce_all(&decision);
        }
        self.speak();
        self.status().decided(&decision);
        self.decided = report::announcements(&decision);
        self.report_members();
        self.report_announced();
        self.drains.decided(&decision);
        self.report_drains();
        Ok(false)
    }

    fn decide(&mut self) -> Shared<Decision> {
        let network = self.streams.network.borrow_and_update();
        let health = self.streams.health.borrow_and_update();
        let members = self.streams.members.borrow_and_update();
        let now = Instant::now();
        let decision = self.decider.decide(&Inputs {
            desired: &self.config.desired,
            network: &network,
            health: &health,
            hash_key: HashKey::new(self.config.agent.secret.bytes()),
            distrusted: &self.distrusted,
            drains: &self.drains.drains,
            addresses: &self.state.addresses,
            monotonic: monotonic(),
            unproven: &self.unproven,
            now: now.duration_since(self.began),
            takers: &self.takers,
            members: &members,
        });
        self.takers.clone_from(&decision.takers);
        self.next_change = decision.next_change.map(|left| now + left);
        decision
    }

    /// Before the maps change: withdraws what is not to be announced any more, and holds what is to be held. At the start,
    /// when the maps are filled but for what is held, all that was decided.
    fn announce_less(&self, decision: &Decision) {
        if self.is_attached && self.outputs.wanted_announcements.borrow().is_none() {
            return self.announce_all(decision);
        }
        self.outputs.wanted_announcements.send_if_modified(|now| {
            let Some(now) = now else { return false };
            if now.held == decision.held && now.announced == decision.announced {
                return false;
            }
            let mut held = now.held.clone();
            held.extend(&decision.held);
            let announced: BTreeMap<_, _> = now
                .announced
                .iter()
                .filter(|(vip, _)| decision.announced.contains_key(*vip))
                .map(|(a, b)| (*a, *b))
                .collect();
            let less = DesiredAnnouncements { held, announced };
            let differs = *now != less;
            *now = less;
            differs
        });
    }

    /// When the maps have changed: announces and holds just what was decided.
    fn announce_all(&self, decision: &Decision) {
        self.outputs.wanted_announcements.send_if_modified(|now| {
            let is_so = |now: &DesiredAnnouncements| now.held == decision.held && now.announced == decision.announced;
            if now.as_ref().is_some_and(is_so) {
                return false;
            }
            let (held, announced) = (decision.held.clone(), decision.announced.clone());
            *now = Some(DesiredAnnouncements { held, announced });
            true
        });
    }

    async fn attach(&mut self) -> Vec<DataplaneError> {
        let network = self.streams.network.borrow().clone();
        let sends_on = self.config.desired.services.iter().any(|service| service.delivery != Delivery::Local);
        let wanted = &self.config.agent.interfaces;
        let (statuses, refused) = interfaces::attach(&mut self.kernel, wanted, &network, sends_on).await;
        let leaves_rewritten = |flags: &u32| {
            let entry = AddressEntry { flags: *flags };
            entry.mss() > 0 || entry.has(AddressEntry::REWRITTEN)
        };
        let clamps = self.state.addresses.values().any(leaves_rewritten);
        interfaces::clamp(&mut self.kernel, wanted, &network, clamps, &mut self.unclamped);
        let translates = self.config.desired.services.iter().any(|service| service.connect_translation);
        let cgroup = self.config.agent.cgroup_path.as_deref();
        interfaces::translate(&mut self.kernel, translates, cgroup, &mut self.untranslated);
        let mut status = self.status();
        for now in statuses.iter().filter(|now| !status.interfaces.contains(now)) {
            tracing::info!(interface = now.name, mode = now.mode, reason = now.reason, "XDP");
        }
        status.interfaces = statuses;
        drop(status);
        refused
    }

    fn report_announced(&mut self) {
        let announced = self.streams.announced.borrow_and_update().clone();
        report::announced(&mut self.status(), &self.decided, &announced);
    }

    fn introduce(&self, path: &Path) {
        let mut status = self.status();
        env!("CARGO_PKG_VERSION").clone_into(&mut status.version);
        status.pid = std::process::id();
        status.started = report::unix_now();
        status.config.path = path.display().to_string();
        status.dataplane.pin_path = self.running.pin_path.display().to_string();
        status.dataplane.adopted = self.is_adopted;
        report::configured(&mut status, &self.config.desired.node.name, &self.running, Vec::new());
        status.config.generation = 0; // the source yields the first one again
    }

    fn status(&self) -> MutexGuard<'_, Report> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until then.
pub async fn due(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}
