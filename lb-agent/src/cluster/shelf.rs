//! What pools have left to give. The lowest free address of a pool only rises while addresses are given, so that none
//! is looked at twice.

use std::{collections::BTreeMap, net::IpAddr, rc::Rc};

use super::{
    pools::PoolInForce,
    spans::{Spans, successor},
};
use crate::model::inventory::IpFamily;

/// Pools and how far they are given away.
pub(super) struct Shelves<'a> {
    order: Rc<[(&'a String, &'a PoolInForce)]>,
    shelves: BTreeMap<&'a str, Shelf>,
}

struct Shelf {
    /// Addresses that may be given at all.
    spans: Spans,
    avoid_buggy: bool,
    from: BTreeMap<IpFamily, From>,
}

#[derive(Clone, Copy)]
enum From {
    /// Nothing below is free.
    Address(IpAddr),
    /// Nothing is free.
    End,
}

impl<'a> Shelves<'a> {
    /// All of these pools, without what is forbidden.
    pub(super) fn new(pools: &'a BTreeMap<String, PoolInForce>, forbidden: &Spans) -> Self {
        let mut order: Vec<_> = pools.iter().collect();
        order.sort_by_key(|(name, pool)| (std::cmp::Reverse(pool.pool.priority), *name));
        let shelf = |pool: &PoolInForce| Shelf {
            spans: pool.spans.minus(forbidden),
            avoid_buggy: pool.pool.avoid_buggy_ips,
            from: BTreeMap::new(),
        };
        let shelves = pools.iter().map(|(name, pool)| (name.as_str(), shelf(pool))).collect();
        Self { order: order.into(), shelves }
    }

    /// The pools in the order in which they give: higher priority first, then by name.
    pub(super) fn order(&self) -> impl Iterator<Item = (&'a String, &'a PoolInForce)> + use<'a> {
        let order = Rc::clone(&self.order);
        (0..order.len()).map(move |index| order[index])
    }

    /// The lowest address of the pool that is free. What is not free now has to stay so.
    pub(super) fn lowest(&mut self, pool: &str, family: IpFamily, is_free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let shelf = self.shelves.get_mut(pool)?;
        let mut from = match shelf.from.get(&family) {
            Some(From::End) => return None,
            Some(From::Address(address)) => Some(*address),
            None => None,
        };
        while let Some(address) = shelf.spans.next(family, from, shelf.avoid_buggy) {
            if is_free(address) {
                shelf.from.insert(family, From::Address(address));
                return Some(address);
            }
            from = successor(address);
            if from.is_none() {
                break;
            }
        }
        shelf.from.insert(family, From::End);
        None
    }
}
