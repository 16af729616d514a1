//! What speaks to the Kubernetes API: the client that finds a server which answers, its objects, and what is made of them.

pub mod beta;
pub mod client;
pub mod convert;
pub mod crds;
#[cfg(test)]
pub(crate) mod fake;
pub mod node_leases;
pub mod notices;
