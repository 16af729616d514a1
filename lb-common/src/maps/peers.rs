//! `PEERS` and `PEER_MACS`: who the other directors are. Written by the agent, read for tunnels and frames from a peer.
//! The key of `PEERS` is the [`IpAddr16`](crate::addr::IpAddr16) that a director's tunnels come from.

use super::pod;
use crate::addr::Mac;

/// Key of `PEER_MACS`: a director's link-layer address on a shared link.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(C)]
pub struct PeerMacKey {
    /// The address.
    pub mac: Mac,
    /// Zero.
    pad: [u8; 2],
}

impl PeerMacKey {
    /// The key of a MAC address.
    #[must_use]
    #[inline(always)]
    pub const fn new(mac: Mac) -> Self {
        Self { mac, pad: [0; 2] }
    }
}

/// Value of both: which director it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct PeerEntry {
    /// The same for all addresses of one director, and not 0.
    pub id: u32,
}

pod!(PeerMacKey: 8, PeerEntry: 4);
