//! The settling of what only one can have: addresses (`owners`), and room in the maps. The elder Service comes first.
//!
//! Who has what follows from the Services themselves, the VIPs that they ask for, and the situation. As long as nothing but
//! backends changes, and there is room for them, it stays: then only the Services that changed are looked at.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    time::Duration,
};

use super::{
    compose::{Composed, Sources},
    forbidden::Forbidden,
    judged::Judged,
    owners::Owners,
    problem::Problem,
    room::Room,
    service::Wish,
};
use crate::model::{
    AnnounceNodes, AnnouncePolicy, AnnounceWhen, Announcement, ClusterNode, Inventory, Judgement, KubernetesSettings,
    ObjectName, Origin, Reason, Service, Severity, Shared, Snapshot, Subject, network::Subnet,
};

/// What is settled by, beside the Services themselves and what there is without them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Situation {
    /// What the maps have room for.
    room: Room,
    lifetime: Duration,
    /// Subnets on this node's links.
    connected: Vec<Subnet>,
    /// This node's object: its labels and standing.
    node: Option<ClusterNode>,
    /// Why no VIP of a Service is announced here.
    withheld: Option<String>,
    /// How long a saved inventory is young enough.
    changes_in: Option<Duration>,
}

/// What was settled, and by what.
#[derive(Debug)]
pub(super) struct Settled {
    situation: Situation,
    without: Composed,
    /// Everything that was asked for.
    pub(super) result: Composed,
    /// What room is left.
    left: Room,
    /// Something found no room.
    is_tight: bool,
}

impl Situation {
    pub(super) fn of(settings: &KubernetesSettings, inventory: &Inventory, sources: &Sources<'_>) -> Self {
        let node = inventory.nodes.get(&settings.node_name).cloned();
        let is_saved = matches!(sources.snapshot, Some(Snapshot { origin: Origin::Saved { .. }, .. }));
        let left = settings.max_snapshot_age.checked_sub(sources.age).filter(|left| !left.is_zero());
        let withheld = if node.as_ref().is_some_and(ClusterNode::is_excluded) {
            Some("this node has the label node.kubernetes.io/exclude-from-external-load-balancers")
        } else if is_saved && left.is_none() {
            Some(
                "no API server has answered since the agent started, and the saved inventory is older than `kubernetes.maxSnapshotAge`",
            )
        } else {
            None
        };
        Self {
            room: sources.room.clone(),
            lifetime: settings.lifetime,
            connected: sources.connected.to_vec(),
            node,
            withheld: withheld.map(str::to_owned),
            changes_in: left.filter(|_| is_saved),
        }
    }
}

impl Settled {
    /// Whether it was settled by this and beside this.
    pub(super) fn is_of(&self, situation: &Situation, without: &Composed) -> bool {
        self.situation == *situation && self.without == *without
    }

    /// The same with these wishes instead of those before them; `None` if who has what has to be settled again.
    pub(super) fn with(mut self, news: &[(Shared<Wish>, Shared<Wish>)]) -> Option<Self> {
        for (before, after) in news {
            let is_alike = before.vips == after.vips
                && before.judgements == after.judgements
                && before.services.len() == after.services.len();
            if !is_alike || self.is_tight {
                return None;
            }
            for (before, after) in before.services.iter().zip(&after.services) {
                self.replace(before, after)?;
            }
        }
        Some(self)
    }

    /// Gives a service its new backends; `None` if more than they changed, or if there is no room.
    fn replace(&mut self, before: &Shared<Service>, after: &Shared<Service>) -> Option<()> {
        if before.is(after) {
            return Some(());
        }
        if !before.is_alike(after) {
            return None;
        }
        let services = &mut self.result.desired.services;
        let Ok(at) = services.binary_search_by(|service| service.name.cmp(&after.name)) else {
            return Some(()); // somebody else has all its addresses
        };
        let now = Service { vips: services[at].vips.clone(), ..(**after).clone() };
        self.left.exchange(&services[at], &now)?;
        services[at] = if now == **after { after.clone() } else { now.into() };
        Some(())
    }
}

/// Settles what the Services ask for, beside what there is `without` them.
pub(super) fn settle(situation: &Situation, inventory: &Inventory, judged: &Judged, without: Composed) -> Settled {
    let mut result = without.clone();
    result.changes_in = situation.changes_in;
    let services = inventory.services.iter().map(|(name, service)| (name, &**service));
    let settlement = Settlement {
        situation,
        forbidden: Forbidden::of([], services, &[]),
        owners: Owners::settle(judged.wishes()),
        vips: HashSet::new(),
        room: situation.room.clone().beside(&result.desired),
        is_tight: false,
        result,
    };
    settlement.settle(judged, without)
}

struct Settlement<'a> {
    situation: &'a Situation,
    /// Cluster addresses of Services: they change too often to judge every Service again by them.
    forbidden: Forbidden<'a>,
    owners: Owners<'a>,
    vips: HashSet<IpAddr>,
    room: Room,
    is_tight: bool,
    result: Composed,
}

impl<'a> Settlement<'a> {
    fn settle(mut self, judged: &'a Judged, without: Composed) -> Settled {
        for (name, _, wish) in judged.wishes() {
            self.result.judgements.extend(wish.judgements.iter().cloned());
            let mut refused = BTreeSet::new();
            let mut is_served = false;
            for service in &wish.services {
                is_served |= self.enter(name, wish, service, &mut refused);
            }
            self.result.served += usize::from(is_served);
            let judgement = |(reason, message)| Judgement::on(name, Severity::Refused, reason, message).into();
            self.result.judgements.extend(refused.into_iter().map(judgement));
        }
        if let Some(why) = self.situation.withheld.as_ref().filter(|_| !self.vips.is_empty()) {
            let message = format!("this node announces no VIP of a Service: {why}");
            let (severity, reason) = (Severity::Warning, Reason::NotAnnounced);
            let judgement = Judgement { subject: Subject::Cluster, severity, reason, message };
            self.result.judgements.push(judgement.into());
        }
        Settled {
            situation: self.situation.clone(),
            without,
            result: self.result.in_order(),
            left: self.room,
            is_tight: self.is_tight,
        }
    }

    /// Enters one port of a Service, without the VIPs that it cannot have; false if none is left.
    fn enter(
        &mut self,
        name: &'a ObjectName,
        wish: &Wish,
        service: &Shared<Service>,
        refused: &mut BTreeSet<(Reason, String)>,
    ) -> bool {
        let mut service = service.clone();
        let objections = service.vips.iter().map(|vip| self.objection(name, *vip));
        let objections: Vec<_> = objections.collect();
        if objections.iter().any(Option::is_some) {
            let mut is_free = objections.iter().map(Option::is_none);
            service.vips.retain(|_| is_free.next().unwrap_or_default());
            refused.extend(objections.into_iter().flatten());
        }
        if service.vips.is_empty() {
            return false;
        }
        if let Err(key) = self.room.take(&service, &self.vips) {
            let message = format!(
                "`capacities.{key}` has no room for it beside elder Services; raise it on every node, or remove some"
            );
            refused.insert((Reason::NoRoom, message));
            self.is_tight = true;
            return false;
        }
        for vip in &service.vips {
            if self.vips.insert(*vip)
                && let Some(pool) = wish.vips.get(vip)
            {
                self.announce(name, *vip, &pool.announce);
            }
        }
        self.result.desired.services.push(service);
        true
    }

    /// Why a Service cannot have this VIP.
    fn objection(&self, name: &'a ObjectName, vip: IpAddr) -> Option<(Reason, String)> {
        if let Some(owner) = self.forbidden.owner(vip) {
            return Some((Reason::AddressRefused, Problem::Forbidden { address: vip, owner }.to_string()));
        }
        self.owners.objection(name, vip).map(|problem| (Reason::AddressTaken, problem.to_string()))
    }

    fn announce(&mut self, name: &ObjectName, vip: IpAddr, policy: &AnnouncePolicy) {
        let node = self.situation.node.as_ref();
        let has = |(key, value): (&String, &String)| node.is_some_and(|node| node.labels.get(key) == Some(value));
        let not_selected = || {
            let missing = policy.node_selector.iter().find(|label| !has(*label))?;
            Some(format!(
                "its VipPool has nodes with the label {}={} announce it, and this node lacks it",
                missing.0, missing.1
            ))
        };
        if let Some(why) = self.situation.withheld.clone().or_else(not_selected) {
            self.result.withheld.insert(vip, why);
            return;
        }
        if let Some(Subnet { net, interface }) =
            self.situation.connected.iter().find(|subnet| subnet.net.contains(&vip))
        {
            let why = format!(
                "{vip} lies in {net} of {interface}, on a link of this node: hosts there ask for it by ARP or NDP, which nobody answers; take addresses outside the nodes' subnets"
            );
            let judgement = Judgement::on(name, Severity::Warning, Reason::AddressOnLink, why.clone());
            self.result.judgements.push(judgement.into());
            self.result.withheld.insert(vip, why);
            return;
        }
        let when = match policy.nodes {
            AnnounceNodes::All => AnnounceWhen::AnyBackend,
            AnnounceNodes::LocalBackends => AnnounceWhen::LocalBackend,
        };
        let announcers: BTreeSet<_> = policy.announcers.iter().copied().collect();
        let announcement = |announcer| Announcement { vip, announcer, when, lifetime: self.situation.lifetime };
        self.result.desired.announcements.extend(announcers.into_iter().map(announcement));
    }
}
