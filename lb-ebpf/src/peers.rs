//! Which director sent this?

use lb_common::{
    addr::{IpAddr16, Mac},
    hash,
    maps::settings::Settings,
};

use crate::maps;

/// Whether a frame was sent on by another director on the link: its source MAC is a director's, and its source address
/// is not that director's own.
#[inline(always)]
pub fn has_directed(settings: &Settings, mac: Mac, source: &IpAddr16) -> bool {
    let bit = hash::mac_bit(&mac) as usize;
    if settings.peer_macs[bit >> 6 & 7] >> (bit & 63) & 1 == 0 {
        return false;
    }
    let peer = maps::peer_by_mac(mac);
    peer != 0 && peer != maps::peer(source)
}
