//! What this node is to do, and why.
//!
//! A decision follows from its inputs alone. A [`Decider`] comes to the same as [`decide`] with less work: services that are
//! in the very same place as before are not judged again, as long as nothing else that they depend on changed; and if
//! the others have other backends alone, their entries are all that is changed of the decision before.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use lb_common::{addr::IpAddr16, hash::HashKey};

use super::{
    directors, drain,
    outcome::{Memory, Outcome},
    slow_start::Takers,
    state::TargetState,
};
use crate::model::{
    AnnounceWhen, Announcement, BackendAddress, DesiredState, Drain, Drains, HealthReport, Members, Network,
    ProbeState, Service, Shared,
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
    /// Why each VIP is or is not announced.
    pub announcements: Vec<AnnounceDecision>,
    /// What was decided on each service and its backends, in their order.
    pub services: Vec<Shared<ServiceDecision>>,
    /// Since when backends take flows, for the next decision.
    pub takers: Takers,
    /// Time after which the decision is another though nothing else changed (a step of a slow start).
    pub next_change: Option<Duration>,
}

/// What was decided on one service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceDecision {
    /// Its name.
    pub service: Shared<String>,
    /// Whether the probes are believed: not while they fail every backend, which all take flows then.
    pub probes_believed: bool,
    /// Whether new flows that enter here go to this node's own backends alone.
    pub local_first: bool,
    /// Why each backend does or does not take flows.
    pub backends: Vec<Shared<BackendDecision>>,
}

/// What was decided on one backend of one service: the same for very many services, so that they share it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct BackendDecision {
    /// Address of the backend.
    pub address: IpAddr,
    /// Port, 0 for every port.
    pub port: u16,
    /// Weight.
    pub weight: u16,
    /// How it is probed, as text for people; `None` if it is not.
    pub probe: Option<Shared<String>>,
    /// What the probes say.
    pub health: ProbeState,
    /// Whether it takes new flows.
    pub takes_flows: bool,
    /// How its packets leave this node.
    pub mode: &'static str,
    /// How an operator drains it.
    pub drain: Option<Drain>,
    /// Why it is as it is.
    pub reason: Shared<String>,
}

/// What was decided on one announcement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AnnounceDecision {
    /// The VIP.
    pub vip: IpAddr,
    /// Whether this node announces it.
    pub announced: bool,
    /// Why.
    pub reason: Shared<String>,
}

/// Decides what this node is to do.
#[must_use]
pub fn decide(inputs: &Inputs<'_>) -> Decision {
    (*Decider::default().decide(inputs)).clone()
}

/// Decides again and again.
#[derive(Debug, Default)]
pub struct Decider {
    memory: Memory,
}

impl Decider {
    /// Decides what this node is to do. To hold on to what it returns makes the next decision dearer.
    pub fn decide(&mut self, inputs: &Inputs<'_>) -> Shared<Decision> {
        self.memory.amended(inputs).unwrap_or_else(|| self.decide_anew(inputs))
    }

    fn decide_anew(&mut self, inputs: &Inputs<'_>) -> Shared<Decision> {
        let mut decision = Decision::default();
        let mut outcomes = self.memory.outcomes(inputs, &mut decision.takers);
        let services = || inputs.desired.services.iter().map(|service| &**service);
        for (service, outcome) in services().zip(&outcomes) {
            if outcome.holds {
                decision.held.extend(&service.vips);
            }
        }
        for (service, outcome) in services().zip(&mut outcomes) {
            outcome.enter(inputs, service, &mut decision);
        }
        let of_vips = by_vip(services().zip(&outcomes));
        for announcement in &inputs.desired.announcements {
            let vip = announcement.vip;
            let from = of_vips.partition_point(|(of, ..)| *of < vip);
            let to = of_vips.partition_point(|(of, ..)| *of <= vip);
            announce(&mut decision, inputs, announcement, &of_vips[from..to]);
        }
        decision.next_change = decision.next_change.into_iter().chain(drain::next_end(inputs)).min();
        directors::enter(inputs, &mut decision.target);
        let decision = Shared::new(decision);
        self.memory.keep(inputs, outcomes, &decision);
        decision
    }
}

/// A VIP with one of the services that it has, and what became of that.
type Serving<'a> = (IpAddr, &'a Service, &'a Outcome);

/// Services by VIP, those of one VIP in their order.
fn by_vip<'a>(services: impl Iterator<Item = (&'a Service, &'a Outcome)>) -> Vec<Serving<'a>> {
    let mut all: Vec<Serving<'a>> =
        services.flat_map(|(service, outcome)| service.vips.iter().map(move |vip| (*vip, service, outcome))).collect();
    all.sort_by_key(|(vip, ..)| *vip);
    all
}

fn announce(decision: &mut Decision, inputs: &Inputs<'_>, announcement: &Announcement, of_vip: &[Serving<'_>]) {
    let of_vip = || of_vip.iter().map(|(_, service, outcome)| (*service, *outcome));
    let shut = drain::withdraws(inputs).or_else(|| inputs.members.gate.reason());
    let (announced, reason) = match (shut, announcement.when) {
        (Some(reason), _) => (false, reason),
        (None, AnnounceWhen::Always) => (true, "configured to announce always".to_owned()),
        (None, AnnounceWhen::AnyBackend) => any_backend(of_vip()),
        (None, AnnounceWhen::LocalBackend) => {
            let serving = of_vip().find(|(_, outcome)| outcome.own_serves);
            match serving {
                Some((service, _)) => (true, format!("a backend of {} on this node takes flows", service.name)),
                None if of_vip().any(|(_, outcome)| outcome.own_is_unproven) => (
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
    decision.announcements.push(AnnounceDecision { vip: announcement.vip, announced, reason: reason.into() });
}

/// Whether a VIP of these services is announced by every director.
fn any_backend<'a>(mut of_vip: impl Iterator<Item = (&'a Service, &'a Outcome)>) -> (bool, String) {
    let serving = of_vip.find(|(_, outcome)| outcome.any_serves);
    match serving {
        Some((service, _)) => (true, format!("a backend of {} takes flows", service.name)),
        None => (false, "no backend takes flows".to_owned()),
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
