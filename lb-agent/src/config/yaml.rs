//! YAML text to a tree in which every value knows its place.
//!
//! Scalars keep the spelling of the file: a secret of digits is no number, `off` no boolean. What a value means is
//! decided by whoever knows its key (`read`), so that one pass finds all problems and not only the first.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{
    Location, Options, Spanned,
    options::{DuplicateKeyPolicy, NonFiniteFloatPolicy},
};

use super::{
    error::{Place, Problem},
    read::quoted,
};

/// A value and its place.
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What YAML can say. It has no `Debug`: it can hold a secret.
pub(super) enum Value {
    /// Nothing after the colon, or `null`.
    Null,
    /// A scalar as it is written, without quotes.
    Scalar(String),
    List(Vec<Node>),
    /// Entries in the order of the file, each key once.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) name: String,
}

impl Value {
    /// What it is, for error texts.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Reads one YAML document.
pub(super) fn read(file: &str, text: &str) -> Result<Node, Problem> {
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options()) {
        Ok(raw) => Ok(node(raw, text)),
        Err(error) => {
            let place = error.location().filter(|location| *location != Location::UNKNOWN).map(place);
            let hint = if has_bare_ipv6(text, place) { "; write IPv6 addresses in quotes" } else { "" };
            let message = format!("not valid YAML: {}{hint}", reason(&error));
            Err(Problem { file: file.to_owned(), place, message })
        }
    }
}

/// Bounds for a file of 16 MB with a hundred thousand backends, and for nothing that unfolds while it is read.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 8_000_000,
            max_nodes: 4_000_000,
            max_depth: 16,
            max_documents: 2,
            max_aliases: 10_000,
            max_anchors: 1_000,
            max_total_scalar_bytes: 16 << 20,
        },
        emit_comments: false,
        duplicate_keys: DuplicateKeyPolicy::Error,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    }
}

/// The library's reason in our words where its own speak of options; its position stands before it already.
fn reason(error: &serde_saphyr::Error) -> String {
    match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("key {} is there twice in one mapping; remove one of them", quoted(key))
        }
        serde_saphyr::Error::MultipleDocuments { .. } => "a second document begins; keep one per file".to_owned(),
        serde_saphyr::Error::Budget { breach, .. } => {
            format!("it goes beyond a limit that keeps reading short ({breach:?}); make the file smaller")
        }
        other => {
            let text = other.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.split(" at line ").next().unwrap_or(line).to_owned()
        }
    }
}

fn has_bare_ipv6(text: &str, place: Option<Place>) -> bool {
    let line =
        place.and_then(|place| usize::try_from(place.line).ok()).and_then(|line| text.lines().nth(line.max(1) - 1));
    line.is_some_and(|line| line.contains("::") && !line.contains(['"', '\'']))
}

fn place(location: Location) -> Place {
    Place { line: location.line(), column: location.column() }
}

fn node(raw: Spanned<Raw>, text: &str) -> Node {
    let spelling = spelling(raw.defined, text);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(value) => Value::Scalar(value),
        Raw::Typed(value) => Value::Scalar(spelling.map_or(value, str::to_owned)),
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, text)).collect()),
        Raw::Map(entries) => {
            Value::Map(entries.into_iter().map(|(key, value)| (self::key(key), node(value, text))).collect())
        }
    };
    Node { place: place(raw.referenced), value }
}

fn key(key: Spanned<String>) -> Key {
    Key { place: place(key.referenced), name: key.value }
}

/// The bytes of a scalar in the file.
fn spelling(location: Location, text: &str) -> Option<&str> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let length = usize::try_from(location.span().byte_len()?).ok()?;
    text.get(start..start.checked_add(length)?).map(str::trim).filter(|spelling| !spelling.is_empty())
}

/// The tree as the library hands it out.
enum Raw {
    Null,
    Text(String),
    /// A plain scalar that YAML takes for a number or a boolean, in the library's own spelling.
    Typed(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Raw, E> {
        Err(E::custom("binary values have no place here"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            map.push((key, entries.next_value()?));
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(node: &Node) -> String {
        let Place { line, column } = node.place;
        match &node.value {
            Value::Null => format!("{line}:{column} null"),
            Value::Scalar(text) => format!("{line}:{column} {text}"),
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
            Value::Map(entries) => {
                let entries: Vec<_> =
                    entries.iter().map(|(key, value)| format!("{}={}", key.name, show(value))).collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }

    fn shown(text: &str) -> String {
        match read("f", text) {
            Ok(node) => show(&node),
            Err(problem) => problem.to_string(),
        }
    }

    #[test]
    fn scalars_keep_their_spelling() {
        for text in
            ["off", "007", "1.10", "0x1f", "1e5", "12345678901234567890123456789012", "1e99999", ".inf", "yes", "1_0"]
        {
            assert_eq!(shown(&format!("a: {text} # comment\n")), format!("{{a=1:4 {text}}}"));
        }
        assert_eq!(shown("a: \"on\"\nb: '1.50'\nc:\nd: ~\n"), "{a=1:4 on, b=2:4 1.50, c=3:2 null, d=4:4 null}");
        assert_eq!(shown("a: &x 007\nb: [*x, 1.0]\n"), "{a=1:7 007, b=[2:5 007, 2:9 1.0]}");
    }

    #[test]
    fn what_is_no_yaml_has_a_place() {
        insta::assert_snapshot!(shown("a: 1\nb: [1, 2\nc: 3\n"), @"f:3:2: not valid YAML: illegal placement of ':' indicator");
        insta::assert_snapshot!(shown("a: 1\na: 2\n"), @"f:2:1: not valid YAML: key `a` is there twice in one mapping; remove one of them");
        insta::assert_snapshot!(shown("a: [1]\n---\nb: 2\n"), @"f:3:1: not valid YAML: a second document begins; keep one per file");
        insta::assert_snapshot!(shown("a: b: ::\n"), @"f:1:5: not valid YAML: mapping values are not allowed in this context; write IPv6 addresses in quotes");
        insta::assert_snapshot!(shown(&format!("a: {}{}", "[".repeat(20), "]".repeat(20))), @"f:1:19: not valid YAML: it goes beyond a limit that keeps reading short (Depth { depth: 17 }); make the file smaller");
    }

    #[test]
    fn aliases_cannot_unfold_without_bound() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let previous = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", vec![previous; 10].join(", "));
        }
        assert!(shown(&text).contains("not valid YAML"), "{}", shown(&text));
    }
}
