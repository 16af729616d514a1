//! The sample that `lbctl sample config` prints.

/// A commented configuration that parses: every key with its unit, range and default.
pub const SAMPLE: &str = include_str!("../../../deploy/levee.yaml");
