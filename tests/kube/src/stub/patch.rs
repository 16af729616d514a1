//! Patches: merge (RFC 7396), and server-side apply with an owner per field.
//!
//! Simpler than the real thing: a list is one field, with one owner.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Path of a field.
pub type Path = Vec<String>;
/// Who set each field last.
pub type Owners = BTreeMap<Path, String>;

/// Fields that nobody owns.
const UNOWNED: [&[&str]; 10] = [
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "uid"],
    &["metadata", "resourceVersion"],
    &["metadata", "generation"],
    &["metadata", "creationTimestamp"],
    &["metadata", "deletionTimestamp"],
    &["metadata", "managedFields"],
];

/// Changes `target` as `patch` says: what is null there goes, objects are merged, the rest is replaced.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (key, value) in fields {
        if value.is_null() {
            if let Some(object) = target.as_object_mut() {
                object.remove(key);
            }
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

/// Makes `object` what `manager` wants: its fields are set, those that it applied before and wants no more go. Without
/// `force`, a field that another set to something else is a conflict.
///
/// # Errors
/// The conflicts: path, and the owner.
pub fn apply(
    object: &mut Value,
    owners: &mut Owners,
    wanted: &Value,
    manager: &str,
    force: bool,
) -> Result<(), Vec<(String, String)>> {
    let wanted = leaves(wanted);
    let present = leaves(object);
    let conflicts: Vec<_> = wanted
        .iter()
        .filter(|(path, value)| present.get(*path) != Some(value))
        .filter_map(|(path, _)| owners.get(path).filter(|owner| *owner != manager).map(|owner| (path, owner)))
        .map(|(path, owner)| (format!(".{}", path.join(".")), owner.clone()))
        .collect();
    if !force && !conflicts.is_empty() {
        return Err(conflicts);
    }
    let unwanted: Vec<Path> = owners
        .iter()
        .filter(|(path, owner)| *owner == manager && !wanted.contains_key(*path))
        .map(|(path, _)| path.clone())
        .collect();
    for path in unwanted {
        owners.remove(&path);
        remove(object, &path);
    }
    for (path, value) in wanted {
        let agreed = leaves(object).get(&path) == Some(&value) && owners.contains_key(&path);
        set(object, &path, value);
        if !agreed || force {
            owners.insert(path, manager.to_owned());
        }
    }
    Ok(())
}

/// Makes `manager` the owner of what differs between `before` and `after`.
pub fn own_changes(before: &Value, after: &Value, owners: &mut Owners, manager: &str) {
    let (before, after) = (leaves(before), leaves(after));
    owners.retain(|path, _| after.contains_key(path));
    for (path, value) in after {
        if before.get(&path) != Some(&value) {
            owners.insert(path, manager.to_owned());
        }
    }
}

/// Every field that can have an owner, with its value.
fn leaves(value: &Value) -> BTreeMap<Path, Value> {
    fn collect(value: &Value, path: &mut Path, found: &mut BTreeMap<Path, Value>) {
        if UNOWNED.iter().any(|unowned| path.iter().eq(unowned.iter())) {
            return;
        }
        match value {
            Value::Object(fields) if !fields.is_empty() || path.is_empty() => {
                for (key, value) in fields {
                    path.push(key.clone());
                    collect(value, path, found);
                    path.pop();
                }
            }
            other => {
                found.insert(path.clone(), other.clone());
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(value, &mut Vec::new(), &mut found);
    found
}

fn set(object: &mut Value, path: &[String], value: Value) {
    let mut place = object;
    for key in path {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[key.as_str()];
    }
    *place = value;
}

fn remove(object: &mut Value, path: &[String]) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut place = object;
    for key in parents {
        let Some(next) = place.get_mut(key) else { return };
        place = next;
    }
    if let Some(fields) = place.as_object_mut() {
        fields.remove(last);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_replaces_lists_and_removes_what_is_null() {
        let mut object = json!({ "a": { "b": 1, "c": 2 }, "d": [1, 2] });
        merge(&mut object, &json!({ "a": { "b": null, "e": { "f": 3 } }, "d": [3] }));
        assert_eq!(object, json!({ "a": { "c": 2, "e": { "f": 3 } }, "d": [3] }));
    }

    #[test]
    fn what_a_manager_wants_no_more_goes_and_what_others_set_stays() {
        let mut object = json!({ "spec": { "other": 1 } });
        let mut owners = Owners::new();
        own_changes(&json!({}), &object, &mut owners, "other");
        apply(&mut object, &mut owners, &json!({ "spec": { "a": 1, "b": 2 } }), "me", false).unwrap();
        assert_eq!(object, json!({ "spec": { "other": 1, "a": 1, "b": 2 } }));
        apply(&mut object, &mut owners, &json!({ "spec": { "b": 3 } }), "me", false).unwrap();
        assert_eq!(object, json!({ "spec": { "other": 1, "b": 3 } }));
    }

    #[test]
    fn a_field_of_another_is_a_conflict_unless_forced_or_equal() {
        let mut object = json!({ "status": { "address": "a" } });
        let mut owners = Owners::new();
        own_changes(&json!({}), &object, &mut owners, "other");
        apply(&mut object, &mut owners, &json!({ "status": { "address": "a" } }), "me", false).unwrap();
        let wanted = json!({ "status": { "address": "b" } });
        let conflict = (".status.address".to_owned(), "other".to_owned());
        assert_eq!(apply(&mut object, &mut owners, &wanted, "me", false), Err(vec![conflict]));
        assert_eq!(object, json!({ "status": { "address": "a" } }));
        apply(&mut object, &mut owners, &wanted, "me", true).unwrap();
        assert_eq!(object, wanted);
        apply(&mut object, &mut owners, &json!({}), "me", false).unwrap();
        assert_eq!(object, json!({ "status": {} }));
    }
}
