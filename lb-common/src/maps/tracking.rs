//! `TRACKING`: per service, how long and how many flows are recorded. Mapped by the agent, which sets lifetime,
//! limit and the servers' port and subtracts what its sweep removed; packets add what they record. [`WORDS`] 64-bit words per service.

use super::pod;

/// 64-bit words of one entry.
pub const WORDS: usize = 8;

/// Index of the word that is the lifetime of a flow without packets: nanoseconds.
pub const LIFETIME: usize = 0;
/// Index of the word that is the most flows of either table.
pub const LIMIT: usize = 1;
/// Index of the word that counts flows in `NEW_FLOWS`.
pub const NEW: usize = 2;
/// Index of the word that counts flows in `OLD_FLOWS`.
pub const OLD: usize = 3;
/// Index of the word that counts SYNs that were dropped since they could not be recorded.
pub const NEW_REFUSED: usize = 4;
/// Index of the word that counts packets of old flows that were sent on without being recorded.
pub const OLD_REFUSED: usize = 5;
/// Index of the word that is the port servers listen on, in host byte order, if the service's word in `PUBLISHED` says
/// that it is another than the service's.
pub const TARGET_PORT: usize = 6;

/// Entry of `TRACKING`: one cache line, so that services do not slow each other down.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C, align(64))]
pub struct Tracking(pub [u64; WORDS]);

pod!(Tracking: 64);
