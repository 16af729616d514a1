//! Is it for a VIP, and for which service? Exact port first, then port 0.
#![expect(unsafe_code, reason = "hash map values are borrowed from the kernel")]

use lb_common::{
    addr::{Be16, IpAddr16},
    hash,
    maps::{addresses::AddressEntry, services::VipKey},
};

use crate::maps::{ADDRESSES, SERVICES, VIP_FILTER};

/// Whether an address can be a VIP; false proves that it is none.
#[inline(always)]
pub fn may_be_vip(address: &IpAddr16) -> bool {
    let bit = hash::filter_bit(address);
    match VIP_FILTER.get(bit >> 6) {
        Some(word) => *word >> (bit & 63) & 1 == 1,
        None => false,
    }
}

/// What an address means; no flag at all if it is not ours.
#[inline(always)]
pub fn address(address: &IpAddr16) -> AddressEntry {
    // SAFETY: the entry is copied at once; the agent replaces entries whole and a single `u32` cannot tear.
    unsafe { ADDRESSES.get(address) }.copied().unwrap_or_default()
}

/// Index of the service that a packet matches.
#[inline(always)]
pub fn service(to: &VipKey) -> Option<u32> {
    // SAFETY: the entry is a single `u32`, copied at once, that never changes while the service lives.
    if let Some(entry) = unsafe { SERVICES.get(to) } {
        return Some(entry.index);
    }
    let any_port = VipKey::new(to.address, Be16::new(0), to.protocol);
    // SAFETY: as above.
    unsafe { SERVICES.get(&any_port) }.map(|entry| entry.index)
}
