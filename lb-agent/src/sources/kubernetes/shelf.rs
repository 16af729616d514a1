//! The inventory that changes while others read it: two copies that take turns.
//!
//! A published inventory is never changed. The next change goes to the one published before, once nobody reads it any more
//! and it has caught up; only if somebody still does, the newest one is copied.
//!
//! Invariant: `working` holds all changes so far; `retired` and then `log` make `working`.

use std::sync::Arc;

use super::change::Change;
use crate::model::inventory::Inventory;

/// Changes that a retired inventory lags behind before copying is cheaper.
const MAX_LOG: usize = 2_000;

/// The inventory in the works.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    working: Arc<Inventory>,
    retired: Option<Arc<Inventory>>,
    log: Vec<Change>,
    /// `working` was handed out.
    is_published: bool,
    /// Copies of everything that were made.
    copies: u64,
}

impl Shelf {
    /// Begins with this inventory.
    pub(super) fn new(inventory: Arc<Inventory>) -> Self {
        Self { working: inventory, is_published: true, ..Self::default() }
    }

    /// All changes so far.
    pub(super) fn inventory(&self) -> &Inventory {
        &self.working
    }

    /// Performs a change; false if it changes nothing.
    pub(super) fn apply(&mut self, change: Change) -> bool {
        if change.is_void(&self.working) {
            return false;
        }
        if self.is_published {
            self.turn();
        }
        if self.retired.is_some() {
            self.log.push(change.clone());
            if self.log.len() > MAX_LOG {
                self.retired = None;
                self.log = Vec::new();
            }
        }
        change.apply(Arc::make_mut(&mut self.working));
        true
    }

    /// The inventory with all changes so far, to be read by others.
    pub(super) fn publish(&mut self) -> Arc<Inventory> {
        self.is_published = true;
        Arc::clone(&self.working)
    }

    /// Puts the retired inventory to work, and retires the published one.
    fn turn(&mut self) {
        let mut next = match self.retired.take() {
            Some(retired) if Arc::strong_count(&retired) == 1 => retired,
            _ => {
                self.log.clear();
                self.copies += 1;
                Arc::new((*self.working).clone())
            }
        };
        for change in self.log.drain(..) {
            change.apply(Arc::make_mut(&mut next));
        }
        self.retired = Some(std::mem::replace(&mut self.working, next));
        self.is_published = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::inventory::{ClusterNode, ClusterService, Endpoint, EndpointSlice, ObjectName};

    fn node(name: u8, ready: bool) -> Change {
        Change::Node(name.to_string(), Some(ClusterNode { ready, ..ClusterNode::default() }))
    }

    #[test]
    fn an_inventory_that_nobody_reads_any_more_is_used_again() {
        let mut shelf = Shelf::default();
        for round in 0..10 {
            assert!(shelf.apply(node(1, round % 2 == 0)));
            drop(shelf.publish());
        }
        assert_eq!(shelf.copies, 1, "the second of two");
        let _reader = shelf.publish();
        shelf.apply(node(2, true));
        let _reader_too = shelf.publish();
        shelf.apply(node(3, true));
        assert_eq!(shelf.copies, 2, "both are being read");
    }

    #[test]
    fn a_change_that_changes_nothing_is_none() {
        let mut shelf = Shelf::default();
        assert!(shelf.apply(node(1, true)));
        assert!(!shelf.apply(node(1, true)));
        assert!(!shelf.apply(Change::Node("2".to_owned(), None)));
    }

    /// 10,000 Services with ten endpoints each.
    fn large() -> Inventory {
        let endpoint = |number: u32| Endpoint {
            addresses: vec![std::net::Ipv4Addr::from_bits(number).into()],
            node: Some(format!("node-{}", number % 100).into()),
            ready: true,
            ..Endpoint::default()
        };
        let slice = |service: u32| EndpointSlice {
            name: format!("service-{service}-abcde"),
            endpoints: (0..10).map(|number| endpoint(service * 10 + number)).collect(),
            ..EndpointSlice::default()
        };
        let name = |service: u32| ObjectName::new("shop", format!("service-{service}"));
        Inventory {
            services: (0..10_000).map(|service| (name(service), ClusterService::default().into())).collect(),
            slices: (0..10_000).map(|service| (name(service), vec![slice(service).into()])).collect(),
            ..Inventory::default()
        }
    }

    #[test]
    fn changing_one_endpoint_of_very_many_copies_nothing() {
        let mut shelf = Shelf::new(Arc::new(large()));
        let service = ObjectName::new("shop", "service-7");
        let change = |round: u32| {
            let slice = EndpointSlice { endpoints: vec![Endpoint::default(); 10], ..EndpointSlice::default() };
            let name = "service-7-abcde".to_owned();
            Change::Slice(
                service.clone(),
                name.clone(),
                Some(EndpointSlice { name: format!("{name}{round}"), ..slice }.into()),
            )
        };
        shelf.apply(change(0));
        let mut reader = shelf.publish();
        let begin = std::time::Instant::now();
        for round in 1..=100 {
            shelf.apply(change(round));
            reader = shelf.publish(); // the reader lets go of the one before
        }
        println!("a change among 100,000 endpoints: {:?}", begin.elapsed() / 100);
        assert_eq!((shelf.copies, reader.slices.len()), (1, 10_000));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Change(Change),
        Publish,
        Forget,
    }

    fn step() -> impl Strategy<Value = Step> {
        let slice = |service: u8, name: u8, there: bool| {
            let value = there.then(|| EndpointSlice { name: name.to_string(), ..EndpointSlice::default() }.into());
            Change::Slice(ObjectName::new("a", service.to_string()), name.to_string(), value)
        };
        prop_oneof![
            (0..4u8, any::<bool>()).prop_map(|(name, ready)| Step::Change(node(name, ready))),
            (0..4u8).prop_map(|name| Step::Change(Change::Node(name.to_string(), None))),
            (0..2u8, 0..3u8, any::<bool>())
                .prop_map(move |(service, name, there)| Step::Change(slice(service, name, there))),
            Just(Step::Publish),
            Just(Step::Forget),
        ]
    }

    proptest! {
        #[test]
        fn what_was_published_never_changes_and_is_all_there_was(steps in prop::collection::vec(step(), 0..60)) {
            let (mut shelf, mut model) = (Shelf::default(), Inventory::default());
            let mut readers: Vec<(Arc<Inventory>, Inventory)> = Vec::new();
            for step in steps {
                match step {
                    Step::Change(change) => {
                        change.clone().apply(&mut model);
                        shelf.apply(change);
                    }
                    Step::Publish => readers.push((shelf.publish(), model.clone())),
                    Step::Forget if !readers.is_empty() => drop(readers.remove(0)),
                    Step::Forget => {}
                }
                prop_assert_eq!(shelf.inventory(), &model);
                for (seen, then) in &readers {
                    prop_assert_eq!(&**seen, then);
                }
            }
        }
    }
}
