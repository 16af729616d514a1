//! `lbctl explain SERVICE|VIP`.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use serde::Serialize;

use super::{
    args::Options,
    block_on,
    console::{Report, Sections, Style, endpoint, inspect, notice},
};
use crate::{
    api::{self, ApiError},
    cluster::CONTROL_PLANE,
    inspect::{BackendView, Inspection, Presence, Rings, ServiceView},
    model::{Judgement, Shared, Subject},
    status::{AgentStatus, BackendStatus},
};

/// What becomes of packets to a service's VIPs here, and why.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    pin_path: String,
    agent: Presence,
    /// Why there are no reasons; `null` if the agent gave them.
    agent_silent: Option<String>,
    vips: Vec<Vip>,
    services: Vec<Service>,
    /// What there is to say of the cluster's objects behind them, one line each.
    remarks: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Vip {
    vip: IpAddr,
    /// Whether this node terminates its flows, as the maps say.
    held: bool,
    /// `null`, like the reason, while the agent does not answer.
    announced: Option<bool>,
    reason: Option<String>,
    /// What becomes of packets that match no service of the VIP: `dropped` or `passed`. `null` if the maps do not say.
    unmatched: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    name: String,
    vip: IpAddr,
    port: u16,
    protocol: String,
    ring_slots: u32,
    ring_generation: u32,
    /// Port that its servers on this node listen on, if it is another.
    target_port: Option<u16>,
    /// Where connections of this node's own processes go; empty if they are not translated.
    connects_to: Vec<SocketAddr>,
    backends: Vec<Backend>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Backend {
    address: IpAddr,
    port: u16,
    weight: u16,
    takes_new_flows: bool,
    /// Whether flows that it has stay with it.
    keeps_old_flows: bool,
    mode: &'static str,
    ring_slots: u32,
    ring_percent: f64,
    /// `null`, like the reason, while the agent does not answer.
    health: Option<String>,
    reason: Option<String>,
}

pub(super) fn gather(options: &Options, of: &str) -> Result<Explanation> {
    let inspection = inspect(options, Rings::Read)?;
    explain(inspection, block_on(api::status(&options.socket))?, of)
}

fn explain(inspection: Inspection, answer: Result<AgentStatus, ApiError>, of: &str) -> Result<Explanation> {
    let (status, agent_silent) = match answer {
        Ok(status) => (Some(status), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let chosen: Vec<_> = inspection.services.iter().filter(|service| is_meant(service, of)).collect();
    let remarks = remarks(status.as_ref(), &chosen, of);
    if chosen.is_empty() && remarks.is_empty() {
        bail!("there is no service and no VIP {of}; there are {}", names(&inspection.services));
    }
    let mut vips: Vec<IpAddr> = chosen.iter().map(|service| service.vip).collect();
    vips.sort_unstable();
    vips.dedup();
    Ok(Explanation {
        vips: vips.into_iter().map(|vip| explain_vip(vip, &inspection, status.as_ref())).collect(),
        services: chosen.into_iter().map(|service| explain_service(service, status.as_ref())).collect(),
        remarks,
        agent_silent,
        pin_path: inspection.pin_path,
        agent: inspection.agent,
    })
}

fn is_meant(service: &ServiceView, of: &str) -> bool {
    let is_port_of = |name: &str| name.strip_prefix(of).is_some_and(|port| of.contains('/') && port.starts_with(':'));
    service.name == of || is_port_of(&service.name) || of.parse::<IpAddr>().is_ok_and(|vip| vip == service.vip)
}

/// What the agent says of the objects of the cluster that are meant.
fn remarks(status: Option<&AgentStatus>, chosen: &[&ServiceView], of: &str) -> Vec<String> {
    let is_meant = |judgement: &&Shared<Judgement>| {
        let subject = match &judgement.subject {
            Subject::Service(name) => name.to_string(),
            Subject::ControlPlane => CONTROL_PLANE.to_owned(),
            Subject::Node(_) | Subject::Cluster => return false,
        };
        let has_port = |service: &&ServiceView| {
            service.name.strip_prefix(&subject).is_some_and(|port| port.is_empty() || port.starts_with(':'))
        };
        of == subject || chosen.iter().any(has_port)
    };
    let cluster = status.and_then(|status| status.cluster.as_ref());
    let judgements = cluster.into_iter().flat_map(|cluster| &cluster.judgements);
    judgements.filter(is_meant).map(ToString::to_string).collect()
}

fn names(services: &[ServiceView]) -> String {
    let mut names: Vec<_> = services.iter().map(|service| service.name.clone()).collect();
    names.extend(services.iter().map(|service| service.vip.to_string()));
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn explain_vip(vip: IpAddr, inspection: &Inspection, status: Option<&AgentStatus>) -> Vip {
    let announcements: Vec<_> =
        status.into_iter().flat_map(|status| &status.announcements).filter(|one| one.vip == vip).collect();
    let reasons: Vec<_> = announcements.iter().map(|one| one.reason.as_str()).collect();
    let withheld = status.and_then(|status| status.cluster.as_ref()).into_iter().flat_map(|cluster| &cluster.withheld);
    let withheld = withheld.filter(|one| one.vip == vip).map(|one| one.reason.clone()).next();
    let not_wanted = || withheld.unwrap_or_else(|| "the configuration announces it nowhere".to_owned());
    Vip {
        vip,
        held: inspection.services.iter().any(|service| service.vip == vip && service.held),
        announced: status.map(|_| announcements.iter().any(|one| one.announced)),
        reason: status.map(|_| if reasons.is_empty() { not_wanted() } else { reasons.join("; ") }),
        unmatched: inspection
            .addresses
            .iter()
            .find(|view| view.vip && view.address == vip)
            .map(|view| if view.pass_unmatched { "passed" } else { "dropped" }),
    }
}

fn explain_service(service: &ServiceView, status: Option<&AgentStatus>) -> Service {
    let shares = service.ring.as_ref().map(|ring| ring.shares.as_slice()).unwrap_or_default();
    let backends = service.backends.iter().enumerate().map(|(at, backend)| {
        // Shares come in the order of the backends.
        let share = shares.get(at).map(|share| (share.slots, share.percent));
        explain_backend(backend, share.unwrap_or_default(), reason(status, service, backend))
    });
    Service {
        name: service.name.clone(),
        vip: service.vip,
        port: service.port,
        protocol: service.protocol.clone(),
        ring_slots: service.ring_slots,
        ring_generation: service.generation,
        target_port: service.target_port,
        connects_to: service.connects_to.clone(),
        backends: backends.collect(),
    }
}

/// What the agent says of a backend. Its status has one entry for every service and backend, whatever the VIPs.
fn reason<'a>(
    status: Option<&'a AgentStatus>,
    service: &ServiceView,
    backend: &BackendView,
) -> Option<&'a BackendStatus> {
    let is_it = |one: &&BackendStatus| {
        *one.service == service.name && one.address == backend.address && one.port == backend.port
    };
    status?.backends.iter().find(is_it)
}

fn explain_backend(backend: &BackendView, (slots, percent): (u32, f64), said: Option<&BackendStatus>) -> Backend {
    Backend {
        address: backend.address,
        port: backend.port,
        weight: backend.weight,
        takes_new_flows: slots > 0,
        keeps_old_flows: backend.hop.mode != "unknown",
        mode: backend.hop.mode,
        ring_slots: slots,
        ring_percent: percent,
        health: said.map(|said| said.health.to_string()),
        reason: said.map(|said| said.story()),
    }
}

impl Report for Explanation {
    fn text(&self, style: Style) -> String {
        let mut text = notice(&self.agent, style);
        if let Some(silence) = self.agent_silent.as_ref().filter(|_| self.agent.running) {
            text += &format!("{}\n\n", style.bad(silence));
        }
        if self.agent_silent.is_some() {
            text += "These are the pinned maps alone: what is announced, and why backends do or do not take flows, only \
                     the agent knows.\n\n";
        }
        let mut sections = Sections::new(style);
        for vip in &self.vips {
            sections.add("VIP", vip.lines(style));
        }
        for service in &self.services {
            sections.add("service", service.lines(style));
        }
        sections.add("cluster", self.remarks.iter().cloned());
        text + &sections.render()
    }
}

impl Vip {
    fn lines(&self, style: Style) -> Vec<String> {
        let held = if self.held {
            "held: this node terminates the flows that other directors send it"
        } else {
            "not held: no backend of it is on this node, so all its flows are sent on"
        };
        let announced = match (self.announced, &self.reason) {
            (Some(true), Some(reason)) => format!("announced: {reason}"),
            (Some(false), Some(reason)) => style.bad(&format!("not announced: {reason}")),
            _ => "announced or not: not known without the agent".to_owned(),
        };
        let unmatched = match self.unmatched {
            Some("passed") => "ports of no service: passed up the stack of this node",
            Some(_) => "ports of no service: dropped and counted; ICMP is passed",
            None => "ports of no service: the maps do not know this VIP",
        };
        vec![format!("{}: {held}", self.vip), announced, unmatched.to_owned()]
    }
}

impl Service {
    fn lines(&self, style: Style) -> Vec<String> {
        let of = format!("{} on {}/{}", self.name, endpoint(self.vip, self.port), self.protocol);
        let ring = match self.ring_slots {
            0 => style.bad("no backend takes flows: its packets are dropped"),
            slots => format!("a ring of {slots} slots, generation {}", self.ring_generation),
        };
        let mut lines = vec![format!("{of}: {ring}")];
        if let Some(target) = self.target_port {
            lines.push(format!(
                "servers here listen on port {target}: packets are given it, and replies port {}",
                self.port
            ));
        }
        if !self.connects_to.is_empty() {
            let to: Vec<_> = self.connects_to.iter().map(ToString::to_string).collect();
            lines.push(format!("connections of this node's own processes go to {}", to.join(", ")));
        }
        lines.extend(self.backends.iter().map(|backend| backend.line(style)));
        lines
    }
}

impl Backend {
    fn line(&self, style: Style) -> String {
        let flows = match (self.takes_new_flows, self.keeps_old_flows) {
            (true, true) => format!("takes new flows ({:.2} % of the ring)", self.ring_percent),
            (true, false) => format!("is given new flows ({:.2} % of the ring), which are dropped", self.ring_percent),
            (false, true) => "takes no new flows, keeps those it has".to_owned(),
            (false, false) => "takes no flows".to_owned(),
        };
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let line = format!("{}, {}: {flows}{reason}", endpoint(self.address, self.port), self.mode);
        if self.takes_new_flows && self.keeps_old_flows { line } else { style.bad(&line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::console::json, examples};

    fn explained(of: &str) -> Explanation {
        explain(examples::inspection(), Ok(examples::status()), of).unwrap()
    }

    fn without_agent(running: bool) -> Explanation {
        let silent = || ApiError::NotRunning { socket: "/run/levee/agent.sock".into() };
        let inspection = Inspection { agent: examples::presence(running), ..examples::inspection() };
        explain(inspection, Err(silent()), "192.0.2.10").unwrap()
    }

    #[test]
    fn a_service_is_explained_with_the_agents_reasons() {
        insta::assert_snapshot!(explained("kubernetes").text(Style::PLAIN));
    }

    #[test]
    fn the_document_is_stable() {
        insta::assert_snapshot!(json(&explained("kubernetes")).unwrap());
    }

    #[test]
    fn without_an_agent_the_maps_are_explained_and_said_to_be_all() {
        insta::assert_snapshot!(without_agent(false).text(Style::PLAIN));
        let hung = without_agent(true).text(Style::PLAIN);
        assert!(
            hung.starts_with("no agent listens on /run/levee/agent.sock\n\nThese are the pinned maps alone"),
            "{hung}"
        );
    }

    #[test]
    fn a_vip_stands_for_all_its_services() {
        assert_eq!(explained("192.0.2.10").text(Style::PLAIN), explained("kubernetes").text(Style::PLAIN));
        let error = explain(examples::inspection(), Ok(examples::status()), "web").err().unwrap();
        assert_eq!(error.to_string(), "there is no service and no VIP web; there are 192.0.2.10, kubernetes");
    }

    #[test]
    fn a_service_of_the_cluster_is_explained_with_its_remarks() {
        let mut status = examples::status();
        status.cluster = Some(examples::cluster());
        let mut inspection = examples::inspection();
        inspection.services[0].name = "shop/web:443/tcp".to_owned();
        let explained = |of: &str| explain(inspection.clone(), Ok(status.clone()), of).unwrap();
        let web = explained("shop/web");
        assert_eq!(web.services.len(), 1);
        let remark = "shop/web: note (ClientAddressHidden): externalTrafficPolicy is Cluster";
        assert_eq!((&web.remarks[..], web.text(Style::PLAIN).contains(remark)), (&[remark.to_owned()][..], true));
        assert_eq!(explained("shop/web:443/tcp").remarks, [remark]);
        let refused = explained("shop/cart");
        assert!(refused.services.is_empty() && refused.remarks[0].contains("AddressRefused"), "{:?}", refused.remarks);
        assert!(explain(inspection.clone(), Ok(status.clone()), "shop/we").is_err());
    }

    #[test]
    fn other_ports_and_ways_of_connections_are_told() {
        let mut inspection = examples::inspection();
        inspection.services[0].target_port = Some(7443);
        inspection.services[0].connects_to = vec!["10.0.1.2:7443".parse().unwrap(), "10.0.2.2:7443".parse().unwrap()];
        let text = explain(inspection, Ok(examples::status()), "kubernetes").unwrap().text(Style::PLAIN);
        assert!(
            text.contains("servers here listen on port 7443: packets are given it, and replies port 6443\n"),
            "{text}"
        );
        let ways = "connections of this node's own processes go to 10.0.1.2:7443, 10.0.2.2:7443\n";
        assert!(text.contains(ways), "{text}");
    }

    #[test]
    fn a_backend_in_the_ring_without_a_way_loses_packets() {
        let mut inspection = examples::inspection();
        inspection.services[0].backends[1].hop.mode = "unknown";
        let text = explain(inspection, Ok(examples::status()), "kubernetes").unwrap().text(Style::PLAIN);
        assert!(
            text.contains("10.0.2.2:6443, unknown: is given new flows (50.02 % of the ring), which are dropped"),
            "{text}"
        );
    }
}
