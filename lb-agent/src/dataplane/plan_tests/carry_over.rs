//! One set of maps carried over into another, both in memory.

use lb_common::maps::flows::{FlowEntry, Stage};

use super::*;
use crate::plan::{CarriedOver, carry_over};

/// Other sizes, which the tests' histories fit into.
const OTHER: Sizes = Sizes { services: 8, backends: 48, ring_slots: 64 * 20, addresses: 40, ..SIZES };

/// Who each slot names, by identity and hop: state, current, old.
type Seen = Vec<(SlotState, Option<(IpAddr16, lb_common::maps::backends::Hop)>, Option<IpAddr16>)>;

fn seen(maps: &FakeDataplane, key: &VipKey) -> Seen {
    let found = |id: BackendId| {
        let (head, hops) = maps.backends.get(&id.index())?;
        (head.generation() == id.generation()).then(|| (maps.info[&id.index()].address, hops[head.active()]))
    };
    let slot = |slot: Slot| (slot.state(), found(slot.current()), found(slot.old()).map(|(address, _)| address));
    maps.ring(key).into_iter().map(slot).collect()
}

fn perform(carried: &CarriedOver) -> FakeDataplane {
    let mut maps = FakeDataplane::default();
    for step in &carried.steps {
        maps.perform(step).unwrap();
        maps.assert_consistent();
    }
    maps
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_flow_goes_where_it_went(
        history in prop::collection::vec(prop::collection::btree_map(0u8..6, backends(), 0..6), 1..10),
        next in prop::collection::btree_map(0u8..6, backends(), 0..6),
    ) {
        let mut old = World { maps: FakeDataplane::default(), state: MapState::empty(SIZES) };
        let mut wanted = TargetState::default();
        let mut now = 0;
        for services in history {
            now += 400;
            wanted = target(&services);
            old.settle(now, Some(&scan(now)));
            old.apply(&wanted, now);
        }
        let carried = carry_over(&old.state, &old.maps, OTHER).unwrap();
        let maps = perform(&carried);
        prop_assert_eq!(&maps.addresses, &old.maps.addresses);
        prop_assert_eq!(&maps.filter, &old.maps.filter);
        prop_assert!(maps.services.keys().eq(old.maps.services.keys()));
        for (key, service) in &old.state.services {
            prop_assert_eq!(seen(&maps, key), seen(&old.maps, key));
            for (identity, backend) in &service.backends {
                let entry = FlowEntry { backend: backend.id.bits(), slot_bits: 7, deadline: 9, service: service.index, stage: Stage::Open as u32 };
                let flow = carried.translation.flow(&entry).unwrap();
                prop_assert_eq!(maps.info[&flow.backend().index()].address, identity.0);
                prop_assert_eq!(flow.service, maps.services[key]);
                prop_assert_eq!((flow.slot_bits, flow.deadline, flow.stage), (7, 9, Stage::Open as u32));
            }
        }
        let mut new = World { maps, state: carried.state };
        prop_assert_eq!(new.apply(&wanted, now), vec![], "nothing is left to do for the same target");
        let next = target(&next);
        old.apply(&next, now + 1);
        new.apply(&next, now + 1);
        for key in next.services.keys() {
            prop_assert_eq!(seen(&new.maps, key), seen(&old.maps, key), "what comes next finds the same history");
        }
    }
}

#[test]
fn a_service_admits_whom_it_admitted() {
    let old = World::holding(&ranged(&BTreeSet::from([1, 3])));
    let carried = carry_over(&old.state, &old.maps, OTHER).unwrap();
    let maps = perform(&carried);
    let admitted = (0..6).filter(|second| maps.admits(&key(0), [10, *second, 7, 7].into()));
    assert_eq!(admitted.collect::<Vec<_>>(), [1, 3]);
    assert_eq!(operations(&carried.state, &ranged(&BTreeSet::from([1, 3])), &maps, 0).unwrap().0, []);
}

#[test]
fn what_nobody_knows_is_not_carried_over() {
    let old = World::holding(&one(&[1]));
    let carried = carry_over(&old.state, &old.maps, OTHER).unwrap();
    let index = old.state.services[&key(0)].index;
    let entry = |backend: BackendId, service| FlowEntry {
        backend: backend.bits(),
        slot_bits: 0,
        deadline: 1,
        service,
        stage: Stage::Open as u32,
    };
    assert!(carried.translation.flow(&entry(old.id(1), index)).is_some());
    assert_eq!(carried.translation.flow(&entry(BackendId::new(old.id(1).index(), 2), index)), None);
    assert_eq!(carried.translation.flow(&entry(old.id(1), index + 1)), None);
    let dangling = Slot::unsettled(old.id(1), BackendId::new(40, 1));
    let new = carried.translation.backends[&old.id(1)];
    assert_eq!(carried.translation.slot(dangling), Slot::unsettled(new, BackendId::NONE));
}

#[test]
fn what_does_not_fit_the_other_sizes_is_refused_by_the_capacitys_name() {
    let wanted =
        target(&BTreeMap::from([(0, BTreeMap::from([(1, (1, 0)), (2, (1, 0))])), (1, BTreeMap::from([(1, (1, 0))]))]));
    let old = World::holding(&wanted);
    for (key, sizes) in [
        ("services", Sizes { services: 1, ..SIZES }),
        ("backends", Sizes { backends: 2, ..SIZES }),
        ("addresses", Sizes { addresses: 1, ..SIZES }),
        ("ringSlots", Sizes { ring_slots: 128, ..SIZES }),
    ] {
        let error = carry_over(&old.state, &old.maps, sizes).unwrap_err().to_string();
        assert!(error.contains(&format!("raise `capacities.{key}`")), "{error}");
    }
}
