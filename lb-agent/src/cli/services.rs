//! `lbctl services`.

use anyhow::Result;
use serde::Serialize;

use super::{
    args::Options,
    console::{Report, Style, Table, inspect, notice, port, yes},
};
use crate::inspect::{Inspection, Presence, Rings, ServiceView};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Services {
    pin_path: String,
    agent: Presence,
    services: Vec<ServiceView>,
}

pub(super) fn gather(options: &Options) -> Result<Services> {
    inspect(options, Rings::Skip).map(Services::from)
}

impl From<Inspection> for Services {
    fn from(inspection: Inspection) -> Self {
        Self {
            pin_path: inspection.pin_path,
            agent: inspection.agent,
            services: inspection.services.into_iter().map(|service| ServiceView { ring: None, ..service }).collect(),
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
            ">GENERATION",
            ">BACKENDS",
            ">IN RING",
            ">PACKETS",
            ">BYTES",
        ]);
        for service in &self.services {
            let cells = [
                service.name.clone(),
                service.vip.to_string(),
                service.protocol.clone(),
                port(service.port),
                yes(service.held),
                service.ring_slots.to_string(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::console::json, examples};

    fn report() -> Services {
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

    #[test]
    fn no_service_is_said_in_a_sentence_under_the_notice() {
        let empty = Services { services: Vec::new(), agent: examples::presence(false), ..report() };
        let text = empty.text(Style::PLAIN);
        assert!(text.starts_with("agent is not running (last: process 4711"), "{text}");
        assert!(text.ends_with("\n\nThere is no service.\n"), "{text}");
    }
}
