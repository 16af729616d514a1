//! A real API server with its etcd, a stand-in with fault switches, and what tests need around them.
//!
//! The programs come from the folder that `KUBEBUILDER_ASSETS` names; `cargo xtask kube` sees to it. What its server cannot
//! do is in [`ability`], and the tests that need it are listed as not run.
//!
//! Invariant: as in the testbed of network namespaces, whatever is made belongs to a guard whose `Drop` removes it.

pub mod ability;
pub mod access;
pub mod assets;
pub mod bed;
pub mod controller;
pub mod crowd;
pub mod definitions;
pub mod demo;
pub mod deployed;
pub mod etcd;
pub mod follow;
pub mod masters;
pub mod place;
pub mod proxy;
pub mod server;
pub mod stub;
pub mod words;
