//! Keys and values of every pinned map, each defined once: name, capacity, who writes, who reads.
//!
//! Values have no implicit padding and no byte whose value is not defined. What changes while packets flow is a
//! 64-bit word that is stored in one piece ([`published`], [`rings`], [`backends::Head`]); everything else is written
//! only while nothing refers to it.

pub mod addresses;
pub mod agent;
pub mod backends;
pub mod counters;
pub mod flows;
pub mod fragments;
pub mod names;
pub mod peers;
pub mod published;
pub mod rewrites;
pub mod rings;
pub mod services;
pub mod settings;
pub mod sources;
pub mod trace;
pub mod tracking;
pub mod translations;

#[cfg(test)]
mod layout_tests;

/// Implements `aya::Pod` for types that have no byte outside of a field.
macro_rules! pod {
    ($($name:ty: $size:expr),+ $(,)?) => {
        $(
            const _: () = assert!(size_of::<$name>() == $size);
            // SAFETY: `repr(C)` or `repr(transparent)`, every byte belongs to a field (the size asserted above is the
            // sum of the fields'), and every bit pattern is a value.
            #[cfg(feature = "user")]
            #[expect(unsafe_code, reason = "aya reads and writes map values as plain bytes")]
            unsafe impl aya::Pod for $name {}
        )+
    };
}
pub(crate) use pod;

/// A pinned map: its name in the BPF object and under the pin directory, and what it is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MapFact {
    /// Name, the file name under the pin directory.
    pub name: &'static str,
    /// One sentence for people.
    pub purpose: &'static str,
}

/// Every pinned map.
pub const ALL: &[MapFact] = &[
    MapFact { name: "SETTINGS", purpose: "Hash key and what else every packet may need; one entry." },
    MapFact { name: "VIP_FILTER", purpose: "A bit per hash of a VIP: packets whose bit is clear are not ours." },
    MapFact { name: "ADDRESSES", purpose: "What this node's addresses and the VIPs mean." },
    MapFact { name: "SERVICES", purpose: "VIP, protocol and port to the index of a service." },
    MapFact { name: "PUBLISHED", purpose: "Per service, one word: where its ring is, how large, which generation." },
    MapFact { name: "RINGS", purpose: "The arena of all rings: slots that name backends." },
    MapFact { name: "BACKENDS", purpose: "Per backend, how its packets leave this node." },
    MapFact { name: "TRACKING", purpose: "Per service, how long and how many flows are recorded." },
    MapFact { name: "NEW_FLOWS", purpose: "Flows that began on a slot whose owner changed." },
    MapFact { name: "OLD_FLOWS", purpose: "Flows that began before the owner of their slot changed." },
    MapFact { name: "PEERS", purpose: "Addresses of the other directors." },
    MapFact { name: "PEER_MACS", purpose: "Link-layer addresses of directors on a shared link." },
    MapFact { name: "DEVICES", purpose: "Interfaces that packets may be redirected to." },
    MapFact { name: "VERDICTS", purpose: "Packets per verdict and CPU." },
    MapFact { name: "DROPS", purpose: "Packets per drop reason and CPU." },
    MapFact { name: "SERVICE_COUNTERS", purpose: "Packets and bytes per service and CPU." },
    MapFact { name: "BACKEND_COUNTERS", purpose: "Packets and bytes per backend and CPU." },
    MapFact { name: "SERVICE_INFO", purpose: "Names of services, for people; the packet path does not read it." },
    MapFact { name: "BACKEND_INFO", purpose: "Identity of backends, for adoption; the packet path does not read it." },
    MapFact { name: "AGENT", purpose: "The agent that keeps these maps; one entry." },
    MapFact { name: "FRAGMENTS", purpose: "Ports of datagrams that come in fragments; the oldest go." },
    MapFact { name: "SOURCE_RANGES", purpose: "Client addresses that services with ranges admit." },
    MapFact { name: "REWRITES", purpose: "Port of a service by the port of its servers here, where they differ." },
    MapFact { name: "TRANSLATIONS", purpose: "Where connections of this node's own processes to a VIP go instead." },
    MapFact { name: "TRANSLATED", purpose: "Sockets whose connection went elsewhere; the longest unused go." },
];
