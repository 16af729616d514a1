//! What a cluster's inventory comes to, by rules alone: which pools are in force, which Service has which addresses.

pub mod allocate;
pub mod claim;
pub mod forbidden;
mod holders;
pub mod pools;
pub mod problem;
mod shelf;
pub mod spans;
