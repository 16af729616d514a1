//! `lbctl backends`.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Result;
use serde::Serialize;

use super::{
    args::Options,
    block_on,
    console::{Report, Style, Table, endpoint, inspect, notice, yes},
};
use crate::{
    api,
    inspect::{BackendView, HopView, Inspection, Presence, Rings, ServiceView},
    status::{BackendStatus, DrainStatus},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Backends {
    pin_path: String,
    agent: Presence,
    backends: Vec<Line>,
}

/// A backend and the service entry it is of.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    service: String,
    vip: IpAddr,
    vip_port: u16,
    protocol: String,
    #[serde(flatten)]
    backend: BackendView,
    ring_slots: u32,
    ring_percent: f64,
    /// How it is probed; `null` if it is not, or if no agent says.
    probe: Option<String>,
    /// What the probes say; `null` if no agent says.
    health: Option<String>,
    /// Why it is as it is; `null` if no agent says.
    reason: Option<String>,
    /// How it is drained; `null` if it is not, or if no agent says.
    drain: Option<DrainStatus>,
}

pub(super) fn gather(options: &Options) -> Result<Backends> {
    let inspection = inspect(options, Rings::Read)?;
    // Without an agent the maps still speak; a notice says that it is absent.
    let status = block_on(api::status(&options.socket))?;
    Ok(Backends::new(inspection, status.map(|status| status.backends).unwrap_or_default()))
}

impl Backends {
    fn new(inspection: Inspection, said: Vec<BackendStatus>) -> Self {
        let mut backends: Vec<Line> = inspection.services.into_iter().flat_map(lines).collect();
        let said: BTreeMap<_, _> =
            said.into_iter().map(|one| (((*one.service).clone(), one.address, one.port), one)).collect();
        for line in &mut backends {
            if let Some(said) = said.get(&(line.service.clone(), line.backend.address, line.backend.port)) {
                line.probe = said.probe.as_ref().map(ToString::to_string);
                line.health = Some(said.health.to_string());
                line.reason = Some(said.reason.to_string());
                line.drain = said.drain.as_deref().cloned();
            }
        }
        Self { pin_path: inspection.pin_path, agent: inspection.agent, backends }
    }
}

fn lines(service: ServiceView) -> impl Iterator<Item = Line> {
    // Shares come in the order of the backends.
    let shares = service.ring.map(|ring| ring.shares).unwrap_or_default();
    let shares: Vec<_> = shares.into_iter().map(|share| (share.slots, share.percent)).collect();
    service.backends.into_iter().enumerate().map(move |(at, backend)| {
        let (ring_slots, ring_percent) = shares.get(at).copied().unwrap_or_default();
        Line {
            service: service.name.clone(),
            vip: service.vip,
            vip_port: service.port,
            protocol: service.protocol.clone(),
            backend,
            ring_slots,
            ring_percent,
            probe: None,
            health: None,
            reason: None,
            drain: None,
        }
    })
}

impl Line {
    /// The probes' verdict, with the reason of a failure.
    fn health(&self) -> String {
        match (self.health.as_deref(), &self.reason) {
            _ if let Some(drain) = &self.drain => format!("drained, {}", drain.left()),
            (Some("failed"), Some(reason)) => {
                format!("failed: {}", reason.strip_prefix("probe failed: ").unwrap_or(reason))
            }
            (Some("wantsCredentials"), Some(reason)) => reason.clone(),
            (Some(health), _) => health.to_owned(),
            (None, _) => "-".to_owned(),
        }
    }
}

/// Where packets go: next hop, interface, tunnel.
pub(super) fn way(hop: &HopView) -> String {
    let (Some(mac), Some(interface)) = (hop.next_hop_mac, hop.interface) else {
        return "-".to_owned();
    };
    let name = hop.interface_name.clone().unwrap_or_else(|| format!("interface {interface}"));
    let vlan = hop.vlan.map(|vlan| format!(" vlan {vlan}")).unwrap_or_default();
    let tunnel = match (hop.tunnel_source, hop.tunnel_destination) {
        (Some(source), Some(destination)) => format!(", {source} -> {destination}"),
        _ => String::new(),
    };
    let mtu = hop.mtu.map(|mtu| format!(", mtu {mtu}")).unwrap_or_default();
    format!("{mac} by {name}{vlan}{tunnel}{mtu}")
}

impl Report for Backends {
    fn text(&self, style: Style) -> String {
        let mut table = Table::new(&[
            "SERVICE", "VIP", "BACKEND", ">WEIGHT", "IN RING", ">SHARE", "PROBE", "HEALTH", "MODE", "WAY", ">PACKETS",
            ">BYTES",
        ]);
        for line in &self.backends {
            let backend = &line.backend;
            let cells = [
                line.service.clone(),
                format!("{}/{}", endpoint(line.vip, line.vip_port), line.protocol),
                endpoint(backend.address, backend.port),
                backend.weight.to_string(),
                yes(backend.in_ring),
                format!("{:.2} %", line.ring_percent),
                line.probe.clone().unwrap_or_else(|| "-".to_owned()),
                line.health(),
                backend.hop.mode.to_owned(),
                way(&backend.hop),
                backend.packets.to_string(),
                backend.bytes.to_string(),
            ];
            table.row(cells, !backend.in_ring);
        }
        notice(&self.agent, style) + &table.render("There is no backend.", style)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::console::json, examples};

    fn report() -> Backends {
        Backends::new(examples::inspection(), examples::status().backends)
    }

    #[test]
    fn without_an_agent_health_is_not_known() {
        let alone = Backends::new(examples::inspection(), Vec::new());
        assert!(alone.backends.iter().all(|line| line.health() == "-" && line.probe.is_none()));
    }

    #[test]
    fn a_failure_is_told_with_its_reason() {
        let mut said = examples::status().backends;
        said[1].reason = "probe failed: https GET /readyz answers 500, expected 200-399".to_owned().into();
        let report = Backends::new(examples::inspection(), said);
        let health: Vec<_> = report.backends.iter().map(Line::health).collect();
        assert_eq!(health, ["healthy", "failed: https GET /readyz answers 500, expected 200-399", "-"]);
    }

    #[test]
    fn people_see_a_table() {
        insta::assert_snapshot!(report().text(Style::PLAIN));
    }

    #[test]
    fn the_document_is_stable() {
        insta::assert_snapshot!(json(&report()).unwrap());
    }
}
