use std::collections::BTreeMap;

use super::*;
use crate::{
    cluster::{
        claim::{ADDRESSES, SHARING_KEY},
        pools::{PoolObject, PoolSet},
    },
    model::{
        inventory::{Ingress, ServicePort},
        pool::{AnnouncePolicy, Pool},
    },
};

/// A cluster in the making.
#[derive(Default)]
struct World<'a> {
    services: BTreeMap<ObjectName, Claimant>,
    pools: BTreeMap<String, PoolInForce>,
    forbidden: Forbidden<'a>,
    rule: ClassRule,
}

impl World<'_> {
    fn with_pool(mut self, name: &str, addresses: &[&str], change: impl FnOnce(&mut Pool)) -> Self {
        let mut pool = Pool {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            namespaces: vec![],
            service_selector: BTreeMap::new(),
            priority: 0,
            auto_assign: true,
            avoid_buggy_ips: false,
            allow_external_ips: false,
            announce: AnnouncePolicy::default(),
        };
        change(&mut pool);
        let object = PoolObject { uid: String::new(), created: 0, deleting: false, spec: Ok(pool), last_good: None };
        let pools = PoolSet::default().update(&[(name.to_owned(), object)].into());
        self.pools.extend(pools.in_force);
        self
    }

    /// A Service of our class, as old as there were Services before it.
    fn with(mut self, name: &str, change: impl FnOnce(&mut ClusterService)) -> Self {
        let created = i64::try_from(self.services.len()).unwrap();
        let mut service = ClusterService {
            created,
            is_load_balancer: true,
            load_balancer_class: Some("levee.dev/levee".to_owned()),
            families: vec![IpFamily::Ipv4],
            ports: vec![port("TCP", 80)],
            ..ClusterService::default()
        };
        change(&mut service);
        let claimant = Claimant { service: Arc::new(service), ours: false, pending: None };
        self.services.insert(object_name(name), claimant);
        self
    }

    fn ours(mut self, name: &str) -> Self {
        self.services.get_mut(&object_name(name)).unwrap().ours = true;
        self
    }

    fn verdict(&self, name: &str) -> Verdict {
        let situation =
            Situation { services: &self.services, pools: &self.pools, forbidden: &self.forbidden, rule: &self.rule };
        allocate(&situation)[&object_name(name)].clone()
    }

    fn decision(&self, name: &str) -> Decision {
        match self.verdict(name) {
            Verdict::Decided(decision) => decision,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Addresses of a Service, and the reasons of its problems.
    fn outcome(&self, name: &str) -> (Vec<String>, Vec<&'static str>, bool) {
        let decision = self.decision(name);
        let addresses = decision.addresses.iter().map(|given| given.address.to_string()).collect();
        (addresses, decision.problems.iter().map(Problem::reason).collect(), decision.complete)
    }
}

fn object_name(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    ObjectName::new(namespace, name)
}

fn port(protocol: &str, port: u16) -> ServicePort {
    ServicePort { name: String::new(), protocol: protocol.to_owned(), port }
}

fn has(address: &str) -> impl FnOnce(&mut ClusterService) {
    move |service| service.ingress = vec![ingress(address)]
}

fn ingress(address: &str) -> Ingress {
    Ingress { ip: Some(address.to_owned()), ..Ingress::default() }
}

fn asks(address: &str) -> impl FnOnce(&mut ClusterService) {
    move |service| {
        service.annotations.insert(ADDRESSES.to_owned(), address.to_owned());
    }
}

fn shares(key: &str, protocol: &'static str, number: u16) -> impl FnOnce(&mut ClusterService) {
    move |service| {
        service.annotations.insert(SHARING_KEY.to_owned(), key.to_owned());
        service.ports = vec![port(protocol, number)];
    }
}

fn dual(policy: FamilyPolicy) -> impl FnOnce(&mut ClusterService) {
    move |service| {
        service.families = vec![IpFamily::Ipv6, IpFamily::Ipv4];
        service.family_policy = policy;
    }
}

fn got(addresses: &[&str], reasons: &[&'static str], complete: bool) -> (Vec<String>, Vec<&'static str>, bool) {
    (addresses.iter().map(|&address| address.to_owned()).collect(), reasons.to_vec(), complete)
}

#[test]
fn the_lowest_free_address_of_the_first_pool_is_given_and_elder_services_go_first() {
    let world = World::default()
        .with_pool("a", &["192.0.2.10-192.0.2.11"], |_| {})
        .with_pool("z", &["198.51.100.0/30"], |pool| pool.priority = 5)
        .with_pool("m", &["203.0.113.0/24"], |pool| pool.auto_assign = false)
        .with("s3", |_| {})
        .with("s1", |_| {})
        .with("s2", |_| {})
        .with("s4", |_| {})
        .with("s5", |_| {})
        .with("s6", |_| {})
        .with("s7", |_| {});
    let all = ["s3", "s1", "s2", "s4", "s5", "s6"].map(|name| world.outcome(name).0.concat());
    assert_eq!(all, ["198.51.100.0", "198.51.100.1", "198.51.100.2", "198.51.100.3", "192.0.2.10", "192.0.2.11"]);
    assert_eq!(world.outcome("s7"), got(&[], &["NoAddressFree"], false));
    let none_free = Problem::NoneFree {
        family: IpFamily::Ipv4,
        used_up: vec!["z".to_owned(), "a".to_owned()],
        on_request: vec!["m".to_owned()],
    };
    assert_eq!(world.decision("s7").problems, [none_free]);
}

#[test]
fn an_address_that_a_service_has_stays_its_own() {
    let world =
        World::default().with_pool("a", &["192.0.2.0/24"], |_| {}).with("elder", |_| {}).with("web", has("192.0.2.0"));
    assert_eq!(world.outcome("web"), got(&["192.0.2.0"], &[], true));
    assert_eq!(world.outcome("elder"), got(&["192.0.2.1"], &[], true));
}

#[test]
fn what_was_written_and_is_not_shown_yet_counts_as_shown() {
    let mut world =
        World::default().with_pool("a", &["192.0.2.0/24"], |_| {}).with("elder", |_| {}).with("web", |_| {});
    world.services.get_mut(&object_name("web")).unwrap().pending = Some(vec!["192.0.2.0".parse().unwrap()]);
    assert_eq!(world.outcome("web"), got(&["192.0.2.0"], &[], true));
    assert_eq!(world.outcome("elder"), got(&["192.0.2.1"], &[], true));
}

#[test]
fn a_status_of_somebody_else_stays_as_it_is_and_its_address_is_not_given() {
    let world = World::default()
        .with_pool("a", &["192.0.2.0/31"], |pool| pool.namespaces = vec!["default".to_owned()])
        .with("named", |service| {
            service.ingress = vec![Ingress { hostname: Some("lb.example.com".to_owned()), ..Ingress::default() }];
        })
        .with("elsewhere", has("203.0.113.1"))
        .with("shop/foreign", has("192.0.2.0"))
        .with("new", |_| {});
    for (name, shown) in [("named", "lb.example.com"), ("elsewhere", "203.0.113.1"), ("shop/foreign", "192.0.2.0")] {
        assert_eq!(world.verdict(name), Verdict::Foreign(Problem::ForeignStatus { ingress: shown.to_owned() }));
    }
    assert_eq!(world.outcome("new"), got(&["192.0.2.1"], &[], true));
}

#[test]
fn an_address_whose_pool_is_gone_stays_but_one_that_is_not_admitted_any_more_goes() {
    let world = World::default().with("web", has("192.0.2.7")).ours("web");
    assert_eq!(world.outcome("web"), got(&["192.0.2.7"], &["PoolGone"], true));
    assert_eq!(world.decision("web").addresses[0].pool, None);
    let world = World::default()
        .with_pool("a", &["192.0.2.0/28"], |pool| pool.namespaces = vec!["shop".to_owned()])
        .with_pool("b", &["198.51.100.1"], |_| {})
        .with("web", has("192.0.2.7"))
        .ours("web");
    assert_eq!(world.outcome("web"), got(&["198.51.100.1"], &[], true));
}

#[test]
fn an_address_that_became_somebodys_stays_with_its_service_which_is_told() {
    let reserved = ["192.0.2.4/30".parse().unwrap()];
    let mut world =
        World::default().with_pool("a", &["192.0.2.0/28"], |_| {}).with("web", has("192.0.2.7")).ours("web");
    assert_eq!(world.outcome("web"), got(&["192.0.2.7"], &[], true));
    world.forbidden = Forbidden::of([], [], &reserved);
    assert_eq!(world.outcome("web"), got(&["192.0.2.7"], &["AddressInUse"], true));
    world = world.with("moves", |service| {
        has("192.0.2.6")(service);
        asks("192.0.2.9")(service);
    });
    assert_eq!(world.ours("moves").outcome("moves"), got(&["192.0.2.9"], &[], true), "it is not its own any more");
}

#[test]
fn a_requested_address_is_given_if_a_pool_admits_and_nobody_has_it() {
    let node =
        crate::model::inventory::ClusterNode { internal: vec!["192.0.2.4".parse().unwrap()], ..Default::default() };
    let n1 = "n1".to_owned();
    let mut world = World::default()
        .with_pool("a", &["192.0.2.0/29"], |pool| pool.avoid_buggy_ips = true)
        .with_pool("b", &["198.51.100.0/29"], |pool| pool.namespaces = vec!["shop".to_owned()])
        .with("auto", |_| {})
        .with("web", asks("192.0.2.1"))
        .with("late", asks("192.0.2.1"))
        .with("strange", asks("203.0.113.9"))
        .with("outside", asks("198.51.100.1"))
        .with("onnode", asks("192.0.2.4"))
        .with("feared", asks("192.0.2.0"))
        .with("garbage", asks("web"))
        .with("field", |service| service.load_balancer_ip = Some("192.0.2.6".to_owned()));
    world.forbidden = Forbidden::of([(&n1, &node)], [], &[]);
    assert_eq!(world.outcome("web"), got(&["192.0.2.1"], &[], true));
    assert_eq!(world.outcome("auto"), got(&["192.0.2.2"], &[], true), "what is asked for is not given unasked");
    assert_eq!(world.outcome("late"), got(&[], &["AddressTaken"], false));
    assert_eq!(world.outcome("field"), got(&["192.0.2.6"], &[], true));
    for name in ["strange", "outside", "onnode", "feared"] {
        assert_eq!(world.outcome(name), got(&[], &["RequestRefused"], false), "{name}");
    }
    assert_eq!(world.outcome("garbage"), got(&[], &["InvalidRequest"], false));
}

#[test]
fn a_request_moves_a_service_only_if_it_can_be_followed() {
    let world = |wanted: &str| {
        let wanted = wanted.to_owned();
        World::default().with_pool("a", &["192.0.2.0/29"], |_| {}).with("other", has("192.0.2.3")).with(
            "web",
            |service| {
                has("192.0.2.5")(service);
                asks(&wanted)(service);
            },
        )
    };
    assert_eq!(world("192.0.2.6").outcome("web"), got(&["192.0.2.6"], &[], true));
    assert_eq!(world("192.0.2.3").outcome("web"), got(&["192.0.2.5"], &["AddressTaken"], false));
    assert_eq!(world("nonsense").outcome("web"), got(&["192.0.2.5"], &["InvalidRequest"], false));
}

#[test]
fn services_with_one_key_and_other_ports_share_an_address() {
    let world = World::default()
        .with_pool("a", &["192.0.2.0/24"], |_| {})
        .with("http", shares("k", "TCP", 80))
        .with("dns", shares("k", "UDP", 80))
        .with("same", shares("k", "TCP", 80))
        .with("other", shares("x", "TCP", 443))
        .with("asks", |service| {
            shares("x", "TCP", 8443)(service);
            asks("192.0.2.0")(service);
        });
    assert_eq!(world.outcome("http"), got(&["192.0.2.1"], &[], true), "192.0.2.0 is asked for by name");
    assert_eq!(world.outcome("dns"), got(&["192.0.2.1"], &[], true));
    assert_eq!(world.outcome("same"), got(&["192.0.2.2"], &[], true));
    assert_eq!(world.outcome("other"), got(&["192.0.2.3"], &[], true));
    assert_eq!(world.outcome("asks"), got(&["192.0.2.0"], &[], true));
}

#[test]
fn of_two_that_have_one_address_without_sharing_the_elder_keeps_it() {
    let world = World::default()
        .with_pool("a", &["192.0.2.0/24"], |_| {})
        .with("elder", has("192.0.2.9"))
        .with("younger", has("192.0.2.9"));
    assert_eq!(world.outcome("elder"), got(&["192.0.2.9"], &[], true));
    assert_eq!(world.outcome("younger"), got(&["192.0.2.0"], &["AddressTaken"], true));
}

#[test]
fn prefer_dual_stack_takes_what_is_there_and_the_second_address_later() {
    let v4_only =
        World::default().with_pool("a", &["192.0.2.1"], |_| {}).with("web", dual(FamilyPolicy::PreferDualStack));
    assert_eq!(v4_only.outcome("web"), got(&["192.0.2.1"], &["NoAddressFree"], true));
    let both = World::default()
        .with_pool("a", &["192.0.2.0/24"], |_| {})
        .with_pool("b", &["2001:db8::/64"], |_| {})
        .with("web", |service| {
            dual(FamilyPolicy::PreferDualStack)(service);
            has("192.0.2.1")(service);
        });
    assert_eq!(both.outcome("web"), got(&["2001:db8::", "192.0.2.1"], &[], true));
}

#[test]
fn require_dual_stack_takes_both_or_nothing_and_blocks_nobody() {
    let world = World::default()
        .with_pool("a", &["192.0.2.1"], |_| {})
        .with("both", dual(FamilyPolicy::RequireDualStack))
        .with("single", |_| {});
    assert_eq!(world.outcome("both"), got(&[], &["NoAddressFree", "NotBothFamilies"], false));
    assert_eq!(world.outcome("single"), got(&["192.0.2.1"], &[], true));
    let world = World::default()
        .with_pool("a", &["192.0.2.1", "2001:db8::1"], |_| {})
        .with("both", dual(FamilyPolicy::RequireDualStack));
    assert_eq!(world.outcome("both"), got(&["2001:db8::1", "192.0.2.1"], &[], true));
}

#[test]
fn services_of_others_are_left_alone_and_what_was_ours_is_released() {
    let world = World::default()
        .with_pool("a", &["192.0.2.0/31"], |_| {})
        .with("other", |service| {
            service.load_balancer_class = Some("example.com/other".to_owned());
            has("192.0.2.0")(service);
        })
        .with("external", |service| {
            service.is_load_balancer = false;
            service.external_ips = vec!["192.0.2.1".to_owned(), "nonsense".to_owned()];
        })
        .with("former", |service| {
            service.is_load_balancer = false;
            has("198.51.100.1")(service);
        })
        .ours("former")
        .with("web", |_| {});
    assert_eq!(world.verdict("other"), Verdict::NotOurs);
    assert_eq!(world.verdict("external"), Verdict::NotOurs);
    assert_eq!(world.verdict("former"), Verdict::Release);
    assert_eq!(world.outcome("web"), got(&[], &["NoAddressFree"], false), "neither address is given to anybody else");
}

#[test]
fn a_service_that_is_going_keeps_its_address_and_gets_none() {
    let going = |service: &mut ClusterService| service.deleting = true;
    let world = World::default().with_pool("a", &["192.0.2.0/24"], |_| {}).with("new", going).with("web", |service| {
        going(service);
        has("192.0.2.4")(service);
    });
    assert_eq!(world.outcome("new"), got(&[], &[], true));
    assert_eq!(world.outcome("web"), got(&["192.0.2.4"], &[], true));
}

#[test]
fn a_pool_that_is_going_gives_nothing_new() {
    let mut world =
        World::default().with_pool("a", &["192.0.2.0/24"], |_| {}).with("web", has("192.0.2.4")).with("new", |_| {});
    world.pools.get_mut("a").unwrap().deleting = true;
    assert_eq!(world.outcome("web"), got(&["192.0.2.4"], &[], true));
    assert_eq!(world.outcome("new"), got(&[], &["NoAddressFree"], false));
}

#[test]
fn reserved_addresses_are_jumped_over_however_many_they_are() {
    let mut world = World::default().with_pool("a", &["2001:db8::/64"], |_| {}).with("web", |service| {
        service.families = vec![IpFamily::Ipv6];
    });
    world.forbidden = Forbidden::of([], [], &["2001:db8::/65".parse().unwrap()]);
    assert_eq!(world.outcome("web"), got(&["2001:db8:0:0:8000::"], &[], true));
}
