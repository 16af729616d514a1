//! What speaks to the Kubernetes API: the client that finds a server which answers, and the reading of objects.

pub mod beta;
pub mod client;
pub mod convert;
#[cfg(test)]
pub(crate) mod fake;
