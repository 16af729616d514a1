//! Whether the nodes serve what a Service asks for: all of them come to the same, and the controller says it for them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    desired::{IP_MODE, Wanted, shortened},
    objects::ServiceItem,
};
use crate::{
    cluster::{
        admit::Admission, allocate::Verdict, claim::ClassRule, forbidden::Forbidden, judge::judge, pools::Pools,
    },
    model::{
        ClusterNode, ClusterService, Inventory, Judgement, Reason, Severity,
        inventory::{Ingress, ObjectName},
    },
};

/// Condition of a Service: whether the nodes take it as it is; false while they refuse something that it asks for.
pub(super) const ACCEPTED: &str = "levee.dev/Accepted";

/// What there is to say of the Services that ask us, with the addresses that they are about to have.
pub(super) fn judgements(
    class: &ClassRule,
    forbidden: &Forbidden<'_>,
    nodes: &BTreeMap<String, Arc<ClusterNode>>,
    pools: &Pools,
    services: &BTreeMap<ObjectName, ServiceItem>,
    verdicts: &BTreeMap<ObjectName, Verdict>,
) -> BTreeMap<ObjectName, Vec<Judgement>> {
    let nodes = nodes.iter().map(|(name, node)| (name.clone(), (**node).clone())).collect();
    let nodes = Inventory { nodes, ..Inventory::default() };
    let asking = verdicts.iter().filter_map(|(name, verdict)| {
        let item = services.get(name)?;
        let service = match verdict {
            Verdict::NotOurs | Verdict::Release => return None,
            Verdict::Foreign(_) => Arc::clone(&item.service),
            Verdict::Decided(decision) => {
                with_addresses(&item.service, decision.addresses.iter().map(|given| given.address))
            }
        };
        Some((name.clone(), service))
    });
    judge(class.clone(), Admission { pools: &pools.in_force, forbidden }, &nodes, asking)
}

/// The Service with these addresses in its status.
fn with_addresses(service: &Arc<ClusterService>, addresses: impl Iterator<Item = IpAddr>) -> Arc<ClusterService> {
    let entry = |address: IpAddr| Ingress {
        ip: Some(address.to_string()),
        ip_mode: Some(IP_MODE.to_owned()),
        ..Ingress::default()
    };
    let ingress: Vec<Ingress> = addresses.map(entry).collect();
    if service.ingress == ingress {
        return Arc::clone(service);
    }
    Arc::new(ClusterService { ingress, ..(**service).clone() })
}

/// The condition that says it.
pub(super) fn accepted(judgements: &[Judgement]) -> Wanted {
    let refused = |judgement: &&Judgement| judgement.severity == Severity::Refused;
    let first = judgements.iter().find(refused).or_else(|| judgements.first());
    let messages: Vec<&str> = judgements.iter().map(|judgement| judgement.message.as_str()).collect();
    let message = if messages.is_empty() {
        "the nodes refuse nothing that it asks for".to_owned()
    } else {
        shortened(messages.join("; "))
    };
    Wanted {
        type_: ACCEPTED,
        holds: !judgements.iter().any(|judgement| judgement.severity == Severity::Refused),
        reason: first.map_or("Accepted", |judgement| judgement.reason.as_str()),
        message,
    }
}

/// Whether the condition says what somebody should do something about, and no other condition says it already: a
/// Service without the addresses that it asks for is not served at these.
pub(super) fn is_news(accepted: &Wanted, has_addresses: bool) -> bool {
    accepted.reason != "Accepted" && (has_addresses || accepted.reason != Reason::AddressRefused.as_str())
}
