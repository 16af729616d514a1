//! What the maps hold, what they should hold, and the steps between.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Deref,
};

use lb_common::{
    addr::{BackendId, Be16, IpAddr16, Mac},
    maglev::Member,
    maps::{
        addresses::AddressEntry,
        backends::{Head, Hop},
        names::{BackendInfo, ServiceInfo},
        published::RingWord,
        rings::Slot,
        services::VipKey,
        settings::Settings,
        sources::SourceRange,
        translations::Endpoint,
    },
};

use super::{met::Met, ring_arena::RingArena, target_backends::TargetBackends};
use crate::model::{Drain, Shared};

/// What the maps should hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TargetState {
    /// Hash key and filter over peers' MACs.
    pub settings: Settings,
    /// Flags of VIPs and of this node's addresses.
    pub addresses: BTreeMap<IpAddr16, u32>,
    /// Directors by address.
    pub peers: BTreeMap<IpAddr16, u32>,
    /// Directors by link-layer address.
    pub peer_macs: BTreeMap<Mac, u32>,
    /// Indices of interfaces that packets may leave by.
    pub devices: BTreeSet<u32>,
    /// What each VIP, protocol and port is served by.
    pub services: BTreeMap<VipKey, Shared<TargetService>>,
    /// Ports of services by VIP, protocol and the other port that their servers on this node listen on.
    pub rewrites: BTreeMap<VipKey, Be16>,
    /// Where connections of this node's own processes to a service go instead: 1..=[`MAX_BACKENDS`] backends.
    ///
    /// [`MAX_BACKENDS`]: lb_common::maps::translations::MAX_BACKENDS
    pub translations: BTreeMap<VipKey, Vec<Endpoint>>,
}

/// A service as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TargetService {
    /// Name, at most 63 bytes.
    pub name: String,
    /// Base-two logarithm of the ring's slots.
    pub log2: u8,
    /// Whether this node terminates flows to the VIP.
    pub held: bool,
    /// Whether a first ring may be that of a node that was away, and whose slots others had in the meantime.
    pub rejoins: bool,
    /// Whether its connections are sockets of the nodes: a packet without one may be another node's.
    pub second_chance: bool,
    /// Whether a client stays with its backend whatever port it comes from.
    pub has_affinity: bool,
    /// How long a recorded flow may be silent, and how long a slot whose owner changed is unsettled, in nanoseconds.
    pub window: u64,
    /// Backends by identity.
    pub backends: TargetBackends,
    /// Clients that are admitted; empty for everybody.
    pub source_ranges: BTreeSet<SourceRange>,
    /// Port that its servers on this node listen on, if it is another than the service's; else 0.
    pub target_port: u16,
}

/// A backend as it should be.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TargetBackend {
    /// Its weight in the ring, 0..=1000: during a slow start that of the moment, relative to the others'.
    pub weight: u16,
    /// Whether it takes new flows.
    pub in_ring: bool,
    /// Whether flows that it has may stay: not on a UDP backend that fails its probe, since a new datagram cannot be
    /// told from one of an old flow.
    pub keeps_flows: bool,
    /// How an operator drains it.
    pub drain: Option<Drain>,
    /// How its packets leave.
    pub hop: Hop,
}

impl TargetBackend {
    /// Whether new flows may meet it.
    #[must_use]
    pub const fn takes(&self) -> bool {
        self.in_ring && self.weight > 0
    }
}

/// Sizes of the maps, in entries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sizes {
    /// Entries of `SERVICES`.
    pub services: u32,
    /// Entries of `BACKENDS`.
    pub backends: u32,
    /// Slots of `RINGS`.
    pub ring_slots: u32,
    /// Entries of `PEERS` and of `PEER_MACS`.
    pub peers: u32,
    /// Entries of `ADDRESSES`.
    pub addresses: u32,
    /// Entries of `NEW_FLOWS` and of `OLD_FLOWS`.
    pub flows: u32,
    /// The most flows of one service in either.
    pub flows_per_service: u32,
    /// Entries of `SOURCE_RANGES`.
    pub source_ranges: u32,
    /// Entries of `FRAGMENTS`.
    pub fragments: u32,
}

/// What the maps hold, and what of them is free. Nothing in a free list is visible to any packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MapState {
    /// Sizes of the maps.
    pub sizes: Sizes,
    /// Entry of `SETTINGS`.
    pub settings: Settings,
    /// Entries of `ADDRESSES`; the filter's bits follow from those that are VIPs.
    pub addresses: BTreeMap<IpAddr16, u32>,
    /// Entries of `PEERS`.
    pub peers: BTreeMap<IpAddr16, u32>,
    /// Entries of `PEER_MACS`.
    pub peer_macs: BTreeMap<Mac, u32>,
    /// Entries of `DEVICES`.
    pub devices: BTreeSet<u32>,
    /// Services with everything that belongs to them.
    pub services: BTreeMap<VipKey, Shared<ServiceState>>,
    /// Entries of `SOURCE_RANGES` by the index of their service, those of indices that are not in use included.
    pub source_ranges: BTreeMap<u32, BTreeSet<SourceRange>>,
    /// Entries of `REWRITES`.
    pub rewrites: BTreeMap<VipKey, Be16>,
    /// Entries of `TRANSLATIONS`.
    pub translations: BTreeMap<VipKey, Vec<Endpoint>>,
    /// Indices of services that are free.
    pub free_services: BTreeSet<u32>,
    /// Indices of backends that are free, the longest free first, each with the last generation it had.
    pub free_backends: VecDeque<(u32, u16)>,
    /// Free slots of `RINGS`.
    pub arena: RingArena,
}

/// A service as the maps have it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceState {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The published word.
    pub word: RingWord,
    /// What the ring in force was built from.
    pub ring: RingOrigin,
    /// Slots that are not settled, in ascending order.
    pub marks: Vec<Mark>,
    /// Lifetime and limit as they stand in `TRACKING`.
    pub tracking: (u64, u64),
    /// Port of its servers as it stands in `TRACKING`; 0 if it is the service's.
    pub target_port: u16,
    /// Its backends.
    pub backends: BTreeMap<(IpAddr16, Be16), BackendState>,
    /// The target that it met when it was planned last.
    pub met: Met,
}

/// How the agent knows a ring. Its slots are in the arena alone: 32 KB a service add up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RingOrigin {
    /// The agent built it from these members, with `1 << log2` slots; the ring in force may repeat each of them.
    Members(Vec<Member>, u8),
    /// It was found in the maps.
    Adopted,
}

/// A slot that is not settled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark {
    /// Which slot of the ring.
    pub slot: u32,
    /// Whether its window is over.
    pub is_settling: bool,
    /// Nanoseconds of `CLOCK_MONOTONIC`: if it is unsettled when its window ends, if it is settling when that was noticed.
    pub at: u64,
}

/// Reads the arena of rings.
pub trait Rings {
    /// The slot at `index` of `RINGS`; a default one if there is none.
    fn slot(&self, index: u32) -> Slot;
}

/// A backend as the maps have it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackendState {
    /// Its id.
    pub id: BackendId,
    /// First word of its entry.
    pub head: Head,
    /// As what it was entered.
    pub entered: Shared<TargetBackend>,
}

impl Deref for BackendState {
    type Target = TargetBackend;

    fn deref(&self) -> &TargetBackend {
        &self.entered
    }
}

impl MapState {
    /// The state of maps that were just created.
    #[must_use]
    pub fn empty(sizes: Sizes) -> Self {
        Self {
            sizes,
            settings: Settings::default(),
            addresses: BTreeMap::new(),
            peers: BTreeMap::new(),
            peer_macs: BTreeMap::new(),
            devices: BTreeSet::new(),
            services: BTreeMap::new(),
            source_ranges: BTreeMap::new(),
            rewrites: BTreeMap::new(),
            translations: BTreeMap::new(),
            free_services: (0..sizes.services).collect(),
            free_backends: (0..sizes.backends).map(|index| (index, 0)).collect(),
            arena: RingArena::new(sizes.ring_slots),
        }
    }
}

/// A step on what is rewritten or translated.
#[derive(Clone, Debug, PartialEq)]
pub enum Redirect {
    /// Sets the port that a service's servers on this node listen on.
    TargetPort {
        /// Index of the service.
        service: u32,
        /// The port; 0 for the service's.
        port: u16,
    },
    /// Replaces an entry of `REWRITES`; `None` removes it.
    Rewrite(VipKey, Option<Be16>),
    /// Replaces an entry of `TRANSLATIONS`; none removes it.
    Translation(VipKey, Vec<Endpoint>),
}

/// One step on the maps. Performed in the order of the plan, each whole or not at all.
#[derive(Clone, Debug, PartialEq)]
pub enum MapOp {
    /// Replaces the entry of `SETTINGS`.
    Settings(Settings),
    /// Sets a bit of `VIP_FILTER`.
    FilterAdd(u32),
    /// Clears a bit of `VIP_FILTER`.
    FilterRemove(u32),
    /// Inserts or replaces an entry of `ADDRESSES`.
    Address(IpAddr16, AddressEntry),
    /// Removes an entry of `ADDRESSES`.
    RemoveAddress(IpAddr16),
    /// Inserts or replaces an entry of `PEERS`.
    Peer(IpAddr16, u32),
    /// Removes an entry of `PEERS`.
    RemovePeer(IpAddr16),
    /// Inserts or replaces an entry of `PEER_MACS`.
    PeerMac(Mac, u32),
    /// Removes an entry of `PEER_MACS`.
    RemovePeerMac(Mac),
    /// Inserts an interface into `DEVICES`.
    Device(u32),
    /// Removes an interface from `DEVICES`.
    RemoveDevice(u32),
    /// Fills a free entry of `BACKENDS`: hop 0, then the head; and its `BACKEND_INFO` first of all.
    Backend {
        /// The id it gets.
        id: BackendId,
        /// Its identity.
        info: BackendInfo,
        /// Its first hop.
        hop: Hop,
        /// Whether it takes new flows.
        takes: bool,
    },
    /// Replaces the head of an entry, its hop staying in force.
    Head {
        /// Index in `BACKENDS`.
        index: u32,
        /// The new head.
        head: Head,
    },
    /// Writes the hop at rest of an entry, then the head that puts it in force.
    Hop {
        /// Index in `BACKENDS`.
        index: u32,
        /// The new head.
        head: Head,
        /// The new hop.
        hop: Hop,
    },
    /// Replaces an entry of `BACKEND_INFO`.
    BackendInfo {
        /// Index in `BACKEND_INFO`.
        index: u32,
        /// The entry.
        info: BackendInfo,
    },
    /// Clears the head of an entry of `BACKENDS`, zeroes its counters and marks its `BACKEND_INFO` unused.
    ForgetBackend {
        /// Index in `BACKENDS`.
        index: u32,
        /// The last generation it had.
        generation: u16,
    },
    /// Writes slots that no published word refers to.
    Ring {
        /// Index of the first slot in `RINGS`.
        offset: u32,
        /// The slots.
        slots: Vec<Slot>,
    },
    /// Replaces single slots of rings in force, each in one piece.
    Slots(Vec<(u32, Slot)>),
    /// Sets how long and how many flows of a service are recorded.
    Tracking {
        /// Index of the service.
        service: u32,
        /// Nanoseconds.
        lifetime: u64,
        /// Flows in either table.
        limit: u64,
    },
    /// Changes what is rewritten or translated.
    Redirect(Redirect),
    /// Stores the word of a service.
    Publish {
        /// Index of the service.
        service: u32,
        /// The word.
        word: RingWord,
    },
    /// Replaces an entry of `SERVICE_INFO`.
    ServiceInfo {
        /// Index of the service.
        index: u32,
        /// The entry.
        info: Box<ServiceInfo>,
    },
    /// Zeroes the counters of a service that is about to appear.
    ResetService {
        /// Index of the service.
        index: u32,
    },
    /// Inserts an entry of `SERVICES`.
    Service {
        /// What it listens on.
        key: VipKey,
        /// Its index.
        index: u32,
    },
    /// Removes an entry of `SERVICES`.
    RemoveService {
        /// What it listened on.
        key: VipKey,
    },
    /// Inserts an entry of `SOURCE_RANGES`.
    SourceRange {
        /// Index of the service.
        service: u32,
        /// Whom it admits.
        range: SourceRange,
    },
    /// Removes an entry of `SOURCE_RANGES`.
    RemoveSourceRange {
        /// Index of the service.
        service: u32,
        /// Whom it admitted.
        range: SourceRange,
    },
    /// Waits until no packet is under way that was looked at before the steps so far: an RCU grace period.
    Grace,
}
