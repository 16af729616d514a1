//! What the status of a pool should be.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    desired::{shortened, word},
    objects::PoolItem,
};
use crate::{
    cluster::{
        allocate::Verdict,
        pools::{PoolInForce, PoolJudgement, Pools},
        spans::Spans,
    },
    kubernetes::crds::{AddressCounts, AnnounceSpec, DELETING, READY, VipPoolSpec, VipPoolStatus},
    model::{
        desired::AnnouncerKind,
        inventory::{IpFamily, ObjectName},
        pool::{AnnounceNodes, AnnouncePolicy, Pool},
    },
};

/// How many addresses of each pool are used and free.
pub(super) fn counts(
    pools: &Pools,
    verdicts: &BTreeMap<ObjectName, Verdict>,
    forbidden: &Spans,
) -> BTreeMap<String, Counts> {
    let mut used: BTreeMap<&str, std::collections::BTreeSet<IpAddr>> = BTreeMap::new();
    for verdict in verdicts.values() {
        let Verdict::Decided(decision) = verdict else { continue };
        for given in &decision.addresses {
            if let Some(pool) = &given.pool {
                used.entry(pool).or_default().insert(given.address);
            }
        }
    }
    let count = |(name, pool): (&String, &PoolInForce)| {
        let used = used.remove(name.as_str()).unwrap_or_default();
        let may_be_given = pool.spans.minus(forbidden);
        let of = |family| {
            let mine = used.iter().filter(|address| IpFamily::of(**address) == family);
            let (mut all, mut not_free) = (0u128, 0u128);
            for address in mine {
                all += 1;
                not_free += u128::from(may_be_given.contains(*address));
            }
            let free = may_be_given.count(family, pool.pool.avoid_buggy_ips).saturating_sub(not_free);
            (clamped(all), clamped(free))
        };
        let (v4, v6) = (of(IpFamily::Ipv4), of(IpFamily::Ipv6));
        (name.clone(), Counts { used: AddressCounts::new(v4.0, v6.0), free: AddressCounts::new(v4.1, v6.1) })
    };
    pools.in_force.iter().map(count).collect()
}

/// Addresses of a pool.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Counts {
    pub(super) used: AddressCounts,
    pub(super) free: AddressCounts,
}

/// A status that was written, and what the server made of it.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) status: VipPoolStatus,
    pub(super) answer: Option<VipPoolStatus>,
}

impl Told {
    /// Whether the same was written before and the server made of it what is shown: writing it again changes nothing.
    /// A server with an earlier definition of pools drops what that does not have.
    pub(super) fn is_settled(&self, item: &PoolItem, status: &VipPoolStatus) -> bool {
        let mut now = status.clone();
        for (condition, before) in now.conditions.iter_mut().zip(&self.status.conditions) {
            condition.last_transition_time = before.last_transition_time.clone();
        }
        now == self.status && item.pool.status == self.answer
    }
}

/// What the status of a pool should be.
pub(super) fn status(
    item: &PoolItem,
    judgement: &PoolJudgement,
    in_force: Option<&PoolInForce>,
    counts: Counts,
    now: &Time,
) -> VipPoolStatus {
    let shown = item.pool.status.as_ref();
    let ready = Condition {
        type_: READY.to_owned(),
        status: word(matches!(judgement, PoolJudgement::InForce)).to_owned(),
        reason: reason(judgement).to_owned(),
        message: shortened(judgement.to_string()),
        last_transition_time: now.clone(),
        observed_generation: item.pool.metadata.generation,
    };
    let before = shown.and_then(|shown| {
        shown.conditions.iter().find(|condition| condition.type_ == READY && condition.status == ready.status)
    });
    let last_transition_time = before.map_or_else(|| now.clone(), |before| before.last_transition_time.clone());
    VipPoolStatus {
        observed_generation: item.pool.metadata.generation,
        used: counts.used,
        free: counts.free,
        in_force: in_force.filter(|_| judgement.is_refused()).map(|pool| spec(&pool.pool)),
        conditions: vec![Condition { last_transition_time, ..ready }],
    }
}

/// A word for the condition and Events.
pub(super) const fn reason(judgement: &PoolJudgement) -> &'static str {
    match judgement {
        PoolJudgement::InForce => "PoolInForce",
        PoolJudgement::Deleting => DELETING,
        PoolJudgement::Invalid { .. } => "PoolInvalid",
        PoolJudgement::Overlaps { .. } => "PoolConflict",
    }
}

/// The spec that describes a pool.
fn spec(pool: &Pool) -> VipPoolSpec {
    let AnnouncePolicy { announcers, node_selector, nodes } = &pool.announce;
    VipPoolSpec {
        addresses: pool.addresses.iter().map(ToString::to_string).collect(),
        namespaces: pool.namespaces.clone(),
        service_selector: pool.service_selector.clone(),
        priority: pool.priority,
        auto_assign: pool.auto_assign,
        avoid_buggy_ips: pool.avoid_buggy_ips,
        allow_external_ips: pool.allow_external_ips,
        announce: AnnounceSpec {
            announcers: announcers
                .iter()
                .map(|announcer| match announcer {
                    AnnouncerKind::Loopback => "loopback".to_owned(),
                })
                .collect(),
            node_selector: node_selector.clone(),
            nodes: Some(
                match nodes {
                    AnnounceNodes::All => "all",
                    AnnounceNodes::LocalBackends => "localBackends",
                }
                .to_owned(),
            ),
        },
    }
}

fn clamped(count: u128) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{
            allocate::{Decision, Given},
            pools::{PoolObject, PoolSet},
        },
        kubernetes::crds::VipPool,
    };

    fn made(addresses: &[&str], avoid_buggy_ips: bool) -> Pools {
        let addresses = addresses.iter().map(|text| (*text).to_owned()).collect();
        let spec = VipPoolSpec { addresses, avoid_buggy_ips, ..spec_of(&["192.0.2.1"]) };
        let object = PoolObject { uid: String::new(), created: 0, deleting: false, spec: spec.pool(), last_good: None };
        PoolSet::default().update(&[("edge".to_owned(), object)].into())
    }

    fn spec_of(addresses: &[&str]) -> VipPoolSpec {
        serde_json::from_value(serde_json::json!({"addresses": addresses})).unwrap()
    }

    #[test]
    fn addresses_are_counted_by_family_and_shared_ones_once() {
        let pools = made(&["192.0.2.0/24", "2001:db8::/32"], true);
        let given = |address: &str| Given { address: address.parse().unwrap(), pool: Some("edge".to_owned()) };
        let decision = |addresses: Vec<Given>| Decision { addresses, ..Decision::default() };
        let verdicts = [
            ("a", decision(vec![given("192.0.2.1"), given("2001:db8::")])),
            ("b", decision(vec![given("192.0.2.1")])),
            ("c", decision(vec![given("192.0.2.9"), Given { pool: None, ..given("203.0.113.1") }])),
        ];
        let verdicts = verdicts.map(|(name, decision)| (ObjectName::new("ns", name), Verdict::Decided(decision)));
        let reserved = Spans::of_networks(["192.0.2.8/29".parse().unwrap()]);
        let counts = counts(&pools, &verdicts.into(), &reserved)["edge"];
        assert_eq!(counts.used, AddressCounts::new(2, 1));
        // 256, less .0 and .255, eight reserved ones, of which one is used all the same, and one that is used.
        assert_eq!(counts.free, AddressCounts { ipv4: 245, ipv6: i64::MAX, total: i64::MAX });
    }

    #[test]
    fn what_the_server_drops_is_not_written_again() {
        let (_, item) = super::super::objects::pool(VipPool::new("edge", spec_of(&["192.0.2.1"]))).unwrap();
        let at = |text: &str| Time(text.parse().unwrap());
        let said = |counts, time: &str| status(&item, &PoolJudgement::InForce, None, counts, &at(time));
        let told = Told { status: said(Counts::default(), "2026-01-01T00:00:00Z"), answer: None };
        assert!(told.is_settled(&item, &said(Counts::default(), "2026-01-01T00:00:09Z")));
        let other = Counts { used: AddressCounts::new(1, 0), ..Counts::default() };
        assert!(!told.is_settled(&item, &said(other, "2026-01-01T00:00:00Z")));
        let answered = Told { answer: Some(VipPoolStatus::default()), ..told };
        assert!(!answered.is_settled(&item, &said(Counts::default(), "2026-01-01T00:00:00Z")), "it was changed since");
    }

    #[test]
    fn what_is_in_force_stands_in_the_status_only_while_the_spec_is_refused() {
        let pools = made(&["192.0.2.0/24"], false);
        let pool = VipPool::new("edge", spec_of(&["web"]));
        let (_, item) = super::super::objects::pool(pool).unwrap();
        let now = Time("2026-01-01T00:00:00Z".parse().unwrap());
        let in_force = &pools.in_force["edge"];
        let error = item.object.spec.clone().unwrap_err();
        let refused = PoolJudgement::Invalid { error, earlier: true };
        let status_of = |judgement| status(&item, judgement, Some(in_force), Counts::default(), &now);
        let said = status_of(&refused);
        assert_eq!(said.in_force.unwrap().pool().unwrap(), *in_force.pool);
        assert_eq!((said.conditions[0].status.as_str(), said.conditions[0].reason.as_str()), ("False", "PoolInvalid"));
        let said = status_of(&PoolJudgement::InForce);
        assert_eq!((said.in_force, said.conditions[0].status.as_str()), (None, "True"));
    }
}
