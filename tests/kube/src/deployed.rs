//! What `deploy/manifests/levee.yaml` installs: its objects, and the rights that its roles give.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::Value;

/// The namespace that everything is in.
pub const NAMESPACE: &str = "levee-system";
const MANIFESTS: &str = include_str!("../../../deploy/manifests/levee.yaml");

/// Every object of the manifests, in their order.
///
/// # Errors
/// If a document is no YAML.
pub fn objects() -> Result<Vec<Value>> {
    let documents = MANIFESTS.split("\n---\n").filter(|text| text.lines().any(|line| line.starts_with("kind:")));
    documents.map(|text| serde_saphyr::from_str(text).with_context(|| format!("reading {text}"))).collect()
}

/// Those of these kinds.
///
/// # Errors
/// As [`objects`].
pub fn objects_of(kinds: &[&str]) -> Result<Vec<Value>> {
    let mut objects = objects()?;
    objects.retain(|object| kinds.iter().any(|kind| object["kind"] == *kind));
    Ok(objects)
}

/// Where objects like this one are made.
#[must_use]
pub fn api_of(client: &Client, object: &Value) -> Api<DynamicObject> {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = GroupVersionKind::gvk(group, version, object["kind"].as_str().unwrap_or_default());
    let resource = ApiResource::from_gvk(&kind);
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// `metadata.name` of an object, with its kind.
#[must_use]
pub fn title(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// A verb for a resource, as a rule of RBAC gives it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Right {
    /// API group; empty for the core.
    pub group: String,
    /// Resource, with its subresource: `services/status`.
    pub resource: String,
    /// Verb.
    pub verb: String,
    /// The object that it is for; none: all.
    pub name: Option<String>,
}

/// The rights that rules of RBAC give.
#[must_use]
pub fn rights(rules: &Value) -> BTreeSet<Right> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        let mut names: Vec<_> = texts(&rule["resourceNames"]).into_iter().map(Some).collect();
        if names.is_empty() {
            names.push(None);
        }
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    rights.extend(names.iter().cloned().map(|name| {
                        let (group, resource, verb) = (group.clone(), resource.clone(), verb.clone());
                        Right { group, resource, verb, name }
                    }));
                }
            }
        }
    }
    rights
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rule_is_taken_apart() {
        let rules = json!([
            { "apiGroups": [""], "resources": ["services", "nodes"], "verbs": ["list", "watch"] },
            { "apiGroups": ["c"], "resources": ["leases"], "verbs": ["get"], "resourceNames": ["a"] },
        ]);
        let right = |group: &str, resource: &str, verb: &str, name: Option<&str>| Right {
            group: group.to_owned(),
            resource: resource.to_owned(),
            verb: verb.to_owned(),
            name: name.map(str::to_owned),
        };
        let expected = [
            right("", "nodes", "list", None),
            right("", "nodes", "watch", None),
            right("", "services", "list", None),
            right("", "services", "watch", None),
            right("c", "leases", "get", Some("a")),
        ];
        assert_eq!(rights(&rules), BTreeSet::from(expected));
    }

    #[test]
    fn the_manifests_have_the_namespace_and_both_roles() {
        let titles: Vec<_> = objects().unwrap().iter().map(title).collect();
        for expected in ["Namespace levee-system", "ClusterRole levee-agent", "Role levee-controller"] {
            assert!(titles.iter().any(|title| title == expected), "{expected} is not among {titles:?}");
        }
    }
}
