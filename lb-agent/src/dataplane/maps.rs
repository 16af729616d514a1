//! Performs steps on the maps, and reads back what they hold.

use std::collections::{BTreeMap, BTreeSet};

use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, MapData, MapError, PerCpuValues, lpm_trie::Key},
};
use lb_common::{
    LAYOUT_VERSION,
    addr::BackendId,
    maps::{
        addresses::{AddressEntry, FILTER_WORDS},
        agent::AgentInfo,
        backends::{BACKEND_WORDS, HOP_WORDS, Head, Hop},
        counters::Counters,
        names::BackendInfo,
        peers::{PeerEntry, PeerMacKey},
        published::RingWord,
        rings::Slot,
        services::ServiceEntry,
        sources::{SourceKey, SourceRange},
        tracking::{self, LIFETIME, LIMIT, TARGET_PORT},
    },
};

use super::{
    arena::MappedWords,
    error::DataplaneError,
    grace::Grace,
    pins::MapSet,
    tables::{self, Tables, removed},
};
use crate::model::Drain;
use crate::plan::{
    BackendState, MapOp, MapState, Met, Redirect, RingArena, RingOrigin, Rings, ServiceState, Sizes, TargetBackend,
};

/// The maps of one set, open for writing.
pub struct Maps {
    sizes: Sizes,
    pub(super) tables: Tables,
    filter: MappedWords,
    published: MappedWords,
    rings: MappedWords,
    pub(super) tracking: MappedWords,
    backends: MappedWords,
    grace: Grace,
    cpus: usize,
}

impl Maps {
    /// Opens the maps that the object was just loaded over.
    pub(super) fn new(ebpf: &mut Ebpf, set: &MapSet, sizes: Sizes) -> Result<Self, DataplaneError> {
        let mapped = |name, words| {
            let data =
                MapData::from_pin(set.path(name)).map_err(|error| DataplaneError::map(name, "opening", &error))?;
            MappedWords::new(name, data, words)
        };
        let failed = |error: &dyn std::error::Error| DataplaneError::map("GRACE", "opening", error);
        let grace = ebpf.take_map("GRACE").ok_or_else(|| failed(&MapError::KeyNotFound))?;
        let grace: ArrayOfMaps<MapData, Array<MapData, u32>> =
            grace.try_into().map_err(|error: MapError| failed(&error))?;
        Ok(Self {
            sizes,
            tables: Tables::open(|name| set.path(name))?,
            filter: mapped("VIP_FILTER", FILTER_WORDS as usize)?,
            published: mapped("PUBLISHED", sizes.services as usize)?,
            rings: mapped("RINGS", sizes.ring_slots as usize)?,
            tracking: mapped("TRACKING", sizes.services as usize * tracking::WORDS)?,
            backends: mapped("BACKENDS", sizes.backends as usize * BACKEND_WORDS)?,
            grace: Grace::new(grace)?,
            cpus: aya::util::nr_cpus()
                .map_err(|(_, error)| DataplaneError::map("VERDICTS", "counting CPUs", &error))?,
        })
    }

    /// Performs one step.
    pub(super) fn perform(&mut self, step: &MapOp) -> Result<(), DataplaneError> {
        match step {
            MapOp::Settings(settings) => written("SETTINGS", self.tables.settings.set(0, settings, 0)),
            MapOp::FilterAdd(bit) => self.filter_bit(*bit, true),
            MapOp::FilterRemove(bit) => self.filter_bit(*bit, false),
            MapOp::Address(address, entry) => written("ADDRESSES", self.tables.addresses.insert(address, entry, 0)),
            MapOp::RemoveAddress(address) => removed("ADDRESSES", self.tables.addresses.remove(address)),
            MapOp::Peer(address, id) => written("PEERS", self.tables.peers.insert(address, PeerEntry { id: *id }, 0)),
            MapOp::RemovePeer(address) => removed("PEERS", self.tables.peers.remove(address)),
            MapOp::PeerMac(mac, id) => {
                written("PEER_MACS", self.tables.peer_macs.insert(PeerMacKey::new(*mac), PeerEntry { id: *id }, 0))
            }
            MapOp::RemovePeerMac(mac) => removed("PEER_MACS", self.tables.peer_macs.remove(&PeerMacKey::new(*mac))),
            MapOp::Device(index) => self
                .tables
                .devices
                .insert(*index, *index, None, 0)
                .map_err(|error| DataplaneError::map("DEVICES", "writing", &error)),
            MapOp::RemoveDevice(index) => removed("DEVICES", self.tables.devices.remove(*index)),
            MapOp::Backend { id, info, hop, takes } => self.enter_backend(*id, info, hop, *takes),
            MapOp::Head { index, head } => self.backends.store(entry(*index), head.bits()),
            MapOp::Hop { index, head, hop } => {
                self.write_hop(*index, head.active(), hop)?;
                self.backends.store(entry(*index), head.bits())
            }
            MapOp::BackendInfo { index, info } => {
                written("BACKEND_INFO", self.tables.backend_info.set(*index, info, 0))
            }
            MapOp::ForgetBackend { index, generation } => self.forget_backend(*index, *generation),
            MapOp::Ring { offset, slots } => {
                self.rings.store_all(*offset as usize, slots.iter().map(|slot| slot.bits()))
            }
            MapOp::Slots(changes) => {
                changes.iter().try_for_each(|(index, slot)| self.rings.store(*index as usize, slot.bits()))
            }
            MapOp::Tracking { service, lifetime, limit } => {
                self.tracking.store(tracking_word(*service, LIFETIME), *lifetime)?;
                self.tracking.store(tracking_word(*service, LIMIT), *limit)
            }
            MapOp::Redirect(step) => self.redirect(step),
            MapOp::Publish { service, word } => self.published.store(*service as usize, word.bits()),
            MapOp::ServiceInfo { index, info } => {
                written("SERVICE_INFO", self.tables.service_info.set(*index, **info, 0))
            }
            MapOp::ResetService { index } => {
                self.published.store(*index as usize, 0)?;
                self.tracking.store_all(tracking_word(*index, 0), [0; tracking::WORDS])?;
                written("SERVICE_COUNTERS", self.tables.service_counters.set(*index, zeroes(self.cpus)?, 0))
            }
            MapOp::Service { key, index } => {
                written("SERVICES", self.tables.services.insert(key, ServiceEntry { index: *index }, 0))
            }
            MapOp::RemoveService { key } => removed("SERVICES", self.tables.services.remove(key)),
            MapOp::SourceRange { service, range } => {
                written("SOURCE_RANGES", self.tables.source_ranges.insert(&source_key(*service, range), 1, 0))
            }
            MapOp::RemoveSourceRange { service, range } => {
                removed("SOURCE_RANGES", self.tables.source_ranges.remove(&source_key(*service, range)))
            }
            MapOp::Grace => self.grace.wait(),
        }
    }

    fn redirect(&mut self, step: &Redirect) -> Result<(), DataplaneError> {
        match step {
            Redirect::TargetPort { service, port } => {
                self.tracking.store(tracking_word(*service, TARGET_PORT), u64::from(*port))
            }
            Redirect::Rewrite(key, Some(port)) => self.tables.rewrite(key, *port),
            Redirect::Rewrite(key, None) => removed("REWRITES", self.tables.rewrites.remove(key)),
            Redirect::Translation(key, to) if to.is_empty() => {
                removed("TRANSLATIONS", self.tables.translations.remove(key))
            }
            Redirect::Translation(key, to) => self.tables.translate(key, to),
        }
    }

    /// Their sizes.
    pub(super) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// What the maps hold.
    pub(super) fn state(&self) -> Result<MapState, DataplaneError> {
        let mut state = MapState::empty(self.sizes);
        let read = |error| DataplaneError::map("SETTINGS", "reading", &error);
        state.settings = self.tables.settings.get(&0, 0).map_err(read)?;
        state.addresses = entries("ADDRESSES", self.tables.addresses.iter(), |entry: AddressEntry| entry.flags)?;
        state.peers = entries("PEERS", self.tables.peers.iter(), |peer: PeerEntry| peer.id)?;
        let macs = entries("PEER_MACS", self.tables.peer_macs.iter(), |peer: PeerEntry| peer.id)?;
        state.peer_macs = macs.into_iter().map(|(key, id)| (key.mac, id)).collect();
        state.devices = self.tables.devices.keys().filter_map(Result::ok).collect();
        state.source_ranges = self.source_ranges()?;
        state.rewrites = tables::rewrites(&self.tables.rewrites)?;
        state.translations = tables::translations(&self.tables.translations)?;
        let backends = self.backends(&mut state)?;
        let keys = entries("SERVICES", self.tables.services.iter(), |entry: ServiceEntry| entry.index)?;
        state.arena = RingArena::new(self.sizes.ring_slots);
        for (key, index) in keys {
            state.free_services.remove(&index);
            let service = self.service(index, &backends, &mut state.arena)?;
            state.services.insert(key, service.into());
        }
        Ok(state)
    }

    /// How the node was drained when these maps were signed.
    pub(super) fn node_drain(&self) -> Result<Option<Drain>, DataplaneError> {
        let read = |error| DataplaneError::map("AGENT", "reading", &error);
        let info = self.tables.agent.get(&0, 0).map_err(read)?;
        Ok(drain(info.drained_since, info.drain_deadline, true))
    }

    /// Writes who keeps these maps, and how its node is drained.
    pub(super) fn sign(&mut self, node: &str, drain: Option<Drain>) -> Result<(), DataplaneError> {
        let started =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let info = AgentInfo {
            started,
            pid: std::process::id(),
            layout: LAYOUT_VERSION,
            drained_since: drain.map_or(0, |drain| drain.since),
            drain_deadline: drain.and_then(|drain| drain.deadline).unwrap_or(0),
            node: padded(node),
            version: padded(env!("CARGO_PKG_VERSION")),
        };
        written("AGENT", self.tables.agent.set(0, info, 0))
    }

    fn filter_bit(&mut self, bit: u32, set: bool) -> Result<(), DataplaneError> {
        let word = bit as usize / 64;
        let mask = 1 << (bit % 64);
        let old = self.filter.load(word)?;
        self.filter.store(word, if set { old | mask } else { old & !mask })
    }

    fn enter_backend(
        &mut self,
        id: BackendId,
        info: &BackendInfo,
        hop: &Hop,
        takes: bool,
    ) -> Result<(), DataplaneError> {
        written("BACKEND_COUNTERS", self.tables.backend_counters.set(id.index(), zeroes(self.cpus)?, 0))?;
        written("BACKEND_INFO", self.tables.backend_info.set(id.index(), info, 0))?;
        self.write_hop(id.index(), 0, hop)?;
        self.backends.store(entry(id.index()), Head::new(id.generation(), 0).taking(takes).bits())
    }

    fn forget_backend(&mut self, index: u32, generation: u16) -> Result<(), DataplaneError> {
        self.backends.store(entry(index), 0)?;
        let info = BackendInfo { generation, ..BackendInfo::default() };
        written("BACKEND_INFO", self.tables.backend_info.set(index, info, 0))
    }

    fn write_hop(&mut self, index: u32, which: usize, hop: &Hop) -> Result<(), DataplaneError> {
        self.backends.store_all(hop_words(index, which), hop.to_words())
    }

    fn source_ranges(&self) -> Result<BTreeMap<u32, BTreeSet<SourceRange>>, DataplaneError> {
        let mut by_service: BTreeMap<u32, BTreeSet<SourceRange>> = BTreeMap::new();
        for (service, range) in self.tables.source_ranges()? {
            by_service.entry(service).or_default().insert(range);
        }
        Ok(by_service)
    }

    /// Reads every backend in use, and which indices are free.
    /// Backends in the order of their services' indices.
    fn backends(&self, state: &mut MapState) -> Result<Vec<(BackendInfo, BackendState)>, DataplaneError> {
        let mut in_use = Vec::new();
        state.free_backends.clear();
        for index in 0..self.sizes.backends {
            let info = self.tables.backend_info.get(&index, 0);
            let info = info.map_err(|error| DataplaneError::map("BACKEND_INFO", "reading", &error))?;
            match read_backend(index, &info, &self.backends)? {
                Some(backend) => in_use.push((info, backend)),
                None => state.free_backends.push_back((index, info.generation)),
            }
        }
        in_use.sort_by_key(|(info, _)| info.service);
        Ok(in_use)
    }

    fn service(
        &self,
        index: u32,
        backends: &[(BackendInfo, BackendState)],
        arena: &mut RingArena,
    ) -> Result<ServiceState, DataplaneError> {
        let info = self.tables.service_info.get(&index, 0);
        let info = info.map_err(|error| DataplaneError::map("SERVICE_INFO", "reading", &error))?;
        let word = RingWord::from_bits(self.published.load(index as usize)?);
        if !word.is_empty() {
            arena.take_at(word.offset(), 1 << word.log2());
        }
        let tracking = |word| self.tracking.load(tracking_word(index, word));
        let first = backends.partition_point(|(info, _)| info.service < index);
        let of_service = backends[first..].iter().take_while(|(info, _)| info.service == index);
        Ok(ServiceState {
            index,
            name: tables::text(&info.name),
            word,
            ring: RingOrigin::Adopted,
            marks: Vec::new(),
            tracking: (tracking(LIFETIME)?, tracking(LIMIT)?),
            target_port: target_port(word, tracking(TARGET_PORT)?),
            backends: of_service.map(|(info, state)| ((info.address, info.port), state.clone())).collect(),
            met: Met::default(),
        })
    }
}

impl Rings for Maps {
    fn slot(&self, index: u32) -> Slot {
        Slot::from_bits(self.rings.load(index as usize).unwrap_or(0))
    }
}

fn source_key(service: u32, range: &SourceRange) -> Key<SourceKey> {
    let (prefix, key) = range.key(service);
    Key::new(prefix, key)
}

/// A drain as it stands in a map.
fn drain(since: u64, deadline: u64, with_node: bool) -> Option<Drain> {
    (since != 0).then_some(Drain { since, deadline: (deadline != 0).then_some(deadline), with_node })
}

/// The backend at an index, as its two entries tell; `None` if they are not in use.
pub(super) fn read_backend(
    index: u32,
    info: &BackendInfo,
    backends: &MappedWords,
) -> Result<Option<BackendState>, DataplaneError> {
    let head = Head::from_bits(backends.load(entry(index))?);
    if info.used == 0 || head.generation() == 0 {
        return Ok(None);
    }
    let mut words = [0; HOP_WORDS];
    for (at, word) in words.iter_mut().enumerate() {
        *word = backends.load(hop_words(index, head.active()) + at)?;
    }
    let entered = TargetBackend {
        weight: info.weight,
        in_ring: info.in_ring != 0,
        keeps_flows: true,
        drain: drain(info.drained_since, info.drain_deadline, info.drained_with_node != 0),
        hop: Hop::from_words(&words),
    };
    Ok(Some(BackendState { id: BackendId::new(index, head.generation()), head, entered: entered.into() }))
}

fn entry(index: u32) -> usize {
    index as usize * BACKEND_WORDS
}

pub(super) fn tracking_word(service: u32, word: usize) -> usize {
    service as usize * tracking::WORDS + word
}

/// The servers' port, if the service's word says that there is one.
pub(super) fn target_port(word: RingWord, port: u64) -> u16 {
    if word.has_target_port() { u16::try_from(port).unwrap_or(0) } else { 0 }
}

fn hop_words(index: u32, which: usize) -> usize {
    entry(index) + 1 + which * HOP_WORDS
}

fn zeroes(cpus: usize) -> Result<PerCpuValues<Counters>, DataplaneError> {
    PerCpuValues::try_from(vec![Counters::default(); cpus])
        .map_err(|error| DataplaneError::map("SERVICE_COUNTERS", "zeroing", &error))
}

fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let length = text.len().min(N - 1);
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    bytes
}

fn written(map: &'static str, result: Result<(), MapError>) -> Result<(), DataplaneError> {
    result.map_err(|error| DataplaneError::map(map, "writing", &error))
}

pub(super) fn entries<K: Ord, V>(
    map: &'static str,
    entries: impl Iterator<Item = Result<(K, V), MapError>>,
    value: impl Fn(V) -> u32,
) -> Result<BTreeMap<K, u32>, DataplaneError> {
    entries
        .map(|entry| entry.map(|(key, entry)| (key, value(entry))))
        .collect::<Result<_, _>>()
        .map_err(|error| DataplaneError::map(map, "reading", &error))
}
