//! Ports that are rewritten, and connections that go elsewhere.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::maps::{published::RingWord, services::VipKey, tracking::TARGET_PORT, translations::Endpoint};

use super::{
    dump::{Fields, fields},
    read::{Inspector, protocol_name, read, sorted},
};
use crate::dataplane::{DataplaneError, translations};

impl Inspector {
    /// The port that servers of a service listen on here, if its word says that it is another than the service's.
    pub(super) fn target_port(&self, service: u32, word: RingWord) -> Result<Option<u16>, DataplaneError> {
        if !word.has_target_port() {
            return Ok(None);
        }
        let words = read("TRACKING", &self.tables.tracking, service)?.0;
        Ok(u16::try_from(words[TARGET_PORT]).ok().filter(|port| *port != 0))
    }

    /// Where connections to each service go; none while no program is there that sends them.
    pub(super) fn translations(&self) -> Result<BTreeMap<VipKey, Vec<Endpoint>>, DataplaneError> {
        if self.pins.translates() { translations(&self.tables.translations) } else { Ok(BTreeMap::new()) }
    }

    pub(super) fn dump_rewrites(&self) -> Result<Vec<Fields>, DataplaneError> {
        let entries = sorted("REWRITES", self.tables.rewrites.iter())?;
        let entry = |(key, entry): (VipKey, lb_common::maps::rewrites::RewriteEntry)| {
            fields! {
                "vip": IpAddr::from(key.address),
                "protocol": protocol_name(&key),
                "serverPort": key.port.get(),
                "port": entry.port.get(),
            }
        };
        Ok(entries.into_iter().map(entry).collect())
    }

    pub(super) fn dump_translations(&self) -> Result<Vec<Fields>, DataplaneError> {
        let entry = |(key, backends): (VipKey, Vec<Endpoint>)| {
            fields! {
                "vip": IpAddr::from(key.address),
                "protocol": protocol_name(&key),
                "port": key.port.get(),
                "backends": connects_to(&key, Some(&backends)),
            }
        };
        Ok(translations(&self.tables.translations)?.into_iter().map(entry).collect())
    }

    pub(super) fn dump_translated(&self) -> Result<Vec<Fields>, DataplaneError> {
        let socket = |endpoint: Endpoint| SocketAddr::new(endpoint.address.into(), endpoint.port.get());
        let mut entries = Vec::new();
        for (cookie, entry) in self.tables.translated.iter().filter_map(Result::ok) {
            entries.push(fields! { "socket": cookie, "vip": socket(entry.vip), "backend": socket(entry.backend) });
        }
        Ok(entries)
    }
}

/// Where connections to a service go. A port of 0 stands for the one that is asked for.
pub(super) fn connects_to(key: &VipKey, backends: Option<&Vec<Endpoint>>) -> Vec<SocketAddr> {
    let port = |endpoint: &Endpoint| if endpoint.port.is_zero() { key.port.get() } else { endpoint.port.get() };
    let socket = |endpoint: &Endpoint| SocketAddr::new(endpoint.address.into(), port(endpoint));
    backends.into_iter().flatten().map(socket).collect()
}
