//! What the dry entry of the program says about a packet: the choice and how it came about.
//!
//! The dry entry runs the very pipeline that packets take, up to the point where something would be changed or counted,
//! and writes this record over the beginning of the test frame instead.

use crate::hash::FlowHash;

/// Length of a record, bytes.
pub const LEN: usize = 64;

/// Which word of a record is the service.
pub const SERVICE: usize = 3;
/// Which word of a record is the backend.
pub const BACKEND: usize = 5;

/// The end of a packet's way: a slot of `VERDICTS`, or one of `DROPS`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Value of a [`crate::verdict::Verdict`].
    Verdict(u32),
    /// Value of a [`crate::verdict::DropReason`].
    Drop(u32),
}

/// How a packet was decided. Numbers that were not reached are 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Report {
    /// How it ended.
    pub end: End,
    /// Index of the service plus one; 0 if none matched.
    pub service: u32,
    /// Bits of the ring word that was read.
    pub ring: u64,
    /// All 64 bits of the flow hash.
    pub hash: u64,
    /// Slot in the ring.
    pub slot: u32,
    /// Bits of the backend's id.
    pub backend: u32,
    /// A [`crate::maps::backends::Mode`].
    pub mode: u8,
    /// The [`crate::maps::rings::SlotState`] of the slot.
    pub state: u8,
}

impl Report {
    /// A report that has got nowhere yet.
    pub const START: Self =
        Self { end: End::Verdict(0), service: 0, ring: 0, hash: 0, slot: 0, backend: 0, mode: 0, state: 0 };

    /// The record, numbers in native byte order.
    #[must_use]
    #[inline(always)]
    pub fn to_words(&self) -> [u64; LEN / 8] {
        let end = match self.end {
            End::Verdict(value) => value as u64,
            End::Drop(value) => 1 << 32 | value as u64,
        };
        [
            end,
            self.ring,
            self.hash,
            self.service as u64,
            self.slot as u64,
            self.backend as u64,
            self.mode as u64,
            self.state as u64,
        ]
    }

    /// The report that a record holds.
    #[must_use]
    pub fn from_words(words: &[u64; LEN / 8]) -> Self {
        let low = |word: u64| (word & 0xffff_ffff) as u32;
        let end = if words[0] >> 32 == 0 { End::Verdict(low(words[0])) } else { End::Drop(low(words[0])) };
        Self {
            end,
            ring: words[1],
            hash: words[2],
            service: low(words[3]),
            slot: low(words[4]),
            backend: low(words[5]),
            mode: (words[6] & 0xff) as u8,
            state: (words[7] & 0xff) as u8,
        }
    }

    /// Notes the flow hash.
    #[inline(always)]
    pub fn set_hash(&mut self, hash: FlowHash) {
        self.hash = hash.bits();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_its_words() {
        let report = Report {
            end: End::Drop(9),
            service: 3,
            ring: u64::MAX,
            hash: 5,
            slot: 4095,
            backend: 0x7fff_ffff,
            mode: 6,
            state: 2,
        };
        assert_eq!(Report::from_words(&report.to_words()), report);
        assert_eq!(Report::from_words(&Report::START.to_words()), Report::START);
    }
}
