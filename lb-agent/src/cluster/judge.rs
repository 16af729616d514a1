//! What Services ask for, judged without their endpoints and without what one node knows: what every node comes to, so
//! that the controller can say it once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    admit::Admission,
    claim::ClassRule,
    endpoints::Nodes,
    service::{Rules, wish},
};
use crate::model::{ClusterService, Inventory, Judgement, ObjectName, Severity};

/// What the owners of these Services should do something about. `nodes` is asked for its nodes only.
///
/// Notes are left out: most are of endpoints, which are not looked at, and the others say what has to be so.
#[must_use]
pub fn judge(
    class: ClassRule,
    admission: Admission<'_>,
    nodes: &Inventory,
    services: impl IntoIterator<Item = (ObjectName, Arc<ClusterService>)>,
) -> BTreeMap<ObjectName, Vec<Judgement>> {
    let taken = BTreeSet::new();
    let rules =
        Rules { class, admission, taken: &taken, nodes: Nodes::of(nodes), local_first: false, second_chance: false };
    let judged = |(name, service): (ObjectName, Arc<ClusterService>)| {
        let of_wish = wish(&rules, &name, &service, &[]).unwrap_or_default().judgements;
        let told = of_wish.iter().filter(|judgement| judgement.severity != Severity::Note);
        let mut judgements: Vec<Judgement> = told.map(|judgement| (**judgement).clone()).collect();
        judgements.sort();
        judgements.dedup();
        (!judgements.is_empty()).then_some((name, judgements))
    };
    services.into_iter().filter_map(judged).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{
            forbidden::Forbidden,
            pools::{PoolObject, PoolSet},
        },
        model::{
            AnnouncePolicy, IpFamily, Pool, Reason,
            inventory::{Ingress, ServicePort},
        },
    };

    fn service(change: impl FnOnce(&mut ClusterService)) -> Arc<ClusterService> {
        let port = ServicePort { port: 80, protocol: "TCP".to_owned(), ..ServicePort::default() };
        let mut service = ClusterService {
            is_load_balancer: true,
            load_balancer_class: Some("levee.dev/levee".to_owned()),
            families: vec![IpFamily::Ipv4],
            ports: vec![port],
            ..ClusterService::default()
        };
        service.ingress.push(Ingress { ip: Some("192.0.2.5".to_owned()), ..Ingress::default() });
        change(&mut service);
        Arc::new(service)
    }

    fn reasons(namespaces: &[&str], service: Arc<ClusterService>) -> Vec<Reason> {
        let pool = Pool {
            addresses: vec!["192.0.2.0/24".parse().unwrap()],
            namespaces: namespaces.iter().map(|namespace| (*namespace).to_owned()).collect(),
            service_selector: BTreeMap::new(),
            priority: 0,
            auto_assign: true,
            avoid_buggy_ips: false,
            allow_external_ips: false,
            announce: AnnouncePolicy::default(),
        };
        let object = PoolObject { uid: "1".to_owned(), created: 0, deleting: false, spec: Ok(pool), last_good: None };
        let pools = PoolSet::default().update(&[("edge".to_owned(), object)].into()).in_force;
        let forbidden = Forbidden::default();
        let admission = Admission { pools: &pools, forbidden: &forbidden };
        let name = ObjectName::new("shop", "web");
        let judged = judge(ClassRule::default(), admission, &Inventory::default(), [(name.clone(), service)]);
        judged.get(&name).into_iter().flatten().map(|judgement| judgement.reason).collect()
    }

    #[test]
    fn what_no_node_can_serve_is_judged_and_what_only_lacks_endpoints_is_not() {
        assert_eq!(reasons(&[], service(|_| {})), []);
        let port = service(|service| service.ports[0].protocol = "QUIC".to_owned());
        assert_eq!(reasons(&[], port), [Reason::PortUnsupported]);
        let ranges = service(|service| service.source_ranges = vec!["10.0.0.0/99".to_owned()]);
        assert_eq!(reasons(&[], ranges), [Reason::SourceRangesInvalid]);
        let external = service(|service| service.external_ips = vec!["192.0.2.9".to_owned()]);
        assert_eq!(reasons(&[], external), [Reason::AddressRefused]);
        let elsewhere = service(|service| service.load_balancer_class = Some("example.org/other".to_owned()));
        assert_eq!(reasons(&["bank"], elsewhere), []);
        assert_eq!(reasons(&["bank"], service(|_| {})), [Reason::AddressRefused]);
    }
}
