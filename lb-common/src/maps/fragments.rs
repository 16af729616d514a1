//! `FRAGMENTS`: the ports of datagrams whose first fragment came by. Written and read by the packet path only; an LRU
//! map, so that a flood of first fragments pushes out old entries and fails nothing.

use super::pod;
use crate::addr::{Be16, IpAddr16, WireWord};

/// How long an entry counts, nanoseconds. A receiver gives up on a datagram after 15 s (RFC 791 section 3.2) to 60 s
/// (RFC 8200 section 4.5; RFC 1122 section 3.3.2), and identifications are used again.
pub const LIFETIME_NS: u64 = 30_000_000_000;

/// Key of `FRAGMENTS`: what all fragments of a datagram share.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address.
    pub source: IpAddr16,
    /// Destination address, a VIP.
    pub destination: IpAddr16,
    /// Identification as it is on the wire: 16 bits in IPv4, 32 in IPv6.
    pub identification: WireWord,
    /// IANA number of the transport protocol, which every fragment names. RFC 8200 section 4.5 lets later ones name
    /// another; no sender is known to.
    pub protocol: u32,
}

/// Value of `FRAGMENTS`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct FragmentEntry {
    /// When the first fragment came, nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
    /// Zero.
    pub pad: u32,
}

impl FragmentEntry {
    /// Whether the entry still counts at `now`, nanoseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    #[inline(always)]
    pub const fn is_fresh(&self, now: u64) -> bool {
        now.saturating_sub(self.time) <= LIFETIME_NS
    }
}

pod!(FragmentKey: 16 + 16 + 4 + 4, FragmentEntry: 8 + 2 + 2 + 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_counts_for_half_a_minute() {
        let entry = FragmentEntry { time: 5, source_port: Be16::new(1), destination_port: Be16::new(2), pad: 0 };
        assert!(entry.is_fresh(5 + 30_000_000_000) && !entry.is_fresh(6 + 30_000_000_000));
        assert!(entry.is_fresh(4), "another CPU's clock may be behind");
    }
}
