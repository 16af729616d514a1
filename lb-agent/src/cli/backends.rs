//! `lbctl backends`.

use std::net::IpAddr;

use anyhow::Result;
use serde::Serialize;

use super::{
    args::Options,
    console::{Report, Style, Table, endpoint, inspect, notice, yes},
};
use crate::inspect::{BackendView, HopView, Inspection, Presence, Rings, ServiceView};

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
}

pub(super) fn gather(options: &Options) -> Result<Backends> {
    inspect(options, Rings::Read).map(Backends::from)
}

impl From<Inspection> for Backends {
    fn from(inspection: Inspection) -> Self {
        Self {
            pin_path: inspection.pin_path,
            agent: inspection.agent,
            backends: inspection.services.into_iter().flat_map(lines).collect(),
        }
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
        }
    })
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
            "SERVICE", "VIP", "BACKEND", ">WEIGHT", "IN RING", ">SHARE", "MODE", "WAY", ">PACKETS", ">BYTES",
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
        examples::inspection().into()
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
