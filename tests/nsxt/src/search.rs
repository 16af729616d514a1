//! The search: `field:value` terms joined by `AND`, a `*` at the end of a value, backslashes before special characters.

use serde_json::Value;

use crate::{
    Reply,
    world::{Call, State},
};

/// What a query finds, deleted objects among it unless the query excludes them.
pub(crate) fn find(state: &State, call: &Call) -> Result<Vec<Value>, Reply> {
    let query = call.query.get("query").and_then(Value::as_str).unwrap_or_default();
    let bad = || Reply::error(400, 60_508, "search", "Indexing is in progress or the query can not be read.");
    let terms: Option<Vec<(String, String)>> = query.split(" AND ").map(term).collect();
    let terms = terms.ok_or_else(bad)?;
    if state.switches.search_lags {
        return Ok(Vec::new());
    }
    let routes = state.routes.values().map(|route| &route.body);
    let all = state.gateways.values().chain(routes);
    Ok(all.filter(|item| terms.iter().all(|(field, value)| matches(item, field, value))).cloned().collect())
}

/// Field and value, without escapes. A character that has a meaning and no backslash is a mistake.
fn term(text: &str) -> Option<(String, String)> {
    let (field, value) = text.trim().split_once(':')?;
    let mut plain = String::new();
    let mut rest = value.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => plain.push(rest.next()?),
            '*' if rest.peek().is_none() => plain.push('*'),
            c if "()[]+-=&|><!{}^~*?:/".contains(c) => return None,
            c => plain.push(c),
        }
    }
    Some((field.to_owned(), plain))
}

/// Scope and value of tags are looked for independently. Texts are found by their beginning, too.
fn matches(item: &Value, field: &str, value: &str) -> bool {
    let fits = |found: &Value| match found {
        Value::String(text) if field == "display_name" => text.starts_with(value.trim_end_matches('*')),
        Value::String(text) => match value.strip_suffix('*') {
            Some(start) => text.starts_with(start),
            None => text == value,
        },
        other => {
            let shown = other.to_string();
            shown == value
        }
    };
    match field.strip_prefix("tags.") {
        Some(part) => item["tags"].as_array().into_iter().flatten().any(|tag| fits(&tag[part])),
        None => fits(&item[field]),
    }
}
