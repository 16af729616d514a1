//! `SERVICE_INFO` and `BACKEND_INFO`: what entries are called. Written and read by user space only: the agent adopts
//! its own entries by them after a restart, and `lbctl` shows them while no agent runs.

use super::{pod, services::VipKey};
use crate::addr::{Be16, IpAddr16};

/// Longest service name, bytes.
pub const NAME_LEN: usize = 64;

/// Value of `SERVICE_INFO`, by the index of the service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct ServiceInfo {
    /// What it listens on.
    pub key: VipKey,
    /// 1 while the index is in use, else 0.
    pub used: u32,
    /// Name in UTF-8, padded with zeros.
    pub name: [u8; NAME_LEN],
}

/// Value of `BACKEND_INFO`, by the index of the backend.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct BackendInfo {
    /// Address of the backend.
    pub address: IpAddr16,
    /// Index of its service.
    pub service: u32,
    /// Its port, 0 for every port.
    pub port: Be16,
    /// Its weight, 0..=1000.
    pub weight: u16,
    /// 1 while the index is in use, else 0.
    pub used: u32,
    /// 1 while it takes new flows, else 0.
    pub in_ring: u16,
    /// Generation of the entry, or the last one it had: the next to use the index takes the next generation.
    pub generation: u16,
    /// Since when an operator drains it, seconds of Unix time; 0 if nobody does.
    pub drained_since: u64,
    /// When the flows that are left are cut, nanoseconds of `CLOCK_MONOTONIC`; 0 for never.
    pub drain_deadline: u64,
    /// 1 if it is drained since its whole node is, else 0.
    pub drained_with_node: u32,
    /// Zero.
    pub pad: u32,
}

impl ServiceInfo {
    /// An index that is not in use.
    pub const UNUSED: Self =
        Self { key: VipKey::new(IpAddr16::v6([0; 4]), Be16::new(0), 0), used: 0, name: [0; NAME_LEN] };
}

pod!(ServiceInfo: 20 + 4 + 64, BackendInfo: 16 + 4 + 2 + 2 + 4 + 2 + 2 + 8 + 8 + 4 + 4);
