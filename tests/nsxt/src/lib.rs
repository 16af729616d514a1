//! A stand-in for the managers of NSX-T, as far as static routes of Tier-1 gateways go.
//!
//! It behaves as the vendor documents it, or as was recorded of real managers; where nothing is known, a switch chooses
//! between the possible ways. Several nodes share one store, as the managers of a cluster do, but not their sessions.
//! Every request is recorded without its secrets.

mod auth;
mod fault;
mod manager;
mod policy;
mod reply;
mod routes;
mod search;
mod server;
mod tls;
mod world;

pub use fault::{Action, Fault};
pub use reply::Reply;
pub use server::Server;
pub use tls::{Authority, Identity, thumbprint};
pub use world::{Recorded, Switches, World};

/// Name and password that are accepted.
pub const ADMIN: (&str, &str) = ("admin", "s3cr+t & 100%");
/// A user who may read only, with the same password.
pub const AUDITOR: &str = "auditor";
