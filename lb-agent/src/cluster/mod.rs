//! From the objects of a cluster to services, announcements, peers and addresses. Everything here is pure.
//!
//! For agents and controller: `pools` says which pools are in force, `claim` which Services are ours and what they ask
//! for, `forbidden` which addresses are somebody's, `admit` which address a Service may have by all that.
//!
//! For the controller: `allocate` says which Service has which addresses, `judge` what of a Service no node serves.
//!
//! For the agents: `endpoints` finds the nodes behind a port; `service` makes of one Service what it asks for; `compose`
//! puts all of them beside the configuration (`judged` remembers what they ask for, `owners` says who has an address,
//! `settle` remembers who has what only one can); `control_plane` does the same for the VIP of the API servers.
//!
//! Invariant: what comes out depends on what the objects say and on nothing else, so that directors agree: neither on
//! the order of lists nor on what was before, but for API servers that are remembered while the API names none, and
//! pools that stay in force until the controller has judged an edit. No object changes what becomes of another, unless
//! both want the same address and do not share it: then the elder has it.

pub mod admit;
pub mod allocate;
pub mod claim;
pub mod compose;
pub mod control_plane;
mod endpoints;
pub mod forbidden;
mod holders;
pub mod judge;
mod judged;
mod names;
mod owners;
pub mod pools;
pub mod problem;
mod room;
mod service;
mod settle;
mod shelf;
pub mod spans;

#[cfg(test)]
mod agreement_tests;
#[cfg(test)]
mod fixtures;

pub use compose::{Composed, Composer, Sources};
pub use names::CONTROL_PLANE;
pub use room::Room;
