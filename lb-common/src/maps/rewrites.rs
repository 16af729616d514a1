//! `REWRITES`: the port of a service by the port that its servers on this node listen on, where the two differ. Written by
//! the agent, read for what leaves from a VIP. The key is a [`VipKey`](super::services::VipKey) with the servers' port.

use super::pod;
use crate::addr::Be16;

/// Value of `REWRITES`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct RewriteEntry {
    /// Port of the service, which clients know.
    pub port: Be16,
    /// The servers' port again: while the agent changes the map, a lookup can return what belongs to another key.
    pub of: Be16,
}

pod!(RewriteEntry: 4);
