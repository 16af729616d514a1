//! Puts VIPs on this node: *held*, so that it terminates their flows, and *announced*, so that the network sends them.
//!
//! [`spawn`] runs the task that follows the plan. [`withdraw_all`] and [`release_all`] clean up without it, in this
//! order.
//!
//! Held is a `local` route to the VIP in table `local` (255) on `lo` with a protocol number and a metric of the agent's
//! own and without lifetime. It stands beside the route that the kernel makes for an address, and outlives it: open
//! connections go on and new ones are accepted while no address is there. That is so for IPv4 and for IPv6, where the
//! server has to listen on the wildcard address or to have bound while the address was there (or with `IPV6_FREEBIND`):
//! binding to a VIP asks for an address, delivery and replies for a route only.
//!
//! Invariant: an address or a route without the agent's marks is never changed, even if it is a wanted VIP's. Nothing
//! is removed before a complete plan is known, and stopping the task removes nothing.

mod driver;
mod hold;
mod loopback;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

pub use driver::{AnnounceStatus, DesiredAnnouncements, spawn};
pub use hold::{Holder, release_all};
pub use loopback::{Loopback, withdraw_all};

use crate::netlink::NetlinkError;

/// Draws the traffic of VIPs to this node.
pub trait Announcer {
    /// Makes `wanted` the whole set of announced VIPs, each for its lifetime from now on, and withdraws every other one
    /// that this announcer announced, in this process or an earlier one. It can be called again at any time, and has to
    /// be within the shortest lifetime. The empty set withdraws everything.
    ///
    /// # Errors
    /// If nothing could be done at all. What failed for one VIP is in [`Applied::errors`] and stops no other.
    fn apply(
        &mut self,
        wanted: &BTreeMap<IpAddr, Duration>,
    ) -> impl Future<Output = Result<Applied, AnnounceError>> + Send;
}

/// What was done for a set of VIPs.
#[derive(Debug, Default)]
pub struct Applied {
    /// Were not there and are now.
    pub added: BTreeSet<IpAddr>,
    /// Were there from an earlier set and are gone.
    pub removed: BTreeSet<IpAddr>,
    /// Were there and stay; renewed where they have a lifetime.
    pub kept: BTreeSet<IpAddr>,
    /// Are there, but somebody else put them there: left alone, and not added.
    pub foreign: BTreeSet<IpAddr>,
    /// Could not be added, renewed or removed.
    pub errors: BTreeMap<IpAddr, AnnounceError>,
}

/// Why a VIP is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// `lo` is down.
    #[error("the interface lo is down, so no VIP can be delivered on this node; run `ip link set lo up`")]
    LoopbackDown,
    /// The kernel could not be asked, or refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}
