//! Random histories: backends come, drain, return and go, rings change their size, time passes, and flows send packets.

use std::collections::BTreeMap;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::{
    Kind,
    model::{Director, Transition},
    transition,
};
use crate::{
    addr::{BackendId, Be16, IpAddr16, wire_word},
    hash::{HashKey, Tuple, bytes},
    maglev::{Member, build},
    maps::{
        rings::{Slot, SlotState},
        services::VipKey,
    },
    wire::protocol,
};

/// The window, in units of the histories' clock.
const WINDOW: u64 = 1_000_000_000_000;
const BACKENDS: u16 = 5;
const FLOWS: u16 = 24;

#[derive(Clone, Copy, Debug)]
enum Event {
    Add(u16),
    Drain(u16),
    Undrain(u16),
    Remove(u16),
    Resize(u8),
    Open(u16),
    Packet(u16),
    Finish(u16),
    /// Thousandths of the window.
    Pass(u64),
    Sweep,
}

fn event() -> impl Strategy<Value = Event> {
    let (backend, flow) = (0..BACKENDS, 0..FLOWS);
    prop_oneof![
        2 => backend.clone().prop_map(Event::Add),
        2 => backend.clone().prop_map(Event::Drain),
        1 => backend.clone().prop_map(Event::Undrain),
        1 => backend.prop_map(Event::Remove),
        1 => (3u8..6).prop_map(Event::Resize),
        8 => flow.clone().prop_map(Event::Open),
        12 => flow.clone().prop_map(Event::Packet),
        1 => flow.prop_map(Event::Finish),
        6 => prop_oneof![0u64..50, 200u64..600].prop_map(Event::Pass),
        5 => Just(Event::Sweep),
    ]
}

/// A flow as its client knows it.
struct Flow {
    backend: BackendId,
    /// Whether the client sent a packet behind its SYN.
    is_open: bool,
    last: u64,
}

/// A history in the making: what is wanted, what the clients have seen, and the director that is put to the test.
struct History {
    director: Director,
    protocol: u8,
    has_affinity: bool,
    log2: u8,
    /// Weight and generation per backend that is there.
    backends: BTreeMap<u16, (u16, u16)>,
    generation: u16,
    flows: BTreeMap<u16, Flow>,
    now: u64,
}

impl History {
    fn new(transition: Transition, protocol: u8, has_affinity: bool) -> Self {
        let director = Director::new(transition, 4, WINDOW, usize::MAX, has_affinity);
        let (backends, flows) = (BTreeMap::from([(0, (1, 1)), (1, (1, 1))]), BTreeMap::new());
        let mut history = Self { director, protocol, has_affinity, log2: 4, backends, generation: 1, flows, now: 0 };
        history.publish();
        history
    }

    fn id(index: u16, generation: u16) -> BackendId {
        BackendId::new(u32::from(index), generation)
    }

    fn publish(&mut self) {
        let member = |(index, (weight, _)): (&u16, &(u16, u16))| Member {
            address: IpAddr16::v4(wire_word([10, 0, 0, *index as u8])),
            port: Be16::new(80),
            weight: *weight,
        };
        let members: Vec<_> = self.backends.iter().map(member).collect();
        let ids: Vec<_> = self.backends.iter().map(|(index, (_, generation))| Self::id(*index, *generation)).collect();
        let ring = build(&members, self.log2);
        let takes = self.backends.iter().zip(&ids).map(|((_, (weight, _)), id)| (*id, *weight > 0)).collect();
        self.director.publish(takes, u32::from(self.log2), |at| {
            ring.get(at).map_or(BackendId::NONE, |owner| ids[*owner as usize])
        });
    }

    fn change(&mut self, index: u16, weight: Option<u16>) {
        if let Some((known, _)) = self.backends.get_mut(&index) {
            *known = weight.unwrap_or(*known);
            self.publish();
        }
    }

    fn apply(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Add(index) if !self.backends.contains_key(&index) => {
                self.generation += 1;
                self.backends.insert(index, (1, self.generation));
                self.publish();
            }
            Event::Add(_) => {}
            Event::Drain(index) => self.change(index, Some(0)),
            Event::Undrain(index) => self.change(index, Some(1)),
            Event::Remove(index) => {
                self.backends.remove(&index);
                self.publish();
            }
            Event::Resize(log2) => {
                self.log2 = log2;
                self.publish();
            }
            Event::Pass(thousandths) => {
                self.now += thousandths * (WINDOW / 1000);
                self.director.pass(thousandths * (WINDOW / 1000));
            }
            Event::Sweep => self.director.sweep(),
            Event::Open(flow) => self.open(flow),
            Event::Packet(flow) => self.send(flow, Kind::Segment)?,
            Event::Finish(flow) => {
                self.send(flow, Kind::Fin)?;
                self.flows.remove(&flow);
            }
        }
        Ok(())
    }

    /// Where a packet of a flow goes.
    fn route(&self, flow: u16, kind: Kind) -> BackendId {
        let to = VipKey::new(IpAddr16::v4(wire_word([192, 0, 2, 1])), Be16::new(80), self.protocol);
        // Some flows share a client.
        let source = IpAddr16::v4(wire_word([198, 51, 100, (flow / 3) as u8]));
        let tuple = Tuple { to, source, source_port: Be16::new(1000 + flow) };
        let hashed = if self.has_affinity { flow / 3 } else { flow };
        let slot_bits = (bytes(&HashKey { k0: 1, k1: 2 }, &hashed.to_le_bytes()) >> 32) as u32;
        let kind = if self.protocol == protocol::UDP { Kind::Datagram } else { kind };
        self.director.packet(&tuple, slot_bits, kind).expect("there is room")
    }

    fn open(&mut self, flow: u16) {
        let now = self.now;
        // A client that goes on with a flow does not open it again; of UDP nobody can tell, so its first packet does.
        if self.flows.get(&flow).is_some_and(|known| known.is_open && self.serves(known.backend)) {
            return;
        }
        let backend = self.route(flow, Kind::Syn);
        if backend == BackendId::NONE {
            self.flows.remove(&flow);
        } else {
            self.flows.insert(flow, Flow { backend, is_open: self.protocol == protocol::UDP, last: now });
        }
    }

    fn send(&mut self, flow: u16, kind: Kind) -> Result<(), String> {
        let Some(known) = self.flows.get(&flow) else { return Ok(()) };
        // Kept only while its backend serves and its silence is shorter than the window; a SYN alone is kept a minute.
        let patience = if known.is_open { WINDOW } else { 60_000_000_000.min(WINDOW) };
        if !self.serves(known.backend) || self.now - known.last >= patience {
            self.flows.remove(&flow);
            return Ok(());
        }
        let expected = known.backend;
        let met = self.route(flow, kind);
        self.flows.insert(flow, Flow { backend: expected, is_open: true, last: self.now });
        if met == expected { Ok(()) } else { Err(format!("flow {flow} of {expected:?} met {met:?}")) }
    }

    fn serves(&self, id: BackendId) -> bool {
        self.backends.iter().any(|(index, (_, generation))| Self::id(*index, *generation) == id)
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
    let strategy = (kinds, prop::collection::vec(event(), 1..120));
    TestRunner::new(config)
        .run(&strategy, |((protocol, has_affinity), events)| {
            let mut history = History::new(transition, protocol, has_affinity);
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
    let tuple = |port| Tuple {
        to: VipKey::new(IpAddr16::default(), Be16::new(80), protocol::TCP),
        source: IpAddr16::default(),
        source_port: Be16::new(port),
    };
    let syns: Vec<_> = (1..4).map(|port| director.packet(&tuple(port), 0, Kind::Syn)).collect();
    assert_eq!(syns, [Ok(id(2)), Ok(id(2)), Err(super::NoRoom)]);
    let old: Vec<_> = (11..15).map(|port| director.packet(&tuple(port), 0, Kind::Segment)).collect();
    assert_eq!(old, [Ok(id(1)); 4], "recorded or not, they began at the old owner");
    assert_eq!(director.recorded(), 4);
    assert_eq!(director.packet(&tuple(1), 0, Kind::Segment), Ok(id(2)), "the flood of old ones moved no new one");
}
