//! Slots whose owner changed: the flow tables behind `lb_common::tracking`.

use lb_common::{
    addr::BackendId,
    hash::Tuple,
    maps::{
        backends::Head,
        flows::FlowEntry,
        rings::Slot,
        tracking::{LIFETIME, LIMIT, NEW, NEW_REFUSED, OLD, OLD_REFUSED},
    },
    tracking::{self, FlowTables, Known, OnSlot},
    verdict::DropReason,
};

use crate::maps::{self, FlowPlace, NEW_FLOWS, OLD_FLOWS};

/// Chooses the backend of a packet on a slot that is not settled, and records what has to be. A function of its own,
/// so that its variables take no room on the stack beside those of the common path. [`chosen`] reads the result.
#[inline(never)]
pub fn choose(packet: &OnSlot<'_>) -> u64 {
    match tracking::resolve(&Tables, packet) {
        Ok(backend) => u64::from(backend.bits()),
        Err(tracking::NoRoom) => NO_ROOM,
    }
}

/// What [`choose`] returns in place of a backend.
const NO_ROOM: u64 = u64::MAX;

/// The backend that [`choose`] named.
///
/// # Errors
/// [`DropReason::FlowTableFull`] if a flow that begins cannot be recorded.
#[inline(always)]
pub fn chosen(result: u64) -> Result<BackendId, DropReason> {
    if result == NO_ROOM { Err(DropReason::FlowTableFull) } else { Ok(BackendId::from_bits(result as u32)) }
}

/// What this node knows of a flow.
#[inline(always)]
pub fn known(tuple: &Tuple, slot: Slot) -> Known {
    Known::of(&Tables, tuple, slot)
}

/// The maps.
struct Tables;

impl FlowTables for Tables {
    type Place = FlowPlace;

    #[inline(always)]
    fn find_new(&self, key: &Tuple) -> Option<FlowPlace> {
        maps::new_flow(key)
    }

    #[inline(always)]
    fn find_old(&self, key: &Tuple) -> Option<FlowPlace> {
        maps::old_flow(key)
    }

    #[inline(always)]
    fn read(&self, place: FlowPlace) -> FlowEntry {
        place.read()
    }

    #[inline(always)]
    fn write(&self, place: FlowPlace, entry: &FlowEntry) {
        place.write(entry);
    }

    #[inline(always)]
    fn insert(&self, is_new: bool, key: &Tuple, entry: &FlowEntry) -> bool {
        let (map, count, refused) =
            if is_new { (&NEW_FLOWS, NEW, NEW_REFUSED) } else { (&OLD_FLOWS, OLD, OLD_REFUSED) };
        let Some(words) = maps::tracking(entry.service) else {
            return false;
        };
        // Packets that come at the same instant can exceed the limit by as many as there are CPUs.
        if words.load(count) < words.load(LIMIT) && map.insert(key, entry, 0).is_ok() {
            words.increment(count);
            return true;
        }
        words.increment(refused);
        false
    }

    #[inline(always)]
    fn takes(&self, backend: BackendId) -> Option<bool> {
        let (head, _) = maps::backend(backend.index())?;
        let head = Head::from_bits(head);
        (head.generation() == backend.generation() && backend != BackendId::NONE).then(|| head.takes())
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        maps::now()
    }

    #[inline(always)]
    fn lifetime(&self, service: u32) -> u64 {
        maps::tracking(service).map_or(0, |words| words.load(LIFETIME))
    }
}
