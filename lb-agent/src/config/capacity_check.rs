//! Whether what is configured fits into the maps: better refused here than by a full map halfway.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    draft::{Draft, DraftCapacities},
    draft_service::DraftService,
    error::{Place, Problems},
    read::Located,
    types::Capacities,
};

impl DraftCapacities {
    /// The capacities with their defaults.
    pub(super) fn effective(&self) -> Capacities {
        let default = Capacities::default();
        let or = |own: Option<Located<u32>>, default| own.map_or(default, |own| own.value);
        Capacities {
            services: or(self.services, default.services),
            backends: or(self.backends, default.backends),
            ring_slots: or(self.ring_slots, default.ring_slots),
            peers: or(self.peers, default.peers),
            addresses: or(self.addresses, default.addresses),
        }
    }
}

/// One capacity and what is asked of it.
struct Demand {
    key: &'static str,
    what: &'static str,
    needed: u64,
    capacity: u32,
    /// The largest value the key can have.
    limit: u32,
    configured: Option<Place>,
}

/// Reports every capacity that is too small for the draft.
pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    let fallback = draft.services.first().map(|service| service.place).unwrap_or_default();
    for demand in demands(draft) {
        let Demand {
            key,
            what,
            needed,
            capacity,
            limit,
            configured,
        } = demand;
        if needed <= u64::from(capacity) {
            continue;
        }
        let advice = if needed <= u64::from(limit) {
            format!("set `capacities.{key}` to {needed} or more")
        } else {
            format!("configure less: `capacities.{key}` ends at {limit}")
        };
        let origin = if configured.is_some() { "" } else { " by default" };
        let reason = format!("{needed} {what} are configured, but `capacities.{key}` is {capacity}{origin}; {advice}");
        problems.refuse(configured.unwrap_or(fallback), reason);
    }
}

fn demands(draft: &Draft) -> [Demand; 5] {
    let own = &draft.capacities;
    let capacities = own.effective();
    let sum = |of: fn(&DraftService) -> u64| draft.services.iter().map(of).fold(0, u64::saturating_add);
    let largest = draft
        .services
        .iter()
        .map(|service| ring_slots(service, 1))
        .max()
        .unwrap_or(0);
    let vips: BTreeSet<IpAddr> = draft
        .services
        .iter()
        .flat_map(|service| &service.vips)
        .map(|vip| vip.value)
        .collect();
    let peers: usize = draft.peers.iter().map(|peer| peer.addresses.len()).sum();
    let place = |own: Option<Located<u32>>| own.map(|own| own.place);
    let demand = |key, what, needed, capacity, limit, own| Demand {
        key,
        what,
        needed,
        capacity,
        limit,
        configured: place(own),
    };
    let entries = sum(DraftService::entries);
    let backends = sum(|service| service.entries().saturating_mul(service.backends.len() as u64));
    // A changed ring is built beside the one in use, so the largest has to fit once more.
    let slots = sum(|service| ring_slots(service, service.entries())).saturating_add(largest);
    [
        demand(
            "services",
            "(VIP, protocol, port) entries",
            entries,
            capacities.services,
            1 << 16,
            own.services,
        ),
        demand(
            "backends",
            "backend entries (one per VIP, protocol, port and backend)",
            backends,
            capacities.backends,
            1 << 20,
            own.backends,
        ),
        demand(
            "ringSlots",
            "ring slots (every ring, and the largest once more to swap)",
            slots,
            capacities.ring_slots,
            1 << 28,
            own.ring_slots,
        ),
        demand(
            "peers",
            "addresses of peers",
            peers as u64,
            capacities.peers,
            1 << 16,
            own.peers,
        ),
        demand(
            "addresses",
            "VIP addresses",
            vips.len() as u64,
            capacities.addresses,
            1 << 16,
            own.addresses,
        ),
    ]
}

fn ring_slots(service: &DraftService, rings: u64) -> u64 {
    rings.saturating_mul(u64::from(service.ring_size.value.slots()))
}
