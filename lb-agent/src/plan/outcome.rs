//! What one service comes to, remembered as long as nothing that it depends on changed.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use lb_common::{
    addr::Be16,
    hash::HashKey,
    maps::{addresses::AddressEntry, backends::Mode, services::VipKey, sources::SourceRange},
};

use super::{
    clamp,
    decide::{BackendDecision, Decision, Inputs, ServiceDecision},
    judge::{Judged, Verdict, judge, name},
    redirect,
    slow_start::{self, Start, Takers},
    state::{TargetBackend, TargetService},
};
use crate::model::{
    Announcement, Backend, BackendAddress, Drained, HealthReport, HoldWhen, Interned, Members, Network, Node, Peer,
    Protocol, Service, Shared,
};

/// Outcomes of the decision before, and what they depend on beside their services.
#[derive(Debug, Default)]
pub(super) struct Memory {
    basis: Option<Basis>,
    /// In the order of the services.
    known: Vec<(Shared<Service>, Outcome)>,
    /// The decision before, unless anything was drained.
    latest: Option<Shared<Decision>>,
    /// What it announces, and when.
    announcements: Vec<Announcement>,
    shared: Common,
}

/// What many services have in common.
#[derive(Debug, Default)]
struct Common {
    reasons: Interned<String>,
    decisions: Interned<BackendDecision>,
    targets: Interned<TargetBackend>,
}

#[derive(Debug)]
struct Basis {
    node: Node,
    peers: Vec<Peer>,
    network: Network,
    health: HealthReport,
    hash_key: HashKey,
    distrusted: BTreeSet<(String, BackendAddress)>,
    unproven: BTreeSet<(String, BackendAddress)>,
    members: Members,
}

/// What a service comes to.
#[derive(Debug)]
pub(super) struct Outcome {
    decision: Shared<ServiceDecision>,
    /// Whether it depends neither on the time nor on what the maps say.
    is_timeless: bool,
    /// Whether the node holds its VIPs on account of it.
    pub(super) holds: bool,
    /// Whether a backend takes flows.
    pub(super) any_serves: bool,
    /// Whether a backend on this node takes flows, and has been heard if it has to be.
    pub(super) own_serves: bool,
    /// Whether a backend on this node takes flows, and has to be heard before it counts.
    pub(super) own_is_unproven: bool,
    /// Interfaces that packets to its backends leave by.
    devices: BTreeSet<u32>,
    /// Bound for the MSS, by VIP in their order.
    mss: Vec<u16>,
    /// The target of each of its ports, if their VIP is held as `holds` says.
    target: Shared<TargetService>,
    /// The target for a VIP that another service's backend holds.
    target_held: Option<Shared<TargetService>>,
    /// When the next step of a slow start is due.
    next_change: Option<Duration>,
}

impl Basis {
    fn of(inputs: &Inputs<'_>) -> Self {
        Self {
            node: inputs.desired.node.clone(),
            peers: inputs.desired.peers.clone(),
            network: inputs.network.clone(),
            health: inputs.health.clone(),
            hash_key: inputs.hash_key,
            distrusted: inputs.distrusted.clone(),
            unproven: inputs.unproven.clone(),
            members: inputs.members.clone(),
        }
    }

    fn is_of(&self, inputs: &Inputs<'_>) -> bool {
        self.node == inputs.desired.node
            && self.peers == inputs.desired.peers
            && self.network == *inputs.network
            && self.health == *inputs.health
            && self.hash_key == inputs.hash_key
            && self.distrusted == *inputs.distrusted
            && self.unproven == *inputs.unproven
            && self.members == *inputs.members
    }
}

impl Memory {
    /// What each service comes to, in their order.
    pub(super) fn outcomes(&mut self, inputs: &Inputs<'_>, takers: &mut Takers) -> Vec<Outcome> {
        if !self.basis.as_ref().is_some_and(|basis| basis.is_of(inputs)) {
            *self = Self { basis: Some(Basis::of(inputs)), ..Self::default() };
        }
        // What is drained depends on the time as well.
        let known = if inputs.drains.is_empty() { std::mem::take(&mut self.known) } else { Vec::new() };
        let mut known = known.into_iter().peekable();
        let drained = inputs.drains.drained(inputs.desired);
        let outcome = |service: &Shared<Service>| {
            let same = known.next_if(|(known, _)| known.is(service)).or_else(|| {
                while known.next_if(|(known, _)| known.name < service.name).is_some() {}
                known.next_if(|(known, _)| known.is(service))
            });
            match same.filter(|(_, outcome)| outcome.is_timeless) {
                Some((_, outcome)) => outcome,
                None => Outcome::of(inputs, &drained, service, takers, &mut self.shared),
            }
        };
        inputs.desired.services.iter().map(outcome).collect()
    }

    /// Keeps them, and the decision that they led to, for the next one.
    pub(super) fn keep(&mut self, inputs: &Inputs<'_>, outcomes: Vec<Outcome>, decision: &Shared<Decision>) {
        if !inputs.drains.is_empty() {
            (self.known, self.latest) = (Vec::new(), None);
            return;
        }
        self.known = inputs.desired.services.iter().cloned().zip(outcomes).collect();
        self.latest = Some(decision.clone());
        self.announcements.clone_from(&inputs.desired.announcements);
    }

    /// The decision before with the entries of those services changed that have other backends; `None` if more than that
    /// may be another.
    pub(super) fn amended(&mut self, inputs: &Inputs<'_>) -> Option<Shared<Decision>> {
        let mut latest = self.latest.take()?;
        let is_alike = inputs.drains.is_empty()
            && self.known.len() == inputs.desired.services.len()
            && self.announcements == inputs.desired.announcements
            && self.basis.as_ref().is_some_and(|basis| basis.is_of(inputs));
        if !is_alike {
            return None;
        }
        let drained = inputs.drains.drained(inputs.desired);
        for (at, service) in inputs.desired.services.iter().enumerate() {
            let (known, outcome) = &mut self.known[at];
            if known.is(service) && outcome.is_timeless {
                continue;
            }
            if !known.is_alike(service) || !service.slow_start.is_zero() {
                return None;
            }
            let now = Outcome::of(inputs, &drained, service, &mut Takers::default(), &mut self.shared);
            outcome.amend(now, service, at, &mut latest)?;
            *known = service.clone();
        }
        self.latest = Some(latest.clone());
        Some(latest)
    }
}

/// Whether what becomes of it depends neither on the time nor on what the maps say.
fn is_timeless(service: &Service) -> bool {
    service.slow_start.is_zero() && service.hold == HoldWhen::Trusted
}

impl Outcome {
    fn of(
        inputs: &Inputs<'_>,
        drained: &Drained<'_>,
        service: &Service,
        takers: &mut Takers,
        shared: &mut Common,
    ) -> Self {
        let judged = judge(inputs, drained, service);
        let takes: Vec<bool> = judged.verdicts.iter().map(|verdict| verdict.takes_flows).collect();
        let start = slow_start::start(service, &takes, !judged.none_believed, inputs.now, inputs.takers, takers);
        let holds = judged.verdicts.iter().any(|verdict| verdict.holds);
        let own = |is_unproven: bool| {
            let mut own = judged.verdicts.iter().filter(|verdict| verdict.holds && verdict.takes_flows);
            own.any(|verdict| verdict.is_unproven == is_unproven)
        };
        let devices = judged.verdicts.iter().map(|verdict| verdict.hop.interface).filter(|index| *index != 0);
        let mss = service.vips.iter().map(|vip| clamp::mss(inputs.desired, inputs.network, service, *vip));
        Self {
            decision: decision(service, &judged, &start, shared).into(),
            is_timeless: is_timeless(service),
            holds,
            any_serves: takes.contains(&true),
            own_serves: own(false),
            own_is_unproven: own(true),
            devices: devices.collect(),
            mss: mss.collect(),
            target: target(inputs, service, &judged, &start, holds, shared).into(),
            target_held: None,
            next_change: start.next_change,
        }
    }

    /// Becomes `now` and changes its entries in a decision, the service being at this place in it; `None` if more would
    /// have to be changed there. The service is as it was but for its backends.
    fn amend(&mut self, mut now: Self, service: &Service, at: usize, decision: &mut Shared<Decision>) -> Option<()> {
        if self.decision == now.decision && self.target == now.target && self.is_alike(&now) {
            return Some(());
        }
        let is_redirected = |outcome: &Self| outcome.target.target_port != 0;
        if !self.is_alike(&now) || service.connect_translation || is_redirected(self) || is_redirected(&now) {
            return None;
        }
        for vip in &service.vips {
            let is_held = self.holds || decision.held.contains(vip);
            for port in &service.ports {
                let entry = decision.target.services.get_mut(&key(service, *vip, *port))?;
                if !entry.is(&self.target(is_held)) {
                    return None;
                }
                *entry = now.target(is_held);
            }
        }
        decision.services[at] = now.decision.clone();
        *self = now;
        Some(())
    }

    /// Whether it means the same for everything but its own entries.
    fn is_alike(&self, other: &Self) -> bool {
        let flags = |one: &Self| (one.holds, one.any_serves, one.own_serves, one.own_is_unproven, one.next_change);
        flags(self) == flags(other) && self.devices == other.devices && self.mss == other.mss
    }

    /// Enters it into a decision in which every VIP that is held is noted.
    pub(super) fn enter(&mut self, inputs: &Inputs<'_>, service: &Service, decision: &mut Decision) {
        decision.next_change = decision.next_change.into_iter().chain(self.next_change).min();
        decision.services.push(self.decision.clone());
        decision.target.devices.extend(&self.devices);
        for (index, vip) in service.vips.iter().enumerate() {
            let is_held = self.holds || decision.held.contains(vip);
            let target = self.target(is_held);
            let unmatched = if service.drop_unmatched { 0 } else { AddressEntry::PASS_UNMATCHED };
            let held = if is_held { AddressEntry::HELD } else { 0 };
            let entry = decision.target.addresses.entry((*vip).into()).or_default();
            // A VIP may have several services: the smallest bound is right for all of them.
            let bounds = [AddressEntry { flags: *entry }.mss(), self.mss[index]];
            let mss = bounds.into_iter().filter(|mss| *mss > 0).min().unwrap_or(0);
            let of_others = *entry & AddressEntry::REWRITTEN;
            *entry = AddressEntry::with_mss(AddressEntry::VIP | unmatched | held | of_others, mss);
            for port in &service.ports {
                decision.target.services.insert(key(service, *vip, *port), target.clone());
            }
        }
        if service.connect_translation || self.target.target_port != 0 {
            let takes: Vec<bool> = self.decision.backends.iter().map(|backend| backend.takes_flows).collect();
            redirect::enter(inputs, &mut decision.target, service, &takes);
        }
    }

    fn target(&mut self, is_held: bool) -> Shared<TargetService> {
        if is_held == self.holds {
            return self.target.clone();
        }
        let held = || TargetService { held: true, ..(*self.target).clone() }.into();
        self.target_held.get_or_insert_with(held).clone()
    }
}

/// What a service listens on.
fn key(service: &Service, vip: IpAddr, port: u16) -> VipKey {
    VipKey::new(vip.into(), Be16::new(port), service.protocol.number())
}

/// Why each backend is as it is, in words.
fn decision(service: &Service, judged: &Judged, start: &Start, shared: &mut Common) -> ServiceDecision {
    let probe = service.probe.as_ref().map(|probe| Shared::new(probe.question()));
    let backends = service.backends.iter().zip(&judged.verdicts).zip(&start.tenths);
    let backend = |((backend, verdict), tenths): ((&Backend, &Verdict), &Option<u16>)| {
        let starting = tenths.map(|tenths| format!("; slow start: {tenths}0 % of its weight")).unwrap_or_default();
        let reason = format!("{}{starting}", verdict.reason);
        shared.decisions.share(BackendDecision {
            address: backend.address,
            port: backend.port,
            weight: backend.weight,
            probe: probe.clone(),
            health: verdict.health.clone(),
            takes_flows: verdict.takes_flows,
            mode: Mode::from_value(verdict.hop.mode).label(),
            drain: verdict.drain,
            reason: shared.reasons.share(reason),
        })
    };
    ServiceDecision {
        service: service.name.clone().into(),
        probes_believed: !judged.none_believed,
        local_first: judged.own_alone,
        backends: backends.map(backend).collect(),
    }
}

/// What the maps should hold for each of its ports.
fn target(
    inputs: &Inputs<'_>,
    service: &Service,
    judged: &Judged,
    start: &Start,
    held: bool,
    shared: &mut Common,
) -> TargetService {
    let rejoins = service.protocol == Protocol::Tcp
        && service.backends.iter().any(|backend| inputs.unproven.contains(&name(service, backend)));
    let backends = service.backends.iter().zip(&judged.verdicts).zip(&start.weights);
    let backends = backends.map(|((backend, verdict), weight)| {
        let wanted = TargetBackend {
            weight: *weight,
            in_ring: verdict.takes_flows,
            keeps_flows: verdict.keeps_flows,
            drain: verdict.drain,
            hop: verdict.hop,
        };
        ((backend.address.into(), Be16::new(backend.port)), shared.targets.share(wanted))
    });
    let ranges = service.source_ranges.iter();
    TargetService {
        name: service.name.clone(),
        log2: service.ring_size.log2(),
        held,
        rejoins,
        second_chance: service.second_chance,
        has_affinity: service.affinity.is_some(),
        window: nanoseconds(service.affinity.map_or(service.flow_timeout, |affinity| affinity.timeout)),
        backends: backends.collect(),
        source_ranges: ranges.map(|net| SourceRange::new(net.network(), net.prefix_len())).collect(),
        target_port: service.target_port(&inputs.desired.node).unwrap_or(0),
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
