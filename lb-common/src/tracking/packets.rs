//! Where a packet on a slot that is not settled goes, and what is recorded of it.

use crate::{
    addr::BackendId,
    maps::{
        flows::Stage,
        rings::{Slot, SlotState},
    },
};

/// What a packet tells about its flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Kind {
    /// A TCP segment that opens a flow: SYN without ACK.
    Syn = 0,
    /// A TCP segment within a flow.
    Segment = 1,
    /// The client's last TCP segment with data: FIN.
    Fin = 2,
    /// A TCP segment that ends a flow: RST.
    Reset = 3,
    /// A packet of a protocol that has nothing to tell where a flow begins.
    Datagram = 4,
    /// An ICMP error about a packet of the flow: it is no packet of the flow itself.
    Error = 5,
}

impl Kind {
    /// The kind with this value; [`Kind::Error`], which records nothing, for a value that none has.
    #[must_use]
    #[inline(always)]
    pub const fn from_value(value: u8) -> Self {
        match value {
            0 => Self::Syn,
            1 => Self::Segment,
            2 => Self::Fin,
            3 => Self::Reset,
            4 => Self::Datagram,
            _ => Self::Error,
        }
    }
}

/// What is recorded of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Record {
    /// Nothing.
    Nothing,
    /// A flow that begins: in `NEW_FLOWS`, and if there is no room the packet is dropped, for the next one would go
    /// elsewhere.
    New,
    /// A flow that began before the slot changed: in `OLD_FLOWS`, if there is room.
    Old,
    /// The entry that was found is refreshed, and names the chosen backend from now on.
    Refresh,
}

/// Where a packet goes and what is recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Choice {
    /// The backend; [`BackendId::NONE`] if nobody takes new flows.
    pub backend: BackendId,
    /// What is recorded.
    pub record: Record,
}

/// The choice for a packet whose flow has no live entry.
#[must_use]
#[inline(always)]
pub const fn miss(slot: Slot, kind: Kind) -> Choice {
    let (current, old) = (slot.current(), slot.old());
    match (slot.state(), kind) {
        (SlotState::Unsettled, Kind::Syn) => Choice { backend: current, record: Record::New },
        (SlotState::Unsettled, Kind::Reset | Kind::Error) => Choice { backend: old, record: Record::Nothing },
        (SlotState::Unsettled, Kind::Segment | Kind::Fin | Kind::Datagram) => {
            Choice { backend: old, record: Record::Old }
        }
        (SlotState::Settled | SlotState::Settling, _) => Choice { backend: current, record: Record::Nothing },
    }
}

/// The choice for a packet whose flow has a live entry that names `backend`, which serves; `takes`: it takes new flows.
#[must_use]
#[inline(always)]
pub const fn hit(slot: Slot, kind: Kind, backend: BackendId, takes: bool) -> Choice {
    match kind {
        Kind::Error => Choice { backend, record: Record::Nothing },
        // A port used again: another flow, which need not follow the one before.
        Kind::Syn if !takes => Choice { backend: slot.current(), record: Record::Refresh },
        _ => Choice { backend, record: Record::Refresh },
    }
}

/// The stage of a flow behind a packet of `kind`, `before` being the one before, if there is one.
#[must_use]
#[inline(always)]
pub const fn stage(before: Stage, kind: Kind) -> Stage {
    match (kind, before) {
        (Kind::Syn, _) => Stage::Opening,
        (Kind::Fin, _) | (Kind::Segment, Stage::Closing) => Stage::Closing,
        _ => Stage::Open,
    }
}

/// How long a flow of this stage may be silent, in nanoseconds; `open`: the same of a flow that is open.
#[must_use]
#[inline(always)]
pub const fn lifetime(stage: Stage, kind: Kind, open: u64) -> u64 {
    /// A client repeats its SYN at most this much later, for as long as it goes on at all (RFC 6298 section 2.5).
    const OPENING: u64 = 60_000_000_000;
    /// RFC 5382 REQ-5: "transitory" connections, at least four minutes.
    const CLOSING: u64 = 240_000_000_000;
    let most = match (stage, kind) {
        (Stage::Opening, _) => OPENING,
        (Stage::Closing, _) | (_, Kind::Reset) => CLOSING,
        (Stage::Open, _) => open,
    };
    if most < open { most } else { open }
}
