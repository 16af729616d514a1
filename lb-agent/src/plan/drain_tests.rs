use std::collections::BTreeMap as Map;

use lb_common::{
    addr::{Be16, IpAddr16},
    maps::{
        backends::{Head, Hop},
        published::RingWord,
        rings::Slot,
        services::VipKey,
    },
};

use super::*;
use crate::plan::{BackendState, Mark, Met, RingOrigin, ServiceState, Sizes, TargetBackend};

struct Arena(Vec<Slot>);

impl Rings for Arena {
    fn slot(&self, index: u32) -> Slot {
        self.0.get(index as usize).copied().unwrap_or_default()
    }
}

const SIZES: Sizes = Sizes {
    services: 4,
    backends: 4,
    ring_slots: 64,
    peers: 4,
    addresses: 4,
    flows: 4,
    flows_per_service: 4,
    source_ranges: 4,
    fragments: 4,
};

fn address(last: u8) -> std::net::IpAddr {
    [10, 0, 0, last].into()
}

/// Service 3 on a ring at slot 8, with backends 10.0.0.1, drained, and 10.0.0.2.
fn state(marks: Vec<Mark>) -> MapState {
    let backend = |index: u32, drain: Option<Drain>| {
        let id = BackendId::new(index, 1);
        let hop = Hop::default();
        let entered = TargetBackend { weight: 1, in_ring: drain.is_none(), keeps_flows: true, drain, hop };
        let state = BackendState { id, head: Head::new(1, 0), entered: entered.into() };
        ((IpAddr16::from(address(u8::try_from(index).unwrap())), Be16::new(80)), state)
    };
    let drain = Drain { since: 1, deadline: None, with_node: false };
    let service = ServiceState {
        index: 3,
        name: "web".to_owned(),
        word: RingWord::new(8, 2, true, 1),
        ring: RingOrigin::Adopted,
        marks,
        tracking: (0, 0),
        target_port: 0,
        backends: Map::from([backend(1, Some(drain)), backend(2, None)]),
        met: Met::default(),
    };
    let mut state = MapState::empty(SIZES);
    state.services.insert(VipKey::new(address(100).into(), Be16::new(80), 6), service.into());
    state
}

#[test]
fn what_a_drained_backend_may_still_have_is_recorded_or_silent_on_its_slots() {
    let (drained, other) = (BackendId::new(1, 1), BackendId::new(2, 1));
    let taken = Slot::unsettled(other, drained);
    let mut slots = vec![Slot::default(); 8];
    slots.extend([taken, taken.settling(), Slot::unsettled(other, other), Slot::settled(other)]);
    let mark = |slot, is_settling, at| Mark { slot, is_settling, at };
    let state = state(vec![mark(0, false, 700), mark(1, true, 900), mark(2, false, 800)]);
    let scan = FlowScan {
        begun: 0,
        live: Map::from([(3, vec![(0, drained), (1, drained), (2, other)]), (2, vec![(0, drained)])]),
    };
    let left = flows_left(&state, &Arena(slots), &scan.recorded());
    let key = ("web".to_owned(), BackendAddress { address: address(1), port: 80 });
    assert_eq!(left, Map::from([(key, FlowsLeft { recorded: 2, slots: 2, windows_end: Some(700) })]));
}

#[test]
fn nothing_is_left_when_all_is_settled_and_nothing_recorded() {
    let left = flows_left(&state(Vec::new()), &Arena(Vec::new()), &Recorded::new());
    assert_eq!(left.values().collect::<Vec<_>>(), [&FlowsLeft::default()]);
}
