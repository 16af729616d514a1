//! `NEW_FLOWS` and `OLD_FLOWS`: flows on slots whose owner changed, and the backend that each belongs to.
//!
//! Written by the packet path; the agent's sweep removes what has expired. They are two maps, and bounded per service
//! ([`super::tracking`]), so that a flood of the one kind leaves no less room for the other. Nothing is ever evicted: a
//! flow that finds no room is not recorded. Key is the [`Tuple`].

use super::pod;
use crate::{addr::BackendId, hash::Tuple};

/// Value of both. The packet path stores each field in one piece; a packet that meets a mixture of two versions sees
/// a flow of the same key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct FlowEntry {
    /// Bits of the backend's id.
    pub backend: u32,
    /// The 32 bits of the flow hash that choose the slot.
    pub slot_bits: u32,
    /// When it counts no more, in nanoseconds of `CLOCK_MONOTONIC`; each packet of the flow moves it on.
    pub deadline: u64,
    /// Index of the service.
    pub service: u32,
    /// A [`Stage`].
    pub stage: u32,
}

impl FlowEntry {
    /// The backend.
    #[must_use]
    #[inline(always)]
    pub const fn backend(&self) -> BackendId {
        BackendId::from_bits(self.backend)
    }
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Stage {
    /// Only a SYN was seen.
    Opening = 0,
    /// Packets behind the SYN were seen, or the protocol has none.
    Open = 1,
    /// The client has sent its FIN.
    Closing = 2,
}

impl Stage {
    /// The stage with this value; [`Stage::Open`] for a value that none has.
    #[must_use]
    #[inline(always)]
    pub const fn from_value(value: u32) -> Self {
        match value {
            0 => Self::Opening,
            2 => Self::Closing,
            _ => Self::Open,
        }
    }

    /// Its name for people.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Closing => "closing",
        }
    }
}

pod!(Tuple: 16 + 20 + 2 + 2, FlowEntry: 4 + 4 + 8 + 4 + 4);
