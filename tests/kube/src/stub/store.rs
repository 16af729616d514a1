//! The objects of the stand-in, their versions, and the changes that watches are told.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use super::{
    patch::Owners,
    resources::{RESOURCES, Resource},
    status::Failure,
};

/// Changes that a watch can be told later; older ones are forgotten.
const REMEMBERED: usize = 200_000;

/// Namespace (empty if it has none) and name.
pub type Key = (String, String);

/// An object as it is kept.
#[derive(Debug)]
pub struct Object {
    /// All of it.
    pub value: Value,
    /// Its JSON without the opening brace, `kind` and `apiVersion`.
    tail: Bytes,
    /// Who set which field.
    pub owners: Owners,
}

impl Object {
    fn new(mut value: Value, owners: Owners) -> Self {
        let typed = value.as_object_mut().map(|fields| (fields.remove("kind"), fields.remove("apiVersion")));
        let tail = Bytes::from(value.to_string().split_off(1));
        if let (Some((kind, version)), Some(fields)) = (typed, value.as_object_mut()) {
            fields.extend(
                [("kind".to_owned(), kind), ("apiVersion".to_owned(), version)]
                    .into_iter()
                    .filter_map(|(key, value)| Some((key, value?))),
            );
        }
        Self { value, tail, owners }
    }

    /// Appends its JSON, with its kind or, as built-in resources have it in lists, without.
    pub fn write(&self, typed: Option<&Resource>, out: &mut Vec<u8>) {
        match typed {
            None => out.push(b'{'),
            Some(resource) => out.extend_from_slice(
                format!(r#"{{"kind":"{}","apiVersion":"{}","#, resource.kind, resource.api_version()).as_bytes(),
            ),
        }
        out.extend_from_slice(&self.tail);
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &str {
        self.value["metadata"]["resourceVersion"].as_str().unwrap_or_default()
    }
}

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The version that the store had after it.
    pub version: u64,
    /// The object before, unless it was made.
    pub before: Option<Arc<Object>>,
    /// The object after. Of one that was removed: its last state, with the version of the removal.
    pub after: Arc<Object>,
    /// Whether it was removed.
    pub removed: bool,
}

/// The objects of one resource.
#[derive(Debug, Default)]
struct Collection {
    objects: BTreeMap<Key, Arc<Object>>,
    changes: VecDeque<Change>,
}

/// All objects.
#[derive(Debug)]
pub struct Store {
    version: u64,
    /// Versions up to this one are forgotten.
    forgotten: u64,
    made: u64,
    /// Counts how often everything was wiped: watches of an earlier life end.
    life: u64,
    collections: Vec<Collection>,
}

impl Default for Store {
    fn default() -> Self {
        let collections = RESOURCES.iter().map(|_| Collection::default()).collect();
        Self { version: 1, forgotten: 0, made: 0, life: 0, collections }
    }
}

impl Store {
    /// The version after the last change.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Which life this is.
    #[must_use]
    pub const fn life(&self) -> u64 {
        self.life
    }

    /// Forgets everything, versions included, as an etcd that is made anew.
    pub fn wipe(&mut self) {
        *self = Self { life: self.life + 1, ..Self::default() };
    }

    /// Forgets the changes until now, the last version included: a watch from there gets 410, an open one too.
    pub fn compact(&mut self) {
        self.version += 1;
        self.forgotten = self.version;
        for collection in &mut self.collections {
            collection.changes.clear();
        }
    }

    /// An object.
    #[must_use]
    pub fn get(&self, resource: &Resource, key: &Key) -> Option<Arc<Object>> {
        self.collection(resource).objects.get(key).cloned()
    }

    /// The objects of a namespace, or of all, that come after `after`, in order.
    pub fn list(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        after: Option<&Key>,
    ) -> impl Iterator<Item = (&Key, &Arc<Object>)> {
        let objects = self.collection(resource).objects.iter();
        objects
            .filter(move |(key, _)| namespace.is_none_or(|namespace| key.0 == namespace))
            .filter(move |(key, _)| after.is_none_or(|after| *key > after))
    }

    /// The changes of a resource after a version.
    ///
    /// # Errors
    /// If that version is forgotten.
    pub fn changes(&self, resource: &Resource, after: u64) -> Result<impl Iterator<Item = &Change>, Failure> {
        if after < self.forgotten {
            return Err(Failure::expired(after, self.forgotten));
        }
        let changes = &self.collection(resource).changes;
        let first = changes.partition_point(|change| change.version <= after);
        Ok(changes.range(first..))
    }

    /// Keeps a new object, and gives it its identity.
    pub fn insert(
        &mut self,
        resource: &Resource,
        key: Key,
        mut value: Value,
        owners: Owners,
        now: &str,
    ) -> Arc<Object> {
        self.made += 1;
        let metadata = metadata(&mut value);
        metadata.insert("uid".to_owned(), format!("00000000-0000-4000-8000-{:012x}", self.made).into());
        metadata.insert("creationTimestamp".to_owned(), now.into());
        if resource.custom {
            metadata.insert("generation".to_owned(), 1.into());
        }
        self.keep(resource, key, value, owners)
    }

    /// Keeps an object's new state.
    pub fn replace(&mut self, resource: &Resource, key: Key, value: Value, owners: Owners) -> Arc<Object> {
        self.keep(resource, key, value, owners)
    }

    fn keep(&mut self, resource: &Resource, key: Key, mut value: Value, owners: Owners) -> Arc<Object> {
        self.version += 1;
        metadata(&mut value).insert("resourceVersion".to_owned(), self.version.to_string().into());
        let after = Arc::new(Object::new(value, owners));
        let version = self.version;
        let collection = self.collection_mut(resource);
        let before = collection.objects.insert(key, Arc::clone(&after));
        collection.changes.push_back(Change { version, before, after: Arc::clone(&after), removed: false });
        self.trim(resource);
        after
    }

    /// Removes an object.
    pub fn remove(&mut self, resource: &Resource, key: &Key) -> Option<Arc<Object>> {
        let before = self.collection_mut(resource).objects.remove(key)?;
        self.version += 1;
        let mut value = before.value.clone();
        metadata(&mut value).insert("resourceVersion".to_owned(), self.version.to_string().into());
        let after = Arc::new(Object::new(value, Owners::new()));
        let change = Change { version: self.version, before: Some(before), after: Arc::clone(&after), removed: true };
        self.collection_mut(resource).changes.push_back(change);
        self.trim(resource);
        Some(after)
    }

    fn trim(&mut self, resource: &Resource) {
        let collection = self.collection_mut(resource);
        if collection.changes.len() > REMEMBERED {
            let oldest = collection.changes.pop_front().map_or(0, |change| change.version);
            self.forgotten = self.forgotten.max(oldest);
        }
    }

    fn collection(&self, resource: &Resource) -> &Collection {
        &self.collections[index(resource)]
    }

    fn collection_mut(&mut self, resource: &Resource) -> &mut Collection {
        &mut self.collections[index(resource)]
    }
}

fn index(resource: &Resource) -> usize {
    RESOURCES.iter().position(|it| it == resource).unwrap_or_default()
}

/// `metadata` of an object, made if it has none.
pub fn metadata(value: &mut Value) -> &mut Map<String, Value> {
    if !value["metadata"].is_object() {
        value["metadata"] = json!({});
    }
    match &mut value["metadata"] {
        Value::Object(fields) => fields,
        _ => unreachable!("it was made an object above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("ns".to_owned(), name.to_owned())
    }

    #[test]
    fn changes_are_told_from_a_version_on_until_they_are_forgotten() {
        let services = Resource::named("services").unwrap();
        let mut store = Store::default();
        store.insert(services, key("a"), json!({}), Owners::new(), "");
        let seen = store.version();
        store.insert(services, key("b"), json!({}), Owners::new(), "");
        store.remove(services, &key("a"));
        let told: Vec<_> = store.changes(services, seen).unwrap().map(|it| (it.version, it.removed)).collect();
        assert_eq!(told, [(seen + 1, false), (seen + 2, true)]);
        let last = store.version();
        store.compact();
        assert_eq!(store.changes(services, last).map(Iterator::count).map_err(|failure| failure.code), Err(410));
        assert_eq!(store.changes(services, store.version()).map(Iterator::count), Ok(0));
    }

    #[test]
    fn an_object_is_written_with_and_without_its_kind() {
        let services = Resource::named("services").unwrap();
        let mut store = Store::default();
        let value = json!({ "kind": "Service", "apiVersion": "v1", "spec": { "type": "ClusterIP" } });
        let object = store.insert(services, key("a"), value, Owners::new(), "now");
        for typed in [None, Some(services)] {
            let mut bytes = Vec::new();
            object.write(typed, &mut bytes);
            let read: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(read["spec"]["type"], "ClusterIP");
            assert_eq!(read["kind"].as_str(), typed.map(|resource| resource.kind));
            assert_eq!(read["metadata"]["resourceVersion"], object.version());
        }
    }
}
