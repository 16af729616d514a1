//! What a Service asks for: whether it asks us at all, which families, which addresses.

use std::{collections::BTreeMap, net::IpAddr};

use super::problem::Problem;
use crate::model::{
    KubernetesSettings,
    inventory::{ClusterService, FamilyPolicy, IpFamily},
};

/// `spec.loadBalancerClass` of Services that are ours unless the configuration names another.
pub const DEFAULT_CLASS: &str = "levee.dev/levee";
/// Annotation with the addresses that a Service asks for, separated by commas; one of each family at most.
pub const ADDRESSES: &str = "levee.dev/addresses";
/// Annotation of Services that may share an address: those with the same text, as long as their ports differ.
pub const SHARING_KEY: &str = "levee.dev/sharing-key";

/// Which Services are ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClassRule {
    /// `spec.loadBalancerClass` of ours. Default [`DEFAULT_CLASS`].
    pub class: String,
    /// Whether those without a class are ours too. Default false.
    pub default_class: bool,
}

impl Default for ClassRule {
    fn default() -> Self {
        Self { class: DEFAULT_CLASS.to_owned(), default_class: false }
    }
}

impl ClassRule {
    /// The rule of an agent.
    #[must_use]
    pub fn of(settings: &KubernetesSettings) -> Self {
        Self { class: settings.class.clone(), default_class: settings.default_class }
    }

    /// Whether the Service asks us for addresses.
    #[must_use]
    pub fn covers(&self, service: &ClusterService) -> bool {
        service.is_load_balancer
            && match &service.load_balancer_class {
                Some(class) => *class == self.class,
                None => self.default_class,
            }
    }
}

/// The families that a Service wants addresses of, in its order.
#[must_use]
pub fn families(service: &ClusterService) -> Vec<IpFamily> {
    let mut families = service.families.clone();
    if families.is_empty() {
        families.extend(service.cluster_ips.iter().map(|address| IpFamily::of(*address)));
    }
    if families.is_empty() {
        families.push(IpFamily::Ipv4);
    }
    if service.family_policy == FamilyPolicy::RequireDualStack {
        families.extend([IpFamily::Ipv4, IpFamily::Ipv6]);
    }
    if service.family_policy == FamilyPolicy::SingleStack {
        families.truncate(1);
    }
    let mut seen = Vec::new();
    families.retain(|family| {
        !seen.contains(family) && {
            seen.push(*family);
            true
        }
    });
    families
}

/// The addresses that a Service asks for by name, one of each family at most.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Requests {
    /// Address by family.
    pub wanted: BTreeMap<IpFamily, IpAddr>,
    /// What can't be followed.
    pub problems: Vec<Problem>,
}

/// Reads `spec.loadBalancerIP` and the annotation [`ADDRESSES`].
#[must_use]
pub fn requests(service: &ClusterService) -> Requests {
    let annotated = service.annotations.get(ADDRESSES).map(String::as_str).unwrap_or_default();
    let field = service.load_balancer_ip.as_deref().unwrap_or_default();
    let texts = annotated.split(',').chain([field]).map(str::trim).filter(|text| !text.is_empty());
    let families = families(service);
    let mut requests = Requests::default();
    for text in texts {
        let Ok(address) = text.parse::<IpAddr>() else {
            requests.problems.push(Problem::Unreadable { text: text.to_owned() });
            continue;
        };
        let family = IpFamily::of(address);
        if !families.contains(&family) {
            requests.problems.push(Problem::Family { address });
            continue;
        }
        match requests.wanted.get(&family) {
            Some(other) if *other != address => {
                requests.problems.push(Problem::TwoOfAFamily { first: *other, second: address });
            }
            _ => {
                requests.wanted.insert(family, address);
            }
        }
    }
    requests
}

/// The key by which a Service shares its address; `None` if it wants its own.
#[must_use]
pub fn sharing_key(service: &ClusterService) -> Option<&str> {
    service.annotations.get(SHARING_KEY).map(|key| key.trim()).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(class: Option<&str>) -> ClusterService {
        let class = class.map(str::to_owned);
        ClusterService { is_load_balancer: true, load_balancer_class: class, ..ClusterService::default() }
    }

    #[test]
    fn only_services_of_our_class_are_ours_unless_we_are_the_default() {
        let mut rule = ClassRule::default();
        assert!(rule.covers(&service(Some("levee.dev/levee"))));
        assert!(!rule.covers(&service(Some("example.com/other"))));
        assert!(!rule.covers(&service(None)));
        rule.default_class = true;
        assert!(rule.covers(&service(None)));
        assert!(!rule.covers(&service(Some("example.com/other"))));
        assert!(!rule.covers(&ClusterService { is_load_balancer: false, ..service(None) }));
    }

    #[test]
    fn families_follow_the_service_then_its_cluster_addresses() {
        use FamilyPolicy::{PreferDualStack, RequireDualStack, SingleStack};
        use IpFamily::{Ipv4, Ipv6};
        type Case = (&'static [IpFamily], &'static [&'static str], FamilyPolicy, &'static [IpFamily]);
        let cases: [Case; 7] = [
            (&[], &[], SingleStack, &[Ipv4]),
            (&[], &["fd00::1"], SingleStack, &[Ipv6]),
            (&[Ipv6], &["10.0.0.1"], SingleStack, &[Ipv6]),
            (&[Ipv6, Ipv4], &[], SingleStack, &[Ipv6]),
            (&[Ipv6, Ipv4], &[], PreferDualStack, &[Ipv6, Ipv4]),
            (&[Ipv4], &[], PreferDualStack, &[Ipv4]),
            (&[Ipv6], &[], RequireDualStack, &[Ipv6, Ipv4]),
        ];
        for (given, cluster_ips, family_policy, expected) in cases {
            let service = ClusterService {
                families: given.to_vec(),
                cluster_ips: cluster_ips.iter().map(|ip| ip.parse().unwrap()).collect(),
                family_policy,
                ..service(None)
            };
            assert_eq!(families(&service), expected, "{given:?} {cluster_ips:?} {family_policy:?}");
        }
    }

    #[test]
    fn requests_come_from_the_annotation_and_the_field() {
        let ask = |annotation: &str, field: Option<&str>| {
            let annotations = [(ADDRESSES.to_owned(), annotation.to_owned())].into();
            let (families, family_policy) = (vec![IpFamily::Ipv4], FamilyPolicy::SingleStack);
            let load_balancer_ip = field.map(str::to_owned);
            requests(&ClusterService { annotations, load_balancer_ip, families, family_policy, ..service(None) })
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(ask("", None), Requests::default());
        assert_eq!(ask(" 192.0.2.1 ,", Some("192.0.2.1")).wanted, [(IpFamily::Ipv4, ip("192.0.2.1"))].into());
        let two = ask("192.0.2.1", Some("192.0.2.2"));
        assert_eq!(two.problems, [Problem::TwoOfAFamily { first: ip("192.0.2.1"), second: ip("192.0.2.2") }]);
        let bad = ask("web,2001:db8::1", None);
        let expected = [Problem::Unreadable { text: "web".to_owned() }, Problem::Family { address: ip("2001:db8::1") }];
        assert_eq!(bad.problems, expected);
        assert!(bad.wanted.is_empty());
    }
}
