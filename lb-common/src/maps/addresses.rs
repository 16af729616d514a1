//! `VIP_FILTER` and `ADDRESSES`: is this address ours, and what is it? Written by the agent.
//! The key of `ADDRESSES` is an [`IpAddr16`](crate::addr::IpAddr16).
//!
//! The filter has no false negatives: a VIP's bit is set before its first service appears and cleared after the last
//! is gone, so a clear bit proves that a packet is not for a VIP. `ADDRESSES` is asked where that alone is not enough:
//! before anything is dropped.

use super::pod;

/// 64-bit words in `VIP_FILTER`; one bit per value of [`crate::hash::filter_bit`].
pub const FILTER_WORDS: u32 = 65_536 / 64;

/// Value of `ADDRESSES`: what the address means.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct AddressEntry {
    /// A sum of the constants below.
    pub flags: u32,
}

impl AddressEntry {
    /// A VIP of at least one service.
    pub const VIP: u32 = 1;
    /// With [`Self::VIP`]: packets that match no service are passed up the stack instead of being dropped.
    pub const PASS_UNMATCHED: u32 = 2;
    /// An address of this node: tunnels may end here.
    pub const NODE: u32 = 4;
    /// With [`Self::VIP`]: this node terminates the VIP's flows. Asked where no service is known: for later fragments.
    pub const HELD: u32 = 8;

    /// Whether every flag of `flags` is set.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }
}

pod!(AddressEntry: 4);
