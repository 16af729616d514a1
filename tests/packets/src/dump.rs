//! All maps, byte for byte.

use std::{collections::BTreeMap, path::Path};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, lpm_trie::LpmTrie, xdp::DevMapHash};
use lb_agent::dataplane::PinDirectory;
use lb_common::{
    hash::Tuple,
    maps::{
        ALL,
        agent::AgentInfo,
        backends::Backend,
        counters::Counters,
        flows::FlowEntry,
        fragments::{FragmentEntry, FragmentKey},
        names::{BackendInfo, ServiceInfo},
        peers::PeerMacKey,
        rewrites::RewriteEntry,
        services::VipKey,
        settings::Settings,
        sources::SourceKey,
        tracking::Tracking,
        translations::{TranslatedEntry, TranslationEntry},
    },
};

/// Bytes of every entry of a map, by its key.
type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// Reads every pinned map, byte for byte: name, key, value.
///
/// # Panics
/// If a map cannot be read, or is not known here.
#[must_use]
pub fn dump(pins: &PinDirectory) -> BTreeMap<&'static str, Entries> {
    ALL.iter().map(|fact| (fact.name, entries(fact.name, pins))).collect()
}

fn entries(name: &'static str, pins: &PinDirectory) -> Entries {
    let path = &pins.map(name);
    match name {
        "SETTINGS" => array::<{ size_of::<Settings>() }>(path),
        "VIP_FILTER" | "PUBLISHED" | "RINGS" => array::<8>(path),
        "BACKENDS" => array::<{ size_of::<Backend>() }>(path),
        "SERVICE_INFO" => array::<{ size_of::<ServiceInfo>() }>(path),
        "BACKEND_INFO" => array::<{ size_of::<BackendInfo>() }>(path),
        "AGENT" => array::<{ size_of::<AgentInfo>() }>(path),
        "ADDRESSES" | "PEERS" => hash::<16, 4>(path),
        "SERVICES" => hash::<{ size_of::<VipKey>() }, 4>(path),
        "PEER_MACS" => hash::<{ size_of::<PeerMacKey>() }, 4>(path),
        "VERDICTS" | "DROPS" => per_cpu::<8>(path),
        "SERVICE_COUNTERS" | "BACKEND_COUNTERS" => per_cpu::<{ size_of::<Counters>() }>(path),
        "TRACKING" => array::<{ size_of::<Tracking>() }>(path),
        "NEW_FLOWS" | "OLD_FLOWS" => hash::<{ size_of::<Tuple>() }, { size_of::<FlowEntry>() }>(path),
        "DEVICES" => devices(path),
        "FRAGMENTS" => hash::<{ size_of::<FragmentKey>() }, { size_of::<FragmentEntry>() }>(path),
        "REWRITES" => hash::<{ size_of::<VipKey>() }, { size_of::<RewriteEntry>() }>(path),
        "TRANSLATIONS" => hash::<{ size_of::<VipKey>() }, { size_of::<TranslationEntry>() }>(path),
        "TRANSLATED" => hash::<8, { size_of::<TranslatedEntry>() }>(path),
        "SOURCE_RANGES" => trie::<{ size_of::<SourceKey>() }, 4>(path),
        other => panic!("the test does not know how to read the map {other}"),
    }
}

fn open<T: TryFrom<Map, Error = MapError>>(path: &Path) -> T {
    let map = MapData::from_pin(path).and_then(Map::from_map_data);
    map.and_then(TryInto::try_into).unwrap_or_else(|error| panic!("opening {}: {error}", path.display()))
}

fn array<const N: usize>(path: &Path) -> Entries {
    let map: Array<MapData, [u8; N]> = open(path);
    let value = |index: u32| map.get(&index, 0).expect("an array has every entry");
    (0..map.len()).map(|index| (index.to_be_bytes().to_vec(), value(index).to_vec())).collect()
}

fn per_cpu<const N: usize>(path: &Path) -> Entries {
    let map: PerCpuArray<MapData, [u8; N]> = open(path);
    let value = |index: u32| map.get(&index, 0).expect("an array has every entry").concat();
    (0..map.len()).map(|index| (index.to_be_bytes().to_vec(), value(index))).collect()
}

fn hash<const K: usize, const V: usize>(path: &Path) -> Entries {
    let map: HashMap<MapData, [u8; K], [u8; V]> = open(path);
    map.iter()
        .map(|entry| entry.expect("nobody else writes"))
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect()
}

fn trie<const K: usize, const V: usize>(path: &Path) -> Entries {
    let map: LpmTrie<MapData, [u8; K], [u8; V]> = open(path);
    map.iter()
        .map(|entry| entry.expect("nobody else writes"))
        .map(|(key, value)| ([&key.prefix_len().to_be_bytes()[..], &key.data()].concat(), value.to_vec()))
        .collect()
}

fn devices(path: &Path) -> Entries {
    let map: DevMapHash<MapData> = open(path);
    map.keys()
        .map(|key| key.expect("nobody else writes"))
        .map(|key| {
            let value = map.get(key, 0).expect("nobody else writes");
            (key.to_be_bytes().to_vec(), value.if_index.to_be_bytes().to_vec())
        })
        .collect()
}
