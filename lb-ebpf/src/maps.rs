//! The maps, with keys and values from `lb_common::maps`, and what is read from them. Capacities are set when the object is
//! loaded; the numbers here only have to be valid.
#![expect(unsafe_code, reason = "map values are borrowed from the kernel, which the agent may be writing")]

use core::arch::asm;

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, ArrayOfMaps, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
    helpers::generated::bpf_ktime_get_ns,
    macros::btf_map,
};
use lb_common::{
    addr::{Be16, IpAddr16, Mac},
    hash::Tuple,
    limit,
    maps::{
        addresses::{AddressEntry, FILTER_WORDS},
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
        sources::{SourceEntry, SourceKey},
        trace::{Event, Filter, TraceCounts},
        tracking::{TARGET_PORT, Tracking},
        translations::{Endpoint, MAX_BACKENDS, SOCKETS, TranslatedEntry, TranslationEntry},
    },
    report::Report,
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
pub static TRACKING: Array<Tracking, 1, MAPPED> = Array::new();
#[btf_map]
pub static NEW_FLOWS: HashMap<Tuple, FlowEntry, 1> = HashMap::new();
#[btf_map]
pub static OLD_FLOWS: HashMap<Tuple, FlowEntry, 1> = HashMap::new();
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
#[btf_map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentEntry, 1> = LruHashMap::new();
#[btf_map]
pub static SOURCE_RANGES: LpmTrie<SourceKey, SourceEntry, 1> = LpmTrie::new();
#[btf_map]
pub static REWRITES: HashMap<VipKey, RewriteEntry, 1> = HashMap::new();
#[btf_map]
pub static TRANSLATIONS: HashMap<VipKey, TranslationEntry, 1> = HashMap::new();
#[btf_map]
pub static TRANSLATED: LruHashMap<u64, TranslatedEntry, { SOCKETS as usize }> = LruHashMap::new();
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
/// How the tracing program came to its decision, for the same reason.
#[btf_map]
pub static TRACE_REPORT: PerCpuArray<Report, 1> = PerCpuArray::new();
/// Its size in bytes is set when the tracing program is loaded.
#[btf_map]
pub static EVENTS: RingBuf<Event, 4096> = RingBuf::new();

/// Limits the errors that this node sends; see [`limit`]. Not pinned: every program begins with a full bucket.
#[btf_map]
pub static ANSWERS: Array<u64, 1> = Array::new();

/// Whether one more error may be sent now. CPUs that ask in the same instant may take the same token.
#[inline(always)]
pub fn may_answer() -> bool {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(word) = ANSWERS.get_ptr_mut(0) else { return false };
    // SAFETY: a valid, aligned word of a map; a lost update of another CPU costs a token at most.
    match limit::take(unsafe { word.read_volatile() }, now) {
        Some(next) => {
            // SAFETY: as above.
            unsafe { word.write_volatile(next) };
            true
        }
        None => false,
    }
}

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

/// What the first fragment of a datagram told.
#[inline(always)]
pub fn fragment(key: &FragmentKey) -> Option<FragmentEntry> {
    // SAFETY: copied at once. Another CPU may take the entry for another datagram meanwhile: then the fragment goes to
    // another backend, which cannot use it, and its datagram is lost as if the entry had gone a moment earlier.
    unsafe { FRAGMENTS.get(key) }.copied()
}

/// The port of the service whose servers here are known by this key; `None` if it is the servers' own.
#[inline(always)]
pub fn rewritten(key: &VipKey) -> Option<Be16> {
    // SAFETY: copied at once. Another CPU may write another key's value there meanwhile, which tells by its second field.
    let entry = unsafe { REWRITES.get(key) }.copied()?;
    (entry.of == key.port).then_some(entry.port)
}

/// The port that servers of a service listen on, if it is another than the service's; else 0.
#[inline(always)]
pub fn target_port(service: u32) -> u16 {
    tracking(service).map_or(0, |words| words.load(TARGET_PORT) as u16)
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper reads a clock.
    unsafe { bpf_ktime_get_ns() }
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

/// Where a flow is recorded among the new ones.
#[inline(always)]
pub fn new_flow(key: &Tuple) -> Option<FlowPlace> {
    NEW_FLOWS.get_ptr_mut(key).map(FlowPlace)
}

/// Where a flow is recorded among the old ones.
#[inline(always)]
pub fn old_flow(key: &Tuple) -> Option<FlowPlace> {
    OLD_FLOWS.get_ptr_mut(key).map(FlowPlace)
}

/// An entry of a table of flows.
#[derive(Clone, Copy)]
pub struct FlowPlace(*mut FlowEntry);

impl FlowPlace {
    /// What is recorded there.
    #[inline(always)]
    pub fn read(self) -> FlowEntry {
        // SAFETY: a value of a preallocated map, valid while the program runs, even if the entry is removed meanwhile;
        // other CPUs store its fields in one piece each.
        unsafe { self.0.read_volatile() }
    }

    /// Replaces it.
    #[inline(always)]
    pub fn write(self, entry: &FlowEntry) {
        // SAFETY: as in `read`.
        unsafe { self.0.write_volatile(*entry) };
    }
}

/// Where connections to a service go.
#[inline(always)]
pub fn translation(key: &VipKey) -> Option<Translation> {
    TRANSLATIONS.get_ptr(key).map(Translation)
}

/// An entry of `TRANSLATIONS`.
pub struct Translation(*const TranslationEntry);

impl Translation {
    /// The backend that `random` names; `None` if the entry is not `key`'s any more.
    #[inline(always)]
    pub fn backend(&self, random: u32, key: &VipKey) -> Option<Endpoint> {
        // SAFETY: a value of a preallocated map, valid while the program runs. What is read can be another key's by then,
        // or half of it: the key is written first, so it is read last.
        let (backend, of) = unsafe {
            let count = (&raw const (*self.0).count).read_volatile().max(1);
            let at = (random % count) as usize & (MAX_BACKENDS - 1);
            let backend = (&raw const (*self.0).backends[at]).read_volatile();
            (backend, (&raw const (*self.0).key).read_volatile())
        };
        (of == *key).then_some(backend)
    }
}

/// What became of the connection of a socket.
#[inline(always)]
pub fn translated(cookie: u64) -> Option<TranslatedEntry> {
    // SAFETY: copied at once. Another CPU may take the entry for another socket meanwhile; whoever asks compares it.
    unsafe { TRANSLATED.get(cookie) }.copied()
}

/// The entry of `TRACKING` of a service.
#[inline(always)]
pub fn tracking(service: u32) -> Option<TrackingWords> {
    TRACKING.get_ptr_mut(service).map(TrackingWords)
}

/// Words that the agent and all CPUs share.
pub struct TrackingWords(*mut Tracking);

impl TrackingWords {
    /// The word at `index`, below [`lb_common::maps::tracking::WORDS`].
    #[inline(always)]
    pub fn load(&self, index: usize) -> u64 {
        // SAFETY: a value of an array, valid while the program is loaded; the word is read in one piece.
        unsafe { (&raw const (*self.0).0[index]).read_volatile() }
    }

    /// Adds one to the word at `index`, whoever else does so.
    #[inline(always)]
    pub fn increment(&self, index: usize) {
        // SAFETY: as in `load`; aligned, and the agent, too, changes the word atomically. The operation without a result
        // is one that Linux 5.10 has; `core` offers none for this target.
        unsafe {
            asm!("lock *(u64 *)({word} + 0) += {one}", word = in(reg) &raw mut (*self.0).0[index], one = in(reg) 1u64);
        }
    }
}

/// This CPU's place to put an event together.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Event> {
    let event = TRACE_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the value of this CPU, on which one program runs at a time; it lives as long as the program is loaded, and
    // callers do not hold two of them.
    Some(unsafe { &mut *event })
}

/// This CPU's place for a report; whatever it holds is to be overwritten first.
#[inline(always)]
pub fn trace_report() -> Option<&'static mut Report> {
    let report = TRACE_REPORT.get_ptr_mut(0)?;
    // SAFETY: as in `scratch`. It begins as zeros, which is a report, and only reports are stored.
    Some(unsafe { &mut *report })
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
