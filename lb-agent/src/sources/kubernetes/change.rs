//! What watches say, and what that changes in an inventory.

use std::collections::BTreeMap;

use crate::model::{
    Shared,
    inventory::{ClusterNode, ClusterService, EndpointSlice, Inventory, ObjectName},
    pool::ClusterPool,
};

/// An object as it was read. The key of objects without a namespace has an empty one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    /// A node.
    Node(ClusterNode),
    /// A Service.
    Service(Shared<ClusterService>),
    /// A slice, and the Service it belongs to.
    Slice(String, Shared<EndpointSlice>),
    /// A pool.
    Pool(Box<ClusterPool>),
    /// An object that is of no interest: as if it were not there.
    Nothing,
    /// An object that can't be read, and why: the version before stays.
    Unreadable(String),
}

/// What a watch says.
#[derive(Debug)]
pub(super) enum Note {
    /// A complete list.
    List {
        /// All objects.
        objects: Vec<(ObjectName, Entry)>,
        /// It was a streaming list.
        streaming: bool,
    },
    /// An object is there or has changed; [`Entry::Nothing`] if it is gone.
    Changed(ObjectName, Entry),
    /// The watch lives.
    Heard,
    /// The watch failed.
    Failed(String),
}

/// One change of an inventory; no value: gone.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// A node.
    Node(String, Option<ClusterNode>),
    /// A Service.
    Service(ObjectName, Option<Shared<ClusterService>>),
    /// A slice of a Service, by its name.
    Slice(ObjectName, String, Option<Shared<EndpointSlice>>),
    /// A pool.
    Pool(String, Option<Box<ClusterPool>>),
}

impl Change {
    /// Whether it changes nothing.
    pub(super) fn is_void(&self, inventory: &Inventory) -> bool {
        match self {
            Self::Node(name, value) => inventory.nodes.get(name) == value.as_ref(),
            Self::Service(name, value) => inventory.services.get(name) == value.as_ref(),
            Self::Slice(service, name, value) => slice(inventory, service, name) == value.as_ref(),
            Self::Pool(name, value) => inventory.pools.get(name) == value.as_deref(),
        }
    }

    /// Performs it.
    pub(super) fn apply(self, inventory: &mut Inventory) {
        match self {
            Self::Node(name, value) => set(&mut inventory.nodes, name, value),
            Self::Service(name, value) => set(&mut inventory.services, name, value),
            Self::Slice(service, name, value) => set_slice(inventory, service, &name, value),
            Self::Pool(name, value) => set(&mut inventory.pools, name, value.map(|value| *value)),
        }
    }
}

fn slice<'a>(inventory: &'a Inventory, service: &ObjectName, name: &str) -> Option<&'a Shared<EndpointSlice>> {
    let slices = inventory.slices.get(service)?;
    slices.binary_search_by(|slice| slice.name.as_str().cmp(name)).ok().map(|at| &slices[at])
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

fn set_slice(inventory: &mut Inventory, service: ObjectName, name: &str, value: Option<Shared<EndpointSlice>>) {
    let Some(value) = value else {
        if let Some(slices) = inventory.slices.get_mut(&service) {
            slices.retain(|slice| slice.name != name);
            if slices.is_empty() {
                inventory.slices.remove(&service);
            }
        }
        return;
    };
    let slices = inventory.slices.entry(service).or_default();
    match slices.binary_search_by(|slice| slice.name.as_str().cmp(name)) {
        Ok(at) => slices[at] = value,
        Err(at) => slices.insert(at, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_stay_in_the_order_of_their_names_and_the_last_takes_its_service_along() {
        let service = ObjectName::new("shop", "web");
        let of = |name: &str| Shared::new(EndpointSlice { name: name.to_owned(), ..EndpointSlice::default() });
        let mut inventory = Inventory::default();
        for name in ["b", "c", "a"] {
            Change::Slice(service.clone(), name.to_owned(), Some(of(name))).apply(&mut inventory);
        }
        assert_eq!(inventory.slices[&service], [of("a"), of("b"), of("c")]);
        assert!(Change::Slice(service.clone(), "b".to_owned(), Some(of("b"))).is_void(&inventory));
        for name in ["a", "c", "b"] {
            let gone = Change::Slice(service.clone(), name.to_owned(), None);
            assert!(!gone.is_void(&inventory));
            gone.clone().apply(&mut inventory);
            assert!(gone.is_void(&inventory));
        }
        assert_eq!(inventory, Inventory::default());
    }
}
