//! What a write changed, told as Events.

use std::net::IpAddr;

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};

use super::{
    desired::{ADDRESS_ALLOCATED, Desired, Wanted},
    events::Events,
    judge::{self, ACCEPTED},
    objects::{PoolItem, ServiceItem},
    pool_status,
};
use crate::{
    cluster::pools::PoolJudgement,
    kubernetes::crds::{READY, VipPoolStatus},
    model::inventory::ObjectName,
};

/// A status of a Service to be written.
pub(super) struct ServiceWrite {
    pub(super) name: ObjectName,
    pub(super) item: ServiceItem,
    pub(super) desired: Desired,
    /// What was written last.
    pub(super) before: Option<Desired>,
}

/// A status of a pool to be written.
pub(super) struct PoolWrite {
    pub(super) name: String,
    pub(super) item: PoolItem,
    pub(super) judgement: PoolJudgement,
    pub(super) status: VipPoolStatus,
}

/// Tells what a write changed.
pub(super) fn of_service(events: &Events, write: &ServiceWrite) {
    let ServiceWrite { name, item, desired, before } = write;
    let about = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some(name.namespace.clone()),
        name: Some(name.name.clone()),
        uid: Some(item.service.uid.clone()),
        ..ObjectReference::default()
    };
    if let Some(now) = &desired.ingress {
        let shown: Vec<IpAddr> =
            item.service.ingress.iter().filter_map(|entry| entry.ip.as_deref()?.parse().ok()).collect();
        for address in now.iter().filter(|address| !shown.contains(address)) {
            events.normal(&about, "IPAllocated", format!("the address is {address}"));
        }
        for address in shown.iter().filter(|address| !now.contains(address)) {
            events.normal(&about, "IPReleased", format!("{address} is not the Service's any more"));
        }
    }
    let is_news = |wanted: &Wanted| {
        let shown = item.conditions.iter().any(|shown| wanted.equals(shown));
        let told = before.as_ref().and_then(|before| before.condition(wanted.type_)) == Some(wanted);
        !shown && !told
    };
    let allocated = desired.condition(ADDRESS_ALLOCATED);
    if let Some(wanted) = allocated.filter(|wanted| !wanted.holds && is_news(wanted)) {
        let reason = if wanted.reason == "PoolGone" { "PoolGone" } else { "AllocationFailed" };
        events.warning(&about, reason, wanted.message.clone());
    }
    let has_addresses = allocated.is_some_and(|wanted| wanted.holds);
    let accepted = desired.condition(ACCEPTED).filter(|wanted| judge::is_news(wanted, has_addresses));
    if let Some(wanted) = accepted.filter(|wanted| is_news(wanted)) {
        events.warning(&about, wanted.reason, wanted.message.clone());
    }
}

/// Tells what a write changed.
pub(super) fn of_pool(events: &Events, write: &PoolWrite) {
    let PoolWrite { item, judgement, status, .. } = write;
    let find = |status: &VipPoolStatus| status.conditions.iter().find(|shown| shown.type_ == READY).cloned();
    let shown = item.pool.status.as_ref().and_then(find);
    let Some(ready) = find(status) else { return };
    let says = |shown: &Condition| (shown.reason.clone(), shown.message.clone());
    if shown.as_ref().map(says) == Some(says(&ready)) {
        return;
    }
    let about = ObjectReference {
        api_version: Some("levee.dev/v1alpha1".to_owned()),
        kind: Some("VipPool".to_owned()),
        name: item.pool.metadata.name.clone(),
        uid: item.pool.metadata.uid.clone(),
        ..ObjectReference::default()
    };
    let reason = pool_status::reason(judgement);
    match judgement {
        // A new pool that is as it should be is no news.
        PoolJudgement::InForce if shown.is_none() => {}
        PoolJudgement::InForce => events.normal(&about, reason, ready.message),
        PoolJudgement::Deleting if status.used.total == 0 => {}
        PoolJudgement::Deleting => {
            events.warning(&about, reason, format!("{}; in use: {}", ready.message, status.used.total));
        }
        PoolJudgement::Invalid { .. } | PoolJudgement::Overlaps { .. } => {
            events.warning(&about, reason, ready.message);
        }
    }
}
