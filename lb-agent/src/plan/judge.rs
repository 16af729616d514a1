//! What is found out about one service: which of its backends take flows, and why.

mod local_first;

use std::net::IpAddr;

use lb_common::maps::{addresses::AddressEntry, backends::Hop};

use super::{
    decide::Inputs,
    doubt::{self, Doubt, Doubts},
    drain,
    hop::hop,
    silence::{self, Silence},
};
use crate::model::{Backend, BackendAddress, Delivery, Drain, Drained, HoldWhen, ProbeState, Protocol, Service};

/// What was found out about a service.
pub(super) struct Judged {
    /// One per backend.
    pub(super) verdicts: Vec<Verdict>,
    /// Every backend with a weight fails its probe, so that no probe is believed.
    pub(super) none_believed: bool,
    /// This node's own backends take all that enters here.
    pub(super) own_alone: bool,
}

/// What was found out about one backend.
pub(super) struct Verdict {
    pub(super) health: ProbeState,
    pub(super) takes_flows: bool,
    /// Whether this node has to hear from it before it announces the VIP.
    pub(super) is_unproven: bool,
    /// Whether flows that it has may stay.
    pub(super) keeps_flows: bool,
    /// Whether the node holds the service's VIPs on account of this backend.
    pub(super) holds: bool,
    pub(super) drain: Option<Drain>,
    pub(super) hop: Hop,
    pub(super) reason: String,
}

/// Judges the backends of a service. When the probes fail all of them, the probes are not believed, nor is the failure of
/// one while no other is known to be better; when those that pass are all on silent nodes, the silence is not.
pub(super) fn judge(inputs: &Inputs<'_>, drained: &Drained<'_>, service: &Service) -> Judged {
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
                && match service.hold {
                    // A server that says that it is not ready goes on serving the connections that it has.
                    HoldWhen::Trusted => believed || state.serves(),
                    HoldWhen::PortOpen => {
                        is_open(inputs, service, backend) || is_held(inputs, service) && doubts.keep(backend, doubt)
                    }
                },
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

/// Whether a backend's port is known to be open; while it was not probed, what the maps say stays.
fn is_open(inputs: &Inputs<'_>, service: &Service, backend: &Backend) -> bool {
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

pub(super) fn name(service: &Service, backend: &Backend) -> (String, BackendAddress) {
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
