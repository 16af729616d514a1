//! Plans performed on maps in memory, which follow references as packets do.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    addr::{BackendId, Be16, IpAddr16},
    maps::{addresses::AddressEntry, backends::Mode, services::VipKey, sources::SourceRange},
};
use proptest::prelude::*;

use super::{Dataplane, fake::FakeDataplane};
use crate::plan::{
    MapOp, MapState, PlanError, RingArena, RingOrigin, Sizes, TargetBackend, TargetService, TargetState, operations,
};

const SIZES: Sizes = Sizes {
    services: 16,
    backends: 64,
    ring_slots: 64 * 24,
    peers: 8,
    addresses: 16,
    source_ranges: 32,
    fragments: 16,
};

fn address(last: u8) -> IpAddr16 {
    IpAddr16::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last])
}

fn key(service: u8) -> VipKey {
    VipKey::new(address(100 + service), Be16::new(80), 6)
}

fn hop(seed: u8) -> lb_common::maps::backends::Hop {
    lb_common::maps::backends::Hop { mode: Mode::L2 as u8, interface: u32::from(seed) + 1, ..Default::default() }
}

/// A target with these services: per service the backends, each with weight and hop.
fn target(services: &BTreeMap<u8, BTreeMap<u8, (u16, u8)>>) -> TargetState {
    let mut target = TargetState::default();
    for (service, backends) in services {
        target.addresses.insert(key(*service).address, AddressEntry::VIP);
        let backends = backends.iter().map(|(last, (weight, seed))| {
            ((address(*last), Be16::new(80)), TargetBackend { weight: *weight, in_ring: true, hop: hop(*seed) })
        });
        let service_target = TargetService {
            name: format!("s{service}"),
            log2: 6,
            held: service % 2 == 0,
            backends: backends.collect(),
            source_ranges: BTreeSet::new(),
        };
        target.services.insert(key(*service), service_target);
    }
    target
}

fn backends() -> impl Strategy<Value = BTreeMap<u8, (u16, u8)>> {
    prop::collection::btree_map(1u8..8, (0u16..3, 0u8..3), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn after_every_step_of_any_history_each_packet_finds_its_way(
        history in prop::collection::vec(prop::collection::btree_map(0u8..6, backends(), 0..6), 1..12),
    ) {
        let mut maps = FakeDataplane::default();
        let mut state = MapState::empty(SIZES);
        for services in history {
            let wanted = target(&services);
            let (steps, after) = operations(&state, &wanted).unwrap();
            for step in &steps {
                maps.perform(step).unwrap();
                maps.assert_consistent();
            }
            state = after;
            prop_assert_eq!(maps.services.len(), wanted.services.len());
            for (key, service) in &wanted.services {
                let owners = maps.owners(key);
                for (owner, hop) in &owners {
                    prop_assert_eq!(&service.backends[&(*owner, Be16::new(80))].hop, hop);
                }
                let takes_any = service.backends.values().any(|backend| backend.weight > 0);
                prop_assert_eq!(owners.len(), if takes_any { 64 } else { 0 });
            }
            let (again, _) = operations(&state, &wanted).unwrap();
            prop_assert_eq!(again, vec![], "a plan that was performed leaves nothing to do");
        }
        let (steps, after) = operations(&state, &TargetState::default()).unwrap();
        for step in &steps {
            maps.perform(step).unwrap();
        }
        prop_assert_eq!(after.arena, RingArena::new(SIZES.ring_slots), "every slot came back");
        prop_assert_eq!(after.free_backends.len(), 64);
        prop_assert!(maps.backends.is_empty() && maps.filter.is_empty() && maps.addresses.is_empty());
    }
}

fn one(backends: &[u8]) -> TargetState {
    target(&BTreeMap::from([(0, backends.iter().map(|last| (*last, (1, 0))).collect())]))
}

#[test]
fn a_changed_hop_moves_no_ring() {
    let (_, state) = operations(&MapState::empty(SIZES), &one(&[1, 2])).unwrap();
    let mut moved = one(&[1, 2]);
    moved.services.get_mut(&key(0)).unwrap().backends.get_mut(&(address(1), Be16::new(80))).unwrap().hop = hop(9);
    let (steps, _) = operations(&state, &moved).unwrap();
    assert_eq!(steps.len(), 2, "{steps:?}");
    assert!(matches!(steps[0], MapOp::Hop { head, .. } if head.active() == 1) && steps[1] == MapOp::Grace);
}

#[test]
fn a_returning_backend_gets_another_id() {
    let (_, with) = operations(&MapState::empty(SIZES), &one(&[1, 2])).unwrap();
    let (_, without) = operations(&with, &one(&[1])).unwrap();
    let (_, back) = operations(&without, &one(&[1, 2])).unwrap();
    let id = |state: &MapState| state.services[&key(0)].backends[&(address(2), Be16::new(80))].id;
    assert_ne!(id(&with), id(&back));
}

#[test]
fn an_adopted_ring_that_is_right_is_left_alone() {
    let wanted = one(&[1, 2, 3]);
    let (steps, mut state) = operations(&MapState::empty(SIZES), &wanted).unwrap();
    let ring = steps.iter().find_map(|step| match step {
        MapOp::Ring { slots, .. } => Some(slots.clone()),
        _ => None,
    });
    state.services.get_mut(&key(0)).unwrap().ring = RingOrigin::Adopted(ring.unwrap());
    assert_eq!(operations(&state, &wanted).unwrap().0, []);
    state.services.get_mut(&key(0)).unwrap().ring = RingOrigin::Adopted(vec![BackendId::new(9, 1); 64]);
    assert!(operations(&state, &wanted).unwrap().0.iter().any(|step| matches!(step, MapOp::Ring { .. })));
}

#[test]
fn what_does_not_fit_is_refused_whole_and_says_which_capacity() {
    let many: Vec<u8> = (1..=65).collect();
    let error = operations(&MapState::empty(SIZES), &one(&many)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "map BACKENDS is full: 65 entries are needed, it has 64; raise `capacities.backends` and restart the agent"
    );
    let mut large = one(&[1]);
    large.services.get_mut(&key(0)).unwrap().log2 = 12;
    let error = operations(&MapState::empty(SIZES), &large).unwrap_err();
    assert!(matches!(error, PlanError::ArenaFull { slots: 4096, .. }), "{error}");
}

/// One service that admits these ranges of 10.0.0.0/8, each by its second octet.
fn ranged(ranges: &BTreeSet<u8>) -> TargetState {
    let mut target = one(&[1, 2]);
    let service = target.services.get_mut(&key(0)).unwrap();
    service.source_ranges = ranges.iter().map(|second| SourceRange::new([10, *second, 0, 0].into(), 16)).collect();
    target
}

proptest! {
    #[test]
    fn a_change_of_ranges_opens_or_closes_a_service_to_nobody_whom_it_does_not_concern(
        history in prop::collection::vec(prop::option::of(prop::collection::btree_set(0u8..6, 0..4)), 1..12),
    ) {
        let mut maps = FakeDataplane::default();
        let mut state = MapState::empty(SIZES);
        let mut before = None;
        for wanted in history {
            let target = wanted.as_ref().map_or_else(TargetState::default, ranged);
            let (steps, after) = operations(&state, &target).unwrap();
            for step in &steps {
                maps.perform(step).unwrap();
                maps.assert_consistent();
                if !maps.services.contains_key(&key(0)) {
                    continue;
                }
                for second in 0..6 {
                    let admitted = |ranges: &Option<BTreeSet<u8>>| {
                        ranges.as_ref().map(|ranges| ranges.is_empty() || ranges.contains(&second))
                    };
                    let allowed = [admitted(&before), admitted(&wanted)];
                    let found = maps.admits(&key(0), [10, second, 7, 7].into());
                    prop_assert!(allowed.contains(&Some(found)), "10.{}.7.7 {}: {:?}", second, found, allowed);
                }
            }
            let entries = wanted.as_ref().map_or(0, BTreeSet::len);
            prop_assert_eq!(maps.source_ranges.len(), entries);
            prop_assert_eq!(operations(&after, &target).unwrap().0, vec![]);
            (state, before) = (after, wanted);
        }
    }
}

#[test]
fn ranges_left_behind_under_an_index_do_not_admit_to_the_next_service() {
    let mut state = MapState::empty(SIZES);
    let stray = SourceRange::new([10, 9, 0, 0].into(), 16);
    state.source_ranges.insert(0, BTreeSet::from([stray]));
    state.source_ranges.insert(5, BTreeSet::from([stray]));
    let (steps, after) = operations(&state, &ranged(&BTreeSet::from([1]))).unwrap();
    let at = |wanted: &MapOp| steps.iter().position(|step| step == wanted);
    let service = MapOp::Service { key: key(0), index: 0 };
    assert!(at(&MapOp::RemoveSourceRange { service: 0, range: stray }).unwrap() < at(&service).unwrap());
    assert!(at(&MapOp::RemoveSourceRange { service: 5, range: stray }).is_some());
    assert_eq!(after.source_ranges.keys().collect::<Vec<_>>(), [&0]);
}

#[test]
fn more_ranges_than_fit_are_refused() {
    let many: BTreeSet<u8> = (0..33).collect();
    assert_eq!(
        operations(&MapState::empty(SIZES), &ranged(&many)).unwrap_err().to_string(),
        "map SOURCE_RANGES is full: 33 entries are needed, it has 32; raise `capacities.sourceRanges` and restart the agent"
    );
}
