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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;
    use super::*;

    fn read(membership: &str) -> Result<Option<MembershipConfig>, String> {
        let head = "node: {name: n1, addresses: [10.0.1.2]}\ninterfaces: [{name: eth0}]\n";
        let text = format!("{head}secret: 000102030405060708090a0b0c0d0e0f\n{membership}");
        let config = parse("levee.yaml", &text, Path::new(".")).map_err(|errors| errors.to_string())?;
        Ok(config.agent.membership)
    }

    #[test]
    fn membership_is_on_unless_it_is_turned_off() {
        let default = MembershipConfig { port: 7472, interval: Duration::from_millis(500), silent_after: 3 };
        assert_eq!(read(""), Ok(Some(default)));
        assert_eq!(read("membership: off"), Ok(None));
        assert_eq!(read("membership: {port: 1}"), Ok(Some(MembershipConfig { port: 1, ..default })));
        let quick = MembershipConfig { interval: Duration::from_millis(100), silent_after: 2, ..default };
        assert_eq!(read("membership: {interval: 100ms, silentAfter: 2}"), Ok(Some(quick)));
    }

    #[test]
    fn membership_stays_within_its_ranges() {
        for (membership, expected) in [
            ("membership: on", "`membership` is a mapping with the keys port, interval, silentAfter, or off"),
            ("membership: {port: 0}", "`port` is `0`; write a whole number in 1..=65535"),
            ("membership: {interval: 99ms}", "`interval` is `99ms`; it has to be within 100ms..=1s"),
            ("membership: {interval: 1001ms}", "`interval` is `1001ms`; it has to be within 100ms..=1s"),
            ("membership: {silentAfter: 1}", "`silentAfter` is `1`; write a whole number in 2..=100"),
            ("membership: {silent: 4}", "unknown key `silent` in membership"),
        ] {
            let refused = read(membership).unwrap_err();
            assert!(refused.contains(expected), "{membership}: {refused}");
        }
    }
}
