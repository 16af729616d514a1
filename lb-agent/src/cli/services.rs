//! `lbctl services`.

use anyhow::Result;
use serde::Serialize;

use super::{
    args::Options,
    block_on,
    console::{Report, Style, Table, inspect, notice, port, yes},
};
use crate::{
    api,
    inspect::{Inspection, Presence, Rings, ServiceView},
    status::ChangeStatus,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Services {
    pin_path: String,
    agent: Presence,
    services: Vec<Entry>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(flatten)]
    view: ServiceView,
    /// Slots that are not settled; `null` if no agent says.
    slots_not_settled: Option<u64>,
}

pub(super) fn gather(options: &Options) -> Result<Services> {
    let inspection = inspect(options, Rings::Skip)?;
    // Without an agent the maps still speak; a notice says that it is absent.
    let status = block_on(api::status(&options.socket))?;
    Ok(Services::new(inspection, status.map(|status| status.changes).ok().as_deref()))
}

impl Services {
    fn new(inspection: Inspection, said: Option<&[ChangeStatus]>) -> Self {
        let not_settled = |service: &ServiceView, said: &[ChangeStatus]| {
            let is_it = |one: &&ChangeStatus| {
                (&one.service, one.vip, &one.protocol, one.port)
                    == (&service.name, service.vip, &service.protocol, service.port)
            };
            said.iter().find(is_it).map_or(0, |one| one.unsettled + one.settling)
        };
        let entry = |service: ServiceView| Entry {
            slots_not_settled: said.map(|said| not_settled(&service, said)),
            view: ServiceView { ring: None, ..service },
        };
        Self {
            pin_path: inspection.pin_path,
            agent: inspection.agent,
            services: inspection.services.into_iter().map(entry).collect(),
        }
    }
}

impl Report for Services {
    fn text(&self, style: Style) -> String {
        let mut table = Table::new(&[
            "NAME",
            "VIP",
            "PROTOCOL",
            ">PORT",
            "HELD",
            ">RING",
            ">UNSETTLED",
            ">FLOWS",
            ">GENERATION",
            ">BACKENDS",
            ">IN RING",
            ">PACKETS",
            ">BYTES",
        ]);
        for Entry { view: service, slots_not_settled } in &self.services {
            let cells = [
                service.name.clone(),
                service.vip.to_string(),
                service.protocol.clone(),
                ports(service),
                yes(service.held),
                service.ring_slots.to_string(),
                slots_not_settled.map_or_else(|| "-".to_owned(), |slots| slots.to_string()),
                (service.tracking.new + service.tracking.old).to_string(),
                service.generation.to_string(),
                service.backends.len().to_string(),
                service.in_ring().to_string(),
                service.packets.to_string(),
                service.bytes.to_string(),
            ];
            table.row(cells, service.ring_slots == 0);
        }
        notice(&self.agent, style) + &table.render("There is no service.", style)
    }
}

/// The port, and that of the servers here if it is another.
fn ports(service: &ServiceView) -> String {
    service.target_port.map_or_else(|| port(service.port), |target| format!("{}->{target}", service.port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::console::json, examples};

    fn report() -> Services {
        Services::new(examples::inspection(), Some(&examples::status().changes))
    }

    #[test]
    fn people_see_a_table() {
        insta::assert_snapshot!(report().text(Style::PLAIN));
    }

    #[test]
    fn the_document_is_stable() {
        insta::assert_snapshot!(json(&report()).unwrap());
    }

    #[test]
    fn servers_on_another_port_are_seen() {
        let other = ServiceView { target_port: Some(7443), ..examples::service() };
        assert_eq!((ports(&other), ports(&examples::service())), ("6443->7443".to_owned(), "6443".to_owned()));
    }

    #[test]
    fn no_service_is_said_in_a_sentence_under_the_notice() {
        let empty = Services { services: Vec::new(), agent: examples::presence(false), ..report() };
        let text = empty.text(Style::PLAIN);
        assert!(text.starts_with("agent is not running (last: process 4711"), "{text}");
        assert!(text.ends_with("\n\nThere is no service.\n"), "{text}");
    }
}
