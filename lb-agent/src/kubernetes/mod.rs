//! What the Kubernetes API server is spoken to with: its objects, and what is made of them.

pub mod convert;
pub mod crds;
