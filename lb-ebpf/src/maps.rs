//! The maps, with keys and values from `lb_common::maps`, and what is read from them. Capacities are set when the object is
//! loaded; the numbers here only have to be valid.
#![expect(unsafe_code, reason = "map values are borrowed from the kernel, which the agent may be writing")]

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, ArrayOfMaps, DevMapHash, HashMap, PerCpuArray, RingBuf},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};
use lb_common::{
    addr::{IpAddr16, Mac},
    maps::{
        addresses::{AddressEntry, FILTER_WORDS},
        agent::AgentInfo,
        backends::Backend,
        counters::Counters,
        names::{BackendInfo, ServiceInfo},
        peers::{PeerEntry, PeerMacKey},
        services::{ServiceEntry, VipKey},
        settings::Settings,
        trace::{Event, Filter, TraceCounts},
    },
};

const MAPPED: usize = BPF_F_MMAPABLE as usize;
const VERDICT_SLOTS: usize = lb_common::verdict::Verdict::ALL.len();
const DROP_SLOTS: usize = lb_common::verdict::DropReason::ALL.len();

#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
pub static VIP_FILTER: Array<u64, { FILTER_WORDS as usize }, MAPPED> = Array::new();
#[btf_map]
pub static ADDRESSES: HashMap<IpAddr16, AddressEntry, 1> = HashMap::new();
#[btf_map]
pub static SERVICES: HashMap<VipKey, ServiceEntry, 1> = HashMap::new();
#[btf_map]
pub static PUBLISHED: Array<u64, 1, MAPPED> = Array::new();
#[btf_map]
pub static RINGS: Array<u64, 1, MAPPED> = Array::new();
#[btf_map]
pub static BACKENDS: Array<Backend, 1, MAPPED> = Array::new();
#[btf_map]
pub static PEERS: HashMap<IpAddr16, PeerEntry, 1> = HashMap::new();
#[btf_map]
pub static PEER_MACS: HashMap<PeerMacKey, PeerEntry, 1> = HashMap::new();
#[btf_map]
pub static DEVICES: DevMapHash<1> = DevMapHash::new();
#[btf_map]
pub static VERDICTS: PerCpuArray<u64, VERDICT_SLOTS> = PerCpuArray::new();
#[btf_map]
pub static DROPS: PerCpuArray<u64, DROP_SLOTS> = PerCpuArray::new();
#[btf_map]
pub static SERVICE_COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();
#[btf_map]
pub static BACKEND_COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();
#[btf_map]
pub static SERVICE_INFO: Array<ServiceInfo, 1> = Array::new();
#[btf_map]
pub static BACKEND_INFO: Array<BackendInfo, 1> = Array::new();
#[btf_map]
pub static AGENT: Array<AgentInfo, 1> = Array::new();
/// Not read: an update of a map of maps waits for a grace period on kernels where `membarrier` refuses to.
#[btf_map]
pub static GRACE: ArrayOfMaps<Array<u32, 1>, 1> = ArrayOfMaps::new();
#[btf_map]
pub static TRACE_FILTER: Array<Filter, 1> = Array::new();
#[btf_map]
pub static TRACE_COUNTS: PerCpuArray<TraceCounts, 1> = PerCpuArray::new();
/// Where an event is put together: the stack has no room for it.
#[btf_map]
pub static TRACE_SCRATCH: PerCpuArray<Event, 1> = PerCpuArray::new();
/// Its size in bytes is set when the tracing program is loaded.
#[btf_map]
pub static EVENTS: RingBuf<Event, 4096> = RingBuf::new();

/// What an address means; no flag at all if it is not ours.
#[inline(always)]
pub fn address(address: &IpAddr16) -> AddressEntry {
    // SAFETY: a single `u32`, copied at once: it cannot tear.
    unsafe { ADDRESSES.get(address) }.copied().unwrap_or_default()
}

/// Index of the service with just this key.
#[inline(always)]
pub fn service(key: &VipKey) -> Option<u32> {
    // SAFETY: a single `u32`, copied at once, that never changes while the service lives.
    unsafe { SERVICES.get(key) }.map(|entry| entry.index)
}

/// The director with this address, 0 if none has it.
#[inline(always)]
pub fn peer(address: &IpAddr16) -> u32 {
    // SAFETY: a single `u32`, copied at once: it cannot tear.
    unsafe { PEERS.get(address) }.map_or(0, |peer| peer.id)
}

/// The director with this link-layer address, 0 if none has it.
#[inline(always)]
pub fn peer_by_mac(mac: Mac) -> u32 {
    // SAFETY: a single `u32`, copied at once: it cannot tear.
    unsafe { PEER_MACS.get(PeerMacKey::new(mac)) }.map_or(0, |peer| peer.id)
}

/// Bits of the word that is published for a service.
#[inline(always)]
pub fn published(service: u32) -> Option<u64> {
    PUBLISHED.get(service).map(once)
}

/// Bits of a slot of the ring arena.
#[inline(always)]
pub fn slot(index: u32) -> Option<u64> {
    RINGS.get(index).map(once)
}

/// An entry of `BACKENDS`, with the bits of its head.
#[inline(always)]
pub fn backend(index: u32) -> Option<(u64, &'static Backend)> {
    BACKENDS.get(index).map(|backend| (once(&backend.head), backend))
}

/// This CPU's place to put an event together.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Event> {
    let event = TRACE_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the value of this CPU, on which one program runs at a time; it lives as long as the program is loaded, and
    // callers do not hold two of them.
    Some(unsafe { &mut *event })
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn monotonic() -> u64 {
    // SAFETY: the helper takes no argument and reads a clock.
    unsafe { bpf_ktime_get_ns() }
}

/// This CPU's counts of events.
#[inline(always)]
pub fn trace_counts() -> Option<&'static mut TraceCounts> {
    let counts = TRACE_COUNTS.get_ptr_mut(0)?;
    // SAFETY: as in `scratch`.
    Some(unsafe { &mut *counts })
}

/// Reads a word just once, whatever the agent stores meanwhile.
#[inline(always)]
fn once(word: &u64) -> u64 {
    // SAFETY: a valid, aligned word of a map, which lives as long as the program is loaded.
    unsafe { core::ptr::read_volatile(word) }
}
