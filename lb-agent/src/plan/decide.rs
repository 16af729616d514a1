//! What this node is to do, and why.

mod local_first;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use lb_common::{
    addr::{Be16, IpAddr16},
    hash::HashKey,
    maps::{
        addresses::AddressEntry,
        backends::{Hop, Mode},
        services::VipKey,
        sources::SourceRange,
    },
};
use serde::Serialize;

use super::{
    clamp, directors,
    doubt::{self, Doubt, Doubts},
    drain,
    hop::hop,
    redirect,
    silence::{self, Silence},
    slow_start::{self, Start, Takers},
    state::{TargetBackend, TargetService, TargetState},
};
use crate::model::{
    AnnounceWhen, Announcement, Backend, BackendAddress, Delivery, DesiredState, Drain, Drained, Drains, HealthReport,
    HoldWhen, Members, Network, ProbeState, Protocol, Service,
};

/// All that a decision depends on.
pub struct Inputs<'a> {
    /// What is wanted.
    pub desired: &'a DesiredState,
    /// What the kernel says.
    pub network: &'a Network,
    /// What the probes say.
    pub health: &'a HealthReport,
    /// The cluster's secret.
    pub hash_key: HashKey,
    /// Backends that an earlier agent had found failing: out of the ring until a probe of this one says otherwise.
    pub distrusted: &'a BTreeSet<(String, BackendAddress)>,
    /// What operators drain.
    pub drains: &'a Drains,
    /// What the maps say of addresses: a VIP that is held stays so until its own server was heard.
    pub addresses: &'a BTreeMap<IpAddr16, u32>,
    /// Nanoseconds of `CLOCK_MONOTONIC`, in which deadlines of drains are.
    pub monotonic: u64,
    /// Backends on this node, if this agent found no maps: other directors may have been here all the time, and may have
    /// given flows of their slots to others.
    pub unproven: &'a BTreeSet<(String, BackendAddress)>,
    /// Time since any moment that stays the same for all decisions; it never goes back.
    pub now: Duration,
    /// What the decision before left in [`Decision::takers`].
    pub takers: &'a Takers,
    /// What is heard of the peers.
    pub members: &'a Members,
}

/// What this node is to do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Decision {
    /// What the maps should hold.
    pub target: TargetState,
    /// VIPs that this node terminates.
    pub held: BTreeSet<IpAddr>,
    /// VIPs that this node announces on `lo`, with the lifetime of their address.
    pub announced: BTreeMap<IpAddr, Duration>,
    /// Why each backend does or does not take flows, in the order of services and backends.
    pub backends: Vec<BackendDecision>,
    /// Why each VIP is or is not announced.
    pub announcements: Vec<AnnounceDecision>,
    /// What was decided on each service as a whole, in their order.
    pub services: Vec<ServiceDecision>,
    /// Since when backends take flows, for the next decision.
    pub takers: Takers,
    /// Time after which the decision is another though nothing else changed (a step of a slow start).
    pub next_change: Option<Duration>,
}

/// What was decided on one service.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDecision {
    /// Its name.
    pub service: String,
    /// Whether the probes are believed: not while they fail every backend, which all take flows then.
    pub probes_believed: bool,
    /// Whether new flows that enter here go to this node's own backends alone.
    pub local_first: bool,
}

/// What was decided on one backend of one service.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendDecision {
    /// Name of the service.
    pub service: String,
    /// Address of the backend.
    pub address: IpAddr,
    /// Port, 0 for every port.
    pub port: u16,
    /// Weight.
    pub weight: u16,
    /// How it is probed, as text for people; `None` if it is not.
    pub probe: Option<String>,
    /// What the probes say.
    pub health: ProbeState,
    /// Whether it takes new flows.
    pub takes_flows: bool,
    /// How its packets leave this node.
    pub mode: &'static str,
    /// How an operator drains it.
    pub drain: Option<Drain>,
    /// Why it is as it is.
    pub reason: String,
}

/// What was decided on one announcement.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnounceDecision {
    /// The VIP.
    pub vip: IpAddr,
    /// Whether this node announces it.
    pub announced: bool,
    /// Why.
    pub reason: String,
}

/// Decides what this node is to do.
#[must_use]
pub fn decide(inputs: &Inputs<'_>) -> Decision {
    let mut decision = Decision::default();
    let drained = inputs.drains.drained(inputs.desired);
    let judged: Vec<Judged> = inputs.desired.services.iter().map(|service| judge(inputs, &drained, service)).collect();
    for (service, judged) in inputs.desired.services.iter().zip(&judged) {
        if judged.verdicts.iter().any(|verdict| verdict.holds) {
            decision.held.extend(&service.vips);
        }
    }
    for (service, judged) in inputs.desired.services.iter().zip(&judged) {
        let takes: Vec<bool> = judged.verdicts.iter().map(|verdict| verdict.takes_flows).collect();
        let believed = !judged.none_believed;
        let start = slow_start::start(service, &takes, believed, inputs.now, inputs.takers, &mut decision.takers);
        decision.next_change = decision.next_change.into_iter().chain(start.next_change).min();
        decision.services.push(judged.of(service));
        enter_service(inputs, &mut decision, service, judged, &start);
    }
    for announcement in &inputs.desired.announcements {
        announce(&mut decision, inputs, announcement, &judged);
    }
    decision.next_change = decision.next_change.into_iter().chain(drain::next_end(inputs)).min();
    directors::enter(inputs, &mut decision.target);
    decision
}

/// What was found out about a service.
struct Judged {
    /// One per backend.
    verdicts: Vec<Verdict>,
    /// Every backend with a weight fails its probe, so that no probe is believed.
    none_believed: bool,
    /// This node's own backends take all that enters here.
    own_alone: bool,
}

impl Judged {
    fn of(&self, service: &Service) -> ServiceDecision {
        let (probes_believed, local_first) = (!self.none_believed, self.own_alone);
        ServiceDecision { service: service.name.clone(), probes_believed, local_first }
    }
}

/// What was found out about one backend.
struct Verdict {
    health: ProbeState,
    takes_flows: bool,
    /// Whether this node has to hear from it before it announces the VIP.
    is_unproven: bool,
    /// Whether flows that it has may stay.
    keeps_flows: bool,
    /// Whether the node holds the service's VIPs on account of this backend.
    holds: bool,
    drain: Option<Drain>,
    hop: Hop,
    reason: String,
}

/// Judges the backends of a service. When the probes fail all of them, the probes are not believed, nor is the failure of
/// one while no other is known to be better; when those that pass are all on silent nodes, the silence is not.
fn judge(inputs: &Inputs<'_>, drained: &Drained<'_>, service: &Service) -> Judged {
    let health: Vec<_> = service.backends.iter().map(|backend| health(inputs, service, backend)).collect();
    let drain = |of: &Backend| drained.of(&service.name, BackendAddress { address: of.address, port: of.port });
    let is_candidate = |backend: &Backend| backend.weight > 0 && drain(backend).is_none();
    let weighted = || service.backends.iter().zip(&health).filter(|(backend, _)| is_candidate(backend));
    let doubts = Doubts::judge(inputs.health, service, weighted);
    let none_believed = doubts.of_all();
    let silence = Silence::judge(inputs.members, weighted(), none_believed);
    let verdict = |(backend, state): (&Backend, &ProbeState)| {
        let is_local = inputs.desired.node.addresses.contains(&backend.address);
        let silent = silence.of(backend).filter(|_| !is_local);
        let doubt = doubts.of(backend, state);
        let believed = (state.takes_flows() || doubt.is_some()) && silent.is_none();
        let (hop, way) = hop(inputs, service, backend, is_local);
        let allowed = is_local || service.delivery != Delivery::Local;
        let drain = drain(backend);
        let is_over = drain.is_some_and(|(drain, _)| drain.is_over(inputs.monotonic));
        Verdict {
            takes_flows: believed && backend.weight > 0 && allowed && drain.is_none(),
            is_unproven: *state == ProbeState::Unknown && inputs.unproven.contains(&name(service, backend)),
            // A new datagram looks like one of an old flow: if old flows stayed, so would new ones.
            keeps_flows: (believed || service.protocol == Protocol::Tcp) && !is_over,
            holds: is_local
                && (holds(inputs, service, backend, state, believed)
                    || is_held(inputs, service) && doubts.keep(backend, doubt)),
            reason: match (drain, silent) {
                (Some((drain, node)), _) => drain::reason(&drain, node, is_over),
                (None, Some(node)) if backend.weight > 0 && allowed => silence::reason(node),
                _ => reason(backend, state, doubt, allowed, &way),
            },
            drain: drain.map(|(drain, _)| drain),
            health: state.clone(),
            hop,
        }
    };
    let mut verdicts: Vec<Verdict> = service.backends.iter().zip(&health).map(verdict).collect();
    let own_alone = service.local_first && local_first::prefer_own(&mut verdicts);
    Judged { verdicts, none_believed, own_alone }
}

/// Whether this node holds the VIPs of a service on account of its own backend.
fn holds(inputs: &Inputs<'_>, service: &Service, backend: &Backend, state: &ProbeState, believed: bool) -> bool {
    // A server that says that it is not ready goes on serving the connections that it has.
    if service.hold == HoldWhen::Trusted {
        return believed || state.serves();
    }
    match doubt::target(service, backend).map(|target| inputs.health.state(&target)) {
        Some(ProbeState::Unknown) => is_held(inputs, service),
        Some(heard) => heard.serves(),
        None => true,
    }
}

/// Whether the maps say that this node holds the VIPs of a service.
fn is_held(inputs: &Inputs<'_>, service: &Service) -> bool {
    let is_held =
        |vip: &IpAddr| inputs.addresses.get(&(*vip).into()).is_some_and(|held| held & AddressEntry::HELD != 0);
    service.vips.iter().all(is_held)
}

fn health(inputs: &Inputs<'_>, service: &Service, backend: &Backend) -> ProbeState {
    let Some(target) = doubt::target(service, backend) else {
        return ProbeState::Healthy;
    };
    let state = inputs.health.state(&target);
    if state == ProbeState::Unknown && inputs.distrusted.contains(&name(service, backend)) {
        // Its port can be open: what it serves is not cut on suspicion.
        let reason = "it had failed before this agent started".to_owned();
        return ProbeState::Failed { reason, port_open: true };
    }
    state
}

fn name(service: &Service, backend: &Backend) -> (String, BackendAddress) {
    (service.name.clone(), BackendAddress { address: backend.address, port: backend.port })
}

fn reason(backend: &Backend, state: &ProbeState, doubt: Option<Doubt>, allowed: bool, way: &str) -> String {
    if !allowed {
        return "not on this node, and the service is delivered locally only".to_owned();
    }
    if backend.weight == 0 {
        return format!("weight 0: takes no new flows; {way}");
    }
    match (state, doubt) {
        (ProbeState::Failed { reason, .. }, Some(doubt)) => {
            format!("probe failed ({reason}), but {}; {way}", doubt.reason())
        }
        (ProbeState::Failed { reason, .. }, None) => format!("probe failed: {reason}"),
        (ProbeState::Unknown, _) => format!("not probed yet, taken for healthy; {way}"),
        (ProbeState::Healthy, _) => way.to_owned(),
        (ProbeState::WantsCredentials { reason }, _) => format!("taken for healthy: {reason}; {way}"),
    }
}

fn enter_service(inputs: &Inputs<'_>, decision: &mut Decision, service: &Service, judged: &Judged, start: &Start) {
    let rejoins = service.protocol == Protocol::Tcp
        && service.backends.iter().any(|backend| inputs.unproven.contains(&name(service, backend)));
    let mut backends = BTreeMap::new();
    let of_start = start.weights.iter().zip(&start.tenths);
    for ((backend, verdict), (weight, tenths)) in service.backends.iter().zip(&judged.verdicts).zip(of_start) {
        let starting = tenths.map(|tenths| format!("; slow start: {tenths}0 % of its weight")).unwrap_or_default();
        decision.backends.push(BackendDecision {
            service: service.name.clone(),
            address: backend.address,
            port: backend.port,
            weight: backend.weight,
            probe: service.probe.as_ref().map(|probe| probe.question()),
            health: verdict.health.clone(),
            takes_flows: verdict.takes_flows,
            mode: Mode::from_value(verdict.hop.mode).label(),
            drain: verdict.drain,
            reason: format!("{}{starting}", verdict.reason),
        });
        if verdict.hop.interface != 0 {
            decision.target.devices.insert(verdict.hop.interface);
        }
        let wanted = TargetBackend {
            weight: *weight,
            in_ring: verdict.takes_flows,
            keeps_flows: verdict.keeps_flows,
            drain: verdict.drain,
            hop: verdict.hop,
        };
        backends.insert((backend.address.into(), Be16::new(backend.port)), wanted);
    }
    let target_port = service.target_port(&inputs.desired.node).unwrap_or(0);
    let ranges = service.source_ranges.iter();
    let source_ranges: BTreeSet<_> = ranges.map(|net| SourceRange::new(net.network(), net.prefix_len())).collect();
    for vip in &service.vips {
        let unmatched = if service.drop_unmatched { 0 } else { AddressEntry::PASS_UNMATCHED };
        let held = if decision.held.contains(vip) { AddressEntry::HELD } else { 0 };
        let entry = decision.target.addresses.entry((*vip).into()).or_default();
        // A VIP may have several services: the smallest bound is right for all of them.
        let bounds = [AddressEntry { flags: *entry }.mss(), clamp::mss(inputs.desired, inputs.network, service, *vip)];
        let mss = bounds.into_iter().filter(|mss| *mss > 0).min().unwrap_or(0);
        let of_others = *entry & AddressEntry::REWRITTEN;
        *entry = AddressEntry::with_mss(AddressEntry::VIP | unmatched | held | of_others, mss);
        for port in &service.ports {
            let key = VipKey::new((*vip).into(), Be16::new(*port), service.protocol.number());
            let target = TargetService {
                name: service.name.clone(),
                log2: service.ring_size.log2(),
                held: held != 0,
                rejoins,
                has_affinity: service.affinity.is_some(),
                window: nanoseconds(service.affinity.map_or(service.flow_timeout, |affinity| affinity.timeout)),
                backends: backends.clone(),
                source_ranges: source_ranges.clone(),
                target_port,
            };
            decision.target.services.insert(key, target);
        }
    }
    let takes: Vec<bool> = judged.verdicts.iter().map(|verdict| verdict.takes_flows).collect();
    redirect::enter(inputs, &mut decision.target, service, &takes);
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn announce(decision: &mut Decision, inputs: &Inputs<'_>, announcement: &Announcement, judged: &[Judged]) {
    let desired = inputs.desired;
    let of_vip = || desired.services.iter().zip(judged).filter(|(service, _)| service.vips.contains(&announcement.vip));
    let shut = drain::withdraws(inputs).or_else(|| inputs.members.gate.reason());
    let (announced, reason) = match (shut, announcement.when) {
        (Some(reason), _) => (false, reason),
        (None, AnnounceWhen::Always) => (true, "configured to announce always".to_owned()),
        (None, AnnounceWhen::AnyBackend) => any_backend(of_vip()),
        (None, AnnounceWhen::LocalBackend) => {
            let own = |judged: &Judged, is_unproven: bool| {
                let mut own = judged.verdicts.iter().filter(|verdict| verdict.holds && verdict.takes_flows);
                own.any(|verdict| verdict.is_unproven == is_unproven)
            };
            let serving = of_vip().find(|(_, judged)| own(judged, false));
            match serving {
                Some((service, _)) => (true, format!("a backend of {} on this node takes flows", service.name)),
                None if of_vip().any(|(_, judged)| own(judged, true)) => (
                    false,
                    "the backend on this node has not been probed since the agent started from nothing".to_owned(),
                ),
                None => (false, "no backend on this node takes flows".to_owned()),
            }
        }
    };
    if announced {
        decision.announced.insert(announcement.vip, announcement.lifetime);
    }
    decision.announcements.push(AnnounceDecision { vip: announcement.vip, announced, reason });
}

/// Whether a VIP of these services is announced by every director.
fn any_backend<'a>(mut of_vip: impl Iterator<Item = (&'a Service, &'a Judged)>) -> (bool, String) {
    let serving = of_vip.find(|(_, judged)| judged.verdicts.iter().any(|verdict| verdict.takes_flows));
    match serving {
        Some((service, _)) => (true, format!("a backend of {} takes flows", service.name)),
        None => (false, "no backend takes flows".to_owned()),
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
