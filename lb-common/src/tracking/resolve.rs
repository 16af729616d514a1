//! From a packet on a slot that is not settled to its backend, with the tables in between.

use super::packets::{Choice, Kind, Record, hit, lifetime, miss, stage};
use crate::{
    addr::BackendId,
    hash::Tuple,
    maps::{
        flows::{FlowEntry, Stage},
        rings::Slot,
    },
};

/// The tables of flows, and what else a choice depends on.
pub trait FlowTables {
    /// A place in a table, found by its key.
    type Place: Copy;

    /// Where a flow is recorded among the new ones, which began by way of this node. Expired or not.
    fn find_new(&self, key: &Tuple) -> Option<Self::Place>;
    /// Where a flow is recorded among the old ones, as is believed. Expired or not.
    fn find_old(&self, key: &Tuple) -> Option<Self::Place>;
    /// What is recorded there.
    fn read(&self, place: Self::Place) -> FlowEntry;
    /// Replaces what is recorded there.
    fn write(&self, place: Self::Place, entry: &FlowEntry);
    /// Records a flow among the new or the old ones; false if there is no room. Counts it, and counts refusals.
    fn insert(&self, is_new: bool, key: &Tuple, entry: &FlowEntry) -> bool;
    /// Whether a backend takes new flows; `None` if it is gone.
    fn takes(&self, backend: BackendId) -> Option<bool>;
    /// Nanoseconds of a clock that never goes back.
    fn now(&self) -> u64;
    /// How long an open flow of a service may be silent, in nanoseconds.
    fn lifetime(&self, service: u32) -> u64;

    /// Where a flow is recorded: among the new ones or, if not there, among the old ones. Expired or not.
    #[inline(always)]
    fn find(&self, key: &Tuple) -> Option<Self::Place> {
        self.find_new(key).or_else(|| self.find_old(key))
    }
}

/// A packet on a slot that is not settled.
#[derive(Clone, Copy, Debug)]
pub struct OnSlot<'a> {
    /// Its flow.
    pub tuple: &'a Tuple,
    /// What it tells about the flow.
    pub kind: Kind,
    /// The 32 bits of the flow hash that chose the slot.
    pub slot_bits: u32,
    /// Index of its service.
    pub service: u32,
    /// Whether the service's clients stay with one backend, whatever port they come from.
    pub has_affinity: bool,
    /// The slot.
    pub slot: Slot,
    /// Whether the flow may be recorded: false to ask only.
    pub records: bool,
}

/// The flow is new and there is no room to record it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoRoom;

/// Chooses the backend of a packet, and records what has to be; [`BackendId::NONE`] if nobody takes new flows.
///
/// Clients of a service with affinity are recorded without their port, and have no SYN to go by. A connection that
/// begins is the exception where it would follow its client to a backend that takes no new flows: it goes to the
/// slot's owner, recorded by itself.
///
/// # Errors
/// [`NoRoom`]: the packet has to be dropped, since the next of its flow would go elsewhere.
#[inline(always)]
pub fn resolve<T: FlowTables>(tables: &T, packet: &OnSlot<'_>) -> Result<BackendId, NoRoom> {
    let now = tables.now();
    let mut place = tables.find(packet.tuple);
    let of_client = packet.tuple.of_client();
    let mut key = packet.tuple;
    let mut kind = packet.kind;
    if packet.has_affinity && place.is_none() {
        key = &of_client;
        place = tables.find(key);
        kind = if matches!(kind, Kind::Error) { Kind::Error } else { Kind::Datagram };
    }
    let live = match place {
        Some(place) => live(tables, place, now),
        None => None,
    };
    let (mut choice, before) = match live {
        Some((entry, takes)) => (hit(packet.slot, kind, entry.backend(), takes), Stage::from_value(entry.stage)),
        None => (miss(packet.slot, kind), Stage::Open),
    };
    // What has expired of a connection hides what is recorded of its client, until it is swept: one that begins is recorded
    // again, or it would follow its client from then on.
    if packet.has_affinity && matches!((kind, choice.record), (Kind::Syn, Record::Nothing)) {
        choice.record = Record::Refresh;
    }
    let begins_elsewhere = matches!((packet.kind, kind), (Kind::Syn, Kind::Datagram))
        && tables.takes(choice.backend) != Some(true)
        && packet.slot.current() != choice.backend;
    if begins_elsewhere {
        (kind, key, place) = (Kind::Syn, packet.tuple, None);
        choice = Choice { backend: packet.slot.current(), record: Record::New };
    }
    if !packet.records || matches!(choice.record, Record::Nothing) || choice.backend == BackendId::NONE {
        return Ok(choice.backend);
    }
    let stage = stage(before, kind);
    let entry = FlowEntry {
        backend: choice.backend.bits(),
        slot_bits: packet.slot_bits,
        deadline: now + lifetime(stage, kind, tables.lifetime(packet.service)),
        service: packet.service,
        stage: stage as u32,
    };
    if let Some(place) = place {
        tables.write(place, &entry);
        return Ok(choice.backend);
    }
    let is_new = matches!(choice.record, Record::New);
    if tables.insert(is_new, key, &entry) || !is_new { Ok(choice.backend) } else { Err(NoRoom) }
}

/// What is recorded at a place, with whether its backend takes new flows; `None` if it has expired or the backend is
/// gone.
#[inline(always)]
pub(super) fn live<T: FlowTables>(tables: &T, place: T::Place, now: u64) -> Option<(FlowEntry, bool)> {
    let entry = tables.read(place);
    if entry.deadline <= now {
        return None;
    }
    Some((entry, tables.takes(entry.backend())?))
}
