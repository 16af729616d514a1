//! Ports that are rewritten, and connections that go elsewhere.

use std::net::{IpAddr, SocketAddr};

use aya::maps::MapError;
use lb_common::maps::{published::RingWord, services::VipKey, tracking::TARGET_PORT, translations::Endpoint};

use super::{
    dump::{Fields, fields},
    read::{Inspector, protocol_name, read, sorted},
};
use crate::dataplane::{DataplaneError, translated_backends as backends, translations};

impl Inspector {
    /// The port that servers of a service listen on here, if its word says that it is another than the service's.
    pub(super) fn target_port(&self, service: u32, word: RingWord) -> Result<Option<u16>, DataplaneError> {
        if !word.has_target_port() {
            return Ok(None);
        }
        let words = read("TRACKING", &self.tables.tracking, service)?.0;
        Ok(u16::try_from(words[TARGET_PORT]).ok().filter(|port| *port != 0))
    }

    /// Where connections to a service go; nowhere while no program is there that sends them.
    pub(super) fn connects_to(&self, key: &VipKey) -> Result<Vec<SocketAddr>, DataplaneError> {
        if !self.pins.translates() {
            return Ok(Vec::new());
        }
        match self.tables.translations.get(key, 0) {
            Ok(entry) => Ok(endpoints(key, &backends(&entry))),
            Err(MapError::KeyNotFound) => Ok(Vec::new()),
            Err(error) => Err(DataplaneError::map("TRANSLATIONS", "reading", &error)),
        }
    }

    /// Entries in use of the map of this name.
    pub(super) fn redirects(&self, name: &str) -> usize {
        match name {
            "REWRITES" => self.tables.rewrites.keys().count(),
            "TRANSLATIONS" => self.tables.translations.keys().count(),
            _ => self.tables.translated.keys().count(),
        }
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
                "backends": endpoints(&key, &backends),
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

/// Backends of a service as people write them. A port of 0 stands for the one that is asked for.
fn endpoints(key: &VipKey, backends: &[Endpoint]) -> Vec<SocketAddr> {
    let port = |endpoint: &Endpoint| if endpoint.port.is_zero() { key.port.get() } else { endpoint.port.get() };
    backends.iter().map(|endpoint| SocketAddr::new(endpoint.address.into(), port(endpoint))).collect()
}
