//! `TRANSLATIONS` and `TRANSLATED`: where connections of this node's own processes to a VIP go instead. The first is written
//! by the agent and read when a socket connects; the second is written then, and read when a program asks for its peer.
//! The key of `TRANSLATIONS` is a [`VipKey`], that of `TRANSLATED` the socket's cookie (`SO_COOKIE`).

use super::{pod, services::VipKey};
use crate::addr::{Be16, IpAddr16};

/// The most backends that connections to one service go to from one node.
pub const MAX_BACKENDS: usize = 8;

/// Sockets whose VIP is remembered; the longest unused go.
pub const SOCKETS: u32 = 8192;

/// Where a connection goes.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(C)]
pub struct Endpoint {
    /// Address of the backend, of the VIP's family.
    pub address: IpAddr16,
    /// Its port; 0 for the one that was asked for.
    pub port: Be16,
    /// Zero.
    pub pad: u16,
}

/// Value of `TRANSLATIONS`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct TranslationEntry {
    /// The key again: while the agent changes the map, a lookup can return what belongs to another key.
    pub key: VipKey,
    /// Entries of `backends` in use, 1..=8: each connection goes to one of them, any with the same chance.
    pub count: u32,
    /// The backends.
    pub backends: [Endpoint; MAX_BACKENDS],
}

/// Value of `TRANSLATED`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct TranslatedEntry {
    /// What the program asked for, its port included.
    pub vip: Endpoint,
    /// Where its connection went.
    pub backend: Endpoint,
}

pod!(Endpoint: 16 + 2 + 2, TranslationEntry: 20 + 4 + 8 * 20, TranslatedEntry: 40);
