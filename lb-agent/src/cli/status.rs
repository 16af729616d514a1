//! `lbctl status`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use serde::Serialize;

use super::{
    args::Options,
    block_on,
    console::{Report, Sections, Style, absence, counted, duration, endpoint, inspect},
    maps::percent,
    source,
};
use crate::{
    api::{self, ApiError},
    inspect::{self, Count, Inspection, MapUse, Presence, Rings, ServiceView},
    status::{AgentStatus, ClusterStatus, InterfaceStatus, MembershipStatus, PeerStatus},
};

/// The node at a glance.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    pin_path: String,
    agent: Presence,
    /// What the agent says; `null` while it does not answer.
    status: Option<AgentStatus>,
    /// Why it does not.
    status_error: Option<String>,
    /// What the maps say; `null` if they cannot be read.
    maps: Option<MapSummary>,
    /// Why they cannot.
    maps_error: Option<String>,
    /// Seconds of Unix time.
    now: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MapSummary {
    services: usize,
    backends: usize,
    backends_in_ring: usize,
    interfaces: Vec<String>,
    held: BTreeSet<IpAddr>,
    secret_fingerprint: String,
    /// Drop reasons that were counted.
    drops: Vec<Count>,
    /// Maps with more than 80 % of their entries in use.
    nearly_full: Vec<MapUse>,
}

pub(super) fn gather(options: &Options) -> Result<Status> {
    let answer = block_on(api::status(&options.socket))?;
    let maps = inspect(options, Rings::Skip);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    match (answer, maps) {
        (Err(_), Err(error)) => Err(error),
        (answer, maps) => Ok(Status {
            pin_path: options.pin_path.display().to_string(),
            agent: inspect::presence(&options.pin_path),
            status_error: answer.as_ref().err().map(text),
            status: answer.ok(),
            maps_error: maps.as_ref().err().map(|error| format!("{error:#}")),
            maps: maps.ok().map(MapSummary::from),
            now,
        }),
    }
}

fn text(error: &ApiError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

impl From<Inspection> for MapSummary {
    fn from(inspection: Inspection) -> Self {
        let services = &inspection.services;
        let held = services.iter().filter(|service| service.held);
        Self {
            services: services.len(),
            backends: services.iter().map(|service| service.backends.len()).sum(),
            backends_in_ring: services.iter().map(ServiceView::in_ring).sum(),
            held: held.map(|service| service.vip).collect(),
            interfaces: inspection.interfaces,
            secret_fingerprint: inspection.secret_fingerprint,
            drops: inspection.drops.into_iter().filter(|count| count.packets > 0).collect(),
            nearly_full: inspection.maps.into_iter().filter(MapUse::is_nearly_full).collect(),
        }
    }
}

impl Report for Status {
    fn text(&self, style: Style) -> String {
        let mut sections = Sections::new(style);
        match &self.status {
            Some(status) => self.of_agent(status, &mut sections, style),
            None => self.of_maps_alone(&mut sections, style),
        }
        if let Some(error) = &self.maps_error {
            sections.add("maps", [style.bad(&format!("not readable: {error}"))]);
        }
        if let Some(maps) = &self.maps {
            sections.add("services", [maps.line()]);
            sections.add("drops", maps.drop_lines(style));
            sections.add("capacities", maps.capacity_lines(style));
        }
        sections.render()
    }
}

impl Status {
    fn of_agent(&self, status: &AgentStatus, sections: &mut Sections, style: Style) {
        sections.add("node", [status.node.clone()]);
        let up = duration(self.now.saturating_sub(status.started));
        let (pid, version) = (status.pid, &status.version);
        let ready = if status.ready {
            "ready".to_owned()
        } else {
            style.bad("not ready: the first complete plan is not applied yet")
        };
        sections.add("agent", [format!("{ready}; process {pid}, version {version}, up {up}")]);
        sections.add("config", self.config_lines(status, style));
        sections.add("cluster", status.cluster.iter().flat_map(|cluster| cluster_lines(cluster, self.now, style)));
        sections.add("plans", plan_lines(status, style));
        sections.add("interfaces", interface_lines(&status.interfaces, style));
        sections.add("VIPs", vip_lines(status));
        sections.add("announcing", status.announce_errors.iter().map(|error| style.bad(error)));
        let idle = status.backends.iter().filter(|backend| !backend.takes_flows);
        let idle = idle.map(|backend| {
            let address = endpoint(backend.address, backend.port);
            style.bad(&format!("{address} of {} takes no flows: {}", backend.service, backend.story()))
        });
        let doubted = status.services.iter().filter(|service| !service.probes_believed);
        let doubted = doubted.map(|service| {
            let name = &service.service;
            style.bad(&format!("the probes of {name} fail every backend: they are not believed, all take flows"))
        });
        let strangers = status.backends.iter().filter(|backend| backend.health == "wantsCredentials");
        let strangers = strangers.map(|backend| {
            let address = endpoint(backend.address, backend.port);
            style.bad(&format!("{address} of {}: {}", backend.service, backend.reason))
        });
        sections.add("backends", doubted.chain(idle).chain(strangers));
        sections.add("peers", peer_lines(&status.membership, self.now, style));
        let nodes = status.drained_nodes.iter();
        sections.add("drained", nodes.map(|node| style.bad(&format!("node {node}; `lbctl undrain {node}` ends it"))));
        let slots: u64 = status.changes.iter().map(|one| one.unsettled + one.settling).sum();
        let services: BTreeSet<_> = status.changes.iter().map(|one| &one.service).collect();
        let of = counted(services.len(), "service");
        let line = format!("{slots} slots of {of} are not settled: `lbctl services`, `lbctl ring`, `lbctl flows`");
        sections.add("changes", (slots > 0).then_some(line));
    }

    fn config_lines(&self, status: &AgentStatus, style: Style) -> Vec<String> {
        let config = &status.config;
        let age = duration(self.now.saturating_sub(config.loaded));
        let mut lines = vec![format!(
            "{}, generation {}, loaded {age} ago, secret {}",
            config.path, config.generation, config.secret_fingerprint
        )];
        if let Some(refused) = &config.refused {
            lines.push(style.bad("the latest edit was refused, the one before is in force:"));
            lines.extend(refused.lines().map(|line| style.bad(line)));
        }
        let pending = config.pending_restart.iter();
        lines.extend(pending.map(|change| format!("in force after a restart: {change}")));
        lines
    }

    fn of_maps_alone(&self, sections: &mut Sections, style: Style) {
        sections.add("node", self.agent.owner.as_ref().map(|owner| owner.node.clone()));
        let state = match (&self.status_error, self.agent.running) {
            (Some(error), true) => format!("runs, but does not answer: {error}"),
            _ => absence(&self.agent),
        };
        sections.add("agent", [style.bad(&state)]);
        if let Some(maps) = &self.maps {
            sections.add("interfaces", maps.interfaces.iter().cloned());
            sections.add("VIPs", maps.held.iter().map(|vip| format!("{vip} held")));
        }
    }
}

/// Remarks that are shown at once; `lbctl status -o json` has all of them.
const REMARKS: usize = 20;

fn cluster_lines(cluster: &ClusterStatus, now: u64, style: Style) -> Vec<String> {
    let ClusterStatus { nodes, services, pools, served, .. } = cluster;
    let origin = match (cluster.origin.as_str(), cluster.saved) {
        ("saved", Some(at)) => style.bad(&format!(
            "saved {} ago, no API server has answered since the agent started",
            duration(now.saturating_sub(at))
        )),
        ("none", _) => style.bad("no inventory: no API server has answered, and none was saved"),
        (origin, _) => origin.to_owned(),
    };
    let of = [counted(*nodes, "node"), counted(*services, "Service"), counted(*pools, "VipPool")].join(", ");
    let mut lines = vec![format!("{origin}; {of}; {served} served")];
    lines.extend(cluster.source.iter().flat_map(|source| source::lines(source, now, style)));
    let complaints = cluster.complaints().count();
    lines.extend(cluster.complaints().take(REMARKS).map(|judgement| style.bad(&judgement.to_string())));
    let (more, notes) = (complaints.saturating_sub(REMARKS), cluster.judgements.len() - complaints);
    let more = (more > 0).then(|| format!("{more} more like this"));
    let left: Vec<_> = more.into_iter().chain((notes > 0).then(|| counted(notes, "note"))).collect();
    if !left.is_empty() {
        lines.push(format!("{}: `lbctl status -o json`", left.join(", ")));
    }
    let withheld = cluster.withheld.iter().take(REMARKS);
    lines.extend(withheld.map(|one| style.bad(&format!("{} is not announced: {}", one.vip, one.reason))));
    lines
}

fn plan_lines(status: &AgentStatus, style: Style) -> Vec<String> {
    let dataplane = &status.dataplane;
    let millis = |seconds: f64| format!("{:.1} ms", seconds * 1_000.0);
    let mut lines = vec![format!(
        "{} applied, {} failed; the last took {} to plan, {} to apply",
        dataplane.plans_applied,
        dataplane.plans_failed,
        millis(dataplane.last_plan_seconds),
        millis(dataplane.last_apply_seconds),
    )];
    if let Some(error) = &dataplane.error {
        lines.push(style.bad(&format!("the last one failed and is tried again: {error}")));
    }
    lines
}

/// A line per peer, and what follows from their silence.
fn peer_lines(membership: &MembershipStatus, now: u64, style: Style) -> Vec<String> {
    if !membership.enabled {
        return vec!["not asked (membership: off)".to_owned()];
    }
    let width = membership.peers.iter().map(|peer| peer.node.len()).max().unwrap_or(0);
    let line = |peer: &PeerStatus| {
        let since = peer.since.map(|since| format!(" for {}", duration(now.saturating_sub(since))));
        let secret = peer.fingerprint.as_ref().map(|fingerprint| format!(", with another secret ({fingerprint})"));
        let refuses = (peer.knows_us == Some(false)).then_some(", does not know this node as a director");
        let details = [since.as_deref(), secret.as_deref(), refuses].into_iter().flatten().collect::<String>();
        let line = format!("{:width$}  {}{details}", peer.node, peer.state);
        let is_bad = matches!(peer.state.as_str(), "silent" | "stranger") || refuses.is_some();
        if is_bad { style.bad(&line) } else { line }
    };
    let mut lines: Vec<_> = membership.peers.iter().map(line).collect();
    if membership.most_silent {
        lines.push(style.bad("most are silent: none is believed to be, this node may be cut off"));
    }
    lines.extend(membership.gate.iter().map(|gate| style.bad(&format!("nothing is announced: {gate}"))));
    lines.extend(membership.troubles.iter().map(|trouble| style.bad(trouble)));
    lines
}

fn interface_lines(interfaces: &[InterfaceStatus], style: Style) -> Vec<String> {
    let width = interfaces.iter().map(|interface| interface.name.len()).max().unwrap_or(0);
    let line = |interface: &InterfaceStatus| {
        let reason = interface.reason.as_ref().map(|reason| format!(": {reason}"));
        let line = format!("{:width$}  {}{}", interface.name, interface.mode, reason.unwrap_or_default());
        if interface.mode == "none" { style.bad(&line) } else { line }
    };
    interfaces.iter().map(line).collect()
}

/// A line per VIP that is held or could be announced.
fn vip_lines(status: &AgentStatus) -> Vec<String> {
    let mut vips: BTreeMap<IpAddr, (bool, Vec<String>)> = BTreeMap::new();
    for vip in &status.held {
        vips.entry(*vip).or_default().0 = true;
    }
    for announcement in &status.announcements {
        let announced = if announcement.announced { "announced" } else { "not announced" };
        let line = format!("{announced}: {}", announcement.reason);
        vips.entry(announcement.vip).or_default().1.push(line);
    }
    let width = vips.keys().map(|vip| vip.to_string().len()).max().unwrap_or(0);
    vips.into_iter()
        .map(|(vip, (held, announced))| {
            let held = if held { "held" } else { "not held" };
            let parts: Vec<_> = std::iter::once(held.to_owned()).chain(announced).collect();
            format!("{:width$}  {}", vip.to_string(), parts.join(", "))
        })
        .collect()
}

impl MapSummary {
    fn line(&self) -> String {
        let backends = counted(self.backends, "backend");
        format!(
            "{} (VIP, protocol, port); {backends}, {} in a ring",
            counted(self.services, "listener"),
            self.backends_in_ring
        )
    }

    fn drop_lines(&self, style: Style) -> Vec<String> {
        if self.drops.is_empty() {
            return vec!["none".to_owned()];
        }
        let line = |count: &Count| style.bad(&format!("{} {}: {}", count.packets, count.name, count.text));
        self.drops.iter().map(line).collect()
    }

    fn capacity_lines(&self, style: Style) -> Vec<String> {
        if self.nearly_full.is_empty() {
            return vec!["every map has room".to_owned()];
        }
        let line = |map: &MapUse| {
            let entries = map.entries.unwrap_or(map.capacity);
            style.bad(&format!("{} is {} full: {entries} of {}", map.name, percent(map), map.capacity))
        };
        self.nearly_full.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::console::json, examples};

    fn report() -> Status {
        Status {
            pin_path: "/sys/fs/bpf/levee".to_owned(),
            agent: examples::presence(true),
            status: Some(examples::status()),
            status_error: None,
            maps: Some(examples::inspection().into()),
            maps_error: None,
            now: 1_795_003_700,
        }
    }

    #[test]
    fn people_see_the_node_at_a_glance() {
        insta::assert_snapshot!(report().text(Style::PLAIN));
    }

    #[test]
    fn the_document_is_stable() {
        insta::assert_snapshot!(json(&report()).unwrap());
    }

    #[test]
    fn what_goes_wrong_stands_where_it_belongs() {
        let mut report = report();
        let status = report.status.as_mut().unwrap();
        status.ready = false;
        status.config.refused = Some("levee.yaml:3:1: bad\nlevee.yaml:4:1: worse".to_owned());
        status.config.pending_restart = vec!["pinPath".to_owned()];
        status.dataplane.error = Some("map SERVICES: writing failed".to_owned());
        status.announce_errors = vec!["192.0.2.10: lo is down".to_owned()];
        status.interfaces[1].mode = "none".to_owned();
        status.services[0].probes_believed = false;
        insta::assert_snapshot!(report.text(Style::PLAIN));
    }

    #[test]
    fn the_cluster_is_shown_with_what_somebody_should_look_at() {
        let mut report = report();
        let status = report.status.as_mut().unwrap();
        status.cluster = Some(examples::cluster());
        status.backends[0].health = "wantsCredentials".into();
        status.backends[0].reason = "taken for healthy: the server wants credentials".to_owned().into();
        insta::assert_snapshot!(report.text(Style::PLAIN));
    }

    #[test]
    fn without_an_agent_the_maps_still_speak() {
        let report = Status {
            agent: examples::presence(false),
            status: None,
            status_error: Some("no agent listens on /run/levee/agent.sock".to_owned()),
            ..report()
        };
        insta::assert_snapshot!(report.text(Style::PLAIN));
    }

    #[test]
    fn an_agent_that_hangs_is_not_called_down() {
        let report =
            Status { status: None, status_error: Some("the agent did not answer within 5 s".to_owned()), ..report() };
        let text = report.text(Style::PLAIN);
        assert!(text.contains("runs, but does not answer: the agent did not answer within 5 s"), "{text}");
    }

    #[test]
    fn maps_that_cannot_be_read_are_said_to_be_so() {
        let report = Status { maps: None, maps_error: Some("permission denied".to_owned()), ..report() };
        assert!(report.text(Style::PLAIN).contains("not readable: permission denied"));
    }
}
