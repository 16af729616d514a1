//! Maps of other sizes or of the layout before take over from those in force: every flow meets the backend it met.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
};

use aya::maps::{Array, HashMap, Map, MapData};
use lb_agent::{
    dataplane::{Dataplane, DataplaneError, Kernel, PinDirectory, PinLock, Tables, detach},
    plan::{MapState, Sizes, operations},
};
use lb_common::{
    addr::BackendId,
    maps::{
        published::RingWord,
        rings::{Slot, SlotState},
    },
    verdict::Action,
};
use packets_tests::{
    Bed, IN, Outcome, Packet, SIZES, Way, World, addresses::*, dump, enter_link, run_program, service, tcp, world,
};

/// Smaller where there is room to spare, larger elsewhere.
const OTHER: Sizes =
    Sizes { services: 4, backends: 64, ring_slots: 1 << 14, flows: 512, flows_per_service: 128, ..SIZES };

fn address(number: u8) -> IpAddr {
    [192, 0, 2, 100 + number].into()
}

/// Sends to the backend of this number, which the frame's destination then tells.
fn way(number: u8) -> Way {
    Way::l2().next([2, 0, 0, number, 0, 0])
}

fn met(outcome: &Outcome) -> u8 {
    assert_eq!(outcome.action, Action::Transmit as u32, "{outcome:?}");
    outcome.frame[3]
}

/// A service with these takers, and these backends that only keep their flows.
fn web(takers: &[u8], others: &[u8]) -> World {
    let service =
        takers.iter().fold(service(VIP4, 80), |service, number| service.backend(address(*number), way(*number)));
    world().with(others.iter().fold(service, |service, number| service.idle_backend(address(*number), way(*number))))
}

fn packet(port: u16) -> Packet {
    tcp(CLIENT4, port, VIP4, 80)
}

fn through(kernel: &mut Kernel, packet: &Packet) -> u8 {
    met(&run_program(kernel.program().unwrap(), &packet.frame().bytes(), IN))
}

fn perform(kernel: &mut Kernel, world: &World) -> MapState {
    let state = kernel.state().unwrap();
    let (steps, after) = operations(&state, &world.target(), kernel.rings(), 0).unwrap();
    for step in &steps {
        kernel.perform(step).unwrap();
    }
    after
}

/// Each slot of the ring as the maps have it, backends by their addresses.
fn slots(kernel: &Kernel) -> Vec<(SlotState, Option<IpAddr>, Option<IpAddr>)> {
    let state = kernel.state().unwrap();
    let service = &state.services[&service(VIP4, 80).key()];
    let names: BTreeMap<BackendId, IpAddr> =
        service.backends.iter().map(|((address, _), state)| (state.id, (*address).into())).collect();
    let slot = |slot: Slot| (slot.state(), names.get(&slot.current()).copied(), names.get(&slot.old()).copied());
    let offset = service.word.offset();
    (offset..offset + (1 << service.word.log2())).map(|at| slot(kernel.rings().slot(at))).collect()
}

/// Clients' ports of the flows that are recorded.
fn recorded(tables: &Tables) -> BTreeSet<u16> {
    let keys = tables.new_flows.keys().chain(tables.old_flows.keys());
    keys.map(|key| key.unwrap().source_port.get()).collect()
}

/// Backend of each flow by its client's port.
type Flows = BTreeMap<u16, u8>;

/// A bed whose ring has changed: 3 takes new flows in the place of 1, which keeps those it has. Of its flows some began
/// before the change and were silent since, some were recorded as old ones, some as new ones. Indices and ids are not
/// those that a new set gives out.
fn changed() -> (Bed, Flows) {
    let mut bed = Bed::holding(&web(&[1, 2], &[]).with(service(VIP4, 79).backend(A4, Way::l2())));
    let mut flows = Flows::new();
    for port in 1..=200 {
        flows.insert(port, met(&bed.send(&packet(port).frame().bytes(), IN)));
    }
    bed.apply(&web(&[2, 3], &[1]));
    for port in 1..=80 {
        assert_eq!(met(&bed.send(&packet(port).frame().bytes(), IN)), flows[&port]);
    }
    for port in 201..=240 {
        flows.insert(port, met(&bed.send(&packet(port).syn().frame().bytes(), IN)));
    }
    assert_eq!(flows.values().collect::<BTreeSet<_>>(), BTreeSet::from([&1, &2, &3]));
    (bed, flows)
}

#[test]
fn other_sizes_break_no_flow_whenever_it_began() {
    let (mut bed, mut flows) = changed();
    let before = slots(bed.kernel());
    let mut again = Kernel::open(bed.lock(), OTHER).unwrap();
    assert_eq!(slots(&again), before);
    perform(&mut again, &web(&[2, 3], &[1]));
    assert_eq!(slots(&again), before, "a ring that is as it should be stays");
    for port in 301..=310 {
        flows.insert(port, met(&bed.send(&packet(port).syn().frame().bytes(), IN)));
    }
    assert!(flows.range(301..).any(|(_, backend)| *backend == 3));
    again.hand_over().unwrap();
    for port in 321..=350 {
        let backend = met(&bed.send(&packet(port).syn().frame().bytes(), IN));
        flows.insert(port, backend);
        if port % 2 == 0 {
            assert_eq!(through(&mut again, &packet(port)), backend, "flow {port} began just before the switch");
        }
    }
    for (port, backend) in flows.range(1..=310) {
        assert_eq!(through(&mut again, &packet(*port)), *backend, "flow {port} began before the switch");
    }
    let known = recorded(bed.tables());
    again.commit().unwrap();
    let carried = recorded(&Tables::open(|name| bed.pins().map(name)).unwrap());
    assert!(known.len() > 50 && known.is_subset(&carried), "{known:?} became {carried:?}");
    for (port, backend) in &flows {
        assert_eq!(through(&mut again, &packet(*port)), *backend, "flow {port}");
    }
    assert_eq!(slots(&again), before);
    let fresh: BTreeSet<_> = (1001..1040).map(|port| through(&mut again, &packet(port).syn())).collect();
    assert_eq!(fresh, BTreeSet::from([2, 3]), "flows that begin meet those that take them");
}

#[test]
fn a_change_while_no_agent_ran_is_remembered_over_other_sizes() {
    let (bed, flows) = changed();
    let mut again = Kernel::open(bed.lock(), OTHER).unwrap();
    perform(&mut again, &web(&[3, 4], &[1, 2]));
    again.commit().unwrap();
    for (port, backend) in &flows {
        assert_eq!(through(&mut again, &packet(*port)), *backend, "flow {port}");
    }
    let fresh: BTreeSet<_> = (1001..1040).map(|port| through(&mut again, &packet(port).syn())).collect();
    assert_eq!(fresh, BTreeSet::from([3, 4]));
}

#[test]
fn a_switch_that_does_not_take_place_leaves_the_maps_in_force_as_they_were() {
    let (mut bed, flows) = changed();
    let before = dump(bed.pins());
    let mut again = Kernel::open(bed.lock(), OTHER).unwrap();
    perform(&mut again, &web(&[4], &[1, 2, 3]));
    again.hand_over().unwrap();
    assert!(dump(bed.pins()) != before, "unsettled slots are frozen");
    drop(again);
    assert!(dump(bed.pins()) == before);
    for (port, backend) in &flows {
        assert_eq!(met(&bed.send(&packet(*port).frame().bytes(), IN)), *backend, "flow {port}");
    }
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_the_maps_in_force() {
    let (mut bed, flows) = changed();
    let refused = Kernel::open(bed.lock(), Sizes { backends: 2, ..SIZES }).err().unwrap();
    assert!(matches!(refused, DataplaneError::DoesNotFit(_)), "{refused:?}");
    assert!(refused.to_string().contains("raise `capacities.backends`"), "{refused}");
    for (port, backend) in &flows {
        assert_eq!(met(&bed.send(&packet(*port).frame().bytes(), IN)), *backend, "flow {port}");
    }
}

/// A pin directory of one's own that holds a set of maps as an earlier release pinned them; dropping it removes it.
struct Pinned(Option<PinLock>);

impl Pinned {
    fn create(name: &str) -> Self {
        enter_link();
        let path = PathBuf::from(format!("/sys/fs/bpf/levee-migrate-{}-{name}", std::process::id()));
        Self(Some(PinDirectory::new(&path).lock().unwrap()))
    }

    fn lock(&self) -> &PinLock {
        self.0.as_ref().unwrap()
    }

    fn maps(&self, layout: u32) -> PathBuf {
        self.lock().directory().root().join(format!("maps-v{layout}"))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.0.take().map(detach);
    }
}

/// Fills `directory` with the maps of layout 1 that say how packets are forwarded, and gives them what a bed's maps say.
/// Sizes of keys and values are those of that layout; it has no bit for backends that take new flows.
fn pin_layout_1(directory: &Path, bed: &Bed) {
    /// `BPF_F_MMAPABLE` (Linux 5.5).
    const MAPPED: u32 = 1024;
    let maps = dump(bed.pins());
    std::fs::create_dir(directory).unwrap();
    let array = |name: &str, flags| array(directory, name, flags, maps[name].values());
    array("SETTINGS", 0).write::<80>();
    array("VIP_FILTER", MAPPED).write::<8>();
    array("PUBLISHED", MAPPED).write::<8>();
    array("RINGS", MAPPED).write::<8>();
    array("SERVICE_INFO", 0).write::<88>();
    array("BACKEND_INFO", 0).write::<32>();
    let mut backends = array("BACKENDS", MAPPED);
    for backend in &mut backends.values {
        backend[2] &= !0b10;
    }
    backends.write::<128>();
    hash::<20, 4>(directory, "SERVICES", &maps["SERVICES"]);
    hash::<16, 4>(directory, "ADDRESSES", &maps["ADDRESSES"]);
}

struct Bytes {
    path: PathBuf,
    flags: u32,
    values: Vec<Vec<u8>>,
}

fn array<'a>(directory: &Path, name: &str, flags: u32, values: impl Iterator<Item = &'a Vec<u8>>) -> Bytes {
    Bytes { path: directory.join(name), flags, values: values.cloned().collect() }
}

impl Bytes {
    fn write<const N: usize>(self) {
        let entries = u32::try_from(self.values.len()).unwrap();
        let mut map = Array::<MapData, [u8; N]>::create(entries, self.flags).unwrap();
        for (index, value) in (0..).zip(&self.values) {
            map.set(index, <[u8; N]>::try_from(&value[..N]).unwrap(), 0).unwrap();
        }
        map.pin(&self.path).unwrap();
    }
}

fn hash<const K: usize, const V: usize>(directory: &Path, name: &str, entries: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut map = HashMap::<MapData, [u8; K], [u8; V]>::create(64, 0).unwrap();
    for (key, value) in entries {
        map.insert(<[u8; K]>::try_from(&key[..K]).unwrap(), <[u8; V]>::try_from(&value[..V]).unwrap(), 0).unwrap();
    }
    map.pin(directory.join(name)).unwrap();
}

#[test]
fn the_layout_before_is_carried_over_with_its_rings() {
    let mut bed = Bed::holding(&web(&[1, 2], &[]).with(service(VIP4, 79).backend(A4, Way::l2())));
    bed.apply(&web(&[1, 2], &[]));
    let flows: Flows = (1..=200).map(|port| (port, met(&bed.send(&packet(port).frame().bytes(), IN)))).collect();
    let before = slots(bed.kernel());
    let pinned = Pinned::create("layout-1");
    pin_layout_1(&pinned.maps(1), &bed);

    drop(Kernel::open(pinned.lock(), SIZES).unwrap());
    let mut kernel = Kernel::open(pinned.lock(), SIZES).unwrap();
    assert_eq!(slots(&kernel), before, "a start that was not finished changes nothing");
    for (port, backend) in &flows {
        assert_eq!(through(&mut kernel, &packet(*port)), *backend, "flow {port}");
    }
    perform(&mut kernel, &web(&[2, 3], &[1]));
    for ((_, owner, _), (state, current, old)) in before.iter().zip(slots(&kernel)) {
        let is_same = *owner == current;
        let expected = if is_same { (SlotState::Settled, None) } else { (SlotState::Unsettled, *owner) };
        assert_eq!((state, old), expected);
    }
    assert!(pinned.maps(1).exists());
    kernel.commit().unwrap();
    assert!(!pinned.maps(1).exists(), "the set that was replaced is gone");
    for (port, backend) in &flows {
        assert_eq!(through(&mut kernel, &packet(*port)), *backend, "flow {port}");
    }
    let fresh: BTreeSet<_> = (1001..1040).map(|port| through(&mut kernel, &packet(port).syn())).collect();
    assert_eq!(fresh, BTreeSet::from([2, 3]));
}

#[test]
fn a_layout_that_nobody_knows_is_left_alone_until_a_fresh_set_is_in_force() {
    let bed = Bed::holding(&web(&[1, 2], &[]));
    let pinned = Pinned::create("unknown");
    pin_layout_1(&pinned.maps(9999), &bed);
    let mut kernel = Kernel::open(pinned.lock(), SIZES).unwrap();
    assert!(kernel.state().unwrap().services.is_empty());
    perform(&mut kernel, &web(&[1, 2], &[]));
    assert!(pinned.maps(9999).exists());
    kernel.commit().unwrap();
    assert!(!pinned.maps(9999).exists());
    assert!([1, 2].contains(&through(&mut kernel, &packet(1))));
}

/// Maps that came with servers on other ports and with connections that are translated.
const YOUNGER: [&str; 3] = ["REWRITES", "TRANSLATIONS", "TRANSLATED"];

/// Makes the set in force one of this layout from before those: their maps are not there, and the generation in the words
/// of `PUBLISHED` begins a bit lower, with what means another port today.
fn grow_old(bed: &Bed) {
    for name in YOUNGER {
        std::fs::remove_file(bed.pins().map(name)).unwrap();
    }
    let words = MapData::from_pin(bed.pins().map("PUBLISHED")).unwrap();
    let mut words: Array<MapData, u64> = Map::Array(words).try_into().unwrap();
    for index in 0..words.len() {
        let word = words.get(&index, 0).unwrap();
        if word != 0 {
            words.set(index, RingWord::from_bits(word).with_target_port(true).bits(), 0).unwrap();
        }
    }
}

#[test]
fn a_set_from_before_other_ports_keeps_its_flows_and_has_other_ports_afterwards() {
    let (mut bed, flows) = changed();
    let before = slots(bed.kernel());
    grow_old(&bed);
    for (port, backend) in &flows {
        assert_eq!(met(&bed.send(&packet(*port).frame().bytes(), IN)), *backend, "flow {port}, no port but a bit");
    }
    let known = recorded(bed.tables());
    let mut again = Kernel::open(bed.lock(), SIZES).unwrap();
    assert_eq!(slots(&again), before);
    perform(&mut again, &web(&[2, 3], &[1]));
    assert_eq!(slots(&again), before, "a ring that is as it should be stays");
    again.commit().unwrap();
    let carried = recorded(&Tables::open(|name| bed.pins().map(name)).unwrap());
    assert!(known.len() > 50 && known.is_subset(&carried), "{known:?} became {carried:?}");
    for (port, backend) in &flows {
        assert_eq!(through(&mut again, &packet(*port)), *backend, "flow {port}");
    }
    assert!(YOUNGER.iter().all(|name| bed.pins().map(name).exists()), "the new set is whole");

    let other_port = service(VIP6, 8443).held().backend(NODE6, Way::local()).target_port(6443);
    perform(&mut again, &web(&[2, 3], &[1]).with(other_port));
    let came = tcp(CLIENT6, 40_000, VIP6, 8443).frame().bytes();
    let outcome = run_program(again.program().unwrap(), &came, IN);
    assert!(outcome.is_passed(), "{outcome:?}");
    assert_eq!(outcome.frame, tcp(CLIENT6, 40_000, VIP6, 6443).frame().bytes());
    for (port, backend) in &flows {
        assert_eq!(through(&mut again, &packet(*port)), *backend, "flow {port}");
    }
}
