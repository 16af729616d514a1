//! The agent's status, from what the parts say.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{
    announce::AnnounceStatus,
    config::AgentConfig,
    dataplane::Scanned,
    model::{Member, MemberState, Members, ProbeState},
    plan::Decision,
    status::{AgentStatus, AnnouncementStatus, BackendStatus, MembershipStatus, PeerStatus, ServiceStatus},
};

/// Seconds of Unix time.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Enters what a plan decided.
pub fn decision(status: &mut AgentStatus, decision: &Decision) {
    status.announcements = decision
        .announcements
        .iter()
        .map(|one| AnnouncementStatus { vip: one.vip, announced: one.announced, reason: one.reason.clone() })
        .collect();
    let services = || decision.services.iter();
    status.services = services()
        .map(|one| ServiceStatus {
            service: one.service.clone(),
            probes_believed: one.probes_believed,
            local_first: one.local_first,
        })
        .collect();
    status.backends.clear();
    let backends = services().flat_map(|of| of.backends.iter().map(move |one| (&of.service, one)));
    status.backends.extend(backends.map(|(service, one)| BackendStatus {
        service: service.clone(),
        address: one.address,
        port: one.port,
        weight: one.weight,
        probe: one.probe.clone(),
        health: health(&one.health).into(),
        takes_flows: one.takes_flows,
        mode: one.mode.into(),
        reason: one.reason.clone(),
        drain: None, // `drains::enter` fills it
    }));
}

/// Enters what the announcers did.
pub fn announced(status: &mut AgentStatus, announced: &AnnounceStatus) {
    status.held = announced.held.iter().copied().collect();
    for one in &mut status.announcements {
        if one.announced && !announced.announced.contains(&one.vip) && announced.desired.is_some() {
            one.announced = false;
            one.reason = "its address is not on lo (yet)".to_owned();
        }
    }
    let foreign = announced.foreign.iter().map(|vip| {
        format!(
            "{vip} is on lo already, put there by somebody else: left alone, and not renewed or withdrawn by the agent"
        )
    });
    status.announce_errors = announced.errors.values().cloned().chain(foreign).collect();
}

/// What is heard of the peers, for people.
pub fn membership(members: &Members, is_on: bool) -> MembershipStatus {
    let (now, unix) = (Instant::now(), unix_now());
    let peer = |(node, member): (&String, &Member)| {
        let ago = |since: Instant| now.saturating_duration_since(since).as_secs();
        let (since, fingerprint) = match &member.state {
            MemberState::Silent { since } => (Some(unix.saturating_sub(ago(*since))), None),
            MemberState::Stranger { fingerprint } => (None, Some(fingerprint.clone())),
            MemberState::Unknown | MemberState::Heard | MemberState::Left => (None, None),
        };
        let (node, addresses, state) = (node.clone(), member.addresses.clone(), member.state.label().to_owned());
        PeerStatus { node, addresses, state, since, fingerprint, knows_us: member.knows_us }
    };
    MembershipStatus {
        enabled: is_on,
        most_silent: members.most_silent,
        gate: members.gate.reason(),
        not_known_to: members.not_known_to.clone(),
        troubles: members.troubles.clone(),
        peers: members.peers.iter().map(peer).collect(),
    }
}

/// Enters a plan that was applied.
pub fn applied(status: &mut AgentStatus, planning: Duration, applying: Duration) {
    let dataplane = &mut status.dataplane;
    dataplane.plans_applied += 1;
    dataplane.error = None;
    dataplane.plan_seconds += planning.as_secs_f64();
    dataplane.apply_seconds += applying.as_secs_f64();
    dataplane.last_plan_seconds = planning.as_secs_f64();
    dataplane.last_apply_seconds = applying.as_secs_f64();
}

/// Enters a configuration that came into force.
pub fn configured(status: &mut AgentStatus, node: &str, agent: &AgentConfig, pending_restart: Vec<String>) {
    node.clone_into(&mut status.node);
    status.config.generation += 1;
    status.config.loaded = unix_now();
    status.config.refused = None;
    status.config.pending_restart = pending_restart;
    status.config.secret_fingerprint = agent.secret.fingerprint();
}

/// Enters a scan of the tables of flows.
pub fn scanned(status: &mut AgentStatus, scanned: &Scanned) {
    let scans = &mut status.scans;
    scans.count += 1;
    scans.last_seconds = scanned.took.as_secs_f64();
    scans.seconds += scanned.took.as_secs_f64();
    scans.expired += scanned.expired as u64;
}

fn health(state: &ProbeState) -> &'static str {
    match state {
        ProbeState::Unknown => "unknown",
        ProbeState::Healthy => "healthy",
        ProbeState::Failed { .. } => "failed",
        ProbeState::WantsCredentials { .. } => "wantsCredentials",
    }
}
