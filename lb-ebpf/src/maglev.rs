//! Ring slot to backend.

use lb_common::{
    addr::BackendId,
    hash::FlowHash,
    maglev,
    maps::{
        backends::{Head, Hop},
        published::RingWord,
        rings::Slot,
    },
};

use crate::maps;

/// The ring in force for a service.
#[inline(always)]
pub fn ring(service: u32) -> RingWord {
    RingWord::from_bits(maps::published(service).unwrap_or(0))
}

/// The slot of a flow.
#[inline(always)]
pub fn slot(ring: RingWord, hash: FlowHash) -> u32 {
    maglev::slot(hash.slot_bits(), ring.log2())
}

/// An entry of a ring.
#[inline(always)]
pub fn entry(ring: RingWord, slot: u32) -> Slot {
    Slot::from_bits(maps::slot(ring.offset().wrapping_add(slot)).unwrap_or(0))
}

/// How packets to a backend leave; `None` if the id names nobody any more.
#[inline(always)]
pub fn hop(id: BackendId) -> Option<&'static Hop> {
    let (head, backend) = maps::backend(id.index())?;
    let head = Head::from_bits(head);
    if head.generation() != id.generation() || id == BackendId::NONE {
        return None;
    }
    Some(if head.active() == 0 { &backend.hops[0] } else { &backend.hops[1] })
}
