//! `lbctl lookup FLOW`.

use std::net::IpAddr;

use anyhow::Result;
use lb_common::{
    addr::BackendId,
    maps::{backends::Mode, published::RingWord},
    report::{End, Report as Record},
    verdict::{DropReason, Verdict},
};
use serde::Serialize;

use super::{
    args::Options,
    backends::way,
    console::{Report, Sections, Style, endpoint, inspect, notice},
    flow::Flow,
};
use crate::inspect::{self, HopView, Inspection, Presence, Rings};

/// What would become of a flow's packet. What was not reached is `null`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lookup {
    pin_path: String,
    agent: Presence,
    flow: Flow,
    /// Whether the packet would be dropped.
    dropped: bool,
    /// Label of the verdict or the drop reason.
    result: &'static str,
    /// Its sentence.
    text: &'static str,
    service: Option<Service>,
    ring: Option<Ring>,
    backend: Option<Backend>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    index: u32,
    name: String,
    vip: IpAddr,
    port: u16,
    protocol: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ring {
    /// Sixteen hexadecimal digits.
    hash: String,
    slot: u32,
    slots: u32,
    generation: u32,
    held: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Backend {
    index: u32,
    generation: u16,
    /// `null`, like port and weight, if the ring names a backend that is gone.
    address: Option<IpAddr>,
    port: Option<u16>,
    weight: Option<u16>,
    #[serde(flatten)]
    hop: Option<HopView>,
}

pub(super) fn gather(options: &Options, flow: &[String]) -> Result<Lookup> {
    let flow = Flow::parse(flow)?;
    let inspection = inspect(options, Rings::Skip)?;
    let record = inspect::lookup(&options.pin_path, &flow.frame())?;
    Ok(explain(flow, &record, inspection))
}

fn explain(flow: Flow, record: &Record, inspection: Inspection) -> Lookup {
    let (dropped, result, text) = end(record.end);
    let found = record.service.checked_sub(1);
    let service = found.and_then(|index| inspection.service(index));
    let word = RingWord::from_bits(record.ring);
    let id = BackendId::from_bits(record.backend);
    let view = service
        .into_iter()
        .flat_map(|service| &service.backends)
        .find(|backend| (backend.index, backend.generation) == (id.index(), id.generation()));
    let is_chosen = found.is_some() && !word.is_empty() && record.backend != 0;
    Lookup {
        flow,
        dropped,
        result,
        text,
        service: service.map(|service| Service {
            index: service.index,
            name: service.name.clone(),
            vip: service.vip,
            port: service.port,
            protocol: service.protocol.clone(),
        }),
        ring: is_chosen.then(|| Ring {
            hash: format!("{:016x}", record.hash),
            slot: record.slot,
            slots: 1 << word.log2(),
            generation: word.generation(),
            held: word.is_held(),
        }),
        backend: is_chosen.then(|| Backend {
            index: id.index(),
            generation: id.generation(),
            address: view.map(|view| view.address),
            port: view.map(|view| view.port),
            weight: view.map(|view| view.weight),
            // The mode is the one the program met; the agent may have changed it since.
            hop: view.map(|view| HopView { mode: Mode::from_value(record.mode).label(), ..view.hop.clone() }),
        }),
        pin_path: inspection.pin_path,
        agent: inspection.agent,
    }
}

/// Whether it is a drop, its label and its sentence.
fn end(end: End) -> (bool, &'static str, &'static str) {
    const UNKNOWN: &str = "The program is newer than this lbctl.";
    match end {
        End::Verdict(value) => Verdict::from_index(value)
            .map_or((false, "unknown", UNKNOWN), |verdict| (false, verdict.label(), verdict.text())),
        End::Drop(value) => DropReason::from_index(value)
            .map_or((true, "unknown", UNKNOWN), |reason| (true, reason.label(), reason.text())),
    }
}

impl Report for Lookup {
    fn text(&self, style: Style) -> String {
        let mut sections = Sections::new(style);
        sections.add("flow", [self.flow.to_string()]);
        let result = if self.dropped {
            style.bad(&format!("dropped, {}: {}", self.result, self.text))
        } else {
            format!("{}: {}", self.result, self.text)
        };
        sections.add("result", [result]);
        sections.add("service", [self.service_line()]);
        if let Some(ring) = &self.ring {
            sections.add("hash", [format!("{} gives slot {} of {}", ring.hash, ring.slot, ring.slots)]);
            let held = if ring.held { "held by this node" } else { "not held by this node" };
            sections.add("ring", [format!("generation {}, VIP {held}", ring.generation)]);
        }
        sections.add("backend", self.backend.as_ref().map(Backend::line));
        notice(&self.agent, style) + &sections.render()
    }
}

impl Lookup {
    fn service_line(&self) -> String {
        self.service.as_ref().map_or_else(
            || "none matches".to_owned(),
            |service| {
                let vip = endpoint(service.vip, service.port);
                format!("{} on {vip}/{}", service.name, service.protocol)
            },
        )
    }
}

impl Backend {
    fn line(&self) -> String {
        let id = format!("index {}, generation {}", self.index, self.generation);
        match (self.address, self.port, &self.hop) {
            (Some(address), Some(port), Some(hop)) => {
                let way = if hop.interface.is_some() { format!(" to {}", way(hop)) } else { String::new() };
                format!("{} ({id}), {}{way}", endpoint(address, port), hop.mode)
            }
            _ => format!("gone ({id})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::console::json, examples};

    fn flow() -> Flow {
        Flow::parse(&["tcp 10.0.0.1:40000 192.0.2.10:6443".to_owned()]).unwrap()
    }

    fn chosen() -> Record {
        Record {
            end: End::Verdict(Verdict::L2 as u32),
            service: 1,
            ring: RingWord::new(1, 12, true, 12).bits(),
            hash: 0x4d20_0000_0000_0001,
            slot: 1234,
            backend: BackendId::new(1, 1).bits(),
            mode: Mode::L2 as u8,
            state: 0,
        }
    }

    fn explained(record: &Record) -> Lookup {
        explain(flow(), record, examples::inspection())
    }

    #[test]
    fn a_choice_is_explained() {
        insta::assert_snapshot!(explained(&chosen()).text(Style::PLAIN));
    }

    #[test]
    fn the_document_is_stable() {
        insta::assert_snapshot!(json(&explained(&chosen())).unwrap());
    }

    #[test]
    fn a_packet_for_nobody_is_explained_and_its_document_has_nulls() {
        let lookup = explained(&Record::START);
        insta::assert_snapshot!(lookup.text(Style::PLAIN));
        insta::assert_snapshot!(json(&lookup).unwrap());
    }

    #[test]
    fn a_drop_tells_how_far_the_packet_came() {
        let stale = Record {
            end: End::Drop(DropReason::StaleBackend as u32),
            backend: BackendId::new(1, 9).bits(),
            ..chosen()
        };
        insta::assert_snapshot!(explained(&stale).text(Style::PLAIN));
        let empty = Record { end: End::Drop(DropReason::NoBackend as u32), service: 1, ..Record::START };
        insta::assert_snapshot!(explained(&empty).text(Style::PLAIN));
    }

    #[test]
    fn an_end_of_a_later_version_is_no_failure() {
        assert_eq!(end(End::Drop(4_000)).1, "unknown");
        assert_eq!(end(End::Verdict(4_000)).1, "unknown");
    }
}
