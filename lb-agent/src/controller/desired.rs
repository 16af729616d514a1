//! What the status of a Service should be, and how it differs from what it is.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    judge::{ACCEPTED, accepted},
    objects::ServiceItem,
};
use crate::{
    cluster::{allocate::Verdict, problem::Problem},
    model::{
        Judgement,
        inventory::{ClusterService, TrafficPolicy},
    },
};

/// Condition of a Service: whether it has the addresses that it asks for.
pub(super) const ADDRESS_ALLOCATED: &str = "levee.dev/AddressAllocated";
/// Condition of a Service: whether its pods see another source address than the client's.
pub(super) const CLIENT_ADDRESS_HIDDEN: &str = "levee.dev/ClientAddressHidden";
/// `status.loadBalancer.ingress[].ipMode`: packets arrive with the VIP as their destination.
pub(super) const IP_MODE: &str = "VIP";
/// Longest message of a condition: the API's limit (32768) is for machines.
const LONGEST: usize = 1000;

/// What the status of a Service should be.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Desired {
    /// Addresses; `None` leaves alone what is there.
    pub(super) ingress: Option<Vec<IpAddr>>,
    /// Our conditions; none: they go.
    pub(super) conditions: Vec<Wanted>,
}

/// What a condition should say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Wanted {
    pub(super) type_: &'static str,
    pub(super) holds: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Desired {
    /// What follows from a verdict and judgements; `None` if the Service is none of our business.
    pub(super) fn of(verdict: &Verdict, service: &ClusterService, judgements: &[Judgement]) -> Option<Self> {
        match verdict {
            Verdict::NotOurs => None,
            Verdict::Release => Some(Self { ingress: Some(Vec::new()), conditions: Vec::new() }),
            Verdict::Foreign(problem) => Some(Self {
                ingress: None,
                conditions: vec![
                    allocated(false, problem.reason(), problem.to_string()),
                    hidden(service),
                    accepted(judgements),
                ],
            }),
            Verdict::Decided(decision) => {
                let pools = decision.addresses.iter().map(|given| {
                    let pool = given.pool.as_deref().map_or_else(String::new, |pool| format!(" of pool {pool}"));
                    format!("{}{pool}", given.address)
                });
                let problems = decision.problems.iter().map(ToString::to_string);
                let message = pools.chain(problems).collect::<Vec<_>>().join("; ");
                let first = decision.problems.first().map_or("Allocated", Problem::reason);
                let unserved =
                    |problem: &Problem| matches!(problem, Problem::PoolGone { .. } | Problem::NotServed { .. });
                let well = decision.complete && !decision.problems.iter().any(unserved);
                let reason = if well { "Allocated" } else { first };
                Some(Self {
                    ingress: Some(decision.addresses.iter().map(|given| given.address).collect()),
                    conditions: vec![allocated(well, reason, message), hidden(service), accepted(judgements)],
                })
            }
        }
    }

    /// Whether the status says all of this already.
    pub(super) fn is_shown_by(&self, item: &ServiceItem) -> bool {
        let ingress = self.ingress.as_ref().is_none_or(|wanted| {
            let shown = &item.service.ingress;
            shown.len() == wanted.len()
                && shown.iter().zip(wanted).all(|(entry, address)| {
                    let ip = entry.ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
                    ip == Some(*address) && entry.ip_mode.as_deref() == Some(IP_MODE)
                })
        });
        let all = self.conditions.iter().all(|wanted| item.conditions.iter().any(|shown| wanted.equals(shown)));
        let none_left = !self.conditions.is_empty() || item.conditions.iter().all(|shown| !is_ours(shown));
        ingress && all && none_left
    }

    /// The conditions to write. One whose status stays keeps the time at which it last changed.
    pub(super) fn conditions(&self, shown: &[Condition], now: &Time) -> Vec<Condition> {
        let condition = |wanted: &Wanted| {
            let status = word(wanted.holds).to_owned();
            let before = shown.iter().find(|shown| shown.type_ == wanted.type_ && shown.status == status);
            Condition {
                type_: wanted.type_.to_owned(),
                status,
                reason: wanted.reason.to_owned(),
                message: wanted.message.clone(),
                last_transition_time: before.map_or_else(|| now.clone(), |shown| shown.last_transition_time.clone()),
                observed_generation: None,
            }
        };
        self.conditions.iter().map(condition).collect()
    }

    /// The condition of this type.
    pub(super) fn condition(&self, type_: &str) -> Option<&Wanted> {
        self.conditions.iter().find(|wanted| wanted.type_ == type_)
    }
}

impl Wanted {
    /// Whether the condition says this.
    pub(super) fn equals(&self, shown: &Condition) -> bool {
        shown.type_ == self.type_
            && shown.status == word(self.holds)
            && shown.reason == self.reason
            && shown.message == self.message
    }
}

/// Whether a condition is one that we write.
pub(super) fn is_ours(condition: &Condition) -> bool {
    [ADDRESS_ALLOCATED, CLIENT_ADDRESS_HIDDEN, ACCEPTED].contains(&condition.type_.as_str())
}

/// The status of a condition.
pub(super) const fn word(holds: bool) -> &'static str {
    if holds { "True" } else { "False" }
}

fn allocated(holds: bool, reason: &'static str, message: String) -> Wanted {
    Wanted { type_: ADDRESS_ALLOCATED, holds, reason, message: shortened(message) }
}

fn hidden(service: &ClusterService) -> Wanted {
    let (holds, reason, message) = match service.external_policy {
        TrafficPolicy::Cluster => (
            true,
            "TrafficPolicyCluster",
            "kube-proxy replaces the client's address by the node's; with externalTrafficPolicy Local pods see the client",
        ),
        TrafficPolicy::Local => (false, "TrafficPolicyLocal", "pods see the client's address"),
    };
    Wanted { type_: CLIENT_ADDRESS_HIDDEN, holds, reason, message: message.to_owned() }
}

/// A text that fits a condition or an Event (whose limit is 1024 bytes).
pub(super) fn shortened(text: String) -> String {
    if text.len() <= LONGEST {
        return text;
    }
    let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", &text[..end])
}
