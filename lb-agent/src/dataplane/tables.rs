//! The pinned maps, typed, for whoever reads or writes them entry by entry.

use std::{collections::BTreeMap, path::PathBuf};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, lpm_trie::LpmTrie, xdp::DevMapHash};
use lb_common::{
    addr::{Be16, IpAddr16},
    hash::Tuple,
    maps::{
        addresses::AddressEntry,
        agent::AgentInfo,
        backends::Backend,
        counters::Counters,
        flows::FlowEntry,
        fragments::{FragmentEntry, FragmentKey},
        names::{BackendInfo, ServiceInfo},
        peers::{PeerEntry, PeerMacKey},
        rewrites::RewriteEntry,
        services::{ServiceEntry, VipKey},
        settings::Settings,
        sources::{SourceEntry, SourceKey, SourceRange},
        tracking::Tracking,
        translations::{Endpoint, MAX_BACKENDS, TranslatedEntry, TranslationEntry},
    },
};

use super::error::DataplaneError;

/// Every pinned map.
#[expect(missing_docs, reason = "each field is the map of its name, described in lb_common::maps")]
pub struct Tables {
    pub settings: Array<MapData, Settings>,
    pub vip_filter: Array<MapData, u64>,
    pub addresses: HashMap<MapData, IpAddr16, AddressEntry>,
    pub services: HashMap<MapData, VipKey, ServiceEntry>,
    pub published: Array<MapData, u64>,
    pub rings: Array<MapData, u64>,
    pub backends: Array<MapData, Backend>,
    pub tracking: Array<MapData, Tracking>,
    pub new_flows: HashMap<MapData, Tuple, FlowEntry>,
    pub old_flows: HashMap<MapData, Tuple, FlowEntry>,
    pub peers: HashMap<MapData, IpAddr16, PeerEntry>,
    pub peer_macs: HashMap<MapData, PeerMacKey, PeerEntry>,
    pub devices: DevMapHash<MapData>,
    pub verdicts: PerCpuArray<MapData, u64>,
    pub drops: PerCpuArray<MapData, u64>,
    pub service_counters: PerCpuArray<MapData, Counters>,
    pub backend_counters: PerCpuArray<MapData, Counters>,
    pub service_info: Array<MapData, ServiceInfo>,
    pub backend_info: Array<MapData, BackendInfo>,
    pub agent: Array<MapData, AgentInfo>,
    pub fragments: HashMap<MapData, FragmentKey, FragmentEntry>,
    pub source_ranges: LpmTrie<MapData, SourceKey, SourceEntry>,
    pub rewrites: Rewrites,
    pub translations: Translations,
    pub translated: HashMap<MapData, u64, TranslatedEntry>,
}

type Rewrites = HashMap<MapData, VipKey, RewriteEntry>;
type Translations = HashMap<MapData, VipKey, TranslationEntry>;

impl Tables {
    /// Opens the maps that are pinned where `path` says.
    ///
    /// # Errors
    /// [`DataplaneError::Map`] if one is missing or has another layout.
    pub fn open(path: impl Fn(&str) -> PathBuf) -> Result<Self, DataplaneError> {
        let path = &path;
        Ok(Self {
            settings: open(path, "SETTINGS")?,
            vip_filter: open(path, "VIP_FILTER")?,
            addresses: open(path, "ADDRESSES")?,
            services: open(path, "SERVICES")?,
            published: open(path, "PUBLISHED")?,
            rings: open(path, "RINGS")?,
            backends: open(path, "BACKENDS")?,
            tracking: open(path, "TRACKING")?,
            new_flows: open(path, "NEW_FLOWS")?,
            old_flows: open(path, "OLD_FLOWS")?,
            peers: open(path, "PEERS")?,
            peer_macs: open(path, "PEER_MACS")?,
            devices: open(path, "DEVICES")?,
            verdicts: open(path, "VERDICTS")?,
            drops: open(path, "DROPS")?,
            service_counters: open(path, "SERVICE_COUNTERS")?,
            backend_counters: open(path, "BACKEND_COUNTERS")?,
            service_info: open(path, "SERVICE_INFO")?,
            backend_info: open(path, "BACKEND_INFO")?,
            agent: open(path, "AGENT")?,
            fragments: open(path, "FRAGMENTS")?,
            source_ranges: open(path, "SOURCE_RANGES")?,
            rewrites: open(path, "REWRITES")?,
            translations: open(path, "TRANSLATIONS")?,
            translated: open(path, "TRANSLATED")?,
        })
    }

    /// Says which port what comes from the servers' port of `key` gets.
    pub(super) fn rewrite(&mut self, key: &VipKey, port: Be16) -> Result<(), DataplaneError> {
        let entry = RewriteEntry { port, of: key.port };
        self.rewrites.insert(key, entry, 0).map_err(|error| DataplaneError::map("REWRITES", "writing", &error))
    }

    /// Says where connections to `key` go; no more than the first [`MAX_BACKENDS`] of the backends count.
    pub(super) fn translate(&mut self, key: &VipKey, backends: &[Endpoint]) -> Result<(), DataplaneError> {
        let mut entry = TranslationEntry { key: *key, count: 0, backends: [Endpoint::default(); MAX_BACKENDS] };
        for (slot, backend) in entry.backends.iter_mut().zip(backends) {
            *slot = *backend;
            entry.count += 1;
        }
        self.translations.insert(key, entry, 0).map_err(|error| DataplaneError::map("TRANSLATIONS", "writing", &error))
    }

    /// Every entry of `SOURCE_RANGES`: index of the service and range.
    ///
    /// # Errors
    /// [`DataplaneError::Map`] if the kernel refuses.
    pub fn source_ranges(&self) -> Result<Vec<(u32, SourceRange)>, DataplaneError> {
        let keys: Result<Vec<_>, _> = self.source_ranges.keys().collect();
        let keys = keys.map_err(|error| DataplaneError::map("SOURCE_RANGES", "reading", &error))?;
        Ok(keys.iter().filter_map(|key| SourceRange::of_key(key.prefix_len(), &key.data())).collect())
    }
}

/// Every entry of `REWRITES`.
pub(super) fn rewrites(map: &Rewrites) -> Result<BTreeMap<VipKey, Be16>, DataplaneError> {
    let entries = map.iter().map(|entry| entry.map(|(key, entry)| (key, entry.port)));
    entries.collect::<Result<_, _>>().map_err(|error| DataplaneError::map("REWRITES", "reading", &error))
}

/// The backends of an entry of `TRANSLATIONS`.
#[must_use]
pub fn translated_backends(entry: &TranslationEntry) -> Vec<Endpoint> {
    entry.backends.iter().take(entry.count as usize).copied().collect()
}

/// Every entry of `TRANSLATIONS`, with its backends.
pub fn translations(map: &Translations) -> Result<BTreeMap<VipKey, Vec<Endpoint>>, DataplaneError> {
    let entries = map.iter().map(|entry| entry.map(|(key, entry)| (key, translated_backends(&entry))));
    entries.collect::<Result<_, _>>().map_err(|error| DataplaneError::map("TRANSLATIONS", "reading", &error))
}

/// Opens one of the maps.
pub(super) fn open<T: TryFrom<Map, Error = MapError>>(
    path: &impl Fn(&str) -> PathBuf,
    name: &'static str,
) -> Result<T, DataplaneError> {
    let data = MapData::from_pin(path(name)).map_err(|error| DataplaneError::map(name, "opening", &error))?;
    Map::from_map_data(data).and_then(TryInto::try_into).map_err(|error| DataplaneError::map(name, "opening", &error))
}

/// The text in a field that is padded with zeros.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Removing what is not there is no failure: the kernel drops entries of interfaces that are gone by itself.
pub fn removed(map: &'static str, result: Result<(), MapError>) -> Result<(), DataplaneError> {
    match result {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(MapError::KeyNotFound) => Ok(()),
        other => other.map_err(|error| DataplaneError::map(map, "removing from", &error)),
    }
}
