//! Who is asked next for a flow that a terminator has no socket of.

use super::{FlowTables, resolve::live};
use crate::{addr::BackendId, hash::Tuple, maps::rings::Slot, wire::gue};

/// What a terminator knows of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its slot.
    pub slot: Slot,
    /// The backend that is recorded of it; [`BackendId::NONE`] if none is.
    pub recorded: BackendId,
    /// Whether the flow began by way of this node; else somebody was believed to have it when a later packet came by.
    pub is_sure: bool,
}

impl Known {
    /// What the tables tell of a flow on a slot.
    #[inline(always)]
    pub fn of<T: FlowTables>(tables: &T, tuple: &Tuple, slot: Slot) -> Self {
        let begun = tables.find_new(tuple);
        let place = begun.or_else(|| tables.find_old(tuple));
        match place.and_then(|place| live(tables, place, tables.now())) {
            Some((entry, _)) => Self { slot, recorded: entry.backend(), is_sure: begun.is_some() },
            None => Self { slot, recorded: BackendId::NONE, is_sure: false },
        }
    }

    /// The backend that a packet goes on to, which `chances` terminators have sent on before; [`BackendId::NONE`] if it is
    /// delivered here. `is_elsewhere` tells of a backend whether it is on a node that a tunnel leads to.
    ///
    /// Who is sure knows. Else the first terminator asks the slot's owner, if it is another: directors do not hear of a
    /// change at the same instant. Then the older ones are asked: a node that joined has each of its slots from the owner
    /// before it, which has it from the one before that, and each knows the one it has it from.
    #[inline(always)]
    pub fn next(&self, chances: u8, is_elsewhere: impl Fn(BackendId) -> bool) -> BackendId {
        let first = if self.is_sure || chances > 0 { self.recorded } else { self.slot.current() };
        if chances >= gue::MAX_CHANCES {
            BackendId::NONE
        } else if is_elsewhere(first) {
            first
        } else if is_elsewhere(self.recorded) {
            self.recorded
        } else if is_elsewhere(self.slot.old()) {
            self.slot.old()
        } else {
            BackendId::NONE
        }
    }
}
