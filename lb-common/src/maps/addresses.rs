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
    /// A sum of the constants below; in bits 16..32, with [`Self::VIP`], the bound for the maximum segment size of what
    /// leaves from it, in bytes: 0 for none.
    pub flags: u32,
}

impl AddressEntry {
    /// A VIP of at least one service.
    pub const VIP: u32 = 1;
    /// With [`Self::VIP`]: packets that match no service are passed up the stack instead of being dropped.
    pub const PASS_UNMATCHED: u32 = 2;
    /// An address of this node: tunnels may end here.
    pub const NODE: u32 = 4;
    /// With [`Self::VIP`]: this node terminates its flows, and so answers echo requests to it.
    pub const HELD: u32 = 8;
    /// With [`Self::VIP`]: what leaves from it may come from a server on another port than the service's; `REWRITES`
    /// knows.
    pub const REWRITTEN: u32 = 16;

    /// The flags with a bound for the maximum segment size.
    #[must_use]
    pub const fn with_mss(flags: u32, mss: u16) -> u32 {
        flags & 0xffff | (mss as u32) << 16
    }

    /// The bound for the maximum segment size of what leaves from the VIP, in bytes: 0 for none.
    #[must_use]
    #[inline(always)]
    pub const fn mss(&self) -> u16 {
        (self.flags >> 16) as u16
    }

    /// Whether every flag of `flags` is set.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }
}

pod!(AddressEntry: 4);
