//! `lbctl ring SERVICE`.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use serde::Serialize;

use super::{
    args::Options,
    block_on,
    console::{Report, Style, Table, duration, endpoint, inspect, notice, unix_now},
};
use crate::{
    api,
    inspect::{ChangeView, Inspection, Presence, RingView, Rings},
    status::{ChangeStatus, PairStatus},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RingReport {
    pin_path: String,
    agent: Presence,
    secret_fingerprint: String,
    service: String,
    rings: Vec<Entry>,
    /// Seconds of Unix time.
    now: u64,
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
    /// What the agent knows of its slots that are not settled; `null` if no agent says or all are settled.
    agent_says: Option<ChangeStatus>,
}

pub(super) fn gather(options: &Options, service: &str) -> Result<RingReport> {
    let inspection = inspect(options, Rings::Read)?;
    // Without an agent the maps still speak; a notice says that it is absent.
    let status = block_on(api::status(&options.socket))?;
    let said = status.map(|status| status.changes).unwrap_or_default();
    report(inspection, &said, unix_now(), service)
}

fn report(inspection: Inspection, said: &[ChangeStatus], now: u64, name: &str) -> Result<RingReport> {
    let mut names: Vec<_> = inspection.services.iter().map(|service| service.name.clone()).collect();
    names.dedup();
    let of_service = inspection.services.into_iter().filter(|service| service.name == name);
    let rings: Vec<_> = of_service
        .filter_map(|service| {
            let is_it = |one: &&ChangeStatus| {
                let (one, it) = ((&one.service, one.vip, one.port), (&service.name, service.vip, service.port));
                one == it
            };
            let agent_says = said.iter().filter(is_it).find(|one| one.protocol == service.protocol).cloned();
            Some(Entry {
                agent_says,
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
        now,
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
            "{of}: {} slots, generation {}, fingerprint {} (secret {})\n{}largest deviation from the ideal share: {:.3} % of the slots\n{stale}{}",
            ring.slots,
            entry.generation,
            ring.fingerprint,
            self.secret_fingerprint,
            table.render("There is no backend.", style),
            ring.largest_deviation_percent,
            self.changes(entry, style),
        )
    }

    /// The slots that are not settled, and why they are not.
    fn changes(&self, entry: &Entry, style: Style) -> String {
        let slots: u32 = entry.ring.changes.iter().map(|change| change.slots).sum();
        if slots == 0 {
            return String::new();
        }
        let mut table = Table::new(&["NEW FLOWS TO", "BEFORE", "STATE", ">SLOTS", "WHY"]);
        let name = |backend: Option<SocketAddr>, none: &str| {
            backend.map_or_else(|| none.to_owned(), |backend| endpoint(backend.ip(), backend.port()))
        };
        for change in &entry.ring.changes {
            let cells = [
                name(change.current_backend, "nobody"),
                name(change.old_backend, "a backend that is gone"),
                change.state.to_owned(),
                change.slots.to_string(),
                self.why(change, entry.agent_says.as_ref()),
            ];
            table.row(cells, change.current_backend.is_none());
        }
        format!("{slots} slots are not settled, their flows are recorded:\n{}", table.render("", style))
    }

    fn why(&self, change: &ChangeView, said: Option<&ChangeStatus>) -> String {
        let is_settling = change.state == "settling";
        let is_it =
            |pair: &&PairStatus| (pair.current, pair.old, pair.settling) == (change.current, change.old, is_settling);
        let pair = said.and_then(|said| said.pairs.iter().find(is_it));
        match (is_settling, pair) {
            (false, None) => "its window is not over".to_owned(),
            (false, Some(pair)) => {
                let ahead = |at: u64| duration(at.saturating_sub(self.now));
                let first = if pair.first == pair.last { String::new() } else { format!("{} to ", ahead(pair.first)) };
                format!("its window ends in {first}{}", ahead(pair.last))
            }
            (true, None) => "its window is over, flows of former owners are left or not looked for yet".to_owned(),
            (true, Some(pair)) => {
                let ago = duration(self.now.saturating_sub(pair.first));
                format!("its window is over for {ago}, flows of former owners are left or not looked for yet")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::console::json, examples};

    #[test]
    fn people_see_shares_and_evenness() {
        let report = report(examples::inspection(), &[], 0, "kubernetes").unwrap();
        insta::assert_snapshot!(report.text(Style::PLAIN));
    }

    #[test]
    fn the_document_is_stable() {
        let report = report(examples::inspection(), &[], 0, "kubernetes").unwrap();
        insta::assert_snapshot!(json(&report).unwrap());
    }

    #[test]
    fn slots_that_are_not_settled_are_told_with_their_reason() {
        let mut inspection = examples::inspection();
        let (there, away) = ("10.0.1.2:6443".parse().unwrap(), "10.0.2.2:6443".parse().unwrap());
        let unsettled = ChangeView {
            current: 1,
            current_backend: Some(there),
            old: 2,
            old_backend: Some(away),
            state: "unsettled",
            slots: 1_000,
        };
        let settling = ChangeView { current: 0, current_backend: None, state: "settling", slots: 24, ..unsettled };
        inspection.services[0].ring.as_mut().unwrap().changes = vec![settling, unsettled];
        let alone = report(inspection.clone(), &[], 0, "kubernetes").unwrap().text(Style::PLAIN);
        assert!(
            alone.contains("1024 slots are not settled") && alone.contains("1000  its window is not over"),
            "{alone}"
        );
        let pair = |current, settling, first, last| PairStatus { current, old: 2, settling, slots: 1, first, last };
        let said = ChangeStatus {
            service: "kubernetes".to_owned(),
            vip: "192.0.2.10".parse().unwrap(),
            port: 6443,
            protocol: "tcp".to_owned(),
            unsettled: 1_000,
            settling: 24,
            pairs: vec![pair(0, true, 990, 995), pair(1, false, 1_060, 8_500)],
        };
        insta::assert_snapshot!(report(inspection, &[said], 1_000, "kubernetes").unwrap().text(Style::PLAIN));
    }

    #[test]
    fn an_empty_ring_is_said_in_a_sentence() {
        let mut inspection = examples::inspection();
        inspection.services[0].ring.as_mut().unwrap().slots = 0;
        let text = report(inspection, &[], 0, "kubernetes").unwrap().text(Style::PLAIN);
        assert_eq!(text, "kubernetes 192.0.2.10:6443/tcp: no backend takes flows, packets are dropped\n");
    }

    #[test]
    fn a_service_that_is_not_there_is_answered_with_those_that_are() {
        let error = report(examples::inspection(), &[], 0, "web").err().unwrap();
        assert_eq!(error.to_string(), "there is no service web; there are kubernetes");
    }
}
