//! Which director sent this?
#![expect(unsafe_code, reason = "hash map values are borrowed from the kernel")]

use lb_common::{
    addr::{IpAddr16, Mac},
    hash,
    maps::{peers::PeerMacKey, settings::Settings},
};

use crate::maps::{PEER_MACS, PEERS};

/// The director with this address, 0 if none has it.
#[inline(always)]
pub fn by_address(address: &IpAddr16) -> u32 {
    // SAFETY: the entry is a single `u32`, copied at once.
    unsafe { PEERS.get(address) }.map_or(0, |peer| peer.id)
}

/// Whether a frame was sent on by another director on the link: its source MAC is a director's, and its source address
/// is not that director's own.
#[inline(always)]
pub fn has_directed(settings: &Settings, mac: Mac, source: &IpAddr16) -> bool {
    let bit = hash::mac_bit(&mac) as usize;
    if settings.peer_macs[bit >> 6 & 7] >> (bit & 63) & 1 == 0 {
        return false;
    }
    // SAFETY: the entry is a single `u32`, copied at once.
    match unsafe { PEER_MACS.get(&PeerMacKey::new(mac)) } {
        Some(peer) => by_address(source) != peer.id,
        None => false,
    }
}
