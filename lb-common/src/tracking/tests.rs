//! Random histories on the model, and the table of transitions cell by cell.

use std::collections::BTreeMap;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::{
    Kind,
    history::{Event, History, LOG2, Members, Met, Subject, WINDOW, tuple},
    model::{Director, Transition},
    transition,
};
use crate::{
    addr::{BackendId, Be16, IpAddr16},
    hash::{HashKey, Tuple, flow},
    maglev::build,
    maps::{
        rings::{Slot, SlotState},
        services::VipKey,
    },
    wire::protocol,
};

/// The model, whose backends have their generation for an id.
struct Model {
    director: Director,
    protocol: u8,
    has_affinity: bool,
}

impl Subject for Model {
    fn publish(&mut self, members: &Members, log2: u8) {
        let ids: Vec<_> =
            members.iter().map(|(index, one)| BackendId::new(u32::from(*index), one.generation)).collect();
        let ring = build(&members.iter().map(|(index, one)| one.member(*index)).collect::<Vec<_>>(), log2);
        let takes = ids.iter().zip(members.values()).map(|(id, one)| (*id, one.weight > 0)).collect();
        let owner = |at: usize| ring.get(at).map_or(BackendId::NONE, |owner| ids[*owner as usize]);
        self.director.publish(takes, u32::from(log2), owner);
    }

    fn packet(&mut self, number: u16, kind: Kind) -> Option<Met> {
        let tuple = tuple(number, self.protocol);
        let slot_bits = flow(&HashKey { k0: 1, k1: 2 }, &tuple, self.has_affinity, true).slot_bits();
        let met = self.director.packet(&tuple, slot_bits, kind).expect("there is room");
        (met != BackendId::NONE).then(|| Met { backend: met.index() as u16, generation: met.generation() })
    }

    fn pass(&mut self, time: u64) {
        self.director.pass(time);
    }

    fn sweep(&mut self) {
        self.director.sweep();
    }
}

/// Runs random histories over a transition; the first that breaks a flow ends it.
fn histories(transition: Transition, count: u32) -> Result<(), String> {
    let config = Config { cases: count, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let kinds = prop_oneof![
        3 => Just((protocol::TCP, false)),
        2 => Just((protocol::UDP, false)),
        1 => Just((protocol::TCP, true)),
        1 => Just((protocol::UDP, true)),
    ];
    let strategy = (kinds, prop::collection::vec(any::<u32>().prop_map(Event::from_bits), 1..120));
    TestRunner::new(config)
        .run(&strategy, |((protocol, has_affinity), events)| {
            let director = Director::new(transition, u32::from(LOG2), WINDOW, usize::MAX, has_affinity);
            let mut history = History::new(Model { director, protocol, has_affinity }, protocol);
            for (at, event) in events.iter().enumerate() {
                history.apply(*event).map_err(|error| TestCaseError::fail(format!("event {at}: {error}")))?;
            }
            Ok(())
        })
        .map_err(|error| error.to_string())
}

#[test]
fn no_history_breaks_a_flow() {
    histories(|slot, new, serves| transition(slot, new, serves), 10_000).unwrap();
}

#[test]
fn broken_transitions_are_found() {
    let broken: [(&str, Transition); 4] = [
        ("an owner's flows are forgotten at once", |_, new, _| Slot::settled(new)),
        ("a second change forgets the owner before the first", |slot, new, serves| {
            let before = if slot.state() == SlotState::Unsettled { Slot::settled(slot.current()) } else { slot };
            transition(before, new, serves)
        }),
        ("a return of the old owner settles the slot", |slot, new, serves| {
            let returns = slot.state() == SlotState::Unsettled && slot.old() == new;
            if returns { Slot::settled(new) } else { transition(slot, new, serves) }
        }),
        ("a change while old flows remain forgets them", |slot, new, serves| {
            let settles = slot.state() == SlotState::Settling && new != slot.current();
            if settles { Slot::settled(new) } else { transition(slot, new, serves) }
        }),
    ];
    for (what, transition) in broken {
        let found = histories(transition, 10_000);
        assert!(found.is_err_and(|error| error.contains(" met ")), "{what}: not found");
    }
}

fn id(index: u32) -> BackendId {
    BackendId::new(index, 1)
}

/// The table of the design, cell by cell: `c` current, `o` old, `n` new.
#[test]
fn slots_change_as_the_table_says() {
    let (c, o, n) = (id(1), id(2), id(3));
    let all = |_: BackendId| true;
    let gone = |id: BackendId| id != c;
    let settled = Slot::settled(c);
    let unsettled = Slot::unsettled(c, o);
    let settling = unsettled.settling();
    for slot in [settled, settling, unsettled] {
        assert_eq!(transition(slot, c, all), slot, "no other owner");
    }
    assert_eq!(transition(settled, n, all), Slot::unsettled(n, c));
    assert_eq!(transition(settling, n, all), Slot::unsettled(n, c));
    assert_eq!(transition(unsettled, n, all), Slot::unsettled(n, o));
    assert_eq!(transition(settled, n, gone), Slot::settled(n));
    assert_eq!(transition(settling, n, gone), Slot::unsettled(n, n));
    assert_eq!(transition(unsettled, n, gone), Slot::unsettled(n, o));
    assert_eq!(transition(unsettled, o, all), Slot::unsettled(o, c).settling(), "the old owner is back");
    assert_eq!(transition(unsettled, o, gone), Slot::unsettled(o, o));
    let old_gone = |id: BackendId| id != o;
    assert_eq!(transition(unsettled, n, old_gone), Slot::unsettled(n, n), "an old owner that goes is replaced");
    assert_eq!(transition(unsettled, c, old_gone), Slot::unsettled(c, c));
    assert_eq!(
        transition(settled, BackendId::NONE, all),
        Slot::unsettled(BackendId::NONE, c),
        "nobody takes new flows"
    );
    assert_eq!(transition(Slot::default(), n, all), Slot::settled(n), "the first owner");
}

#[test]
fn a_syn_without_room_is_refused_and_old_flows_are_not() {
    let mut director = Director::new(|slot, new, serves| transition(slot, new, serves), 3, WINDOW, 2, false);
    let both = BTreeMap::from([(id(1), true), (id(2), true)]);
    director.publish(both.clone(), 3, |_| id(1));
    director.publish(both, 3, |_| id(2));
    let to = VipKey::new(IpAddr16::default(), Be16::new(80), protocol::TCP);
    let tuple = |port| Tuple::new(IpAddr16::default(), Be16::new(port), to);
    let syns: Vec<_> = (1..4).map(|port| director.packet(&tuple(port), 0, Kind::Syn)).collect();
    assert_eq!(syns, [Ok(id(2)), Ok(id(2)), Err(super::NoRoom)]);
    let old: Vec<_> = (11..15).map(|port| director.packet(&tuple(port), 0, Kind::Segment)).collect();
    assert_eq!(old, [Ok(id(1)); 4], "recorded or not, they began at the old owner");
    assert_eq!(director.recorded(), 4);
    assert_eq!(director.packet(&tuple(1), 0, Kind::Segment), Ok(id(2)), "the flood of old ones moved no new one");
}

/// An entry that has expired hides that of its client no longer: a connection that begins beside it is recorded.
#[test]
fn an_expired_entry_does_not_hide_that_of_its_client() {
    const SECOND: u64 = 1_000_000_000;
    for drained in [0, 1] {
        let director = Director::new(transition_of_the_program, u32::from(LOG2), WINDOW, usize::MAX, true);
        let mut history = History::new(Model { director, protocol: protocol::TCP, has_affinity: true }, protocol::TCP);
        for event in [
            Event::Open(9),
            Event::Packet(9),
            Event::Drain(drained),
            Event::Open(11),
            Event::Pass(564 * SECOND),
            Event::Packet(9),
            Event::Pass(536 * SECOND),
            Event::Open(11),
            Event::Sweep,
            Event::Packet(11),
        ] {
            history.apply(event).unwrap();
        }
    }
}

fn transition_of_the_program(slot: Slot, new: BackendId, serves: &dyn Fn(BackendId) -> bool) -> Slot {
    transition(slot, new, serves)
}
