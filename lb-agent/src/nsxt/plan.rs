//! What to do about the routes of a gateway: (wanted, what is there) to steps, each with its reason.
//!
//! Invariants: no step writes a route without next hops, or one that is not ours unless that was allowed; nothing is written
//! that is there already; the next hops are of the VIP's family and in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;
use serde_json::Value;

use super::route::{Content, Dialect, Found, route_id};

/// What routes there have to be.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    /// Where the next hops come from, for the log: `namespace/name` of an EndpointSlice.
    pub source: String,
    /// VIPs, each of which gets a route. Without any, nothing is done at all.
    pub vips: BTreeSet<IpAddr>,
    /// Next hops: the ready nodes, of both families.
    pub hops: BTreeSet<IpAddr>,
}

/// What the configuration says about routes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// Name of this cluster.
    pub cluster: String,
    /// The most next hops of a route.
    pub max_next_hops: usize,
    /// Distance of the next hops.
    pub distance: u8,
    /// Take over routes that lack our tag.
    pub adopt: bool,
}

/// One thing to do, or to leave.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The route is as it should be.
    Keep {
        /// Its id.
        id: String,
    },
    /// A route is to be made.
    Create {
        /// The id to give it; the Manager API chooses its own.
        id: String,
        /// All of it.
        body: Value,
    },
    /// A route is to be changed.
    Replace {
        /// Its id.
        id: String,
        /// All of it, with the revision that was read.
        body: Value,
    },
    /// A route of ours is to be removed.
    Remove {
        /// Its id.
        id: String,
    },
    /// Nothing is done, because something is wrong.
    Refuse(Reason),
}

/// Why nothing is done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reason {
    /// There is no next hop: what is there stays.
    NoHops {
        /// The next hops that stay.
        kept: Vec<IpAddr>,
    },
    /// A route that is not ours is in the way.
    Foreign {
        /// Its id.
        id: String,
        /// Its network, as it is written there.
        network: String,
        /// The cluster that keeps it, if one does.
        cluster: Option<String>,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHops { kept } if kept.is_empty() => {
                f.write_str("no ready next hop of the VIP's family; the route is made when there is one")
            }
            Self::NoHops { kept } => {
                let kept: Vec<_> = kept.iter().map(IpAddr::to_string).collect();
                write!(f, "no ready next hop of the VIP's family; the last good ones stay: {}", kept.join(", "))
            }
            Self::Foreign { id, network, cluster: Some(cluster) } => write!(
                f,
                "route `{id}` to {network} belongs to cluster `{cluster}`; give one of the clusters another VIP or another \
                 `cluster` name"
            ),
            Self::Foreign { id, network, cluster: None } => {
                write!(f, "route `{id}` to {network} is not ours; remove it, or set `adopt: true` to take it over")
            }
        }
    }
}

/// What to do about one VIP.
#[derive(Clone, Debug, PartialEq)]
pub struct VipPlan {
    /// The next hops that the route has to have, in order; those that stay where there are none.
    pub hops: Vec<IpAddr>,
    /// How many more there would be without `maxNextHops`.
    pub left_out: usize,
    /// Steps in order. The last that is no removal is about the route itself.
    pub steps: Vec<Step>,
}

/// What to do about every VIP, and about routes of ours that lead to none of them any more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// By VIP.
    pub vips: BTreeMap<IpAddr, VipPlan>,
    /// Ids of routes to remove.
    pub stale: Vec<String>,
}

/// The plan. Nothing wanted is not "remove everything": that is what `lbctl cleanup` is for.
#[must_use]
pub fn plan(wanted: &Wanted, rules: &Rules, dialect: Dialect, there: &[Found]) -> Plan {
    if wanted.vips.is_empty() {
        return Plan::default();
    }
    let networks: BTreeSet<IpNet> = wanted.vips.iter().map(|vip| IpNet::from(*vip)).collect();
    let is_stale = |found: &&Found| {
        found.is_of(&rules.cluster) && found.network.is_none_or(|network| !networks.contains(&network))
    };
    // A route whose id a VIP needs is changed, not removed: ids cannot be used again for minutes.
    let ids: BTreeSet<String> = wanted.vips.iter().map(|vip| route_id(*vip)).collect();
    let stale = there.iter().filter(is_stale).map(|found| found.id.clone()).filter(|id| !ids.contains(id)).collect();
    let vips = wanted.vips.iter().map(|vip| (*vip, vip_plan(*vip, wanted, rules, dialect, there))).collect();
    Plan { vips, stale }
}

fn vip_plan(vip: IpAddr, wanted: &Wanted, rules: &Rules, dialect: Dialect, there: &[Found]) -> VipPlan {
    let network = Some(IpNet::from(vip));
    let id = route_id(vip);
    let mut near: Vec<&Found> = there
        .iter()
        .filter(|found| found.network == network || (dialect == Dialect::Policy && found.id == id))
        .collect();
    // Ours first, and among those the one of our id; then the one of this network.
    near.sort_by_key(|found| (!found.is_of(&rules.cluster), found.id != id, found.network != network));
    let (hops, left_out) = chosen(vip, wanted, rules, near.first().copied());
    if let Some(foreign) = near.iter().find(|found| !may_change(found, rules)) {
        return VipPlan { hops, left_out, steps: vec![Step::Refuse(foreign_reason(foreign))] };
    }
    let mut near = near.into_iter();
    let first = near.next();
    if hops.is_empty() {
        let kept: Vec<_> = first.into_iter().flat_map(Found::addresses).collect();
        return VipPlan { hops: kept.clone(), left_out, steps: vec![Step::Refuse(Reason::NoHops { kept })] };
    }
    let content = Content { vip, hops: hops.clone(), distance: rules.distance, cluster: rules.cluster.clone() };
    let step = match first {
        None => Step::Create { id, body: content.new_body(dialect) },
        Some(found) if content.is_in(found) => Step::Keep { id: found.id.clone() },
        Some(found) => Step::Replace { id: found.id.clone(), body: content.changed_body(dialect, found) },
    };
    // A second one of ours: the reply to its making was lost, and the Manager API made another.
    let doubles = near.filter(|found| found.is_of(&rules.cluster)).map(|found| Step::Remove { id: found.id.clone() });
    VipPlan { hops, left_out, steps: [step].into_iter().chain(doubles).collect() }
}

/// The next hops of the VIP's family, without the VIP, in order; those that are on the route before others where there are
/// too many, so that a node that comes moves no flow.
fn chosen(vip: IpAddr, wanted: &Wanted, rules: &Rules, there: Option<&Found>) -> (Vec<IpAddr>, usize) {
    let on_route: BTreeSet<IpAddr> = there.into_iter().flat_map(Found::addresses).collect();
    let mut hops: Vec<IpAddr> =
        wanted.hops.iter().copied().filter(|hop| hop.is_ipv4() == vip.is_ipv4() && *hop != vip).collect();
    let left_out = hops.len().saturating_sub(rules.max_next_hops);
    hops.sort_by_key(|hop| (!on_route.contains(hop), *hop));
    hops.truncate(rules.max_next_hops);
    hops.sort_unstable();
    (hops, left_out)
}

/// Ours, or one without an owner that may be taken over. One of another cluster never.
fn may_change(found: &Found, rules: &Rules) -> bool {
    match &found.cluster {
        Some(cluster) => *cluster == rules.cluster,
        None => rules.adopt,
    }
}

fn foreign_reason(found: &Found) -> Reason {
    let network = found.body.get("network").and_then(Value::as_str).unwrap_or("nowhere").to_owned();
    Reason::Foreign { id: found.id.clone(), network, cluster: found.cluster.clone() }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
