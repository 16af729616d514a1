//! The agent's status, from what the parts say.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    announce::AnnounceStatus,
    config::AgentConfig,
    dataplane::Scanned,
    model::{BackendAddress, Member, MemberState, Members, ProbeState, Shared},
    plan::{BackendDecision, Decision, ServiceDecision},
    status::{
        AgentStatus, AnnouncementStatus, BackendStatus, DrainStatus, MembershipStatus, PeerStatus, ServiceStatus,
    },
};

/// Seconds of Unix time.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// What the agent says of itself. Services and backends are told from what was decided of them when somebody asks: of
/// very many, words for each would take more memory than everything else, and more time than the decision.
#[derive(Debug, Default)]
pub struct Report {
    status: AgentStatus,
    decided: Vec<Shared<ServiceDecision>>,
    drains: BTreeMap<(String, BackendAddress), DrainStatus>,
}

impl Deref for Report {
    type Target = AgentStatus;

    fn deref(&self) -> &AgentStatus {
        &self.status
    }
}

impl DerefMut for Report {
    fn deref_mut(&mut self) -> &mut AgentStatus {
        &mut self.status
    }
}

impl Report {
    /// Enters what a plan decided of services and backends.
    pub fn decided(&mut self, decision: &Decision) {
        self.decided.clone_from(&decision.services);
    }

    /// Enters what is drained.
    pub fn drained(&mut self, drains: BTreeMap<(String, BackendAddress), DrainStatus>) {
        self.drains = drains;
    }

    /// Whether new flows of a service go to anybody.
    pub fn is_served(&self, service: &str) -> bool {
        let mut decided = self.decided.iter().filter(|one| **one.service == *service);
        decided.any(|one| one.backends.iter().any(|backend| backend.takes_flows))
    }

    /// All of it, in words.
    pub fn status(&self) -> AgentStatus {
        let services = self.decided.iter().map(|one| ServiceStatus {
            service: one.service.clone(),
            probes_believed: one.probes_believed,
            local_first: one.local_first,
        });
        let backends = self.decided.iter().flat_map(|of| of.backends.iter().map(|one| self.backend(&of.service, one)));
        AgentStatus { services: services.collect(), backends: backends.collect(), ..self.status.clone() }
    }

    fn backend(&self, service: &Shared<String>, one: &BackendDecision) -> BackendStatus {
        let drain = one.drain.and_then(|_| {
            let address = BackendAddress { address: one.address, port: one.port };
            self.drains.get(&((**service).clone(), address))
        });
        BackendStatus {
            service: service.clone(),
            address: one.address,
            port: one.port,
            weight: one.weight,
            probe: one.probe.clone(),
            health: health(&one.health).into(),
            takes_flows: one.takes_flows,
            mode: one.mode.into(),
            reason: one.reason.clone(),
            drain: drain.cloned().map(Box::new),
        }
    }
}

/// What a plan decided to announce, and why.
pub fn announcements(decision: &Decision) -> Vec<AnnouncementStatus> {
    let decided = decision.announcements.iter();
    decided
        .map(|one| AnnouncementStatus { vip: one.vip, announced: one.announced, reason: one.reason.clone() })
        .collect()
}

/// Enters what the announcers did of what was decided.
pub fn announced(status: &mut AgentStatus, decided: &[AnnouncementStatus], announced: &AnnounceStatus) {
    status.held = announced.held.iter().copied().collect();
    status.announcements = decided.to_vec();
    let not_yet = Shared::new("its address is not on lo (yet)".to_owned());
    for one in &mut status.announcements {
        if one.announced && !announced.announced.contains(&one.vip) && announced.desired.is_some() {
            one.announced = false;
            one.reason = not_yet.clone();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{announce::DesiredAnnouncements, model::Drain};

    #[test]
    fn services_and_backends_are_told_from_the_latest_decision() {
        let drain = Drain { since: 1, deadline: None, with_node: false };
        let backend = |port, drain: Option<Drain>| BackendDecision {
            address: [10, 0, 0, 1].into(),
            port,
            weight: 1,
            probe: None,
            health: ProbeState::Unknown,
            takes_flows: drain.is_none(),
            mode: "local",
            drain,
            reason: "on this node".to_owned().into(),
        };
        let service = |name: &str, backends: Vec<BackendDecision>| ServiceDecision {
            service: name.to_owned().into(),
            probes_believed: true,
            local_first: false,
            backends: backends.into_iter().map(Shared::new).collect(),
        };
        let mut report = Report::default();
        let services = [service("dns", vec![backend(53, None)]), service("web", vec![backend(80, Some(drain))])];
        report.decided(&Decision { services: services.map(Shared::new).into(), ..Decision::default() });
        let address = BackendAddress { address: [10, 0, 0, 1].into(), port: 80 };
        report.drained([(("web".to_owned(), address), DrainStatus { slots: 7, ..DrainStatus::default() })].into());
        report.pid = 42;

        assert!(report.is_served("dns") && !report.is_served("web") && !report.is_served("mail"));
        let status = report.status();
        assert_eq!((status.pid, status.services.len()), (42, 2));
        let told = status.backends.iter().map(|one| (one.service.as_str(), one.port, &*one.health, &one.drain));
        let told: Vec<_> = told
            .map(|(name, port, health, drain)| (name, port, health, drain.as_ref().map(|drain| drain.slots)))
            .collect();
        assert_eq!(told, [("dns", 53, "unknown", None), ("web", 80, "unknown", Some(7))]);
    }

    #[test]
    fn an_address_that_comes_late_is_told_when_it_is_there() {
        let vip = "192.0.2.10".parse().unwrap();
        let decided =
            [AnnouncementStatus { vip, announced: true, reason: "a backend here is ready".to_owned().into() }];
        let mut done = AnnounceStatus { desired: Some(DesiredAnnouncements::default()), ..AnnounceStatus::default() };
        let mut status = AgentStatus::default();
        announced(&mut status, &decided, &done);
        assert_eq!(
            (status.announcements[0].announced, &**status.announcements[0].reason),
            (false, "its address is not on lo (yet)")
        );
        done.announced.insert(vip);
        announced(&mut status, &decided, &done);
        assert_eq!(status.announcements, decided);
    }
}
