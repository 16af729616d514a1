//! `lbctl ring SERVICE`.

use std::net::IpAddr;

use anyhow::{Result, bail};
use serde::Serialize;

use super::{
    args::Options,
    console::{Report, Style, Table, endpoint, inspect, notice},
};
use crate::inspect::{Inspection, Presence, RingView, Rings};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RingReport {
    pin_path: String,
    agent: Presence,
    secret_fingerprint: String,
    service: String,
    rings: Vec<Entry>,
}

/// The ring of one VIP, protocol and port of the service.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    vip: IpAddr,
    port: u16,
    protocol: String,
    generation: u32,
    held: bool,
    #[serde(flatten)]
    ring: RingView,
}

pub(super) fn gather(options: &Options, service: &str) -> Result<RingReport> {
    report(inspect(options, Rings::Read)?, service)
}

fn report(inspection: Inspection, name: &str) -> Result<RingReport> {
    let mut names: Vec<_> = inspection.services.iter().map(|service| service.name.clone()).collect();
    names.dedup();
    let of_service = inspection.services.into_iter().filter(|service| service.name == name);
    let rings: Vec<_> = of_service
        .filter_map(|service| {
            Some(Entry {
                vip: service.vip,
                port: service.port,
                protocol: service.protocol,
                generation: service.generation,
                held: service.held,
                ring: service.ring?,
            })
        })
        .collect();
    if rings.is_empty() {
        let there = if names.is_empty() { "no services".to_owned() } else { names.join(", ") };
        bail!("there is no service {name}; there are {there}");
    }
    Ok(RingReport {
        pin_path: inspection.pin_path,
        agent: inspection.agent,
        secret_fingerprint: inspection.secret_fingerprint,
        service: name.to_owned(),
        rings,
    })
}

impl Report for RingReport {
    fn text(&self, style: Style) -> String {
        let rings: Vec<_> = self.rings.iter().map(|entry| self.ring_text(entry, style)).collect();
        notice(&self.agent, style) + &rings.join("\n")
    }
}

impl RingReport {
    fn ring_text(&self, entry: &Entry, style: Style) -> String {
        let ring = &entry.ring;
        let of = format!("{} {}/{}", self.service, endpoint(entry.vip, entry.port), entry.protocol);
        if ring.slots == 0 {
            return format!("{}\n", style.bad(&format!("{of}: no backend takes flows, packets are dropped")));
        }
        let mut table = Table::new(&["BACKEND", ">WEIGHT", ">SLOTS", ">SHARE", ">IDEAL"]);
        for share in &ring.shares {
            let cells = [
                endpoint(share.address, share.port),
                share.weight.to_string(),
                share.slots.to_string(),
                format!("{:.3} %", share.percent),
                format!("{:.3} %", share.ideal_percent),
            ];
            table.row(cells, share.slots == 0);
        }
        let stale = match ring.stale_slots {
            0 => String::new(),
            slots => style.bad(&format!("{slots} slots name a backend that is gone\n")),
        };
        format!(
            "{of}: {} slots, generation {}, fingerprint {} (secret {})\n{}largest deviation from the ideal share: {:.3} % of the slots\n{stale}",
            ring.slots,
            entry.generation,
            ring.fingerprint,
            self.secret_fingerprint,
            table.render("There is no backend.", style),
            ring.largest_deviation_percent,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::console::json, examples};

    #[test]
    fn people_see_shares_and_evenness() {
        let report = report(examples::inspection(), "kubernetes").unwrap();
        insta::assert_snapshot!(report.text(Style::PLAIN));
    }

    #[test]
    fn the_document_is_stable() {
        let report = report(examples::inspection(), "kubernetes").unwrap();
        insta::assert_snapshot!(json(&report).unwrap());
    }

    #[test]
    fn an_empty_ring_is_said_in_a_sentence() {
        let mut inspection = examples::inspection();
        inspection.services[0].ring.as_mut().unwrap().slots = 0;
        let text = report(inspection, "kubernetes").unwrap().text(Style::PLAIN);
        assert_eq!(text, "kubernetes 192.0.2.10:6443/tcp: no backend takes flows, packets are dropped\n");
    }

    #[test]
    fn a_service_that_is_not_there_is_answered_with_those_that_are() {
        let error = report(examples::inspection(), "web").err().unwrap();
        assert_eq!(error.to_string(), "there is no service web; there are kubernetes");
    }
}
