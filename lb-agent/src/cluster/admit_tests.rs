use super::*;
use crate::{
    cluster::{
        fixtures::{ip, node, offered, pool},
        pools::PoolSet,
    },
    model::{ClusterNode, Pool, inventory::Labels},
};

fn said(namespace: &str, tier: &str, address: &str) -> String {
    let all = pool(&["192.0.2.0/28", "10.0.0.0/8", "198.51.100.0/24"]);
    let team = Pool {
        namespaces: vec!["team".to_owned()],
        service_selector: Labels::from([("tier".to_owned(), "web".to_owned())]),
        avoid_buggy_ips: true,
        ..pool(&["203.0.113.0/28"])
    };
    let pools = [("all".to_owned(), offered(1, all)), ("team".to_owned(), offered(2, team))];
    let pools = PoolSet::default().follow(&pools.into());
    let n1 = ClusterNode {
        external: vec![ip("198.51.100.1")],
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        ..node(&["10.0.0.1"])
    };
    let (n1_name, dns_name) = ("n1".to_owned(), ObjectName::new("kube-system", "dns"));
    let dns = ClusterService { cluster_ips: vec![ip("10.9.0.10")], ..ClusterService::default() };
    let forbidden = Forbidden::of([(&n1_name, &n1)], [(&dns_name, &dns)], &["10.96.0.0/12".parse().unwrap()]);
    let labels = Labels::from([("tier".to_owned(), tier.to_owned())]);
    let service = ClusterService { labels, ..ClusterService::default() };
    let admission = Admission { pools: &pools, forbidden: &forbidden };
    match admission.admit(&ObjectName::new(namespace, "s"), &service, ip(address)) {
        Ok((pool, _)) => format!("of {pool}"),
        Err(problem) => problem.to_string(),
    }
}

#[test]
fn an_address_has_to_be_in_a_pool_for_this_service() {
    for (namespace, tier, address, expected) in [
        ("x", "web", "192.0.2.3", "of all"),
        ("x", "web", "192.0.2.16", "192.0.2.16 is in no VipPool in force"),
        ("team", "web", "203.0.113.1", "of team"),
        ("team", "web", "203.0.113.0", "203.0.113.0 is in no VipPool in force"),
        ("x", "web", "203.0.113.1", "203.0.113.1 is in VipPool `team`, which is for the namespaces team only"),
        (
            "team",
            "db",
            "203.0.113.1",
            "203.0.113.1 is in VipPool `team`, which is for Services with the label tier=web only",
        ),
    ] {
        assert_eq!(said(namespace, tier, address), expected);
    }
}

#[test]
fn a_pool_gives_no_address_that_is_somebodys() {
    for (address, owner) in [
        ("10.0.0.1", "an address of node n1"),
        ("198.51.100.1", "an address of node n1"),
        ("10.244.1.255", "in 10.244.1.0/24, the pods of node n1"),
        ("10.9.0.10", "the cluster address of Service kube-system/dns"),
        ("10.111.255.1", "in 10.96.0.0/12, which the configuration reserves"),
    ] {
        assert_eq!(said("x", "web", address), format!("{address} is {owner}"));
    }
    assert_eq!(said("x", "web", "10.244.2.1"), "of all");
}
