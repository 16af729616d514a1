//! `AGENT`: who keeps these maps. Written by the agent when it starts, read to name it.

use super::pod;

/// Value of `AGENT`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct AgentInfo {
    /// When it started, seconds of Unix time.
    pub started: u64,
    /// Process id as the agent sees it.
    pub pid: u32,
    /// Layout version of the maps.
    pub layout: u32,
    /// Since when an operator drains the node, seconds of Unix time; 0 if nobody does.
    pub drained_since: u64,
    /// When the flows of its backends that are left are cut, nanoseconds of `CLOCK_MONOTONIC`; 0 for never.
    pub drain_deadline: u64,
    /// Name of the node, padded with zeros.
    pub node: [u8; 64],
    /// Version of the agent, padded with zeros.
    pub version: [u8; 32],
}

pod!(AgentInfo: 8 + 4 + 4 + 8 + 8 + 64 + 32);
