//! Which pools are in force.
//!
//! An address is in one pool at most: of two that overlap, the one that was in force before stays, else the elder. An
//! edit that makes no sense or overlaps leaves what was in force before it.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::LazyLock};

use super::spans::{Spans, is_buggy};
use crate::model::{
    Shared,
    inventory::{ClusterService, IpFamily, ObjectName},
    pool::{AddressRange, ClusterPool, Pool, RangeError},
};

/// Why a pool makes no sense by itself.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PoolError {
    /// A text that is no range of addresses.
    #[error("`spec.addresses[{index}]`: {reason}")]
    Range {
        /// Where in the list, from 0.
        index: usize,
        /// What is wrong with it.
        reason: RangeError,
    },
    /// An unknown word.
    #[error("`spec.{key}` is `{value}`; write one of {known}")]
    Word {
        /// The key below `spec`.
        key: &'static str,
        /// What is there.
        value: String,
        /// What could be there.
        known: &'static str,
    },
    /// No range at all.
    #[error("`spec.addresses` is empty; name at least one address, prefix or range")]
    Empty,
    /// Addresses that no packet from another host can be for.
    #[error("`spec.addresses` has {range}, which holds {what}; leave those out")]
    Unusable {
        /// The range.
        range: AddressRange,
        /// What it holds.
        what: &'static str,
    },
    /// Nothing is left of the ranges.
    #[error("`spec.avoidBuggyIPs` leaves none of the addresses; add others or set it to false")]
    NothingLeft,
}

/// Refuses what makes no sense, whoever else has a pool.
///
/// # Errors
/// The first value that makes no sense.
pub fn check(pool: &Pool) -> Result<(), PoolError> {
    if pool.addresses.is_empty() {
        return Err(PoolError::Empty);
    }
    for range in &pool.addresses {
        if let Some((_, what)) = UNUSABLE.iter().find(|(unusable, _)| unusable.overlaps(range)) {
            return Err(PoolError::Unusable { range: *range, what });
        }
    }
    let spans = Spans::of(pool.addresses.iter().copied());
    let left = [IpFamily::Ipv4, IpFamily::Ipv6].iter().any(|family| spans.count(*family, pool.avoid_buggy_ips) > 0);
    if left { Ok(()) } else { Err(PoolError::NothingLeft) }
}

/// What can be no address of a Service.
static UNUSABLE: LazyLock<Vec<(AddressRange, &'static str)>> = LazyLock::new(|| {
    [
        ("0.0.0.0/8", "addresses of 0.0.0.0/8, which is no destination (RFC 1122)"),
        ("127.0.0.0/8", "loopback addresses"),
        ("169.254.0.0/16", "link-local addresses (RFC 3927)"),
        ("224.0.0.0/4", "multicast addresses"),
        ("255.255.255.255", "the broadcast address"),
        ("::", "the unspecified address"),
        ("::1", "the loopback address"),
        ("::ffff:0:0/96", "IPv4 addresses in IPv6 dress; write them as IPv4"),
        ("fe80::/10", "link-local addresses (RFC 4291)"),
        ("ff00::/8", "multicast addresses"),
    ]
    .into_iter()
    .filter_map(|(range, what)| Some((range.parse().ok()?, what)))
    .collect()
});

/// A pool as the API server has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolObject {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`, seconds since 1970.
    pub created: i64,
    /// `metadata.deletionTimestamp` is set: somebody's finalizer keeps it.
    pub deleting: bool,
    /// What its spec describes.
    pub spec: Result<Pool, PoolError>,
    /// What its status says was in force when the status was written.
    pub last_good: Option<Pool>,
}

/// The pools in force, and why others are not.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pools {
    /// Pools in force by name; no address is in two of them.
    pub in_force: BTreeMap<String, PoolInForce>,
    /// What is to be said of every pool that there is.
    pub judgements: BTreeMap<String, PoolJudgement>,
}

/// A pool in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolInForce {
    /// What it allows.
    pub pool: Shared<Pool>,
    /// Its addresses.
    pub spans: Spans,
    /// It is being deleted: whoever has an address keeps it, nobody gets a new one.
    pub deleting: bool,
}

impl PoolInForce {
    fn new(pool: Pool, deleting: bool) -> Self {
        Self { spans: Spans::of(pool.addresses.iter().copied()), pool: pool.into(), deleting }
    }

    /// Whether it has the address to give.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.spans.contains(address) && !(self.pool.avoid_buggy_ips && is_buggy(address))
    }

    /// Whether it has addresses of the family.
    #[must_use]
    pub fn has(&self, family: IpFamily) -> bool {
        self.spans.count(family, self.pool.avoid_buggy_ips) > 0
    }

    /// Whether a Service may have addresses of it.
    #[must_use]
    pub fn admits(&self, name: &ObjectName, service: &ClusterService) -> bool {
        let pool = &self.pool;
        (pool.namespaces.is_empty() || pool.namespaces.contains(&name.namespace))
            && pool.service_selector.iter().all(|(key, value)| service.labels.get(key) == Some(value))
    }

    /// What it demands that a Service lacks, in words that follow "which"; `None` if the Service may have its addresses.
    #[must_use]
    pub fn objection(&self, name: &ObjectName, service: &ClusterService) -> Option<String> {
        if self.admits(name, service) {
            return None;
        }
        let lacks = |(key, value): &(&String, &String)| service.labels.get(*key) != Some(*value);
        Some(match self.pool.service_selector.iter().find(lacks) {
            Some((key, value)) => format!("is for Services with the label {key}={value} only"),
            None => format!("is for the namespaces {} only", self.pool.namespaces.join(", ")),
        })
    }
}

/// What is to be said of a pool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PoolJudgement {
    /// Its spec is in force.
    InForce,
    /// Its spec is in force, but it is being deleted.
    Deleting,
    /// Its spec makes no sense.
    Invalid {
        /// Why.
        error: PoolError,
        /// An earlier spec stays in force.
        earlier: bool,
    },
    /// Its spec has an address of another pool in force.
    Overlaps {
        /// The other pool.
        with: String,
        /// An address of both.
        address: IpAddr,
        /// An earlier spec stays in force.
        earlier: bool,
    },
}

impl PoolJudgement {
    /// Whether the spec, as it is, is not in force.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        matches!(self, Self::Invalid { .. } | Self::Overlaps { .. })
    }
}

impl fmt::Display for PoolJudgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let earlier = match self {
            Self::InForce => return f.write_str("the spec is in force"),
            Self::Deleting => return f.write_str("being deleted: addresses in use stay, no new ones are given"),
            Self::Invalid { error, earlier } => {
                write!(f, "{error}")?;
                earlier
            }
            Self::Overlaps { with, address, earlier } => {
                write!(f, "has {address}, which is in pool `{with}`; an address can be in one pool only")?;
                earlier
            }
        };
        f.write_str(if *earlier { "; the spec before stays in force" } else { "; the pool is not in force" })
    }
}

/// Remembers which specs were in force.
#[derive(Clone, Debug, Default)]
pub struct PoolSet {
    good: BTreeMap<String, Good>,
}

#[derive(Clone, Debug)]
struct Good {
    uid: String,
    pool: PoolInForce,
}

impl PoolSet {
    /// Judges all pools as the controller does, whose word on a spec counts as soon as its status says it. Until then
    /// what was in force stays.
    pub fn follow(&mut self, pools: &BTreeMap<String, ClusterPool>) -> BTreeMap<String, PoolInForce> {
        let object = |(name, pool): (&String, &ClusterPool)| {
            let spec = pool.spec.clone().ok_or(PoolError::Empty).and_then(|spec| check(&spec).map(|()| spec));
            let (uid, created, deleting) = (pool.uid.clone(), pool.created, pool.deleting);
            (name.clone(), PoolObject { uid, created, deleting, spec, last_good: pool.last_good.clone() })
        };
        let objects: BTreeMap<_, _> = pools.iter().map(object).collect();
        let is_judged = |name: &String| pools.get(name).is_some_and(|pool| pool.is_judged);
        let told = objects.iter().filter(|(name, _)| is_judged(name));
        let mut told: Vec<_> =
            told.map(|(name, object)| (name, object, object.last_good.as_ref().filter(|p| check(p).is_ok()))).collect();
        told.sort_by_key(|(name, object, _)| (object.created, *name));
        for (name, object, pool) in &told {
            let same = |good: &Good| good.uid == object.uid && Some(&*good.pool.pool) == *pool;
            if !self.good.get(*name).is_some_and(same) {
                self.good.remove(*name);
            }
        }
        for (name, object, pool) in told {
            let Some(pool) = pool.filter(|_| !self.good.contains_key(name)) else { continue };
            let spans = Spans::of(pool.addresses.iter().copied());
            self.good.retain(|other, good| is_judged(other) || spans.common(&good.pool.spans).is_none());
            self.adopt(name, object, pool);
        }
        self.update(&objects).in_force
    }

    /// Judges all pools that there are by now.
    pub fn update(&mut self, objects: &BTreeMap<String, PoolObject>) -> Pools {
        self.good.retain(|name, good| objects.get(name).is_some_and(|object| object.uid == good.uid));
        let mut order: Vec<_> = objects.iter().collect();
        order.sort_by_key(|(name, object)| (object.created, *name));
        for (name, object) in &order {
            if !self.good.contains_key(*name)
                && let Some(pool) = &object.last_good
                && check(pool).is_ok()
            {
                self.adopt(name, object, pool);
            }
        }
        // A pool that gives up addresses can make room for another: until nothing changes any more.
        while order.iter().any(|(name, object)| match &object.spec {
            Ok(spec) if !self.is_in_force(name, spec) => self.adopt(name, object, spec).is_none(),
            _ => false,
        }) {}
        let judgements = order.iter().map(|(name, object)| ((*name).clone(), self.judge(name, object))).collect();
        let in_force = self.good.iter().map(|(name, good)| {
            let deleting = objects.get(name).is_some_and(|object| object.deleting);
            (name.clone(), PoolInForce { deleting, ..good.pool.clone() })
        });
        Pools { in_force: in_force.collect(), judgements }
    }

    /// Puts a pool in force, or returns the one that is in its way and an address of both.
    fn adopt(&mut self, name: &str, object: &PoolObject, pool: &Pool) -> Option<(String, IpAddr)> {
        let pool = PoolInForce::new(pool.clone(), object.deleting);
        if let Some(conflict) = self.conflict(name, &pool.spans) {
            return Some(conflict);
        }
        self.good.insert(name.to_owned(), Good { uid: object.uid.clone(), pool });
        None
    }

    fn conflict(&self, name: &str, spans: &Spans) -> Option<(String, IpAddr)> {
        let others = self.good.iter().filter(|(other, _)| *other != name);
        others.filter_map(|(other, good)| Some((other.clone(), spans.common(&good.pool.spans)?))).next()
    }

    fn is_in_force(&self, name: &str, spec: &Pool) -> bool {
        self.good.get(name).is_some_and(|good| *good.pool.pool == *spec)
    }

    fn judge(&self, name: &str, object: &PoolObject) -> PoolJudgement {
        let earlier = self.good.contains_key(name);
        match &object.spec {
            Err(error) => PoolJudgement::Invalid { error: error.clone(), earlier },
            Ok(spec) if self.is_in_force(name, spec) && object.deleting => PoolJudgement::Deleting,
            Ok(spec) if self.is_in_force(name, spec) => PoolJudgement::InForce,
            Ok(spec) => match self.conflict(name, &Spans::of(spec.addresses.iter().copied())) {
                Some((with, address)) => PoolJudgement::Overlaps { with, address, earlier },
                None => PoolJudgement::InForce,
            },
        }
    }
}

#[cfg(test)]
#[path = "pools_tests.rs"]
mod tests;
