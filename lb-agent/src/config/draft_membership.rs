//! `membership`: how agents tell one another that they live.

use std::time::Duration;

use super::{
    error::Problems,
    read::{Fields, duration, integer},
    types::MembershipConfig,
    yaml::{Node, Value},
};

/// Reads it; `None` is off.
pub(super) fn membership(value: Option<&Node>, problems: &mut Problems) -> Option<MembershipConfig> {
    let default = MembershipConfig::default();
    let Some(value) = value else { return Some(default) };
    if matches!(&value.value, Value::Scalar(text) if text == "off") {
        return None;
    }
    if matches!(value.value, Value::Scalar(_) | Value::Null) {
        problems.refuse(value.place, "`membership` is a mapping with the keys port, interval, silentAfter, or off");
        return None;
    }
    let fields = Fields::of(value, "membership", &["port", "interval", "silentAfter"], problems)?;
    let port = fields.optional("port").and_then(|value| integer(value, "port", &(1..=u16::MAX), problems));
    let intervals = Duration::from_millis(100)..=Duration::from_secs(1);
    let interval = fields.optional("interval").and_then(|value| duration(value, "interval", &intervals, problems));
    let silent_after =
        fields.optional("silentAfter").and_then(|value| integer(value, "silentAfter", &(2..=100), problems));
    Some(MembershipConfig {
        port: port.map_or(default.port, |port| port.value),
        interval: interval.map_or(default.interval, |interval| interval.value),
        silent_after: silent_after.map_or(default.silent_after, |number| number.value),
    })
}
