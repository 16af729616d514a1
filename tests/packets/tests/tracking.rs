//! Flows on slots whose owner changed: where their packets go, what is recorded, and what a flood does.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use aya::maps::{HashMap, Map, MapData};
use lb_common::{
    addr::{BackendId, Be16},
    hash::{HashKey, Tuple, flow},
    maglev::build,
    maps::{
        flows::FlowEntry,
        published::RingWord,
        rings::{Slot, SlotState},
        tracking::{NEW, NEW_REFUSED, OLD, OLD_REFUSED},
    },
    tracking::{
        Kind,
        history::{Event, History, LOG2, Members, Met, Subject, WINDOW, address, tuple},
        model::Director,
        transition,
    },
    verdict::{Action, DropReason, Verdict},
    wire::protocol,
};
use packets_tests::{
    Bed, IN, Outcome, Packet, Random, SIZES, Service, Way, World, addresses::*, every, service, tcp, udp, world,
};

/// Sends to the backend of this number and generation, which the frame's destination then tells.
fn way(number: u16, generation: u16) -> Way {
    let [high, low] = generation.to_be_bytes();
    Way::l2().next([2, 0, 0, number.to_be_bytes()[1], high, low])
}

fn met(outcome: &Outcome) -> Option<Met> {
    let [_, _, _, number, high, low] = outcome.frame[..6] else { unreachable!("six bytes") };
    match outcome.action {
        action if action == Action::Transmit as u32 => {
            Some(Met { backend: u16::from(number), generation: u16::from_be_bytes([high, low]) })
        }
        action => {
            assert_eq!(action, Action::Drop as u32, "{outcome:?}");
            None
        }
    }
}

/// The number of the backend that a packet is sent on to; `None` if it is dropped.
fn to(bed: &mut Bed, packet: &Packet) -> Option<u16> {
    met(&bed.send(&packet.frame().bytes(), IN)).map(|met| met.backend)
}

fn on(service: Service, takers: &[u16], others: &[u16]) -> World {
    let address = |number: u16| IpAddr::from(address(number));
    let service = takers.iter().fold(service, |service, number| service.backend(address(*number), way(*number, 1)));
    world().with(others.iter().fold(service, |service, number| service.idle_backend(address(*number), way(*number, 1))))
}

fn web(takers: &[u16], others: &[u16]) -> World {
    on(service(VIP4, 80), takers, others)
}

fn packet(port: u16) -> Packet {
    tcp(CLIENT4, port, VIP4, 80)
}

/// The word of the first service in `TRACKING`.
fn count(bed: &Bed, word: usize) -> u64 {
    bed.tables().tracking.get(&0, 0).expect("an array has every entry").0[word]
}

#[test]
fn while_slots_are_unsettled_old_flows_stay_and_new_ones_go_to_the_new_owner() {
    let mut bed = Bed::holding(&web(&[1], &[]));
    assert_eq!(to(&mut bed, &packet(1)), Some(1));
    bed.apply(&web(&[2], &[1]));
    assert_eq!(to(&mut bed, &packet(1)), Some(1), "it began before");
    assert_eq!(to(&mut bed, &packet(2).syn()), Some(2), "it begins");
    assert_eq!(to(&mut bed, &packet(2)), Some(2), "it goes on");
    assert_eq!((count(&bed, NEW), count(&bed, OLD)), (1, 1));
    assert_eq!(to(&mut bed, &packet(1).syn()), Some(2), "its port is used again, and 1 takes no new flows");
    assert_eq!(to(&mut bed, &packet(1)), Some(2));
    assert_eq!((count(&bed, NEW), count(&bed, OLD)), (1, 1), "the entry was taken over");
    bed.apply(&web(&[3], &[1, 2]));
    assert_eq!((to(&mut bed, &packet(1)), to(&mut bed, &packet(2))), (Some(2), Some(2)));
    assert_eq!(to(&mut bed, &packet(3)), Some(1), "nothing is known of it: it is as old as can be");
    assert_eq!(bed.counts().drops(), 0);
}

#[test]
fn slots_settle_when_the_window_is_over_and_no_old_flow_is_left() {
    let window = Duration::from_secs(7500);
    let mut bed = Bed::holding(&web(&[1], &[]));
    bed.apply(&web(&[2], &[1]));
    assert_eq!(to(&mut bed, &packet(1)), Some(1));
    let window = u64::try_from(window.as_nanos()).unwrap();
    bed.pass(window, None);
    let scan = bed.scan();
    bed.pass(1, Some(&scan)); // begun after the window: every slot but that of the old flow settles
    let settling: Vec<_> = slots(&bed).into_iter().filter(|slot| slot.state() == SlotState::Settling).collect();
    assert_eq!(settling.len(), 1, "the old flow is on one slot");
    assert_eq!(to(&mut bed, &packet(1)), Some(1), "it lives on");
    assert_eq!(to(&mut bed, &packet(3)), Some(2), "a flow that nobody knows goes to the owner");
    assert_eq!((count(&bed, NEW), count(&bed, OLD)), (0, 1), "nothing more is recorded");
    let key = tuple_of(1);
    bed.tables().old_flows.get(&key, 0).expect("the old flow is recorded");
    remove(&bed, &key);
    let scan = bed.scan();
    bed.pass(1, Some(&scan));
    assert!(slots(&bed).iter().all(|slot| slot.state() == SlotState::Settled));
    assert_eq!(to(&mut bed, &packet(1)), Some(2));
}

#[test]
fn expired_flows_count_no_more_and_are_swept() {
    let short = |world: &[u16], others: &[u16]| on(service(VIP4, 80).window(Duration::from_millis(1)), world, others);
    let mut bed = Bed::holding(&short(&[1], &[]));
    bed.apply(&short(&[2], &[1]));
    assert_eq!(to(&mut bed, &packet(9).syn()), Some(2));
    let entry = || bed.tables().new_flows.get(&tuple_of(9), 0).unwrap();
    let until = entry().deadline;
    while lb_agent::dataplane::monotonic() <= until {
        std::thread::yield_now();
    }
    assert_eq!(to(&mut bed, &packet(9)), Some(1), "what has expired is as if it had never been recorded");
    // The sweep leaves an entry for a second more, lest it removes one that a packet takes over.
    let mut tables = bed.kernel().flow_tables().unwrap();
    while tables.scan().unwrap().expired == 0 {
        std::thread::yield_now();
    }
    assert_eq!((count(&bed, NEW), count(&bed, OLD)), (0, 0));
}

#[test]
fn datagrams_go_to_the_old_owner_while_the_grace_runs() {
    let dns = |takers: &[u16], others: &[u16]| on(service(VIP4, 80).udp(), takers, others);
    let mut bed = Bed::holding(&dns(&[1], &[]));
    bed.apply(&dns(&[2], &[1]));
    let packet = |port| udp(CLIENT4, port, VIP4, 80);
    assert_eq!(to(&mut bed, &packet(1)), Some(1), "new or not, nobody can tell");
    assert_eq!(to(&mut bed, &packet(1)), Some(1));
    bed.pass(u64::try_from(Duration::from_secs(7500).as_nanos()).unwrap(), None);
    assert_eq!(to(&mut bed, &packet(1)), Some(1));
    assert_eq!(to(&mut bed, &packet(2)), Some(2));
    assert_eq!((count(&bed, NEW), count(&bed, OLD)), (0, 1));
}

#[test]
fn with_affinity_a_client_stays_whatever_its_port() {
    let sticky = |takers: &[u16], others: &[u16]| on(service(VIP4, 80).with_affinity(), takers, others);
    let mut bed = Bed::holding(&sticky(&[1, 2, 3], &[]));
    let first = to(&mut bed, &packet(1).syn()).unwrap();
    for port in 2..100 {
        assert_eq!(to(&mut bed, &packet(port).syn()), Some(first), "port {port}");
    }
    bed.apply(&sticky(&[1, 2, 3, 4, 5], &[]));
    bed.apply(&sticky(&[4, 5], &[1, 2, 3]));
    assert_eq!(to(&mut bed, &packet(1)), Some(first), "an open connection");
    let second = to(&mut bed, &packet(200).syn()).unwrap();
    assert!([4, 5].contains(&second), "a connection that begins, while the client's backend drains");
    assert_eq!(to(&mut bed, &packet(200)), Some(second));
    assert_eq!(to(&mut bed, &packet(1)), Some(first), "and the open one is still where it was");
}

#[test]
fn an_unknown_reset_and_a_lookup_record_nothing() {
    let mut bed = Bed::holding(&web(&[1], &[]));
    bed.apply(&web(&[2], &[1]));
    let report = bed.lookup(&packet(5).syn().frame().bytes());
    assert_eq!((report.state, report.backend), (SlotState::Unsettled as u8, id(&bed, 2).bits()));
    let report = bed.lookup(&packet(5).frame().bytes());
    assert_eq!(report.backend, id(&bed, 1).bits());
    assert_eq!(to(&mut bed, &packet(5).reset()), Some(1));
    assert_eq!((count(&bed, NEW), count(&bed, OLD)), (0, 0));
}

#[test]
fn a_flood_moves_no_other_flow_and_syns_without_room_are_dropped() {
    let limit = u64::from(SIZES.flows_per_service);
    let two = |takers: &[u16], others: &[u16]| {
        let mut both = on(service(VIP4, 80), takers, others);
        both.services.extend(on(service(VIP6, 443), takers, others).services);
        both
    };
    let mut bed = Bed::holding(&two(&[1], &[]));
    bed.apply(&two(&[2], &[1]));
    let other = tcp(CLIENT6, 1, VIP6, 443);
    assert_eq!(to(&mut bed, &packet(60_000)), Some(1));
    assert_eq!(to(&mut bed, &other.clone().syn()), Some(2));
    let before = bed.counts();
    for port in 1..=1000 {
        let went = to(&mut bed, &packet(port).syn());
        assert_eq!(went, (u64::from(port) <= limit).then_some(2), "SYN {port}");
    }
    assert_eq!(bed.counts().since(&before).drop(DropReason::FlowTableFull), 1000 - limit);
    assert_eq!((count(&bed, NEW), count(&bed, NEW_REFUSED)), (limit, 1000 - limit));
    for port in 1001..=2000 {
        assert_eq!(to(&mut bed, &packet(port)), Some(1), "old ones go on unrecorded");
    }
    assert_eq!((count(&bed, OLD), count(&bed, OLD_REFUSED)), (limit, 1000 - (limit - 1)));
    assert_eq!(to(&mut bed, &packet(60_000)), Some(1), "the old flow of the flooded service");
    assert_eq!(to(&mut bed, &packet(1)), Some(2), "a new flow that was recorded");
    assert_eq!(to(&mut bed, &other), Some(2), "the new flow of the other service");
    assert_eq!(to(&mut bed, &tcp(CLIENT6, 2, VIP6, 443).syn()), Some(2), "which has room for more");
}

#[test]
fn a_service_that_nobody_takes_flows_of_keeps_those_it_has() {
    let mut bed = Bed::holding(&web(&[1], &[]));
    bed.apply(&web(&[], &[1]));
    let before = bed.counts();
    assert_eq!(to(&mut bed, &packet(1)), Some(1));
    assert_eq!(to(&mut bed, &packet(2).syn()), None);
    assert_eq!(bed.counts().since(&before).drop(DropReason::NoBackend), 1);
    assert_eq!(bed.counts().since(&before).verdict(Verdict::L2), 1);
}

/// The loaded program beside the model: each packet goes through both.
struct Both<'a> {
    bed: &'a mut Bed,
    model: Director,
    protocol: u8,
    has_affinity: bool,
}

impl<'a> Both<'a> {
    /// Both without a service, and without flows of an earlier one.
    fn new(bed: &'a mut Bed, protocol: u8, has_affinity: bool) -> Self {
        let model =
            Director::new(|slot, new, serves| transition(slot, new, serves), LOG2.into(), WINDOW, 1000, has_affinity);
        bed.apply(&world());
        forget(bed);
        Self { bed, model, protocol, has_affinity }
    }

    fn service(&self, log2: u8) -> Service {
        let service = service(VIP4, 80).ring(log2).window(Duration::from_nanos(WINDOW));
        let service = if self.protocol == protocol::UDP { service.udp() } else { service };
        if self.has_affinity { service.with_affinity() } else { service }
    }

    /// Both have the same slots.
    fn compare(&self, when: &str) {
        let (program, model) = (slots(self.bed), self.model.slots());
        for at in 0..64 {
            let of = |slots: &[Slot]| slots.get(at * slots.len() / 64).copied().unwrap_or_default();
            let (program, model) = (of(&program), of(model));
            let parts = |slot: Slot| {
                (slot.state(), slot.current(), (slot.state() == SlotState::Unsettled).then_some(slot.old()))
            };
            assert_eq!(parts(program), parts(model), "{when}, {at} of 64: the program's slot differs from the model's");
        }
    }

    /// Flows of the loaded program expire by the clock of the kernel; here they do as the model's do.
    fn expire(&self) {
        for (key, entry) in self.model.flows() {
            if entry.deadline <= self.model.time() {
                remove(self.bed, &key);
            }
        }
    }
}

impl Subject for Both<'_> {
    fn publish(&mut self, members: &Members, log2: u8) {
        let wanted = members.iter().fold(self.service(log2), |service, (number, one)| {
            let (address, way) = (IpAddr::from(address(*number)), way(*number, one.generation));
            if one.weight > 0 { service.backend(address, way) } else { service.idle_backend(address, way) }
        });
        // One that goes and comes again is another.
        let gone: Vec<IpAddr> = backends(self.bed)
            .filter(|(number, generation, _)| members.get(number).is_some_and(|one| one.generation != *generation))
            .map(|(number, ..)| address(number).into())
            .collect();
        assert!(gone.is_empty(), "a history publishes after each change");
        self.bed.apply(&world().with(wanted));
        let ids: BTreeMap<u16, BackendId> = backends(self.bed).map(|(number, _, id)| (number, id)).collect();
        let ring = build(&members.iter().map(|(number, one)| one.member(*number)).collect::<Vec<_>>(), log2);
        let numbers: Vec<u16> = members.keys().copied().collect();
        let takes = members.iter().map(|(number, one)| (ids[number], one.weight > 0)).collect();
        let owner = |at: usize| ring.get(at).map_or(BackendId::NONE, |owner| ids[&numbers[*owner as usize]]);
        self.model.publish(takes, log2.into(), owner);
        self.compare("published");
    }

    fn packet(&mut self, number: u16, kind: Kind) -> Option<Met> {
        let tuple = tuple(number, self.protocol);
        let key = HashKey::new(world().secret);
        let slot_bits = flow(&key, &tuple, self.has_affinity, true).slot_bits();
        let client = IpAddr::from(tuple.source);
        let (from, packet) = (tuple.source_port.get(), kind);
        let packet = match (packet, self.protocol) {
            (_, protocol::UDP) => udp(client, from, VIP4, 80),
            (Kind::Syn, _) => tcp(client, from, VIP4, 80).syn(),
            (Kind::Fin, _) => tcp(client, from, VIP4, 80).finish(),
            _ => tcp(client, from, VIP4, 80),
        };
        let met = met(&self.bed.send(&packet.frame().bytes(), IN));
        let expected = self.model.packet(&tuple, slot_bits, kind).expect("there is room");
        let known = backends(self.bed).find(|(.., id)| *id == expected);
        let expected = known.map(|(backend, generation, _)| Met { backend, generation });
        assert_eq!(met, expected, "flow {number}: the program differs from the model");
        met
    }

    fn pass(&mut self, time: u64) {
        self.model.pass(time);
        self.bed.pass(time, None);
        self.expire();
        self.compare("time passed");
    }

    fn sweep(&mut self) {
        self.expire();
        let scan = self.bed.scan();
        self.model.sweep();
        self.bed.pass(0, Some(&scan));
        self.compare("swept");
    }
}

/// Histories on the loaded program.
const HISTORIES: u32 = 200;

#[test]
fn no_history_breaks_a_flow_of_the_loaded_program() {
    let mut random = Random::new(41);
    let mut packets = 0;
    let mut bed = Bed::new();
    for number in (0..HISTORIES).step_by(every()) {
        let protocol = if number % 2 == 0 { protocol::TCP } else { protocol::UDP };
        let both = Both::new(&mut bed, protocol, number % 8 > 5);
        let mut history = History::new(both, protocol);
        let mut events = Vec::new();
        for _ in 0..80 {
            let event = Event::from_bits(u32::try_from(random.bits() >> 32).expect("32 bits"));
            packets += u32::from(matches!(event, Event::Open(_) | Event::Packet(_) | Event::Finish(_)));
            events.push(event);

            history.apply(event).unwrap_or_else(|error| panic!("history {number}: {error} after {events:?}"));
        }
    }
    println!("1 of {} of {HISTORIES} histories, with {packets} packets", every());
}

/// Backends of the only service: number, generation, id.
fn backends(bed: &Bed) -> impl Iterator<Item = (u16, u16, BackendId)> {
    let of_service = bed.state().services.values().flat_map(|service| &service.backends);
    of_service.map(|((address, _), state)| {
        let ([.., number], [high, low, ..]) = (state.hop.macs[0].to_ne_bytes(), state.hop.macs[1].to_ne_bytes());
        assert_eq!(*address, lb_common::tracking::history::address(u16::from(number)));
        (u16::from(number), u16::from_be_bytes([high, low]), state.id)
    })
}

fn id(bed: &Bed, number: u16) -> BackendId {
    backends(bed).find(|(known, ..)| *known == number).expect("it is there").2
}

fn slots(bed: &Bed) -> Vec<Slot> {
    let word = RingWord::from_bits(bed.tables().published.get(&0, 0).expect("an array has every entry"));
    let count = if word.is_empty() { 0 } else { 1 << word.log2() };
    (0..count)
        .map(|at| Slot::from_bits(bed.tables().rings.get(&(word.offset() + at), 0).expect("an array has every entry")))
        .collect()
}

fn tuple_of(port: u16) -> Tuple {
    Tuple::new(CLIENT4.into(), Be16::new(port), service(VIP4, 80).key())
}

/// Removes a flow from both tables.
fn remove(bed: &Bed, key: &Tuple) {
    for mut table in tables(bed) {
        let _ = table.remove(key);
    }
}

/// Removes every flow from both tables.
fn forget(bed: &Bed) {
    for mut table in tables(bed) {
        let keys: Vec<_> = table.keys().collect::<Result<_, _>>().expect("it can be read");
        keys.iter().for_each(|key| table.remove(key).expect("it is there"));
    }
}

fn tables(bed: &Bed) -> [HashMap<MapData, Tuple, FlowEntry>; 2] {
    ["NEW_FLOWS", "OLD_FLOWS"].map(|name| {
        let data = MapData::from_pin(bed.pins().map(name)).expect("it is pinned");
        Map::HashMap(data).try_into().expect("it has this layout")
    })
}
