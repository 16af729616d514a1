//! Makes one inventory of what the watches say.
//!
//! Invariant: an inventory is live only if every kind had a complete list that was believed; until then nothing of a
//! list shows. A list that is doubted shows nowhere, nor does what its watch says, until it is believed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use tracing::{debug, info, warn};

use super::{
    belief::Belief,
    change::{Change, Entry, Note},
    shelf::Shelf,
};
use crate::model::{
    Interned,
    inventory::{Inventory, ObjectName},
    source::{Doubted, Kind, KindStatus},
};

/// The state of all kinds.
#[derive(Debug)]
pub(super) struct Keeper {
    belief: Belief,
    shelf: Shelf,
    /// The Service of each slice, by the slice's own name.
    owners: BTreeMap<ObjectName, String>,
    /// Names of nodes that slices name.
    nodes: Interned<String>,
    kinds: BTreeMap<Kind, State>,
    /// There is something to publish.
    is_changed: bool,
}

#[derive(Debug, Default)]
struct State {
    status: KindStatus,
    doubt: Option<Doubt>,
}

/// A list that is not believed yet, kept up to date.
#[derive(Debug)]
struct Doubt {
    staged: BTreeMap<ObjectName, Entry>,
    lists: u32,
}

impl Keeper {
    /// Begins with what was saved; nothing of it is live.
    pub(super) fn new(belief: Belief, saved: Option<Arc<Inventory>>) -> Self {
        let shelf = saved.map_or_else(Shelf::default, Shelf::new);
        let slices = shelf.inventory().slices.iter();
        let owners = slices.flat_map(|(service, slices)| {
            let key = |name: &str| ObjectName::new(service.namespace.clone(), name);
            slices.iter().map(move |slice| (key(&slice.name), service.name.clone()))
        });
        let owners = owners.collect();
        let kinds = Kind::ALL.into_iter().map(|kind| (kind, State::default())).collect();
        Self { belief, shelf, owners, nodes: Interned::default(), kinds, is_changed: false }
    }

    /// Takes a note of the watch of a kind; true if its list has to be confirmed by another.
    pub(super) fn handle(&mut self, kind: Kind, note: Note, now: Instant) -> bool {
        let status = &mut self.state(kind).status;
        if let Note::Failed(error) = note {
            status.failures += 1;
            status.error = Some(error);
            return false;
        }
        status.heard_at = Some(now);
        status.error = None;
        match note {
            Note::List { objects, streaming } => {
                status.listed_at = Some(now);
                status.lists += 1;
                status.is_streaming = streaming;
                return self.list(kind, objects);
            }
            Note::Changed(key, entry) => self.changed(kind, key, entry),
            Note::Heard | Note::Failed(_) => {}
        }
        false
    }

    /// Whether every kind had a list that was believed.
    pub(super) fn is_live(&self) -> bool {
        self.kinds.values().all(|state| state.status.is_complete)
    }

    /// Whether no watch is failing.
    pub(super) fn is_well(&self) -> bool {
        self.is_live() && self.kinds.values().all(|state| state.status.error.is_none() && state.doubt.is_none())
    }

    /// Whether there is something live that was not published.
    pub(super) fn is_due(&self) -> bool {
        self.is_changed && self.is_live()
    }

    /// The inventory, to be published.
    pub(super) fn publish(&mut self) -> Arc<Inventory> {
        self.is_changed = false;
        self.shelf.publish()
    }

    /// How the watches fare.
    pub(super) fn status(&self) -> BTreeMap<Kind, KindStatus> {
        let status = |(kind, state): (&Kind, &State)| {
            let doubted = state.doubt.as_ref().map(|doubt| Doubted {
                listed: count(doubt.staged.keys()),
                held: self.held(*kind),
                lists: doubt.lists,
                needed: self.belief.lists,
            });
            (*kind, KindStatus { objects: self.len(*kind), doubted, ..state.status.clone() })
        };
        self.kinds.iter().map(status).collect()
    }

    fn state(&mut self, kind: Kind) -> &mut State {
        self.kinds.entry(kind).or_default()
    }

    fn list(&mut self, kind: Kind, mut objects: Vec<(ObjectName, Entry)>) -> bool {
        objects.retain(|(_, entry)| *entry != Entry::Nothing);
        let (held, listed, belief) = (self.held(kind), count(objects.iter().map(|(key, _)| key)), self.belief);
        let doubt = &mut self.state(kind).doubt;
        let lists = doubt.as_ref().map_or(0, |doubt| doubt.lists) + 1;
        if !belief.doubts(held, listed) || lists >= belief.lists {
            if doubt.take().is_some() {
                info!(%kind, held, listed, lists, "a list that was doubted is believed");
            }
            self.believe(kind, objects);
            return false;
        }
        warn!(
            %kind, held, listed, lists, needed = belief.lists,
            "a complete list lost most of what was known and is not believed yet; what was known stays in force"
        );
        *doubt = Some(Doubt { staged: objects.into_iter().collect(), lists });
        true
    }

    /// Puts a complete list into force.
    fn believe(&mut self, kind: Kind, objects: Vec<(ObjectName, Entry)>) {
        let listed: BTreeSet<ObjectName> = objects.iter().map(|(key, _)| key.clone()).collect();
        for key in self.keys(kind).into_iter().filter(|key| !listed.contains(key)) {
            self.remove(kind, &key);
        }
        drop(listed);
        self.state(kind).status.unreadable.clear();
        for (key, entry) in objects {
            self.put(kind, key, entry);
        }
        let state = self.state(kind);
        if !state.status.is_complete {
            state.status.is_complete = true;
            self.is_changed = true; // it may be what a live inventory waited for
        }
    }

    fn changed(&mut self, kind: Kind, key: ObjectName, entry: Entry) {
        let (belief, held) = (self.belief, self.held(kind));
        let Some(doubt) = &mut self.state(kind).doubt else {
            match entry {
                Entry::Nothing => self.remove(kind, &key),
                entry => self.put(kind, key, entry),
            }
            return;
        };
        match entry {
            Entry::Nothing => drop(doubt.staged.remove(&key)),
            entry => drop(doubt.staged.insert(key, entry)),
        }
        if !belief.doubts(held, count(doubt.staged.keys())) {
            let staged = std::mem::take(&mut doubt.staged);
            self.state(kind).doubt = None;
            info!(%kind, held, "enough came back: the list that was doubted is believed");
            self.believe(kind, staged.into_iter().collect());
        }
    }

    fn put(&mut self, kind: Kind, key: ObjectName, entry: Entry) {
        let unreadable = &mut self.state(kind).status.unreadable;
        if let Entry::Unreadable(why) = entry {
            warn!(%kind, object = %key, why, "can't be read; the version before stays in force");
            unreadable.insert(key.to_string(), why);
            return;
        }
        unreadable.remove(&key.to_string());
        let change = match entry {
            Entry::Node(value) => Change::Node(key.name, Some(value)),
            Entry::Service(value) => Change::Service(key, Some(value)),
            Entry::Pool(value) => Change::Pool(key.name, Some(value)),
            Entry::Slice(service, mut slice) => {
                slice.share_nodes(&mut self.nodes);
                self.move_slice(&key, &service);
                Change::Slice(ObjectName::new(key.namespace, service), key.name, Some(slice))
            }
            Entry::Nothing | Entry::Unreadable(_) => return,
        };
        self.is_changed |= self.shelf.apply(change);
    }

    /// Notes whose slice it is, and takes it away from whose it was.
    fn move_slice(&mut self, key: &ObjectName, service: &str) {
        let before = self.owners.insert(key.clone(), service.to_owned());
        if let Some(before) = before.filter(|before| before != service) {
            debug!(slice = %key, from = before, to = service, "a slice changed its Service");
            let before = ObjectName::new(key.namespace.clone(), before);
            self.is_changed |= self.shelf.apply(Change::Slice(before, key.name.clone(), None));
        }
    }

    fn remove(&mut self, kind: Kind, key: &ObjectName) {
        self.state(kind).status.unreadable.remove(&key.to_string());
        let change = match kind {
            Kind::Nodes => Change::Node(key.name.clone(), None),
            Kind::Services => Change::Service(key.clone(), None),
            Kind::Pools => Change::Pool(key.name.clone(), None),
            Kind::Slices => {
                let Some(service) = self.owners.remove(key) else { return };
                Change::Slice(ObjectName::new(key.namespace.clone(), service), key.name.clone(), None)
            }
        };
        self.is_changed |= self.shelf.apply(change);
    }

    fn keys(&self, kind: Kind) -> Vec<ObjectName> {
        let inventory = self.shelf.inventory();
        let global = |name: &String| ObjectName::new("", name.clone());
        match kind {
            Kind::Nodes => inventory.nodes.keys().map(global).collect(),
            Kind::Services => inventory.services.keys().cloned().collect(),
            Kind::Slices => self.owners.keys().cloned().collect(),
            Kind::Pools => inventory.pools.keys().map(global).collect(),
        }
    }

    fn len(&self, kind: Kind) -> usize {
        let inventory = self.shelf.inventory();
        match kind {
            Kind::Nodes => inventory.nodes.len(),
            Kind::Services => inventory.services.len(),
            Kind::Slices => self.owners.len(),
            Kind::Pools => inventory.pools.len(),
        }
    }

    /// How many objects of a kind are known that a fresh server would not have by itself.
    fn held(&self, kind: Kind) -> usize {
        match kind {
            Kind::Services => count(self.shelf.inventory().services.keys()),
            Kind::Slices => count(self.owners.keys()),
            Kind::Nodes | Kind::Pools => self.len(kind),
        }
    }
}

/// Objects but `default/kubernetes`, which an API server makes by itself.
fn count<'a>(keys: impl Iterator<Item = &'a ObjectName>) -> usize {
    keys.filter(|key| !(key.name == "kubernetes" && key.namespace == "default")).count()
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
