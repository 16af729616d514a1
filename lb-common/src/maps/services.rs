//! `SERVICES`: what a VIP listens on. Written by the agent only when a service comes or goes; read once per packet.

use super::pod;
use crate::addr::{Be16, IpAddr16};

/// Key of `SERVICES`: one listening address, port and protocol, in network order so the packet path never swaps.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(C)]
pub struct VipKey {
    /// The VIP.
    pub address: IpAddr16,
    /// Port; 0 for every port.
    pub port: Be16,
    /// IANA protocol number: 6 TCP, 17 UDP.
    pub protocol: u8,
    /// Zero. The kernel compares keys byte by byte, so padding has to be a field with a value.
    pad: u8,
}

impl VipKey {
    /// The key of a service.
    #[must_use]
    #[inline(always)]
    pub const fn new(address: IpAddr16, port: Be16, protocol: u8) -> Self {
        Self { address, port, protocol, pad: 0 }
    }
}

/// Value of `SERVICES`: the index of the service in `PUBLISHED`, which never changes while the service lives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct ServiceEntry {
    /// Index in `PUBLISHED`, `SERVICE_COUNTERS` and `SERVICE_INFO`.
    pub index: u32,
}

pod!(IpAddr16: 16, VipKey: 16 + 2 + 1 + 1, ServiceEntry: 4);
