//! Writes: what an API server makes of an object that it is given.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    patch::{self, Owners},
    resources::{Resource, Target},
    status::Failure,
    store::{Key, Object, Store, metadata},
};

/// How an object is to be changed.
#[derive(Clone, Debug)]
pub enum Draft {
    /// Make it (POST).
    Create(Value),
    /// Replace it (PUT).
    Update(Value),
    /// Merge this into it (PATCH; strategic patches are taken for merges: a list replaces the list).
    Merge(Value),
    /// Server-side apply, by force or not.
    Apply(Value, bool),
    /// Remove it, if it is still of this identity and version.
    Delete {
        /// `preconditions.uid`.
        uid: Option<String>,
        /// `preconditions.resourceVersion`.
        version: Option<String>,
    },
}

/// What came of it.
#[derive(Debug)]
pub enum Written {
    /// It was made: 201.
    Created(Arc<Object>),
    /// It is as wanted: 200.
    Updated(Arc<Object>),
    /// It is gone: 200.
    Deleted(Arc<Object>),
}

/// Performs a write by `manager`.
///
/// # Errors
/// With what the API server would answer.
pub fn write(store: &mut Store, target: &Target, draft: Draft, manager: &str, now: &str) -> Result<Written, Failure> {
    let resource = target.resource;
    let named = || target.name.clone().ok_or_else(|| Failure::new(405, "MethodNotAllowed", "this needs a name"));
    let key = |name: String| -> Key { (target.namespace.clone().unwrap_or_default(), name) };
    match draft {
        Draft::Create(value) => {
            let value = checked(target, value)?;
            let name = new_name(resource, &value, store.version())?;
            create(store, resource, key(name), value, manager, now).map(Written::Created)
        }
        Draft::Update(value) => {
            let name = named()?;
            let value = checked(target, value)?;
            match store.get(resource, &key(name.clone())) {
                Some(current) => update(store, target, &key(name), &current, &value, manager),
                None if resource.create_on_update && !target.status => {
                    create(store, resource, key(name), value, manager, now).map(Written::Created)
                }
                None => Err(Failure::not_found(resource, &name)),
            }
        }
        Draft::Merge(changes) => {
            let name = named()?;
            let found = store.get(resource, &key(name.clone()));
            let current = found.ok_or_else(|| Failure::not_found(resource, &name))?;
            let mut value = current.value.clone();
            patch::merge(&mut value, &changes);
            update(store, target, &key(name), &current, &checked(target, value)?, manager)
        }
        Draft::Apply(wanted, force) => apply(store, target, &key(named()?), &wanted, manager, force, now),
        Draft::Delete { uid, version } => {
            let name = named()?;
            delete(store, resource, &key(name), uid.as_deref(), version.as_deref(), now)
        }
    }
}

/// The object as it may be kept: of the kind and name that the path says.
fn checked(target: &Target, mut value: Value) -> Result<Value, Failure> {
    let resource = target.resource;
    let (kind, version) = (resource.kind, resource.api_version());
    let Some(fields) = value.as_object_mut() else {
        return Err(Failure::bad_request("the object provided is unrecognized: it is no JSON object"));
    };
    for (field, own) in [("kind", kind), ("apiVersion", version.as_str())] {
        match fields.get(field).and_then(Value::as_str) {
            Some(given) if given != own => {
                let message = format!("the {field} in the data ({given}) does not match the expected one ({own})");
                return Err(Failure::bad_request(message));
            }
            _ => fields.insert(field.to_owned(), own.into()),
        };
    }
    let name = target.name.clone();
    let metadata = metadata(&mut value);
    for (field, own) in [("name", name), ("namespace", target.namespace.clone())] {
        match (metadata.get(field).and_then(Value::as_str), own) {
            (Some(given), Some(own)) if given != own => {
                let message =
                    format!("the {field} of the object ({given}) does not match the {field} on the URL ({own})");
                return Err(Failure::bad_request(message));
            }
            (_, Some(own)) => {
                metadata.insert(field.to_owned(), own.into());
            }
            (_, None) => {}
        }
    }
    Ok(value)
}

fn new_name(resource: &Resource, value: &Value, version: u64) -> Result<String, Failure> {
    let metadata = &value["metadata"];
    if let Some(name) = metadata["name"].as_str().filter(|name| !name.is_empty()) {
        return Ok(name.to_owned());
    }
    match metadata["generateName"].as_str().filter(|name| !name.is_empty()) {
        Some(start) => Ok(format!("{start}{version:05x}")),
        None => Err(Failure::invalid(resource, "", "metadata.name: Required value: name or generateName is required")),
    }
}

fn create(
    store: &mut Store,
    resource: &Resource,
    key: Key,
    mut value: Value,
    manager: &str,
    now: &str,
) -> Result<Arc<Object>, Failure> {
    if store.get(resource, &key).is_some() {
        return Err(Failure::already_exists(resource, &key.1));
    }
    let metadata = metadata(&mut value);
    if metadata.get("resourceVersion").and_then(Value::as_str).is_some_and(|version| !version.is_empty()) {
        return Err(Failure::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    metadata.insert("name".to_owned(), key.1.clone().into());
    if let (true, Some(fields)) = (resource.status, value.as_object_mut()) {
        match resource.kind {
            "Service" => drop(fields.insert("status".to_owned(), json!({ "loadBalancer": {} }))),
            _ if resource.custom => drop(fields.remove("status")),
            _ => {} // a kubelet registers its node with a status
        }
    }
    default(resource, &mut value);
    let mut owners = Owners::new();
    patch::own_changes(&Value::Null, &value, &mut owners, manager);
    Ok(store.insert(resource, key, value, owners, now))
}

fn update(
    store: &mut Store,
    target: &Target,
    key: &Key,
    current: &Object,
    value: &Value,
    manager: &str,
) -> Result<Written, Failure> {
    let resource = target.resource;
    match value["metadata"]["resourceVersion"].as_str().filter(|version| !version.is_empty()) {
        Some(version) if version != current.version() => {
            let why = "the object has been modified; please apply your changes to the latest version and try again";
            return Err(Failure::conflict(resource, &key.1, why));
        }
        None if !resource.unconditional_update => {
            let why = "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update";
            return Err(Failure::invalid(resource, &key.1, why));
        }
        _ => {}
    }
    if value["metadata"]["uid"].as_str().is_some_and(|uid| Some(uid) != current.value["metadata"]["uid"].as_str()) {
        let why = "Precondition failed: UID in precondition does not match UID in object meta";
        return Err(Failure::conflict(resource, &key.1, why));
    }
    let mut owners = current.owners.clone();
    let value = settled(target, &current.value, value);
    patch::own_changes(&current.value, &value, &mut owners, manager);
    Ok(keep(store, target, key, current, value, owners))
}

fn apply(
    store: &mut Store,
    target: &Target,
    key: &Key,
    wanted: &Value,
    manager: &str,
    force: bool,
    now: &str,
) -> Result<Written, Failure> {
    let resource = target.resource;
    let wanted = checked(target, wanted.clone())?;
    let Some(current) = store.get(resource, key) else {
        if target.status {
            return Err(Failure::not_found(resource, &key.1));
        }
        return create(store, resource, key.clone(), wanted, manager, now).map(Written::Created);
    };
    let (mut value, mut owners) = (current.value.clone(), current.owners.clone());
    patch::apply(&mut value, &mut owners, &wanted, manager, force).map_err(|conflicts| {
        let cause = |(field, owner): &(String, String)| {
            let message = format!("conflict with {owner:?}");
            json!({ "reason": "FieldManagerConflict", "message": message, "field": field })
        };
        let message = format!("Apply failed with {} conflict(s): {conflicts:?}", conflicts.len());
        let mut failure = Failure::new(409, "Conflict", message);
        failure.details = json!({ "causes": conflicts.iter().map(cause).collect::<Vec<_>>() });
        failure
    })?;
    let value = settled(target, &current.value, &value);
    Ok(keep(store, target, key, &current, value, owners))
}

/// `wanted` without what this path does not write: the status beside `/status`, all but the status on it, and what the
/// server alone sets.
fn settled(target: &Target, current: &Value, wanted: &Value) -> Value {
    let mut value = if target.status { current.clone() } else { wanted.clone() };
    let set = |value: &mut Value, field: &str, to: &Value| {
        if let Some(fields) = value.as_object_mut() {
            if to.is_null() { drop(fields.remove(field)) } else { drop(fields.insert(field.to_owned(), to.clone())) }
        }
    };
    if target.resource.status {
        set(&mut value, "status", if target.status { &wanted["status"] } else { &current["status"] });
    }
    for field in ["uid", "creationTimestamp", "generation", "deletionTimestamp", "resourceVersion"] {
        set(&mut value["metadata"], field, &current["metadata"][field]);
    }
    default(target.resource, &mut value);
    let is_same = |field: &str| value.get(field) == current.get(field);
    if target.resource.custom && !is_same("spec") {
        let generation = current["metadata"]["generation"].as_u64().unwrap_or(1) + 1;
        set(&mut value["metadata"], "generation", &generation.into());
    }
    value
}

/// Keeps the new state, unless it is the old one; an object that was only kept by its finalizers goes with the last.
fn keep(store: &mut Store, target: &Target, key: &Key, current: &Object, value: Value, owners: Owners) -> Written {
    let resource = target.resource;
    if !value["metadata"]["deletionTimestamp"].is_null() && !has_finalizers(&value) {
        store.replace(resource, key.clone(), value, owners);
        if let Some(removed) = store.remove(resource, key) {
            return Written::Updated(removed);
        }
    } else if value == current.value && owners == current.owners {
        if let Some(same) = store.get(resource, key) {
            return Written::Updated(same);
        }
    } else {
        return Written::Updated(store.replace(resource, key.clone(), value, owners));
    }
    unreachable!("whoever updates an object holds the lock and has seen it")
}

fn delete(
    store: &mut Store,
    resource: &Resource,
    key: &Key,
    uid: Option<&str>,
    version: Option<&str>,
    now: &str,
) -> Result<Written, Failure> {
    let current = store.get(resource, key).ok_or_else(|| Failure::not_found(resource, &key.1))?;
    let differs = |wanted: Option<&str>, field: &str| {
        wanted.is_some_and(|wanted| current.value["metadata"][field].as_str() != Some(wanted))
    };
    if differs(uid, "uid") || differs(version, "resourceVersion") {
        return Err(Failure::conflict(resource, &key.1, "Precondition failed: UID or version in precondition differs"));
    }
    if has_finalizers(&current.value) {
        let mut value = current.value.clone();
        let metadata = metadata(&mut value);
        if !metadata.contains_key("deletionTimestamp") {
            metadata.insert("deletionTimestamp".to_owned(), now.into());
            if let Some(generation) = metadata.get("generation").and_then(Value::as_u64) {
                metadata.insert("generation".to_owned(), (generation + 1).into());
            }
        }
        return Ok(Written::Updated(store.replace(resource, key.clone(), value, current.owners.clone())));
    }
    let removed = store.remove(resource, key);
    removed.map(Written::Deleted).ok_or_else(|| Failure::not_found(resource, &key.1))
}

fn has_finalizers(value: &Value) -> bool {
    value["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

/// Fills in what a Service that does not say otherwise is.
fn default(resource: &Resource, value: &mut Value) {
    if resource.kind != "Service" {
        return;
    }
    let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let or = |fields: &mut Map<String, Value>, field: &str, default: Value| {
        fields.entry(field).or_insert(default);
    };
    or(spec, "type", "ClusterIP".into());
    or(spec, "sessionAffinity", "None".into());
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            let number = port.get("port").cloned().unwrap_or_default();
            or(port, "protocol", "TCP".into());
            or(port, "targetPort", number);
        }
    }
}
