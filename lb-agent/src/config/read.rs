//! Typed access to the YAML tree: every function reports what does not fit and lets the reading go on.

use std::{fmt, net::IpAddr, ops::RangeInclusive, time::Duration};

use super::{
    error::{Place, Problems},
    yaml::{Key, Node, Value},
};

/// A value and where the file has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located<T> {
    pub(super) place: Place,
    pub(super) value: T,
}

impl<T> Located<T> {
    pub(super) const fn new(place: Place, value: T) -> Self {
        Self { place, value }
    }
}

/// The entries of one mapping, all of whose keys are known.
pub(super) struct Fields<'t> {
    /// Where the mapping begins.
    pub(super) place: Place,
    what: &'static str,
    entries: Vec<(&'t Key, &'t Node)>,
}

impl<'t> Fields<'t> {
    /// The entries of `node`, which has to be a mapping with no other keys than `known`.
    pub(super) fn of(node: &'t Node, what: &'static str, known: &[&str], problems: &mut Problems) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            let kind = node.value.kind();
            problems
                .refuse(node.place, format!("{what} is {kind}; write a mapping with the keys {}", known.join(", ")));
            return None;
        };
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.name.as_str())) {
            problems.refuse(key.place, unknown_key(&key.name, what, known));
        }
        Some(Self { place: node.place, what, entries: entries.iter().map(|(key, value)| (key, value)).collect() })
    }

    /// The value of a key that may be left out.
    pub(super) fn optional(&self, name: &str) -> Option<&'t Node> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| *value)
    }

    /// The value of a key that has to be there.
    pub(super) fn required(&self, name: &str, problems: &mut Problems) -> Option<&'t Node> {
        let found = self.optional(name);
        if found.is_none() {
            problems.refuse(self.place, format!("{} has no `{name}`; add it", self.what));
        }
        found
    }
}

fn unknown_key(name: &str, what: &str, known: &[&str]) -> String {
    let close = known
        .iter()
        .filter(|candidate| distance(name, candidate) <= 2)
        .min_by_key(|candidate| distance(name, candidate));
    match close {
        Some(close) => format!("unknown key `{name}` in {what}; did you mean `{close}`?"),
        None => format!("unknown key `{name}` in {what}; known are {}", known.join(", ")),
    }
}

/// Levenshtein distance, case ignored; anything longer than a key is far away.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.to_ascii_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.to_ascii_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The items of a list.
pub(super) fn list<'t>(node: &'t Node, what: &str, problems: &mut Problems) -> &'t [Node] {
    if let Value::List(items) = &node.value {
        return items;
    }
    problems.refuse(node.place, format!("`{what}` is {}; write a list, `[]` for none", node.value.kind()));
    &[]
}

/// The text of a scalar that is not empty.
pub(super) fn text<'t>(node: &'t Node, what: &str, problems: &mut Problems) -> Option<Located<&'t str>> {
    match &node.value {
        Value::Scalar(text) if !text.is_empty() => Some(Located::new(node.place, text.as_str())),
        Value::Scalar(_) | Value::Null => {
            problems.refuse(node.place, format!("`{what}` is empty; give it a value or leave the key out"));
            None
        }
        other => {
            problems.refuse(node.place, format!("`{what}` is {}; write a single value", other.kind()));
            None
        }
    }
}

/// An integer within `range`.
pub(super) fn integer<T>(
    node: &Node,
    what: &str,
    range: &RangeInclusive<T>,
    problems: &mut Problems,
) -> Option<Located<T>>
where
    T: TryFrom<u64> + PartialOrd + fmt::Display,
{
    let Located { place, value: text } = text(node, what, problems)?;
    let value = decimal(text).and_then(|number| T::try_from(number).ok()).filter(|number| range.contains(number));
    if value.is_none() {
        let reason =
            format!("`{what}` is {}; write a whole number in {}..={}", quoted(text), range.start(), range.end());
        problems.refuse(place, reason);
    }
    Some(Located::new(place, value?))
}

/// `true` or `false`.
pub(super) fn boolean(node: &Node, what: &str, problems: &mut Problems) -> Option<Located<bool>> {
    choice(node, what, &[("true", true), ("false", false)], problems)
}

/// `true` or `false` by name, `false` if it is not written.
pub(super) fn flag(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> bool {
    fields.optional(name).and_then(|value| boolean(value, name, problems)).is_some_and(|flag| flag.value)
}

/// One of a few words.
pub(super) fn choice<T: Copy>(
    node: &Node,
    what: &str,
    choices: &[(&str, T)],
    problems: &mut Problems,
) -> Option<Located<T>> {
    let Located { place, value: text } = text(node, what, problems)?;
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
        return Some(Located::new(place, *value));
    }
    let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
    problems.refuse(place, format!("`{what}` is {}; write one of {}", quoted(text), words.join(", ")));
    None
}

/// A whole number with a unit, as in `500ms`, `2s`, `1m` or `1h`, within `range`.
pub(super) fn duration(
    node: &Node,
    what: &str,
    range: &RangeInclusive<Duration>,
    problems: &mut Problems,
) -> Option<Located<Duration>> {
    let Located { place, value: text } = text(node, what, problems)?;
    let bounds = format!("{}..={}", show(*range.start()), show(*range.end()));
    match parse_duration(text) {
        Some(value) if range.contains(&value) => return Some(Located::new(place, value)),
        Some(_) => problems.refuse(place, format!("`{what}` is {}; it has to be within {bounds}", quoted(text))),
        None => {
            let reason =
                format!("`{what}` is {}; write a whole number and a unit (ms, s, m, h), within {bounds}", quoted(text));
            problems.refuse(place, reason);
        }
    }
    None
}

/// The time that a whole number and a unit (ms, s, m, h) stand for; `None` if it is none.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(decimal(number)?.checked_mul(milliseconds)?))
}

/// Digits only: no sign, no other base, no separators.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A duration in the largest unit that shows it whole.
pub(super) fn show(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if milliseconds > 0 && milliseconds.is_multiple_of(size) {
            return format!("{}{unit}", milliseconds / size);
        }
    }
    format!("{milliseconds}ms")
}

/// A name of a node, peer or service: 1..=63 of `A-Z a-z 0-9 . _ -`.
pub(super) fn name(node: &Node, what: &str, problems: &mut Problems) -> Option<Located<String>> {
    let Located { place, value: text } = text(node, what, problems)?;
    let fits = text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !fits {
        let reason = format!("`{what}` is {}; write 1..=63 characters of A-Z, a-z, 0-9, `.`, `_`, `-`", quoted(text));
        problems.refuse(place, reason);
        return None;
    }
    Some(Located::new(place, text.to_owned()))
}

/// An address that a packet can have as its destination on a wire. `what` names it in error texts ("VIP").
pub(super) fn address(node: &Node, what: &str, problems: &mut Problems) -> Option<Located<IpAddr>> {
    if let Value::Map(entries) = &node.value
        && entries.iter().any(|(key, _)| key.name.chars().all(|c| c.is_ascii_hexdigit() || c == ':'))
    {
        problems.refuse(node.place, format!("{what} is a mapping to YAML; write IPv6 addresses in quotes"));
        return None;
    }
    let Located { place, value: text } = text(node, what, problems)?;
    let Ok(address) = text.parse::<IpAddr>() else {
        let hint = if text.contains('/') { " without a prefix length" } else { "" };
        problems.refuse(place, format!("{what} {} is no IP address; write one{hint}, IPv6 in quotes", quoted(text)));
        return None;
    };
    if let Some(reason) = unusable(address) {
        problems.refuse(place, format!("{what} {address} {reason}"));
        return None;
    }
    Some(Located::new(place, address))
}

/// Why no packet from another host can be for this address.
fn unusable(address: IpAddr) -> Option<&'static str> {
    Some(match address {
        _ if address.is_unspecified() => "is the unspecified address; choose a unicast address",
        _ if address.is_loopback() => {
            "is a loopback address, which never leaves its host; choose one that others reach"
        }
        _ if address.is_multicast() => "is a multicast address; choose a unicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "is the broadcast address; choose a unicast address",
        IpAddr::V4(v4) if v4.octets()[0] == 0 => {
            "lies in 0.0.0.0/8, which is no destination; choose another (RFC 1122)"
        }
        IpAddr::V4(v4) if v4.is_link_local() => "is link-local, which no router forwards; choose another (RFC 3927)",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            "is link-local, which no router forwards; choose another (RFC 4291)"
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "is an IPv4 address in IPv6 dress; write it as IPv4",
        _ => return None,
    })
}

/// User text for an error: in backquotes, controls escaped, cut to a length that a line can bear.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}
