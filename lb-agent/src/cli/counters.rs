//! `lbctl counters`.

use std::net::IpAddr;

use anyhow::Result;
use serde::Serialize;

use super::{
    args::Options,
    console::{Report, Style, Table, endpoint, inspect, notice},
};
use crate::inspect::{Count, Inspection, Presence, Rings, ServiceView};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counters {
    pin_path: String,
    agent: Presence,
    verdicts: Vec<Count>,
    drops: Vec<Count>,
    services: Vec<Line>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    name: String,
    vip: IpAddr,
    port: u16,
    protocol: String,
    packets: u64,
    bytes: u64,
}

pub(super) fn gather(options: &Options) -> Result<Counters> {
    inspect(options, Rings::Skip).map(Counters::from)
}

impl From<Inspection> for Counters {
    fn from(inspection: Inspection) -> Self {
        let line = |service: ServiceView| Line {
            name: service.name,
            vip: service.vip,
            port: service.port,
            protocol: service.protocol,
            packets: service.packets,
            bytes: service.bytes,
        };
        Self {
            pin_path: inspection.pin_path,
            agent: inspection.agent,
            // The first one is "not ours", which is not counted.
            verdicts: inspection.verdicts.into_iter().skip(1).collect(),
            drops: inspection.drops,
            services: inspection.services.into_iter().map(line).collect(),
        }
    }
}

impl Report for Counters {
    fn text(&self, style: Style) -> String {
        let mut services = Table::new(&["SERVICE", "VIP", ">PACKETS", ">BYTES"]);
        for line in &self.services {
            let vip = format!("{}/{}", endpoint(line.vip, line.port), line.protocol);
            services.row([line.name.clone(), vip, line.packets.to_string(), line.bytes.to_string()], false);
        }
        let counts = |heading, counts: &[Count], none: &str, is_bad| {
            let mut table = Table::new(&[heading, ">PACKETS", "MEANING"]);
            for count in counts.iter().filter(|count| count.packets > 0) {
                table.row([count.name.to_owned(), count.packets.to_string(), count.text.to_owned()], is_bad);
            }
            table.render(none, style)
        };
        let verdicts = counts("VERDICT", &self.verdicts, "No packet for a VIP was let through yet.", false);
        let drops = counts("DROPPED", &self.drops, "No packet was dropped.", true);
        let services = services.render("There is no service.", style);
        format!("{}{verdicts}\n{drops}\n{services}", notice(&self.agent, style))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::console::json, examples};

    fn report() -> Counters {
        examples::inspection().into()
    }

    #[test]
    fn people_see_what_is_not_zero() {
        insta::assert_snapshot!(report().text(Style::PLAIN));
    }

    #[test]
    fn the_document_has_the_zeros_too() {
        insta::assert_snapshot!(json(&report()).unwrap());
    }

    #[test]
    fn nothing_counted_is_said_in_sentences() {
        let empty = Counters { verdicts: Vec::new(), drops: Vec::new(), services: Vec::new(), ..report() };
        let text = "No packet for a VIP was let through yet.\n\nNo packet was dropped.\n\nThere is no service.\n";
        assert_eq!(empty.text(Style::PLAIN), text);
    }
}
