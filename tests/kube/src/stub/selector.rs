//! Selectors of lists and watches.

use serde_json::Value;

use super::status::Failure;

/// Conditions that an object has to meet, all of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Selector {
    labels: Vec<Condition>,
    fields: Vec<Condition>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Condition {
    Equal(String, String),
    Unequal(String, String),
    Present(String),
    Absent(String),
}

impl Selector {
    /// Reads `labelSelector` and `fieldSelector`. Of labels `=`, `==`, `!=`, presence and absence are known, of fields
    /// `metadata.name` and `metadata.namespace`.
    ///
    /// # Errors
    /// If it is none of these, a set of values such as `in (a, b)` included.
    pub fn parse(labels: &str, fields: &str) -> Result<Self, Failure> {
        let selector = Self { labels: conditions(labels)?, fields: conditions(fields)? };
        let known = |condition: &Condition| {
            matches!(condition, Condition::Equal(key, _) | Condition::Unequal(key, _)
                if matches!(key.as_str(), "metadata.name" | "metadata.namespace"))
        };
        if !selector.fields.iter().all(known) {
            return Err(Failure::bad_request(format!("field selector not supported here: {fields}")));
        }
        Ok(selector)
    }

    /// Whether an object meets them.
    #[must_use]
    pub fn fits(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let labels = self.labels.iter().all(|condition| condition.holds(|key| metadata["labels"][key].as_str()));
        let field = |key: &str| Some(metadata[key.trim_start_matches("metadata.")].as_str().unwrap_or_default());
        labels && self.fields.iter().all(|condition| condition.holds(field))
    }
}

impl Condition {
    fn holds<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::Equal(key, value) => value_of(key) == Some(value),
            Self::Unequal(key, value) => value_of(key) != Some(value),
            Self::Present(key) => value_of(key).is_some(),
            Self::Absent(key) => value_of(key).is_none(),
        }
    }
}

fn conditions(text: &str) -> Result<Vec<Condition>, Failure> {
    if text.contains(['(', ')', '<', '>']) {
        return Err(Failure::bad_request(format!("selector not supported here: {text}")));
    }
    let condition = |part: &str| {
        let own = |key: &str| key.trim().to_owned();
        if let Some((key, value)) = part.split_once("!=") {
            Condition::Unequal(own(key), own(value))
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            Condition::Equal(own(key), own(value))
        } else if let Some(key) = part.strip_prefix('!') {
            Condition::Absent(own(key))
        } else {
            Condition::Present(own(part))
        }
    };
    Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(condition).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_selected_by_labels_and_fields() {
        let object = json!({ "metadata": { "name": "a", "namespace": "n", "labels": { "app": "web", "tier": "" } } });
        for (labels, fields, fits) in [
            ("", "", true),
            ("app=web", "", true),
            ("app==web,tier", "metadata.name=a", true),
            ("app!=web", "", false),
            ("zone!=x,!zone", "metadata.namespace!=m", true),
            ("!app", "", false),
            ("zone", "", false),
            ("", "metadata.name=b", false),
        ] {
            let selector = Selector::parse(labels, fields).unwrap();
            assert_eq!(selector.fits(&object), fits, "{labels} {fields}");
        }
        assert!(Selector::parse("app in (a, b)", "").is_err());
        assert!(Selector::parse("", "spec.type=LoadBalancer").is_err());
    }
}
