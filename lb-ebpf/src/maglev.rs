//! Ring slot to backend.
#![expect(
    unsafe_code,
    reason = "words that the agent stores while packets flow are read in one piece"
)]

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

use crate::maps::{BACKENDS, PUBLISHED, RINGS};

/// The ring in force for a service.
#[inline(always)]
pub fn ring(service: u32) -> RingWord {
    match PUBLISHED.get(service) {
        // SAFETY: a valid, aligned word of the map. Volatile: it is read once, whatever the agent stores meanwhile.
        Some(word) => RingWord::from_bits(unsafe { core::ptr::read_volatile(word) }),
        None => RingWord::default(),
    }
}

/// The slot of a flow.
#[inline(always)]
pub fn slot(ring: RingWord, hash: FlowHash) -> u32 {
    maglev::slot(hash.slot_bits(), ring.log2())
}

/// The backend that a slot names.
#[inline(always)]
pub fn backend(ring: RingWord, slot: u32) -> BackendId {
    match RINGS.get(ring.offset().wrapping_add(slot)) {
        // SAFETY: as in `ring`.
        Some(word) => Slot::from_bits(unsafe { core::ptr::read_volatile(word) }).current(),
        None => BackendId::NONE,
    }
}

/// How packets to a backend leave; `None` if the id names nobody any more.
#[inline(always)]
pub fn hop(id: BackendId) -> Option<&'static Hop> {
    let backend = BACKENDS.get(id.index())?;
    // SAFETY: as in `ring`.
    let head = Head::from_bits(unsafe { core::ptr::read_volatile(&raw const backend.head) });
    if head.generation() != id.generation() || id == BackendId::NONE {
        return None;
    }
    Some(if head.active() == 0 {
        &backend.hops[0]
    } else {
        &backend.hops[1]
    })
}
