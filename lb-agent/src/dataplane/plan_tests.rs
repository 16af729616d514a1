//! Plans performed on maps in memory, which follow references as packets do.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    addr::{BackendId, Be16, IpAddr16},
    maglev,
    maps::{
        addresses::AddressEntry,
        backends::Mode,
        rings::{Slot, SlotState},
        services::VipKey,
        sources::SourceRange,
    },
};
use proptest::prelude::*;

mod carry_over;
mod redirects;

use super::{Dataplane, fake::FakeDataplane};
use crate::model::Drain;
use crate::plan::{
    FlowScan, MapOp, MapState, Met, PlanError, RingArena, RingOrigin, Sizes, TargetBackend, TargetService, TargetState,
    operations, portion, settle,
};

const SIZES: Sizes = Sizes {
    services: 16,
    backends: 64,
    ring_slots: 64 * 24,
    peers: 8,
    addresses: 16,
    flows: 64,
    flows_per_service: 16,
    source_ranges: 32,
    fragments: 16,
};

/// The window of every service, in nanoseconds.
const WINDOW: u64 = 1000;

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
            (
                (address(*last), Be16::new(80)),
                TargetBackend { weight: *weight, in_ring: true, keeps_flows: true, drain: None, hop: hop(*seed) },
            )
        });
        let service_target = TargetService {
            name: format!("s{service}"),
            log2: 6,
            held: service % 2 == 0,
            rejoins: false,
            second_chance: true,
            has_affinity: false,
            window: WINDOW,
            backends: backends.collect(),
            source_ranges: BTreeSet::new(),
            target_port: 0,
        };
        target.services.insert(key(*service), service_target.into());
    }
    target
}

/// The same target, its services in the place where they were before if they are as they were.
fn keeping(mut target: TargetState, before: &TargetState) -> TargetState {
    for (key, service) in &mut target.services {
        if let Some(known) = before.services.get(key).filter(|known| *known == service) {
            *service = known.clone();
        }
    }
    target
}

/// The same state without the memory of what was met.
fn forgetful(state: &MapState) -> MapState {
    let mut state = state.clone();
    state.services.values_mut().for_each(|service| service.met = Met::default());
    state
}

fn backends() -> impl Strategy<Value = BTreeMap<u8, (u16, u8)>> {
    prop::collection::btree_map(1u8..8, (0u16..3, 0u8..3), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn after_every_step_of_any_history_each_packet_finds_its_way(
        history in prop::collection::vec(prop::collection::btree_map(0u8..6, backends(), 0..6), 1..12),
        slots in prop::sample::select(vec![1, 100, usize::MAX]),
    ) {
        let mut maps = FakeDataplane::default();
        let mut state = MapState::empty(SIZES);
        let mut before = TargetState::default();
        for (services, now) in history.into_iter().zip((0u64..).step_by(400)) {
            for step in settle(&mut state, &maps, now, Some(&FlowScan { begun: now, ..FlowScan::default() })) {
                maps.perform(&step).unwrap();
                maps.assert_consistent();
            }
            let wanted = keeping(target(&services), &before);
            let mut is_last = false;
            while !is_last {
                let mut forgetful = forgetful(&state);
                let of_all = portion(&mut forgetful, &wanted, &maps, now, slots).unwrap();
                let next = portion(&mut state, &wanted, &maps, now, slots).unwrap();
                // One that looks at everything may end in front of what has nothing to do.
                if next.is_last == of_all.is_last {
                    prop_assert_eq!(&next, &of_all, "what is passed over has nothing to do");
                    prop_assert_eq!(&state, &forgetful);
                }
                for step in &next.steps {
                    maps.perform(step).unwrap();
                    maps.assert_consistent();
                }
                is_last = next.is_last;
            }
            prop_assert_eq!(maps.services.len(), wanted.services.len());
            for (key, service) in &wanted.services {
                let owners = maps.owners(key);
                for (owner, hop) in &owners {
                    prop_assert_eq!(&service.backends[&(*owner, Be16::new(80))].hop, hop);
                }
                let takes_any = service.backends.values().any(|backend| backend.weight > 0);
                prop_assert_eq!(owners.len(), if takes_any { 64 } else { 0 });
            }
            let (again, _) = operations(&forgetful(&state), &wanted, &maps, now).unwrap();
            prop_assert_eq!(again, vec![], "a plan that was performed leaves nothing to do");
            before = wanted;
        }
        let (steps, after) = operations(&state, &TargetState::default(), &maps, 0).unwrap();
        for step in &steps {
            maps.perform(step).unwrap();
        }
        prop_assert_eq!(after.arena, RingArena::new(SIZES.ring_slots), "every slot came back");
        prop_assert_eq!(after.free_backends.len(), 64);
        prop_assert!(maps.backends.is_empty() && maps.filter.is_empty() && maps.addresses.is_empty());
    }
}

#[test]
fn rings_that_have_no_room_beside_each_other_change_one_after_the_other() {
    let all = |backends: &[u8]| {
        let backends: BTreeMap<_, _> = backends.iter().map(|last| (*last, (1, 0))).collect();
        target(&(0..6).map(|service| (service, backends.clone())).collect())
    };
    // Room for six rings, and for one more of two: slot 0 is nobody's.
    let (mut maps, mut state) = (FakeDataplane::default(), MapState::empty(Sizes { ring_slots: 64 * 8 + 1, ..SIZES }));
    for (wanted, portions) in [(all(&[1, 2]), 1), (all(&[1, 3]), 3)] {
        let mut count = 0;
        loop {
            let next = portion(&mut state, &wanted, &maps, 0, usize::MAX).unwrap();
            for step in &next.steps {
                maps.perform(step).unwrap();
                maps.assert_consistent();
            }
            count += 1;
            if next.is_last {
                break;
            }
        }
        assert_eq!(count, portions);
        assert!(wanted.services.keys().all(|key| maps.owners(key).len() == 64));
    }
}

fn one(backends: &[u8]) -> TargetState {
    target(&BTreeMap::from([(0, backends.iter().map(|last| (*last, (1, 0))).collect())]))
}

/// Maps that plans are performed on, and what the plans know of them.
struct World {
    maps: FakeDataplane,
    state: MapState,
}

impl World {
    fn holding(wanted: &TargetState) -> Self {
        let mut world = Self { maps: FakeDataplane::default(), state: MapState::empty(SIZES) };
        world.apply(wanted, 0);
        world
    }

    /// Performs a plan and returns its steps.
    fn apply(&mut self, wanted: &TargetState, now: u64) -> Vec<MapOp> {
        let (steps, after) = operations(&self.state, wanted, &self.maps, now).unwrap();
        for step in &steps {
            self.maps.perform(step).unwrap();
        }
        self.state = after;
        steps
    }

    fn settle(&mut self, now: u64, scan: Option<&FlowScan>) {
        for step in settle(&mut self.state, &self.maps, now, scan) {
            self.maps.perform(&step).unwrap();
        }
    }

    /// As if the ring of service 0 had been found in the maps.
    fn adopt(&mut self) {
        let service = self.state.services.get_mut(&key(0)).unwrap();
        (service.ring, service.met) = (RingOrigin::Adopted, Met::default());
    }

    fn id(&self, last: u8) -> BackendId {
        self.state.services[&key(0)].backends[&(address(last), Be16::new(80))].id
    }

    fn ring(&self) -> Vec<Slot> {
        self.maps.ring(&key(0))
    }

    fn count(&self, state: SlotState) -> usize {
        self.ring().iter().filter(|slot| slot.state() == state).count()
    }
}

fn scan(begun: u64) -> FlowScan {
    FlowScan { begun, ..FlowScan::default() }
}

#[test]
fn a_changed_hop_moves_no_ring() {
    let mut world = World::holding(&one(&[1, 2]));
    let mut moved = one(&[1, 2]);
    moved.services.get_mut(&key(0)).unwrap().backends.get_mut(&(address(1), Be16::new(80))).unwrap().hop = hop(9);
    let steps = world.apply(&moved, 0);
    assert_eq!(steps.len(), 2, "{steps:?}");
    assert!(matches!(steps[0], MapOp::Hop { head, .. } if head.active() == 1) && steps[1] == MapOp::Grace);
}

#[test]
fn a_returning_backend_gets_another_id() {
    let mut world = World::holding(&one(&[1, 2]));
    let before = world.id(2);
    world.apply(&one(&[1]), 0);
    world.apply(&one(&[1, 2]), 0);
    assert_ne!(world.id(2), before);
}

#[test]
fn an_adopted_ring_that_is_right_is_left_alone() {
    let wanted = one(&[1, 2, 3]);
    let mut world = World::holding(&wanted);
    world.adopt();
    assert_eq!(world.apply(&wanted, 0), []);
    let word = world.state.services[&key(0)].word;
    world.maps.rings.insert(word.offset(), Slot::settled(BackendId::new(9, 1)));
    world.adopt();
    assert!(world.apply(&wanted, 0).iter().any(|step| matches!(step, MapOp::Ring { .. })));
}

/// One service on these backends, of which some keep their flows only.
fn draining(takers: &[u8], draining: &[u8]) -> TargetState {
    let mut wanted = one(&[takers, draining].concat());
    for backend in draining {
        let backends = &mut wanted.services.get_mut(&key(0)).unwrap().backends;
        backends.get_mut(&(address(*backend), Be16::new(80))).unwrap().in_ring = false;
    }
    wanted
}

#[test]
fn a_new_owner_leaves_the_old_one_its_flows_until_they_are_gone() {
    let mut world = World::holding(&one(&[1, 2]));
    assert_eq!(world.count(SlotState::Settled), 64);
    let before = world.ring();
    world.apply(&one(&[1, 2, 3]), 100);
    let moved: Vec<_> = world.ring().into_iter().filter(|slot| slot.state() == SlotState::Unsettled).collect();
    let of_third = moved.iter().filter(|slot| slot.current() == world.id(3)).count();
    assert_eq!(of_third, 21, "a third of 64 slots");
    for (before, after) in before.iter().zip(world.ring()) {
        let is_same = before.current() == after.current();
        assert_eq!(after, if is_same { *before } else { Slot::unsettled(after.current(), before.current()) });
    }

    world.settle(100 + WINDOW - 1, Some(&scan(100 + WINDOW - 1)));
    assert_eq!(world.count(SlotState::Unsettled), moved.len(), "the window is not over");
    world.settle(100 + WINDOW, Some(&scan(100 + WINDOW)));
    assert_eq!(world.count(SlotState::Settling), moved.len(), "that scan began before the window was over");
    let is_of_third = |slot: Slot| slot.state() == SlotState::Settling && slot.current() == world.id(3);
    let at = (0u32..64).find(|at| is_of_third(world.ring()[*at as usize])).unwrap();
    let index = world.state.services[&key(0)].index;
    let flow = |backend| (at << 26, backend);
    let mut found = scan(100 + WINDOW + 1);
    found.live.insert(index, vec![flow(world.id(3)), flow(world.id(1))]);
    world.settle(2000, Some(&found));
    assert_eq!(world.count(SlotState::Settling), 1, "a flow of another backend is on slot {at}");
    found.live.insert(index, vec![flow(world.id(3)), flow(BackendId::new(60, 9))]);
    world.settle(2000, Some(&found));
    assert_eq!(world.count(SlotState::Settled), 64, "flows of the owner or of nobody keep no slot");
    assert!(world.state.services[&key(0)].marks.is_empty());
}

#[test]
fn while_nobody_takes_new_flows_old_ones_stay() {
    let mut world = World::holding(&one(&[1]));
    world.apply(&draining(&[], &[1]), 0);
    let id = world.id(1);
    assert_eq!(world.ring(), vec![Slot::unsettled(BackendId::NONE, id); 64]);
    world.settle(WINDOW, None);
    world.settle(WINDOW, Some(&scan(WINDOW + 1)));
    world.apply(&draining(&[], &[1]), WINDOW + 2);
    assert_eq!(world.ring(), [], "nobody is left to send anything to");
    assert_eq!(world.state.arena, RingArena::new(SIZES.ring_slots));
    world.apply(&one(&[1]), WINDOW + 3);
    assert_eq!(world.ring(), vec![Slot::settled(id); 64]);
}

#[test]
fn the_deadline_of_a_drain_leaves_no_id_that_a_recorded_flow_could_name() {
    let drained = |keeps_flows| {
        let mut wanted = draining(&[1], &[2]);
        let backends = &mut wanted.services.get_mut(&key(0)).unwrap().backends;
        let backend = backends.get_mut(&(address(2), Be16::new(80))).unwrap();
        backend.drain = Some(Drain { since: 7, deadline: Some(500), with_node: false });
        backend.keeps_flows = keeps_flows;
        wanted
    };
    let mut world = World::holding(&one(&[1, 2]));
    let before = world.id(2);
    world.apply(&drained(true), 0);
    assert_eq!((world.id(2), world.maps.info[&before.index()].drain_deadline), (before, 500));
    assert!(world.ring().iter().any(|slot| slot.old() == before));
    world.apply(&drained(false), 500);
    assert!(world.id(2) != before && !world.maps.backends.contains_key(&before.index()));
    assert!(world.ring().iter().all(|slot| slot.old() != before && slot.current() == world.id(1)));
    assert_eq!(world.maps.info[&world.id(2).index()].drained_since, 7, "drained it stays");
    assert_eq!(world.apply(&drained(false), 600), [], "once is enough");
    world.apply(&one(&[1, 2]), 700);
    assert!(world.ring().iter().any(|slot| slot.current() == world.id(2)), "until it is undrained");
}

#[test]
fn an_owner_that_gets_its_slots_back_settles_them_after_a_window() {
    let mut world = World::holding(&one(&[1, 2]));
    let settled = world.ring();
    world.apply(&draining(&[1], &[2]), 0);
    world.apply(&one(&[1, 2]), 500);
    let (first, second) = (world.id(1), world.id(2));
    for (slot, before) in world.ring().into_iter().zip(&settled) {
        let back = Slot::unsettled(second, first).settling();
        assert_eq!(slot, if before.current() == second { back } else { *before });
    }
    world.settle(500 + WINDOW, Some(&scan(500 + WINDOW)));
    assert!(world.count(SlotState::Settling) > 0, "that scan began before the window was over");
    world.settle(501 + WINDOW, Some(&scan(501 + WINDOW)));
    assert_eq!(world.ring(), settled);
}

#[test]
fn the_first_ring_of_a_node_that_was_away_names_who_had_its_slots() {
    for (second_chance, state) in [(true, SlotState::Settling), (false, SlotState::Unsettled)] {
        first_ring_after_a_time_away(second_chance, state);
    }
}

/// Where sockets tell whose a flow is, slots settle; else flows that nobody saw begin are their former owner's.
fn first_ring_after_a_time_away(second_chance: bool, state: SlotState) {
    let mut wanted = one(&[1, 2, 3]);
    let service = wanted.services.get_mut(&key(0)).unwrap();
    (service.rejoins, service.second_chance) = (true, second_chance);
    service.backends.get_mut(&(address(3), Be16::new(80))).unwrap().hop.mode = Mode::Local as u8;
    let world = World::holding(&wanted);
    let without = World::holding(&one(&[1, 2]));
    let plain = World::holding(&one(&[1, 2, 3]));
    let back = |world: &World, id: BackendId| (1..=3).find(|last| world.id(*last) == id).unwrap();
    for ((slot, without_slot), plain_slot) in world.ring().into_iter().zip(without.ring()).zip(plain.ring()) {
        assert_eq!(back(&world, slot.current()), back(&plain, plain_slot.current()));
        if slot.current() == world.id(3) {
            let other = world.id((1..=2).find(|last| without.id(*last) == without_slot.current()).unwrap());
            let unsettled = Slot::unsettled(world.id(3), other);
            assert_eq!(slot, if second_chance { unsettled.settling() } else { unsettled });
        } else {
            assert_eq!(slot.state(), SlotState::Settled);
        }
    }
    assert_eq!(world.count(state), 21, "a third of 64 slots");
}

#[test]
fn a_backend_that_is_gone_leaves_no_window() {
    let mut world = World::holding(&one(&[1, 2]));
    world.apply(&one(&[1]), 0);
    assert_eq!(world.ring(), vec![Slot::settled(world.id(1)); 64]);
}

#[test]
fn a_second_change_starts_the_window_of_its_slots_only() {
    let mut world = World::holding(&one(&[1, 2]));
    world.apply(&draining(&[1], &[2]), 0);
    let before: Vec<_> = world.state.services[&key(0)].marks.iter().map(|mark| (mark.slot, mark.at)).collect();
    assert!(!before.is_empty() && before.iter().all(|(_, at)| *at == WINDOW));
    let ring = world.ring();
    world.apply(&draining(&[1, 3], &[2]), 500);
    for mark in &world.state.services[&key(0)].marks {
        let slot = mark.slot as usize;
        let is_same = ring[slot] == world.ring()[slot];
        assert_eq!(mark.at, if is_same { WINDOW } else { 500 + WINDOW }, "slot {slot}");
    }
}

#[test]
fn a_ring_grows_and_shrinks_without_moving_an_owner_of_old_flows() {
    let sized = |log2| {
        let mut wanted = one(&[1, 2, 3]);
        wanted.services.get_mut(&key(0)).unwrap().log2 = log2;
        wanted
    };
    let mut world = World::holding(&sized(6));
    let small = world.ring();
    world.apply(&sized(7), 0);
    let large = world.ring();
    assert_eq!(large.len(), 128);
    for (at, slot) in large.iter().enumerate() {
        let before = small[at / 2].current();
        let expected =
            if slot.current() == before { Slot::settled(before) } else { Slot::unsettled(slot.current(), before) };
        assert_eq!(*slot, expected, "slot {at}");
    }
    world.settle(WINDOW, None);
    world.settle(WINDOW, Some(&scan(WINDOW + 1)));
    world.apply(&sized(6), 5000);
    let back = world.ring();
    assert_eq!(back.len(), 128, "the larger ring has flows to remember");
    assert!(back.iter().enumerate().all(|(at, slot)| slot.current() == small[at / 2].current()));
    world.settle(5000 + WINDOW, None);
    world.settle(5000 + WINDOW, Some(&scan(5001 + WINDOW)));
    world.apply(&sized(6), 9000);
    assert_eq!(world.ring(), small, "settled, it is as if it had never grown");
}

#[test]
fn what_does_not_fit_is_refused_whole_and_says_which_capacity() {
    let many: Vec<u8> = (1..=65).collect();
    let plan = |wanted: &TargetState| operations(&MapState::empty(SIZES), wanted, &FakeDataplane::default(), 0);
    assert_eq!(
        plan(&one(&many)).unwrap_err().to_string(),
        "map BACKENDS is full: 65 entries are needed, it has 64; raise `capacities.backends` and restart the agent"
    );
    let mut large = one(&[1]);
    large.services.get_mut(&key(0)).unwrap().log2 = 12;
    let error = plan(&large).unwrap_err();
    assert!(matches!(error, PlanError::ArenaFull { slots: 4096, .. }), "{error}");
}

proptest! {
    /// Two directors with different histories but the same backends in the end send every new flow alike, and settled
    /// slots are all there is to a flow.
    #[test]
    fn directors_agree_whatever_their_histories(
        histories in prop::array::uniform2(prop::collection::vec((backends(), 6u8..9), 0..6)),
        last in backends(),
        log2 in 6u8..9,
    ) {
        let rings = histories.map(|history| {
            let mut world = World { maps: FakeDataplane::default(), state: MapState::empty(SIZES) };
            for ((backends, log2), now) in history.into_iter().chain([(last.clone(), log2)]).zip((0u64..).step_by(400)) {
                let mut wanted = target(&BTreeMap::from([(0, backends)]));
                wanted.services.get_mut(&key(0)).unwrap().log2 = log2;
                world.settle(now, Some(&scan(now)));
                world.apply(&wanted, now);
            }
            let names: BTreeMap<_, _> =
                world.state.services[&key(0)].backends.iter().map(|(identity, state)| (state.id, *identity)).collect();
            (world.ring(), names)
        });
        for hash in (0..1u32 << 10).map(|hash| hash << 22) {
            let slots = rings.clone().map(|(ring, names)| {
                let slot = ring.get(maglev::slot(hash, ring.len().max(1).ilog2()) as usize).copied().unwrap_or_default();
                (slot.state(), names.get(&slot.current()).copied())
            });
            prop_assert_eq!(slots[0].1, slots[1].1, "new flows of {:x}: {:?}", hash, slots);
        }
    }
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
            let (steps, after) = operations(&state, &target, &maps, 0).unwrap();
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
            prop_assert_eq!(operations(&after, &target, &maps, 0).unwrap().0, vec![]);
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
    let (steps, after) = operations(&state, &ranged(&BTreeSet::from([1])), &FakeDataplane::default(), 0).unwrap();
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
        operations(&MapState::empty(SIZES), &ranged(&many), &FakeDataplane::default(), 0).unwrap_err().to_string(),
        "map SOURCE_RANGES is full: 33 entries are needed, it has 32; raise `capacities.sourceRanges` and restart the agent"
    );
}
