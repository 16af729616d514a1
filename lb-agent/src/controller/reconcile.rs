//! The loop: what is watched goes through `cluster`, and what differs is written.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, pin_mut, stream};
use k8s_openapi::{
    api::core::v1::{Node, Service},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Api, Client};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Lead, Settings,
    desired::Desired,
    events::Events,
    follow::{Table, follow},
    judge,
    ledger::Ledger,
    news::{self, PoolWrite, ServiceWrite},
    objects::{self, PoolItem, ServiceItem},
    pace::Pace,
    pool_status::{self, Counts, Told},
    removed::Removal,
    report::{PoolReport, SharedReport},
    writer::{Failure, Outcome, Writer},
};
use crate::{
    cluster::{
        allocate::{Claimant, Situation, Verdict, allocate},
        forbidden::Forbidden,
        pools::{PoolJudgement, PoolSet, Pools},
    },
    kubernetes::crds::VipPool,
    model::{
        Judgement,
        inventory::{ClusterNode, ObjectName},
    },
};

/// Changes that come within this time are taken together.
const TOGETHER: Duration = Duration::from_millis(20);
/// Writes under way at a time.
const WRITES: usize = 8;
/// Pause between writes to the status of one pool, whose counts change with every Service.
const POOL_PAUSE: Duration = Duration::from_secs(1);
/// Everything is looked at again after this long at the latest.
const RESYNC: Duration = Duration::from_secs(60);

type Services = BTreeMap<ObjectName, ServiceItem>;
type PoolItems = BTreeMap<String, PoolItem>;
type Nodes = BTreeMap<String, Arc<ClusterNode>>;
type Watched<K, T> = watch::Receiver<Table<K, T>>;

/// One term of leading.
pub(super) struct Reconciler {
    settings: Settings,
    report: SharedReport,
    writer: Arc<Writer>,
    events: Events,
    ledger: Ledger,
    set: PoolSet,
    services: Pace<ObjectName>,
    pools: Pace<String>,
    told: BTreeMap<String, Told>,
    watches: Watches,
    /// Ends what runs in the background with this.
    _tasks: JoinSet<()>,
}

struct Watches {
    services: Watched<ObjectName, ServiceItem>,
    pools: Watched<String, PoolItem>,
    nodes: Watched<String, Arc<ClusterNode>>,
}

/// Complete lists of everything.
struct World {
    services: Services,
    pools: PoolItems,
    nodes: Nodes,
}

impl Reconciler {
    pub(super) fn new(client: Client, settings: Settings, lead: Lead, report: SharedReport) -> Self {
        let mut tasks = JoinSet::new();
        let watches = Watches {
            services: follow(Api::<Service>::all(client.clone()), "Service", objects::service, &mut tasks),
            pools: follow(Api::<VipPool>::all(client.clone()), "VipPool", objects::pool, &mut tasks),
            nodes: follow(Api::<Node>::all(client.clone()), "Node", objects::node, &mut tasks),
        };
        let removal = Removal {
            client: client.clone(),
            lead: lead.clone(),
            namespace: settings.lease_namespace.clone(),
            grace: settings.lease_grace,
            timeout: settings.write_timeout,
            nodes: watches.nodes.clone(),
        };
        tasks.spawn(removal.run());
        let events = Events::start(client.clone(), &settings.identity, report.clone(), &mut tasks);
        Self {
            writer: Arc::new(Writer::new(client, lead, settings.write_timeout)),
            settings,
            report,
            events,
            ledger: Ledger::default(),
            set: PoolSet::default(),
            services: Pace::new(),
            pools: Pace::new(),
            told: BTreeMap::new(),
            watches,
            _tasks: tasks,
        }
    }

    /// Works until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            if let Some(world) = self.watches.world(&self.report) {
                self.round(&world).await;
            }
            let now = Instant::now();
            let again = [self.services.next(now), self.pools.next(now), Some(now + RESYNC)];
            let again = again.into_iter().flatten().min().unwrap_or(now + RESYNC);
            tokio::select! {
                () = self.watches.changed() => sleep(TOGETHER).await,
                () = sleep_until(again) => {}
            }
        }
    }

    /// Decides for everything and writes what differs.
    async fn round(&mut self, world: &World) {
        let objects = world.pools.iter().map(|(name, item)| (name.clone(), item.object.clone())).collect();
        let pools = self.set.update(&objects);
        self.ledger.retain(&world.services);
        self.services.retain(|name| world.services.contains_key(name));
        self.pools.retain(|name| world.pools.contains_key(name));
        self.told.retain(|name, _| world.pools.contains_key(name));
        let (verdicts, forbidden) = self.decide(world, &pools);
        let counts = pool_status::counts(&pools, &verdicts, &forbidden.spans());
        self.tell(&pools, &verdicts, &counts);
        let (class, nodes) = (&self.settings.class, &world.nodes);
        let judgements = judge::judgements(class, &forbidden, nodes, &pools, &world.services, &verdicts);
        self.write_services(world, &verdicts, &judgements).await;
        self.write_pools(world, &pools, &counts).await;
    }

    fn decide<'w>(&self, world: &'w World, pools: &Pools) -> (BTreeMap<ObjectName, Verdict>, Forbidden<'w>) {
        let nodes = world.nodes.iter().map(|(name, node)| (name, &**node));
        let services = world.services.iter().map(|(name, item)| (name, &*item.service));
        let forbidden = Forbidden::of(nodes, services, &self.settings.reserved);
        let claimant = |(name, item): (&ObjectName, &ServiceItem)| {
            let (service, pending) = (Arc::clone(&item.service), self.ledger.pending(name, item));
            (name.clone(), Claimant { service, ours: item.ours, pending })
        };
        let claimants = world.services.iter().map(claimant).collect();
        let rule = &self.settings.class;
        let situation = Situation { services: &claimants, pools: &pools.in_force, forbidden: &forbidden, rule };
        (allocate(&situation), forbidden)
    }

    fn tell(&self, pools: &Pools, verdicts: &BTreeMap<ObjectName, Verdict>, counts: &BTreeMap<String, Counts>) {
        let pool = |(name, judgement): (&String, &PoolJudgement)| {
            let Counts { used, free } = counts.get(name).copied().unwrap_or_default();
            (name.clone(), PoolReport { used, free, refused: judgement.is_refused() })
        };
        let pools = pools.judgements.iter().map(pool).collect();
        let decided = |verdict: &&Verdict| matches!(verdict, Verdict::Decided(_) | Verdict::Foreign(_));
        let served = |verdict: &&Verdict| matches!(verdict, Verdict::Decided(decision) if decision.complete);
        let all = verdicts.values().filter(decided).count() as u64;
        let served = verdicts.values().filter(served).count() as u64;
        self.report.change(|report| {
            report.pools = pools;
            (report.services_served, report.services_refused) = (served, all - served);
        });
    }

    async fn write_services(
        &mut self,
        world: &World,
        verdicts: &BTreeMap<ObjectName, Verdict>,
        judgements: &BTreeMap<ObjectName, Vec<Judgement>>,
    ) {
        let now = Instant::now();
        let mut writes = Vec::new();
        for (name, verdict) in verdicts {
            let Some(item) = world.services.get(name) else { continue };
            let judgements = judgements.get(name).map_or(&[][..], Vec::as_slice);
            let Some(desired) = Desired::of(verdict, &item.service, judgements) else { continue };
            let done = desired.is_shown_by(item) || self.ledger.is_settled(name, item, &desired);
            if done || !self.services.is_due(name, now) {
                continue;
            }
            let before = self.ledger.written(name).cloned();
            self.ledger.begin(name, item, &desired);
            writes.push(ServiceWrite { name: name.clone(), item: item.clone(), desired, before });
        }
        let writer = Arc::clone(&self.writer);
        let time = Time(jiff::Timestamp::now());
        let outcomes = writes.into_iter().map(|write| {
            let (writer, time) = (Arc::clone(&writer), time.clone());
            async move {
                let outcome = writer.service(&write.name, &write.item, &write.desired, &time).await;
                (write, outcome)
            }
        });
        let outcomes = stream::iter(outcomes.collect::<Vec<_>>()).buffer_unordered(WRITES);
        pin_mut!(outcomes);
        while let Some((write, outcome)) = outcomes.next().await {
            self.finish_service(&write, outcome);
        }
    }

    fn finish_service(&mut self, write: &ServiceWrite, outcome: Outcome<ServiceItem>) {
        let (name, now) = (&write.name, Instant::now());
        self.count("service", &outcome);
        match outcome {
            Outcome::Applied(item) => {
                self.ledger.applied(name, &item);
                self.services.succeeded(name, now, Duration::ZERO);
                news::of_service(&self.events, write);
            }
            Outcome::NotLeading => self.ledger.refused(name),
            Outcome::Refused(failure) => {
                self.ledger.refused(name);
                log("Service", &name.to_string(), &failure);
                self.services.failed(name, now, failure.retry_after);
            }
            Outcome::Unknown(failure) => {
                log("Service", &name.to_string(), &failure);
                self.services.failed(name, now, failure.retry_after);
            }
        }
    }

    async fn write_pools(&mut self, world: &World, pools: &Pools, counts: &BTreeMap<String, Counts>) {
        let (now, time) = (Instant::now(), Time(jiff::Timestamp::now()));
        let mut writes = Vec::new();
        for (name, item) in &world.pools {
            let Some(judgement) = pools.judgements.get(name) else { continue };
            let counts = counts.get(name).copied().unwrap_or_default();
            let status = pool_status::status(item, judgement, pools.in_force.get(name), counts, &time);
            let settled = self.told.get(name).is_some_and(|told| told.is_settled(item, &status));
            if item.pool.status.as_ref() != Some(&status) && !settled && self.pools.is_due(name, now) {
                let (name, item, judgement) = (name.clone(), item.clone(), judgement.clone());
                writes.push(PoolWrite { name, item, judgement, status });
            }
        }
        let writer = Arc::clone(&self.writer);
        let outcomes = writes.into_iter().map(|write| {
            let writer = Arc::clone(&writer);
            async move {
                let outcome = writer.pool(&write.name, &write.status).await;
                (write, outcome)
            }
        });
        let outcomes = stream::iter(outcomes.collect::<Vec<_>>()).buffer_unordered(WRITES);
        pin_mut!(outcomes);
        while let Some((write, outcome)) = outcomes.next().await {
            self.finish_pool(&write, outcome);
        }
    }

    fn finish_pool(&mut self, write: &PoolWrite, outcome: Outcome<PoolItem>) {
        let name = &write.name;
        self.count("vippool", &outcome);
        match outcome {
            Outcome::Applied(item) => {
                let told = Told { status: write.status.clone(), answer: item.pool.status.clone() };
                self.told.insert(name.clone(), told);
                self.pools.succeeded(name, Instant::now(), POOL_PAUSE);
                news::of_pool(&self.events, write);
            }
            Outcome::NotLeading => {}
            Outcome::Refused(failure) | Outcome::Unknown(failure) => {
                log("VipPool", name, &failure);
                self.pools.failed(name, Instant::now(), failure.retry_after);
            }
        }
    }

    fn count<T>(&self, kind: &'static str, outcome: &Outcome<T>) {
        let result = match outcome {
            Outcome::Applied(_) => "applied",
            Outcome::Refused(Failure { code: 409, .. }) => "conflict",
            Outcome::Refused(_) => "refused",
            Outcome::Unknown(_) => "failed",
            Outcome::NotLeading => "not_leading",
        };
        self.report.change(|report| *report.writes.entry((kind, result)).or_default() += 1);
    }
}

impl Watches {
    /// Everything, once there is a complete list of each kind.
    fn world(&mut self, report: &SharedReport) -> Option<World> {
        let (services, pools) = (self.services.borrow_and_update(), self.pools.borrow_and_update());
        let nodes = self.nodes.borrow_and_update();
        let states = [
            ("Services", services.complete, &services.error),
            ("VipPools (their definition: `lbctl sample crds`)", pools.complete, &pools.error),
            ("Nodes", nodes.complete, &nodes.error),
        ];
        let waiting_for = states.iter().find(|(_, complete, _)| !complete).map(|(kind, _, error)| {
            let reason = error.as_deref().map_or_else(String::new, |error| format!(": {error}"));
            format!("no complete list of {kind} yet{reason}")
        });
        let stale = states.iter().find_map(|(_, _, error)| (*error).clone());
        let waits = waiting_for.is_some();
        report.change(|report| (report.waiting_for, report.stale) = (waiting_for, stale));
        let copy =
            || World { services: services.items.clone(), pools: pools.items.clone(), nodes: nodes.items.clone() };
        (!waits).then(copy)
    }

    async fn changed(&mut self) {
        // A watch ends with its task only, and the tasks end with this.
        tokio::select! {
            _ = self.services.changed() => {}
            _ = self.pools.changed() => {}
            _ = self.nodes.changed() => {}
        }
    }
}

/// A conflict is the way of things: the next version decides. The rest is worth a line.
fn log(kind: &'static str, name: &str, failure: &Failure) {
    let Failure { code, text, .. } = failure;
    match code {
        404 | 409 => tracing::debug!(kind, name, code, "status not written: {text}"),
        403 => tracing::error!(kind, name, code, "status not written: {text}; check the controller's ClusterRole"),
        _ => tracing::warn!(kind, name, code, "status not written, trying again: {text}"),
    }
}
