//! What a ring says of its backends: shares, evenness, fingerprint. Pure.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{
    addr::{BackendId, Be16, IpAddr16},
    hash::{self, HashKey},
    maps::rings::{Slot, SlotState},
};

use super::view::{BackendView, ChangeView, RingView, ShareView};

/// Describes the ring whose slots are owned by `owners`, for the `backends` of its service.
pub(super) fn describe(owners: &[BackendId], backends: &[BackendView], key: &HashKey) -> RingView {
    let mut counts: BTreeMap<BackendId, u32> = BTreeMap::new();
    for owner in owners {
        *counts.entry(*owner).or_default() += 1;
    }
    let in_ring = |backend: &&BackendView| backend.in_ring && backend.weight > 0;
    let total_weight: u32 = backends.iter().filter(in_ring).map(|backend| u32::from(backend.weight)).sum();
    let all = f64::from(count(owners.len()));
    let mut owned = 0;
    let shares: Vec<_> = backends
        .iter()
        .map(|backend| {
            let slots = counts.get(&id(backend)).copied().unwrap_or(0);
            owned += slots;
            let weight = if in_ring(&backend) { backend.weight } else { 0 };
            ShareView {
                address: backend.address,
                port: backend.port,
                weight: backend.weight,
                slots,
                percent: percent(f64::from(slots), all),
                ideal_percent: percent(f64::from(weight), f64::from(total_weight)),
            }
        })
        .collect();
    let deviations = shares.iter().map(|share| rounded((share.percent - share.ideal_percent).abs()));
    RingView {
        slots: count(owners.len()),
        fingerprint: fingerprint(owners, backends, key),
        largest_deviation_percent: deviations.fold(0.0, f64::max),
        stale_slots: count(owners.len()) - owned,
        shares,
        changes: Vec::new(),
    }
}

/// The slots that are not settled, by present and former owner.
pub(super) fn changes(slots: &[Slot], backends: &[BackendView]) -> Vec<ChangeView> {
    let mut counts: BTreeMap<(&'static str, BackendId, BackendId), u32> = BTreeMap::new();
    for slot in slots {
        let state = match slot.state() {
            SlotState::Settled => continue,
            SlotState::Unsettled => "unsettled",
            SlotState::Settling => "settling",
        };
        *counts.entry((state, slot.current(), slot.old())).or_default() += 1;
    }
    let name = |wanted: BackendId| {
        let backend = backends.iter().find(|backend| id(backend) == wanted)?;
        Some(SocketAddr::new(backend.address, backend.port))
    };
    let view = |((state, current, old), slots): ((&'static str, BackendId, BackendId), u32)| ChangeView {
        current: current.bits(),
        current_backend: name(current),
        old: old.bits(),
        old_backend: name(old),
        state,
        slots,
    };
    counts.into_iter().map(view).collect()
}

/// Ids differ from node to node, so the fingerprint is made of the owners' addresses and ports, slot by slot.
fn fingerprint(owners: &[BackendId], backends: &[BackendView], key: &HashKey) -> String {
    let identities: BTreeMap<BackendId, [u8; 18]> = backends
        .iter()
        .map(|backend| {
            let mut identity = [0; 18];
            identity[..16].copy_from_slice(&IpAddr16::from(backend.address).bytes());
            identity[16..].copy_from_slice(&Be16::new(backend.port).wire());
            (id(backend), identity)
        })
        .collect();
    let mut message = Vec::with_capacity(owners.len() * 18);
    for owner in owners {
        message.extend(identities.get(owner).unwrap_or(&[0; 18]));
    }
    format!("{:016x}", hash::bytes(key, &message))
}

fn id(backend: &BackendView) -> BackendId {
    BackendId::new(backend.index, backend.generation)
}

/// A number of slots; a ring has at most 2^31.
fn count(slots: usize) -> u32 {
    u32::try_from(slots).unwrap_or(u32::MAX)
}

fn percent(part: f64, all: f64) -> f64 {
    if all > 0.0 { rounded(part / all * 100.0) } else { 0.0 }
}

/// Three places after the point: a slot of the largest ring is 0.0001 %, nobody compares as closely.
fn rounded(percent: f64) -> f64 {
    (percent * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::view::HopView;

    const KEY: HashKey = HashKey { k0: 1, k1: 2 };

    fn backend(index: u32, last: u8, weight: u16) -> BackendView {
        BackendView {
            index,
            generation: 1,
            address: [10, 0, 0, last].into(),
            port: 6443,
            weight,
            in_ring: true,
            hop: HopView::none("local"),
            packets: 0,
            bytes: 0,
        }
    }

    fn owners(indices: &[u32]) -> Vec<BackendId> {
        indices.iter().map(|index| BackendId::new(*index, 1)).collect()
    }

    #[test]
    fn shares_are_compared_with_the_weights() {
        let backends = [backend(4, 1, 1), backend(5, 2, 3)];
        let view = describe(&owners(&[4, 5, 5, 4, 5, 5, 5, 5]), &backends, &KEY);
        let shares: Vec<_> =
            view.shares.iter().map(|share| (share.slots, share.percent, share.ideal_percent)).collect();
        assert_eq!(shares, [(2, 25.0, 25.0), (6, 75.0, 75.0)]);
        assert_eq!((view.slots, view.stale_slots, view.largest_deviation_percent), (8, 0, 0.0));

        let view = describe(&owners(&[4, 5, 5, 4, 5, 5, 5, 4]), &backends, &KEY);
        assert_eq!(view.largest_deviation_percent, 12.5);
    }

    #[test]
    fn a_backend_out_of_the_ring_has_no_claim_and_a_gone_one_is_stale() {
        let mut out = backend(5, 2, 1);
        out.in_ring = false;
        let view = describe(&owners(&[4, 4, 9, 4]), &[backend(4, 1, 1), out], &KEY);
        assert_eq!((view.stale_slots, view.largest_deviation_percent), (1, 25.0));
        assert_eq!(view.shares[1].ideal_percent, 0.0);
    }

    #[test]
    fn slots_that_are_not_settled_are_counted_by_their_owners() {
        let backends = [backend(4, 1, 1), backend(5, 2, 1)];
        let (a, b, gone) = (BackendId::new(4, 1), BackendId::new(5, 1), BackendId::new(9, 1));
        let away = Slot::unsettled(b, a);
        let slots = [away, Slot::settled(a), away, away.settling(), Slot::unsettled(BackendId::NONE, gone)];
        let seen: Vec<_> = changes(&slots, &backends)
            .into_iter()
            .map(|change| (change.state, change.current_backend, change.old_backend, change.slots))
            .collect();
        let [name_a, name_b] = [1, 2].map(|last| Some(SocketAddr::from(([10, 0, 0, last], 6443))));
        let expected =
            [("settling", name_b, name_a, 1), ("unsettled", None, None, 1), ("unsettled", name_b, name_a, 2)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn an_empty_ring_is_even() {
        let view = describe(&[], &[backend(4, 1, 1)], &KEY);
        assert_eq!((view.slots, view.stale_slots, view.shares[0].percent), (0, 0, 0.0));
    }

    #[test]
    fn the_fingerprint_depends_on_identities_and_secret_and_not_on_ids() {
        let here = describe(&owners(&[4, 5]), &[backend(4, 1, 1), backend(5, 2, 1)], &KEY);
        let there = describe(&owners(&[9, 2]), &[backend(9, 1, 1), backend(2, 2, 1)], &KEY);
        assert_eq!(here.fingerprint, there.fingerprint);
        let swapped = describe(&owners(&[5, 4]), &[backend(4, 1, 1), backend(5, 2, 1)], &KEY);
        assert_ne!(here.fingerprint, swapped.fingerprint);
        let other_key = HashKey { k0: 1, k1: 3 };
        let other = describe(&owners(&[4, 5]), &[backend(4, 1, 1), backend(5, 2, 1)], &other_key);
        assert_ne!(here.fingerprint, other.fingerprint);
    }
}
