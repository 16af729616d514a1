//! `lbctl maps [NAME]`.

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::{
    args::Options,
    console::{Report, Style, Table, bytes, inspect, notice},
};
use crate::inspect::{self, Dump, Fields, Inspection, Inspector, MapUse, Presence, Rings};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Maps {
    pin_path: String,
    agent: Presence,
    maps: Vec<MapUse>,
    memory_bytes: u64,
}

pub(super) fn gather(options: &Options) -> Result<Maps> {
    inspect(options, Rings::Skip).map(Maps::from)
}

impl From<Inspection> for Maps {
    fn from(inspection: Inspection) -> Self {
        Self {
            pin_path: inspection.pin_path,
            agent: inspection.agent,
            memory_bytes: inspection.maps.iter().map(|map| map.memory_bytes).sum(),
            maps: inspection.maps,
        }
    }
}

impl Report for Maps {
    fn text(&self, style: Style) -> String {
        let mut table = Table::new(&["NAME", ">IN USE", ">CAPACITY", ">USE", ">MEMORY", "PURPOSE"]);
        for map in &self.maps {
            let cells = [
                map.name.to_owned(),
                map.entries.map_or_else(|| "-".to_owned(), |entries| entries.to_string()),
                map.capacity.to_string(),
                percent(map),
                bytes(map.memory_bytes),
                map.purpose.to_owned(),
            ];
            table.row(cells, map.is_nearly_full());
        }
        let total = format!("{} in all under {}\n", bytes(self.memory_bytes), self.pin_path);
        notice(&self.agent, style) + &table.render("There is no map.", style) + &total
    }
}

/// How full a map is.
pub(super) fn percent(map: &MapUse) -> String {
    match map.entries {
        Some(entries) => format!("{} %", u64::from(entries) * 100 / u64::from(map.capacity.max(1))),
        None => "-".to_owned(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MapDump {
    pin_path: String,
    agent: Presence,
    #[serde(flatten)]
    dump: Dump,
}

pub(super) fn dump(options: &Options, name: &str) -> Result<MapDump> {
    let Some(dump) = Inspector::open(&options.pin_path)?.dump(name)? else {
        let names: Vec<_> = lb_common::maps::ALL.iter().map(|fact| fact.name).collect();
        bail!("there is no map {name}; there are {}", names.join(", "));
    };
    Ok(MapDump { pin_path: options.pin_path.display().to_string(), agent: inspect::presence(&options.pin_path), dump })
}

impl Report for MapDump {
    fn text(&self, style: Style) -> String {
        let headings: Vec<_> = self.dump.entries.first().map(headings).unwrap_or_default();
        let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
        for Fields(fields) in &self.dump.entries {
            table.row(fields.iter().map(|(_, value)| cell(value)), false);
        }
        let none = format!("{} has no entry in use.", self.dump.name);
        notice(&self.agent, style) + &table.render(&none, style)
    }
}

/// Names of the fields as headings: `nextHopMac` is `NEXT HOP MAC`. Numbers stand to the right.
fn headings(Fields(fields): &Fields) -> Vec<String> {
    let heading = |(name, value): &(&str, Value)| {
        let mut heading = if value.is_number() { ">" } else { "" }.to_owned();
        for letter in name.chars() {
            if letter.is_uppercase() {
                heading.push(' ');
            }
            heading.push(letter.to_ascii_uppercase());
        }
        heading
    };
    fields.iter().map(heading).collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json as value;

    use super::*;
    use crate::{cli::console::json, examples};

    fn report() -> Maps {
        examples::inspection().into()
    }

    fn dumped(entries: Vec<Fields>) -> MapDump {
        MapDump {
            pin_path: "/sys/fs/bpf/levee".to_owned(),
            agent: examples::presence(true),
            dump: Dump { name: "ADDRESSES", purpose: "What this node's addresses and the VIPs mean.", entries },
        }
    }

    fn entry(address: &str, vip: bool, peer: Value) -> Fields {
        Fields(vec![
            ("address", value!(address)),
            ("isVip", value!(vip)),
            ("others", value!(["a", "b"])),
            ("peer", peer),
        ])
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
    fn a_dump_is_a_table_of_its_fields() {
        let dump = dumped(vec![entry("192.0.2.10", true, value!(7)), entry("10.0.0.1", false, Value::Null)]);
        insta::assert_snapshot!(dump.text(Style::PLAIN));
        insta::assert_snapshot!(json(&dump).unwrap());
        assert_eq!(dumped(Vec::new()).text(Style::PLAIN), "ADDRESSES has no entry in use.\n");
    }
}
