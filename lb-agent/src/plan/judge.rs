//! What is found out about one service: which of its backends take flows, and why.

use std::{net::IpAddr, sync::Arc};

use lb_common::maps::{addresses::AddressEntry, backends::Hop};

use super::{
    decide::Inputs,
    drain,
    hop::hop,
    silence::{self, Silence},
};
use crate::model::{
    Backend, BackendAddress, Delivery, Drain, Drained, HoldWhen, ProbeState, ProbeTarget, Protocol, Service,
};

/// What was found out about a service.
pub(super) struct Judged {
    /// One per backend.
    pub(super) verdicts: Vec<Verdict>,
    /// Every backend with a weight fails its probe, so that no probe is believed.
    pub(super) none_believed: bool,
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

/// Judges the backends of a service. When the probes fail all of them, the probes are not believed; when those that
/// pass are all on silent nodes, the silence is not.
pub(super) fn judge(inputs: &Inputs<'_>, drained: &Drained<'_>, service: &Service) -> Judged {
    let health: Vec<_> = service.backends.iter().map(|backend| health(inputs, service, backend)).collect();
    let drain = |of: &Backend| drained.of(&service.name, BackendAddress { address: of.address, port: of.port });
    let is_candidate = |backend: &Backend| backend.weight > 0 && drain(backend).is_none();
    let weighted = || service.backends.iter().zip(&health).filter(|(backend, _)| is_candidate(backend));
    let none_believed = weighted().count() > 0 && weighted().all(|(_, state)| !state.takes_flows());
    let silence = Silence::judge(inputs.members, weighted(), none_believed);
    let verdict = |(backend, state): (&Backend, ProbeState)| {
        let is_local = inputs.desired.node.addresses.contains(&backend.address);
        let silent = silence.of(backend).filter(|_| !is_local);
        let believed = (state.takes_flows() || none_believed) && silent.is_none();
        let (hop, way) = hop(inputs, service, backend, is_local);
        let allowed = is_local || service.delivery != Delivery::Local;
        let drain = drain(backend);
        let is_over = drain.is_some_and(|(drain, _)| drain.is_over(inputs.monotonic));
        Verdict {
            takes_flows: believed && backend.weight > 0 && allowed && drain.is_none(),
            is_unproven: state == ProbeState::Unknown && inputs.unproven.contains(&name(service, backend)),
            // A new datagram looks like one of an old flow: if old flows stayed, so would new ones.
            keeps_flows: (believed || service.protocol == Protocol::Tcp) && !is_over,
            holds: is_local && holds(inputs, service, backend, &state, believed),
            reason: match (drain, silent) {
                (Some((drain, node)), _) => drain::reason(&drain, node, is_over),
                (None, Some(node)) if backend.weight > 0 && allowed => silence::reason(node),
                _ => reason(backend, &state, none_believed, allowed, &way),
            },
            drain: drain.map(|(drain, _)| drain),
            health: state,
            hop,
        }
    };
    Judged { verdicts: service.backends.iter().zip(health).map(verdict).collect(), none_believed }
}

/// Whether this node holds the VIPs of a service on account of its own backend.
fn holds(inputs: &Inputs<'_>, service: &Service, backend: &Backend, state: &ProbeState, believed: bool) -> bool {
    // A server that says that it is not ready goes on serving the connections that it has.
    if service.hold == HoldWhen::Trusted {
        return believed || state.serves();
    }
    let heard = |probe| inputs.health.state(&ProbeTarget { address: backend.address, probe: Arc::clone(probe) });
    let is_held =
        |vip: &IpAddr| inputs.addresses.get(&(*vip).into()).is_some_and(|held| held & AddressEntry::HELD != 0);
    match service.probe.as_ref().map(heard) {
        Some(ProbeState::Unknown) => service.vips.iter().all(is_held),
        Some(heard) => heard.serves(),
        None => true,
    }
}

fn health(inputs: &Inputs<'_>, service: &Service, backend: &Backend) -> ProbeState {
    let Some(probe) = &service.probe else {
        return ProbeState::Healthy;
    };
    let state = inputs.health.state(&ProbeTarget { address: backend.address, probe: Arc::clone(probe) });
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

fn reason(backend: &Backend, state: &ProbeState, none_believed: bool, allowed: bool, way: &str) -> String {
    if !allowed {
        return "not on this node, and the service is delivered locally only".to_owned();
    }
    if backend.weight == 0 {
        return format!("weight 0: takes no new flows; {way}");
    }
    match state {
        ProbeState::Failed { reason, .. } if none_believed => {
            format!("probe failed ({reason}), but every backend's does: not believed; {way}")
        }
        ProbeState::Failed { reason, .. } => format!("probe failed: {reason}"),
        ProbeState::Unknown => format!("not probed yet, taken for healthy; {way}"),
        ProbeState::Healthy => way.to_owned(),
        ProbeState::WantsCredentials { reason } => format!("taken for healthy: {reason}; {way}"),
    }
}
