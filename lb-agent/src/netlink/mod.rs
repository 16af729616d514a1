//! What the kernel knows of this node's network, read over rtnetlink.
//!
//! [`start`] keeps a [`Network`](crate::model::Network) snapshot right: links, addresses, and the way to each address
//! that the plan asks for. It also makes the kernel resolve the neighbours on the way, since XDP cannot send ARP.
//! [`xdp_on_links`] tells which XDP programs sit on the links.
//!
//! Every socket is opened in the network namespace of the calling thread and stays there.
//!
//! Invariant: a published snapshot was read whole. Events only say *that* something changed; what it is now is read
//! again (neighbours apart, whose events carry the whole entry), so a lost event costs time and never correctness.

mod addresses;
mod client;
mod dirty;
mod events;
mod links;
mod neighbours;
mod offloads;
mod routes;
mod state;
mod watcher;

pub use client::NetlinkError;
pub use links::{XdpMode, XdpOnLink, veth_links, xdp_on_link, xdp_on_links};
pub use offloads::{active_offloads, merging_offloads};
pub use tokio_util::sync::CancellationToken;
pub use watcher::{snapshot_once, start};

pub(crate) use addresses::{IFA_PROTOCOL, KernelAddress, addresses};
pub(crate) use client::Client;
pub(crate) use events::{Event, EventSocket};
pub(crate) use links::loopback_is_up;
pub(crate) use routes::{held_address, held_dump_request, held_route};

/// Index of the loopback device; the kernel makes it first in every network namespace.
pub(crate) const LOOPBACK_INDEX: u32 = 1;
