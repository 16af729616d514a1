//! The node agent: reads what is wanted, watches what is there, and keeps the data plane and the announcements right.
//!
//! Whole snapshots come in, one pure function stands in the middle, idempotent appliers go out:
//! `sources`, `health` and `netlink` feed [`plan`], whose result the data plane and the announcers perform.

pub mod announce;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod controller;
pub mod dataplane;
pub mod doctor;
pub mod election;
pub mod health;
pub mod http;
pub mod inspect;
pub mod kubernetes;
pub mod membership;
pub mod metrics;
pub mod model;
pub mod netlink;
pub mod nsxt;
pub mod plan;
pub mod proto;
pub mod runtime;
pub mod sources;
pub mod status;
pub mod tls;
pub mod trace;

#[cfg(test)]
mod examples;
