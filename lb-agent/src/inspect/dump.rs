//! Every pinned map, decoded entry by entry.

use std::net::IpAddr;

use lb_common::{
    hash,
    maps::{
        self,
        addresses::AddressEntry,
        fragments::{FragmentEntry, FragmentKey},
        rings::SlotState,
        services::{ServiceEntry, VipKey},
        sources::SourceRange,
    },
};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, json};

use super::{
    read::{Inspector, fingerprint, interface_name, protocol_name, read, slots, sorted, sum_counters},
    view::{Count, HopView, ServiceView},
};
use crate::{
    dataplane::{DataplaneError, text},
    model::MacAddr,
};

/// A decoded map.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dump {
    /// Name of the map.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Its entries that are in use, each with the same fields.
    pub entries: Vec<Fields>,
}

/// The fields of an entry in their order. Serializes as an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields(pub Vec<(&'static str, Value)>);

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The fields of an entry, in this order.
macro_rules! fields {
    ($($name:literal: $value:expr),+ $(,)?) => { Fields(vec![$(($name, serde_json::json!($value))),+]) };
}
pub(super) use fields;

impl Inspector {
    /// Decodes the map `name`, in upper or lower case. `None` if no map has that name.
    ///
    /// # Errors
    /// [`DataplaneError`] if it cannot be read.
    pub fn dump(&self, name: &str) -> Result<Option<Dump>, DataplaneError> {
        let Some(fact) = maps::ALL.iter().find(|fact| fact.name.eq_ignore_ascii_case(name)) else {
            return Ok(None);
        };
        let entries = match fact.name {
            "SETTINGS" => self.dump_settings(),
            "VIP_FILTER" => self.dump_filter(),
            "ADDRESSES" => self.dump_addresses(),
            "SERVICES" | "PUBLISHED" | "SERVICE_INFO" | "SERVICE_COUNTERS" => self.dump_services(fact.name),
            "RINGS" => self.dump_rings(),
            "BACKENDS" | "BACKEND_INFO" | "BACKEND_COUNTERS" => self.dump_backends(fact.name),
            "PEERS" => self.dump_peers(),
            "PEER_MACS" => self.dump_peer_macs(),
            "DEVICES" => Ok(self.dump_devices()),
            "VERDICTS" => self.verdicts().map(|counts| ends(&counts, "verdict")),
            "DROPS" => self.drops().map(|counts| ends(&counts, "reason")),
            "AGENT" => self.dump_agent(),
            "FRAGMENTS" => self.dump_fragments(),
            "SOURCE_RANGES" => self.dump_source_ranges(),
            "REWRITES" => self.dump_rewrites(),
            "TRANSLATIONS" => self.dump_translations(),
            "TRANSLATED" => self.dump_translated(),
            _ => Ok(Vec::new()),
        };
        Ok(Some(Dump { name: fact.name, purpose: fact.purpose, entries: entries? }))
    }

    fn dump_settings(&self) -> Result<Vec<Fields>, DataplaneError> {
        let settings = read("SETTINGS", &self.tables.settings, 0)?;
        let bits: u32 = settings.peer_macs.iter().map(|word| word.count_ones()).sum();
        Ok(vec![fields! {
            "secretFingerprint": fingerprint(&settings.hash_key),
            "peerMacFilterBits": bits,
        }])
    }

    fn dump_filter(&self) -> Result<Vec<Fields>, DataplaneError> {
        let addresses = sorted("ADDRESSES", self.tables.addresses.iter())?;
        let mut entries = Vec::new();
        for word in 0..self.tables.vip_filter.len() {
            let bits = read("VIP_FILTER", &self.tables.vip_filter, word)?;
            for bit in (0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| word * 64 + bit) {
                let vips: Vec<IpAddr> = addresses
                    .iter()
                    .filter(|(address, entry)| entry.has(AddressEntry::VIP) && hash::filter_bit(address) == bit)
                    .map(|(address, _)| (*address).into())
                    .collect();
                entries.push(fields! { "bit": bit, "vips": vips });
            }
        }
        Ok(entries)
    }

    fn dump_addresses(&self) -> Result<Vec<Fields>, DataplaneError> {
        let addresses = sorted("ADDRESSES", self.tables.addresses.iter())?;
        let entry = |(address, entry): (_, AddressEntry)| {
            fields! {
                "address": IpAddr::from(address),
                "vip": entry.has(AddressEntry::VIP),
                "passUnmatched": entry.has(AddressEntry::PASS_UNMATCHED),
                "node": entry.has(AddressEntry::NODE),
                "held": entry.has(AddressEntry::HELD),
                "mss": entry.mss(),
            }
        };
        Ok(addresses.into_iter().map(entry).collect())
    }

    fn dump_services(&self, name: &str) -> Result<Vec<Fields>, DataplaneError> {
        if name == "SERVICES" {
            let keys = sorted("SERVICES", self.tables.services.iter())?;
            let entry = |(key, entry): (VipKey, ServiceEntry)| {
                fields! {
                    "vip": IpAddr::from(key.address),
                    "protocol": protocol_name(&key),
                    "port": key.port.get(),
                    "index": entry.index,
                }
            };
            return Ok(keys.into_iter().map(entry).collect());
        }
        let mut entries = Vec::new();
        for index in 0..self.tables.service_info.len() {
            let info = read("SERVICE_INFO", &self.tables.service_info, index)?;
            if info.used == 0 {
                continue;
            }
            entries.push(match name {
                "PUBLISHED" => {
                    let word = self.published(index)?;
                    fields! {
                        "index": index,
                        "ringOffset": word.offset(),
                        "ringSlots": slots(word),
                        "held": word.is_held(),
                        "sourceRanges": word.has_source_ranges(),
                        "generation": word.generation(),
                    }
                }
                "SERVICE_COUNTERS" => self.dump_service_counters(index)?,
                _ => fields! {
                    "index": index,
                    "name": text(&info.name),
                    "vip": IpAddr::from(info.key.address),
                    "protocol": protocol_name(&info.key),
                    "port": info.key.port.get(),
                },
            });
        }
        Ok(entries)
    }

    fn dump_service_counters(&self, index: u32) -> Result<Fields, DataplaneError> {
        let counters = sum_counters("SERVICE_COUNTERS", &self.tables.service_counters, index)?;
        Ok(fields! { "index": index, "packets": counters.packets, "bytes": counters.bytes })
    }

    /// The slots of every published ring; others hold nothing that a packet reads.
    fn dump_rings(&self) -> Result<Vec<Fields>, DataplaneError> {
        let mut entries = Vec::new();
        for service in self.services()? {
            self.dump_ring(&service, &mut entries)?;
        }
        Ok(entries)
    }

    fn dump_ring(&self, service: &ServiceView, entries: &mut Vec<Fields>) -> Result<(), DataplaneError> {
        let word = self.published(service.index)?;
        for slot in 0..slots(word) {
            let index = word.offset().saturating_add(slot);
            let entry = self.slot(index)?;
            let state = match entry.state() {
                SlotState::Settled => "settled",
                SlotState::Unsettled => "unsettled",
                SlotState::Settling => "settling",
            };
            entries.push(fields! {
                "index": index,
                "service": service.index,
                "slot": slot,
                "backend": entry.current().index(),
                "generation": entry.current().generation(),
                "state": state,
            });
        }
        Ok(())
    }

    fn dump_backends(&self, name: &str) -> Result<Vec<Fields>, DataplaneError> {
        let mut entries = Vec::new();
        for index in self.backends_in_use()? {
            let info = read("BACKEND_INFO", &self.tables.backend_info, index)?;
            if info.used == 0 {
                continue;
            }
            entries.push(match name {
                "BACKENDS" => self.dump_backend(index)?,
                "BACKEND_INFO" => fields! {
                    "index": index,
                    "service": info.service,
                    "address": IpAddr::from(info.address),
                    "port": info.port.get(),
                    "weight": info.weight,
                    "inRing": info.in_ring != 0,
                    "generation": info.generation,
                    "drainedSince": info.drained_since,
                    "drainDeadline": info.drain_deadline,
                    "drainedWithNode": info.drained_with_node != 0,
                },
                _ => {
                    let map = &self.tables.backend_counters;
                    let counters = sum_counters("BACKEND_COUNTERS", map, index)?;
                    fields! { "index": index, "packets": counters.packets, "bytes": counters.bytes }
                }
            });
        }
        Ok(entries)
    }

    fn dump_backend(&self, index: u32) -> Result<Fields, DataplaneError> {
        let head = self.head(index)?;
        let hop = HopView::of(&self.hop(index, head)?);
        Ok(fields! {
            "index": index,
            "generation": head.generation(),
            "hopInForce": head.active(),
            "mode": hop.mode,
            "interface": hop.interface,
            "nextHopMac": hop.next_hop_mac,
            "sourceMac": hop.source_mac,
            "vlan": hop.vlan,
            "mtu": hop.mtu,
            "tunnelDestination": hop.tunnel_destination,
            "tunnelSource": hop.tunnel_source,
        })
    }

    fn dump_peers(&self) -> Result<Vec<Fields>, DataplaneError> {
        let peers = sorted("PEERS", self.tables.peers.iter())?;
        Ok(peers
            .into_iter()
            .map(|(address, peer)| fields! { "address": IpAddr::from(address), "peer": peer.id })
            .collect())
    }

    fn dump_peer_macs(&self) -> Result<Vec<Fields>, DataplaneError> {
        let peers = sorted("PEER_MACS", self.tables.peer_macs.iter())?;
        Ok(peers.into_iter().map(|(key, peer)| fields! { "mac": MacAddr(key.mac), "peer": peer.id }).collect())
    }

    fn dump_devices(&self) -> Vec<Fields> {
        let mut devices: Vec<u32> = self.tables.devices.keys().filter_map(Result::ok).collect();
        devices.sort_unstable();
        devices.into_iter().map(|index| fields! { "interface": index, "name": interface_name(index) }).collect()
    }

    fn dump_fragments(&self) -> Result<Vec<Fields>, DataplaneError> {
        let fragments = sorted("FRAGMENTS", self.tables.fragments.iter())?;
        let entry = |(key, entry): (FragmentKey, FragmentEntry)| {
            fields! {
                "source": IpAddr::from(key.source),
                "destination": IpAddr::from(key.destination),
                "identification": u32::from_be(key.identification),
                "protocol": key.protocol,
                "sourcePort": entry.source_port.get(),
                "destinationPort": entry.destination_port.get(),
                "time": entry.time,
            }
        };
        Ok(fragments.into_iter().map(entry).collect())
    }

    fn dump_source_ranges(&self) -> Result<Vec<Fields>, DataplaneError> {
        let mut ranges = self.tables.source_ranges()?;
        ranges.sort_unstable();
        let entry = |(service, range): (u32, SourceRange)| {
            let (address, length) = range.prefix();
            fields! { "service": service, "range": format!("{address}/{length}") }
        };
        Ok(ranges.into_iter().map(entry).collect())
    }

    fn dump_agent(&self) -> Result<Vec<Fields>, DataplaneError> {
        let info = read("AGENT", &self.tables.agent, 0)?;
        Ok(vec![fields! {
            "node": text(&info.node),
            "pid": info.pid,
            "version": text(&info.version),
            "layout": info.layout,
            "started": info.started,
            "drainedSince": info.drained_since,
            "drainDeadline": info.drain_deadline,
        }])
    }
}

fn ends(counts: &[Count], field: &'static str) -> Vec<Fields> {
    counts.iter().map(|count| Fields(vec![(field, json!(count.name)), ("packets", json!(count.packets))])).collect()
}
