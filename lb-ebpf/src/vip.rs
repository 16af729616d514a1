//! Is it for a VIP, and for which service? Exact port first, then port 0.

use lb_common::{
    addr::{Be16, IpAddr16},
    hash,
    maps::services::VipKey,
};

use crate::maps::{self, VIP_FILTER};

/// Whether an address can be a VIP; false proves that it is none.
#[inline(always)]
pub fn may_be_vip(address: &IpAddr16) -> bool {
    let bit = hash::filter_bit(address);
    match VIP_FILTER.get(bit >> 6) {
        Some(word) => *word >> (bit & 63) & 1 == 1,
        None => false,
    }
}

/// Index of the service that a packet matches.
#[inline(always)]
pub fn service(to: &VipKey) -> Option<u32> {
    maps::service(to).or_else(|| maps::service(&VipKey::new(to.address, Be16::new(0), to.protocol)))
}
