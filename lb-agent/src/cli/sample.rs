//! `lbctl sample`: files to begin with.

/// A configuration with every key.
pub(super) const CONFIG: &str = crate::config::SAMPLE;

/// A systemd unit for the agent.
pub(super) const SYSTEMD: &str = include_str!("../../../deploy/levee.service");
