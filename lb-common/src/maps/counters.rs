//! `SERVICE_COUNTERS`, `BACKEND_COUNTERS`, `VERDICTS`, `DROPS`: per-CPU counters, written by the packet path only.

use super::pod;

/// Value of `SERVICE_COUNTERS` and `BACKEND_COUNTERS`, per CPU. They only grow while the entry lives.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Counters {
    /// Packets handed on or up.
    pub packets: u64,
    /// Their bytes: IP header to the end of the packet, without tunnel headers.
    pub bytes: u64,
}

pod!(Counters: 8 + 8);
