//! What Services ask for, judged without their endpoints and without what one node knows: what every node comes to, so
//! that the controller can say it once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::{
    admit::Admission,
    claim::ClassRule,
    endpoints::Nodes,
    service::{Rules, wish},
};
use crate::model::{ClusterAccess, ClusterService, Inventory, Judgement, KubernetesSettings, ObjectName, Severity};

/// Judges Services again and again, and only those anew that changed.
#[derive(Debug)]
pub struct Judge {
    settings: KubernetesSettings,
    /// Nodes and pools that Services were judged by.
    by: Inventory,
    known: HashMap<ObjectName, Known>,
}

#[derive(Debug)]
struct Known {
    service: Arc<ClusterService>,
    judgements: Vec<Judgement>,
}

impl Judge {
    /// A judge of the Services that the rule covers. `reserved` is nobody's.
    #[must_use]
    pub fn new(rule: &ClassRule, reserved: Vec<IpNet>) -> Self {
        let access = ClusterAccess { kubeconfig: None, servers: Vec::new(), state_file: PathBuf::new() };
        let settings = KubernetesSettings {
            access,
            max_snapshot_age: Duration::MAX,
            class: rule.class.clone(),
            default_class: rule.default_class,
            services: true,
            reserved,
            lifetime: Duration::ZERO,
            node_name: String::new(),
            peers_from_nodes: false,
        };
        Self { settings, by: Inventory::default(), known: HashMap::new() }
    }

    /// What their owners should do something about. `by` has nodes and pools.
    pub fn judge(
        &mut self,
        by: Inventory,
        services: impl IntoIterator<Item = (ObjectName, Arc<ClusterService>)>,
    ) -> BTreeMap<ObjectName, Vec<Judgement>> {
        let mut before = std::mem::take(&mut self.known);
        if by != self.by {
            before.clear();
            self.by = by;
        }
        let taken = BTreeSet::new();
        let rules = Rules {
            settings: &self.settings,
            admission: Admission::new(&self.by, &self.settings.reserved, &taken),
            nodes: Nodes::of(&self.by),
        };
        let mut judgements = BTreeMap::new();
        for (name, service) in services {
            let known = before.remove(&name).filter(|known| known.service == service);
            let known = known.unwrap_or_else(|| Known { judgements: judged(&rules, &name, &service), service });
            if !known.judgements.is_empty() {
                judgements.insert(name.clone(), known.judgements.clone());
            }
            self.known.insert(name, known);
        }
        judgements
    }
}

/// Notes are left out: most are of endpoints, which are not looked at, and the others say what has to be so.
fn judged(rules: &Rules<'_>, name: &ObjectName, service: &ClusterService) -> Vec<Judgement> {
    let wish = wish(rules, name, service, &[]).unwrap_or_default();
    let mut judgements = wish.judgements;
    judgements.retain(|judgement| judgement.severity != Severity::Note);
    judgements.sort();
    judgements.dedup();
    judgements
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AnnouncePolicy, IpFamily, Pool, Reason, inventory::ServicePort};

    fn name() -> ObjectName {
        ObjectName::new("shop", "web")
    }

    fn by(namespaces: &[&str]) -> Inventory {
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
        Inventory { pools: [("edge".to_owned(), pool)].into(), ..Inventory::default() }
    }

    fn service(change: impl FnOnce(&mut ClusterService)) -> Arc<ClusterService> {
        let port = ServicePort { port: 80, protocol: "TCP".to_owned(), ..ServicePort::default() };
        let mut service = ClusterService {
            is_load_balancer: true,
            load_balancer_class: Some("levee.dev/levee".to_owned()),
            families: vec![IpFamily::Ipv4],
            ports: vec![port],
            ..ClusterService::default()
        };
        service.ingress.push(crate::model::inventory::Ingress {
            ip: Some("192.0.2.5".to_owned()),
            ..crate::model::inventory::Ingress::default()
        });
        change(&mut service);
        Arc::new(service)
    }

    fn reasons(judge: &mut Judge, by: Inventory, service: Arc<ClusterService>) -> Vec<Reason> {
        let mut judgements = judge.judge(by, [(name(), service)]);
        judgements.remove(&name()).unwrap_or_default().iter().map(|judgement| judgement.reason).collect()
    }

    #[test]
    fn what_no_node_can_serve_is_judged_and_what_only_lacks_endpoints_is_not() {
        let mut judge = Judge::new(&ClassRule::default(), Vec::new());
        assert_eq!(reasons(&mut judge, by(&[]), service(|_| {})), []);
        let port = service(|service| service.ports[0].protocol = "QUIC".to_owned());
        assert_eq!(reasons(&mut judge, by(&[]), port), [Reason::PortUnsupported]);
        let ranges = service(|service| service.source_ranges = vec!["10.0.0.0/99".to_owned()]);
        assert_eq!(reasons(&mut judge, by(&[]), ranges), [Reason::SourceRangesInvalid]);
        let external = service(|service| service.external_ips = vec!["192.0.2.9".to_owned()]);
        assert_eq!(reasons(&mut judge, by(&[]), external), [Reason::AddressRefused]);
        let elsewhere = service(|service| service.load_balancer_class = Some("example.org/other".to_owned()));
        assert_eq!(reasons(&mut judge, by(&["bank"]), elsewhere), []);
    }

    #[test]
    fn a_judgement_goes_with_what_it_was_made_of() {
        let mut judge = Judge::new(&ClassRule::default(), Vec::new());
        let service = service(|_| {});
        assert_eq!(reasons(&mut judge, by(&["bank"]), Arc::clone(&service)), [Reason::AddressRefused]);
        assert_eq!(reasons(&mut judge, by(&["bank"]), Arc::clone(&service)), [Reason::AddressRefused]);
        assert_eq!(reasons(&mut judge, by(&["shop"]), service), []);
        assert!(judge.judge(by(&["bank"]), []).is_empty() && judge.known.is_empty(), "it is gone");
    }
}
