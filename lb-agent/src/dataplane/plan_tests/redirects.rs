//! Servers on other ports, and connections that go elsewhere.

use lb_common::maps::translations::Endpoint;

use super::*;
use crate::plan::{Redirect, carry_over};

/// One service whose servers listen on this port, 0 for its own.
fn aimed(port: u16) -> TargetState {
    let mut target = one(&[1, 2]);
    target.services.get_mut(&key(0)).unwrap().target_port = port;
    if port != 0 {
        target.rewrites.insert(of(port), Be16::new(80));
    }
    target
}

/// What is rewritten to the service's port.
fn of(port: u16) -> VipKey {
    VipKey::new(key(0).address, Be16::new(port), 6)
}

/// The port that a packet delivered here is given; `None` if it keeps its own.
fn given(maps: &FakeDataplane) -> Option<u16> {
    let index = maps.services.get(&key(0))?;
    let word = maps.published.get(index).filter(|word| word.has_target_port())?;
    assert!(!word.is_empty(), "a word tells of a port and of no ring");
    Some(maps.target_ports.get(index).copied().expect("a word tells of a port that was written"))
}

proptest! {
    #[test]
    fn no_packet_gets_a_port_from_which_no_reply_comes_back(
        history in prop::collection::vec(prop::option::of(prop::sample::select(vec![0u16, 6443, 9443])), 1..12),
    ) {
        let mut maps = FakeDataplane::default();
        let mut state = MapState::empty(SIZES);
        let mut before = None;
        for wanted in history {
            let target = wanted.map_or_else(TargetState::default, aimed);
            let (steps, after) = operations(&state, &target, &maps, 0).unwrap();
            for step in &steps {
                maps.perform(step).unwrap();
                maps.assert_consistent();
                let given = given(&maps);
                let allowed = [before, wanted].map(|port| port.filter(|port| *port != 0));
                // Between the port and the word, the port can be none already.
                prop_assert!(given == Some(0) || allowed.contains(&given), "{:?} of {:?}", given, allowed);
                if let Some(port) = given.filter(|port| *port != 0) {
                    prop_assert_eq!(maps.rewrites.get(&of(port)), Some(&Be16::new(80)));
                }
            }
            prop_assert_eq!(given(&maps), wanted.filter(|port| *port != 0));
            prop_assert_eq!(&maps.rewrites, &target.rewrites);
            prop_assert_eq!(operations(&after, &target, &maps, 0).unwrap().0, vec![]);
            (state, before) = (after, wanted);
        }
    }
}

fn endpoint(last: u8) -> Endpoint {
    Endpoint { address: address(last), port: Be16::new(80), pad: 0 }
}

fn translated(backends: &[u8]) -> TargetState {
    let mut target = one(&[1, 2]);
    if !backends.is_empty() {
        target.translations.insert(key(0), backends.iter().map(|last| endpoint(*last)).collect());
    }
    target
}

#[test]
fn connections_go_where_they_are_told() {
    let mut world = World::holding(&translated(&[1, 2]));
    assert_eq!(world.maps.translations[&key(0)], [endpoint(1), endpoint(2)]);
    assert_eq!(world.apply(&translated(&[2]), 0), [MapOp::Redirect(Redirect::Translation(key(0), vec![endpoint(2)]))]);
    assert_eq!(world.apply(&translated(&[2]), 0), []);
    assert_eq!(world.apply(&translated(&[]), 0), [MapOp::Redirect(Redirect::Translation(key(0), Vec::new()))]);
}

#[test]
fn another_set_of_maps_rewrites_and_translates_the_same() {
    let mut target = aimed(6443);
    target.translations = translated(&[1, 2]).translations;
    let old = World::holding(&target);
    let carried = carry_over(&old.state, &old.maps, Sizes { services: 8, ..SIZES }).unwrap();
    let mut maps = FakeDataplane::default();
    for step in &carried.steps {
        maps.perform(step).unwrap();
    }
    assert_eq!(given(&maps), Some(6443));
    assert_eq!((&maps.rewrites, &maps.translations), (&target.rewrites, &target.translations));
    assert_eq!(operations(&carried.state, &target, &maps, 0).unwrap().0, []);
}
