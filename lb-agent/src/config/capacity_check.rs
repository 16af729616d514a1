//! Whether what is configured fits into the maps: better refused here than by a full map halfway.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    draft::{Draft, DraftCapacities},
    draft_service::DraftService,
    error::Problems,
    read::Located,
    types::Capacities,
};

impl DraftCapacities {
    /// The capacities with their defaults.
    pub(super) fn effective(&self) -> Capacities {
        let default = Capacities::default();
        let or = |own: Option<Located<u32>>, default| own.map_or(default, |own| own.value);
        let flows = or(self.flows, default.flows);
        Capacities {
            services: or(self.services, default.services),
            backends: or(self.backends, default.backends),
            ring_slots: or(self.ring_slots, default.ring_slots),
            flows,
            flows_per_service: or(self.flows_per_service, (flows / 4).max(1)),
            peers: or(self.peers, default.peers),
            addresses: or(self.addresses, default.addresses),
            source_ranges: or(self.source_ranges, default.source_ranges),
            fragments: or(self.fragments, default.fragments),
        }
    }
}

/// A capacity.
struct Kind {
    /// Its key in the file.
    key: &'static str,
    /// What it counts, for error texts.
    what: &'static str,
    /// The largest value the key can have.
    limit: u32,
}

const SERVICES: Kind = kind("services", "(VIP, protocol, port) entries", Capacities::MAX.services);
const BACKENDS: Kind =
    kind("backends", "backend entries (one per VIP, protocol, port and backend)", Capacities::MAX.backends);
const RING_SLOTS: Kind =
    kind("ringSlots", "ring slots (every ring, and the largest once more to swap)", Capacities::MAX.ring_slots);
const PEERS: Kind = kind("peers", "addresses of peers", Capacities::MAX.peers);
const ADDRESSES: Kind = kind("addresses", "VIP addresses", Capacities::MAX.addresses);
const SOURCE_RANGES: Kind =
    kind("sourceRanges", "source ranges (one per VIP, protocol, port and range)", Capacities::MAX.source_ranges);

const fn kind(key: &'static str, what: &'static str, limit: u32) -> Kind {
    Kind { key, what, limit }
}

/// Reports every capacity that is too small for the draft.
pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    let own = &draft.capacities;
    let capacities = own.effective();
    let sum = |of: fn(&DraftService) -> u64| draft.services.iter().map(of).fold(0, u64::saturating_add);
    let backends = sum(|service| service.entries().saturating_mul(service.backends.len() as u64));
    let largest = draft.services.iter().map(|service| ring_slots(service, 1)).max().unwrap_or(0);
    // A changed ring is built beside the one in use, so the largest has to fit once more.
    let slots = sum(|service| ring_slots(service, service.entries())).saturating_add(largest);
    let vips: BTreeSet<IpAddr> = draft.services.iter().flat_map(|service| &service.vips).map(|vip| vip.value).collect();
    let peers: usize = draft.peers.iter().map(|peer| peer.addresses.len()).sum();
    let first_service = draft.services.first().map(|service| service.place);
    let first_peer = draft.peers.first().map(|peer| peer.name.place);
    let mut fit = |kind: Kind, needed, capacity, own: Option<Located<u32>>| {
        if needed > u64::from(capacity) {
            let message = too_small(&kind, needed, capacity, own.is_none());
            let cause = if kind.key == PEERS.key { first_peer } else { first_service };
            problems.refuse(own.map(|own| own.place).or(cause).unwrap_or_default(), message);
        }
    };
    fit(SERVICES, sum(DraftService::entries), capacities.services, own.services);
    fit(BACKENDS, backends, capacities.backends, own.backends);
    fit(RING_SLOTS, slots, capacities.ring_slots, own.ring_slots);
    fit(PEERS, peers as u64, capacities.peers, own.peers);
    let ranges = sum(|service| service.entries().saturating_mul(service.source_ranges.len() as u64));
    fit(SOURCE_RANGES, ranges, capacities.source_ranges, own.source_ranges);
    fit(ADDRESSES, vips.len() as u64, capacities.addresses, own.addresses);
}

fn too_small(kind: &Kind, needed: u64, capacity: u32, is_default: bool) -> String {
    let Kind { key, what, limit } = kind;
    let advice = if needed <= u64::from(*limit) {
        format!("set `capacities.{key}` to {needed} or more")
    } else {
        format!("configure less: `capacities.{key}` ends at {limit}")
    };
    let origin = if is_default { " by default" } else { "" };
    format!("{needed} {what} are configured, but `capacities.{key}` is {capacity}{origin}; {advice}")
}

fn ring_slots(service: &DraftService, rings: u64) -> u64 {
    rings.saturating_mul(u64::from(service.ring_size.value.slots()))
}
