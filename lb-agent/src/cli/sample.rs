//! `lbctl sample`: files to begin with.

/// A configuration with every key.
pub(super) const CONFIG: &str = crate::config::SAMPLE;

/// A configuration of the controller with every key.
pub(super) const CONTROLLER: &str = crate::config::CONTROLLER_SAMPLE;

/// A systemd unit for the agent.
pub(super) const SYSTEMD: &str = include_str!("../../../deploy/levee.service");
