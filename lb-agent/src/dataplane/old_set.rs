//! Reads a set of maps that is to be replaced: of whatever sizes, of any layout that this version knows.
//!
//! What a layout has in common with this version's is read as it is. A map that it lacks counts as empty, and so does
//! one with other entries whose contents the ordinary plan writes anyway; so a layout costs one line of [`LAYOUTS`] as
//! long as neither `SERVICES`, `PUBLISHED`, `RINGS`, `BACKENDS` nor the names of both change.

use std::collections::BTreeMap;

use aya::maps::{Array, HashMap, Map, MapData, MapError, lpm_trie::LpmTrie, xdp::DevMapHash};
use lb_common::{
    LAYOUT_VERSION,
    addr::{Be16, IpAddr16},
    hash::{HashKey, Tuple},
    maps::{
        addresses::AddressEntry,
        backends::BACKEND_WORDS,
        flows::FlowEntry,
        names::{BackendInfo, ServiceInfo},
        peers::{PeerEntry, PeerMacKey},
        published::RingWord,
        rings::Slot,
        services::{ServiceEntry, VipKey},
        settings::Settings,
        sources::{SourceEntry, SourceKey, SourceRange},
        tracking::{self, LIFETIME, LIMIT, TARGET_PORT},
    },
};

use super::{
    arena::MappedWords,
    error::DataplaneError,
    maps::{entries, read_backend, target_port, tracking_word},
    pins::MapSet,
    tables,
};
use crate::plan::{BackendState, MapState, Met, RingArena, RingOrigin, Rings, ServiceState, Sizes};

/// A layout that this version can read.
struct Layout {
    version: u32,
    /// Whether flows are recorded; else every slot is settled.
    has_flows: bool,
}

/// Every layout that this version can read.
const LAYOUTS: [Layout; 2] =
    [Layout { version: LAYOUT_VERSION, has_flows: true }, Layout { version: 1, has_flows: false }];

/// A set of maps that is to be replaced.
pub struct OldSet {
    /// What it holds.
    pub state: MapState,
    /// `NEW_FLOWS` and `OLD_FLOWS`, if the layout has them.
    pub flows: Option<[HashMap<MapData, Tuple, FlowEntry>; 2]>,
    rings: MappedWords,
}

impl OldSet {
    /// Opens the maps and reads what they hold; `None` if the layout is not known.
    pub fn open(layout: u32, set: &MapSet, sizes: Sizes) -> Result<Option<Self>, DataplaneError> {
        let Some(layout) = LAYOUTS.iter().find(|known| known.version == layout) else {
            return Ok(None);
        };
        let (rings, ring_slots) = mapped(set, "RINGS", 1)?;
        let state = read(set, Sizes { ring_slots, ..sizes })?;
        let flows = match layout.has_flows {
            true => optional(set, "NEW_FLOWS")?.zip(optional(set, "OLD_FLOWS")?).map(<[_; 2]>::from),
            false => None,
        };
        Ok(Some(Self { state, flows, rings }))
    }

    /// Replaces a slot.
    pub fn store(&self, index: u32, slot: Slot) -> Result<(), DataplaneError> {
        self.rings.store(index as usize, slot.bits())
    }
}

impl Rings for OldSet {
    fn slot(&self, index: u32) -> Slot {
        Slot::from_bits(self.rings.load(index as usize).unwrap_or(0))
    }
}

fn read(set: &MapSet, sizes: Sizes) -> Result<MapState, DataplaneError> {
    let mut state = MapState::empty(sizes);
    read_surroundings(set, &mut state)?;
    let services: HashMap<MapData, VipKey, ServiceEntry> = required(set, "SERVICES")?;
    let names: Array<MapData, ServiceInfo> = required(set, "SERVICE_INFO")?;
    let (published, _) = mapped(set, "PUBLISHED", 1)?;
    let tracking = if set.path("TRACKING").exists() { Some(mapped(set, "TRACKING", tracking::WORDS)?.0) } else { None };
    let mut backends = read_backends(set)?;
    state.arena = RingArena::new(sizes.ring_slots);
    for (key, index) in entries("SERVICES", services.iter(), |entry: ServiceEntry| entry.index)? {
        let info = names.get(&index, 0).map_err(|error| DataplaneError::map("SERVICE_INFO", "reading", &error))?;
        let word = RingWord::from_bits(published.load(index as usize)?);
        let is_whole = word.is_empty() || state.arena.take_at(word.offset(), 1 << word.log2());
        let limit = |word| tracking.as_ref().map_or(Ok(0), |words| words.load(tracking_word(index, word)));
        let service = ServiceState {
            index,
            name: tables::text(&info.name),
            word: if is_whole { word } else { RingWord::default() },
            ring: RingOrigin::Adopted,
            marks: Vec::new(),
            tracking: (limit(LIFETIME)?, limit(LIMIT)?),
            target_port: target_port(word, limit(TARGET_PORT)?),
            backends: backends.remove(&index).unwrap_or_default(),
            met: Met::default(),
        };
        state.services.insert(key, service.into());
    }
    Ok(state)
}

/// What belongs to no service.
fn read_surroundings(set: &MapSet, state: &mut MapState) -> Result<(), DataplaneError> {
    state.settings = read_settings(set)?;
    if let Some(addresses) = optional::<HashMap<_, IpAddr16, AddressEntry>>(set, "ADDRESSES")? {
        state.addresses = entries("ADDRESSES", addresses.iter(), |entry| entry.flags)?;
    }
    if let Some(peers) = optional::<HashMap<_, IpAddr16, PeerEntry>>(set, "PEERS")? {
        state.peers = entries("PEERS", peers.iter(), |peer| peer.id)?;
    }
    if let Some(macs) = optional::<HashMap<_, PeerMacKey, PeerEntry>>(set, "PEER_MACS")? {
        let macs = entries("PEER_MACS", macs.iter(), |peer| peer.id)?;
        state.peer_macs = macs.into_iter().map(|(key, id)| (key.mac, id)).collect();
    }
    if let Some(devices) = optional::<DevMapHash<_>>(set, "DEVICES")? {
        state.devices = devices.keys().filter_map(Result::ok).collect();
    }
    if let Some(ranges) = optional::<LpmTrie<_, SourceKey, SourceEntry>>(set, "SOURCE_RANGES")? {
        let ranges = ranges.keys().filter_map(Result::ok);
        for (service, range) in ranges.filter_map(|key| SourceRange::of_key(key.prefix_len(), &key.data())) {
            state.source_ranges.entry(service).or_default().insert(range);
        }
    }
    if let Some(map) = optional(set, "REWRITES")? {
        state.rewrites = tables::rewrites(&map)?;
    }
    if let Some(map) = optional(set, "TRANSLATIONS")? {
        state.translations = tables::translations(&map)?;
    }
    Ok(())
}

/// The settings, of which the hash key matters: with another one, every flow would be another's.
fn read_settings(set: &MapSet) -> Result<Settings, DataplaneError> {
    let failed = |error| DataplaneError::map("SETTINGS", "reading", &error);
    if let Some(settings) = optional::<Array<_, Settings>>(set, "SETTINGS")? {
        return settings.get(&0, 0).map_err(failed);
    }
    // Layout 1: the hash key and the filter over peers' MACs alone.
    let Some(settings) = optional::<Array<_, [u64; 10]>>(set, "SETTINGS")? else {
        return Ok(Settings::default());
    };
    let [k0, k1, peer_macs @ ..] = settings.get(&0, 0).map_err(failed)?;
    Ok(Settings { hash_key: HashKey { k0, k1 }, peer_macs, ..Settings::default() })
}

/// Backends by the index of their service and by identity.
type Backends = BTreeMap<u32, BTreeMap<(IpAddr16, Be16), BackendState>>;

fn read_backends(set: &MapSet) -> Result<Backends, DataplaneError> {
    let names = read_names(set)?;
    let (words, indices) = mapped(set, "BACKENDS", BACKEND_WORDS)?;
    let mut backends = Backends::new();
    for (index, info) in (0..indices).zip(names) {
        if let Some(state) = read_backend(index, &info, &words)? {
            backends.entry(info.service).or_default().insert((info.address, info.port), state);
        }
    }
    Ok(backends)
}

/// What backends are called, by index.
fn read_names(set: &MapSet) -> Result<Vec<BackendInfo>, DataplaneError> {
    let failed = |error| DataplaneError::map("BACKEND_INFO", "reading", &error);
    if let Some(names) = optional::<Array<_, BackendInfo>>(set, "BACKEND_INFO")? {
        return (0..names.len()).map(|index| names.get(&index, 0).map_err(failed)).collect();
    }
    let names: Array<MapData, [u32; 8]> = required(set, "BACKEND_INFO")?;
    (0..names.len()).map(|index| names.get(&index, 0).map(name_of_layout_1).map_err(failed)).collect()
}

/// Layout 1 has the same fields up to the generation, and no drains.
fn name_of_layout_1(words: [u32; 8]) -> BackendInfo {
    let [a, b, c, d, service, port_and_weight, used, ring_and_generation] = words;
    let halves = |word: u32| {
        let [a, b, c, d] = word.to_ne_bytes();
        ([a, b], [c, d])
    };
    let (port, weight) = halves(port_and_weight);
    let (in_ring, generation) = halves(ring_and_generation);
    BackendInfo {
        address: IpAddr16::v6([a, b, c, d]),
        service,
        port: Be16::new(u16::from_be_bytes(port)),
        weight: u16::from_ne_bytes(weight),
        used,
        in_ring: u16::from_ne_bytes(in_ring),
        generation: u16::from_ne_bytes(generation),
        ..BackendInfo::default()
    }
}

/// A mapped array with so many words in an entry, and the number of its entries.
fn mapped(set: &MapSet, name: &'static str, words: usize) -> Result<(MappedWords, u32), DataplaneError> {
    let failed = |error: &MapError| DataplaneError::map(name, "opening", error);
    let data = MapData::from_pin(set.path(name)).map_err(|error| failed(&error))?;
    let entries = data.info().map_err(|error| failed(&error))?.max_entries();
    Ok((MappedWords::new(name, data, entries as usize * words)?, entries))
}

fn required<T: TryFrom<Map, Error = MapError>>(set: &MapSet, name: &'static str) -> Result<T, DataplaneError> {
    tables::open(&|name| set.path(name), name)
}

/// A map, if the set has it with entries that this version knows.
fn optional<T: TryFrom<Map, Error = MapError>>(set: &MapSet, name: &'static str) -> Result<Option<T>, DataplaneError> {
    if !set.path(name).exists() {
        return Ok(None);
    }
    let data = MapData::from_pin(set.path(name)).map_err(|error| DataplaneError::map(name, "opening", &error))?;
    match Map::from_map_data(data).and_then(TryInto::try_into) {
        Ok(map) => Ok(Some(map)),
        Err(MapError::InvalidKeySize { .. } | MapError::InvalidValueSize { .. }) => Ok(None),
        Err(error) => Err(DataplaneError::map(name, "opening", &error)),
    }
}
