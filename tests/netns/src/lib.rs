//! A testbed out of network namespaces: a client, a router and nodes, with real routing daemons, servers and traffic.
//!
//! The namespace tests and `cargo xtask demo` are built from these parts. All of it needs root.
//!
//! Invariant: whatever a part makes (namespace, process, directory, pinned object) belongs to a guard whose `Drop`
//! removes it, so a failed expectation, a panic or an interrupted demo leaves nothing behind.

pub mod agent;
pub mod authority;
pub mod cgroup;
pub mod client;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod echo;
pub mod flood;
pub mod link;
pub mod monitor;
pub mod netns;
pub mod observe;
pub mod pass;
pub mod process;
pub mod routes;
pub mod routing;
pub mod scope;
pub mod server;
pub mod topology;
pub mod traffic;
pub mod wait;
pub mod watches;
