//! `SETTINGS`: what a packet may need that belongs to no service. One entry, written by the agent.

use super::pod;
use crate::{addr::IpAddr16, hash::HashKey};

/// Value of `SETTINGS`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Settings {
    /// Key of the flow hash.
    pub hash_key: HashKey,
    /// A bit per value of [`crate::hash::mac_bit`]: clear proves that a MAC address is no peer's.
    pub peer_macs: [u64; 8],
    /// Where this node's ICMP errors come from: its IPv4 address and its IPv6 address; zero if it has none.
    pub node: [IpAddr16; 2],
}

pod!(HashKey: 16, Settings: 16 + 64 + 32);
