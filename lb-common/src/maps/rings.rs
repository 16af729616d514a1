//! `RINGS`: the arena of all rings. Mapped by the agent; each slot is one word, stored in one piece.

use crate::addr::BackendId;

/// How a slot is to be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum SlotState {
    /// The packet goes to `current`; nothing is looked up.
    Settled = 0,
    /// The owner changed less than one window ago: flows are looked up and recorded.
    Unsettled = 1,
    /// The window is over, recorded flows may remain: they are looked up.
    Settling = 2,
}

/// Slot of `RINGS`: bits 0..31 the current backend, 31..62 the old one, 62..64 the state.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct Slot(u64);

impl Slot {
    /// A settled slot of `current`.
    #[must_use]
    pub const fn settled(current: BackendId) -> Self {
        Self(current.bits() as u64)
    }

    /// A slot of `current` that `old` had before, less than one window ago.
    #[must_use]
    pub const fn unsettled(current: BackendId, old: BackendId) -> Self {
        Self(current.bits() as u64 | (old.bits() as u64) << 31 | (SlotState::Unsettled as u64) << 62)
    }

    /// The same slot when its window is over.
    #[must_use]
    pub const fn settling(self) -> Self {
        Self(self.0 & !(3 << 62) | (SlotState::Settling as u64) << 62)
    }

    /// The slot with these bits.
    #[must_use]
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The backend that takes new flows.
    #[must_use]
    #[inline(always)]
    pub const fn current(self) -> BackendId {
        BackendId::from_bits(self.0 as u32)
    }

    /// The backend that had the slot before.
    #[must_use]
    pub const fn old(self) -> BackendId {
        BackendId::from_bits((self.0 >> 31) as u32)
    }

    /// How to read it. The value that no state has counts as settled.
    #[must_use]
    #[inline(always)]
    pub const fn state(self) -> SlotState {
        match self.0 >> 62 {
            1 => SlotState::Unsettled,
            2 => SlotState::Settling,
            _ => SlotState::Settled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_slot_names_its_backend_only() {
        let id = BackendId::new(0xf_ffff, 0x7ff);
        let slot = Slot::settled(id);
        assert_eq!((slot.current(), slot.old(), slot.state()), (id, BackendId::NONE, SlotState::Settled));
    }

    #[test]
    fn an_unsettled_slot_names_both_owners() {
        let (new, old) = (BackendId::new(0xf_ffff, 0x7ff), BackendId::new(1, 2));
        let slot = Slot::unsettled(new, old);
        assert_eq!((slot.current(), slot.old(), slot.state()), (new, old, SlotState::Unsettled));
        let slot = slot.settling();
        assert_eq!((slot.current(), slot.old(), slot.state()), (new, old, SlotState::Settling));
    }
}
