use super::*;
use crate::{
    cluster::{fixtures::*, forbidden::Forbidden, pools::PoolSet},
    model::{Inventory, KubernetesSettings, inventory::Ingress},
};

struct World {
    settings: KubernetesSettings,
    inventory: Inventory,
}

impl World {
    fn new() -> Self {
        Self { settings: settings(), inventory: inventory() }
    }

    fn wish(&self, service: &ClusterService, slices: &[EndpointSlice]) -> Option<Wish> {
        let (taken, pools) = (BTreeSet::new(), PoolSet::default().follow(&self.inventory.pools));
        let forbidden = Forbidden::of(&self.inventory.nodes, [], &[]);
        let rules = Rules {
            local_first: false,
            second_chance: false,
            class: ClassRule::of(&self.settings),
            admission: Admission { pools: &pools, forbidden: &forbidden },
            taken: &taken,
            nodes: Nodes::of(&self.inventory),
        };
        let slices: Vec<_> = slices.iter().cloned().map(Shared::new).collect();
        wish(&rules, &ObjectName::new("ns", "s"), service, &slices)
    }

    /// Name, VIPs and weights of each service, with the reasons of judgements.
    fn story(&self, service: &ClusterService) -> (Vec<String>, Vec<Reason>) {
        let slices = [slice("a", vec![endpoint("10.244.1.1", "n1")]), slice("b", vec![endpoint("fd00:244::1", "n2")])];
        let Some(wish) = self.wish(service, &slices) else { return (Vec::new(), Vec::new()) };
        let service = |service: &Shared<Service>| {
            let backends: Vec<_> = service.backends.iter().map(|backend| format!("{}", backend.address)).collect();
            let vips: Vec<_> = service.vips.iter().map(ToString::to_string).collect();
            format!("{} {} -> {}", service.name, vips.join(","), backends.join(","))
        };
        (wish.services.iter().map(service).collect(), wish.judgements.iter().map(|one| one.reason).collect())
    }
}

fn nothing() -> (Vec<String>, Vec<Reason>) {
    (Vec::new(), Vec::new())
}

const V4: &str = "ns/s:80/tcp 192.0.2.1 -> 10.0.0.1";
const V6: &str = "ns/s:80/tcp6 2001:db8::1 -> 10.0.0.2";

#[test]
fn classes_say_whose_a_service_is() {
    let mut world = World::new();
    let ours = service(1, &["192.0.2.1"]);
    let foreign = ClusterService { load_balancer_class: Some("else".to_owned()), ..ours.clone() };
    let unclassed = ClusterService { load_balancer_class: None, ..ours.clone() };
    let served = (vec![V4.to_owned()], vec![]);
    assert_eq!([&ours, &foreign, &unclassed].map(|one| world.story(one)), [served.clone(), nothing(), nothing()]);
    world.settings.default_class = true;
    assert_eq!([&ours, &foreign, &unclassed].map(|one| world.story(one)), [served.clone(), nothing(), served]);
}

#[test]
fn external_ips_count_on_services_of_any_type_where_the_pool_allows() {
    let mut world = World::new();
    let plain = ClusterService { is_load_balancer: false, load_balancer_class: None, ..service(1, &["192.0.2.1"]) };
    assert_eq!(world.story(&plain), nothing(), "an ingress without the type means nothing");
    let external = ClusterService { external_ips: vec!["192.0.2.1".to_owned()], ..plain };
    assert_eq!(world.story(&external), (vec![], vec![Reason::AddressRefused]));
    world.inventory.pools.get_mut("pool").unwrap().spec.as_mut().unwrap().allow_external_ips = true;
    assert_eq!(world.story(&external), (vec![V4.to_owned()], vec![]));
    let foreign = ClusterService { is_load_balancer: true, load_balancer_class: Some("else".to_owned()), ..external };
    assert_eq!(world.story(&foreign), nothing());
}

#[test]
fn an_ingress_that_is_not_ours_is_not_used() {
    let world = World::new();
    let proxied = Ingress { ip_mode: Some("Proxy".to_owned()), ..given("192.0.2.2") };
    let named = Ingress { ip: None, hostname: Some("lb.example".to_owned()), ip_mode: None };
    let mut mixed = service(1, &["203.0.113.1", "what?", "192.0.2.1"]);
    mixed.ingress.extend([proxied, named]);
    assert_eq!(world.story(&mixed), (vec![V4.to_owned()], vec![Reason::AddressRefused; 3]));
    assert_eq!(world.story(&service(1, &[])), (vec![], vec![Reason::AddressPending]));
}

#[test]
fn families_are_served_apart_by_their_own_endpoints() {
    let world = World::new();
    let mut dual = service(1, &["192.0.2.1", "2001:db8::1"]);
    assert_eq!(world.story(&dual), (vec![V4.to_owned(), V6.to_owned()], vec![]));
    dual.families = vec![IpFamily::Ipv4];
    assert_eq!(world.story(&dual), (vec![V4.to_owned()], vec![Reason::AddressRefused]));
}

#[test]
fn what_cannot_be_forwarded_is_said_and_the_rest_served() {
    let world = World::new();
    let mut service = service(1, &["192.0.2.1"]);
    service.ports.extend([port("quic", "QUIC", 1), port("zero", "TCP", 0), port("twice", "TCP", 80)]);
    let reasons = vec![Reason::PortUnsupported, Reason::PortUnsupported, Reason::Contradictory];
    assert_eq!(world.story(&service), (vec![V4.to_owned()], reasons));
}

#[test]
fn source_ranges_bound_who_is_admitted_and_bad_ones_admit_nobody() {
    let world = World::new();
    let with = |ranges: &[&str]| {
        let source_ranges = ranges.iter().map(ToString::to_string).collect();
        world.wish(&ClusterService { source_ranges, ..service(1, &["192.0.2.1", "2001:db8::1"]) }, &[]).unwrap()
    };
    let good = with(&[" 10.1.2.3/8", "10.0.0.0/8", "2001:db8:1::/48 "]);
    for service in &good.services {
        let ranges: Vec<_> = service.source_ranges.iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["10.0.0.0/8", "2001:db8:1::/48"]);
    }
    assert_eq!(good.services.len(), 2);
    for bad in ["10.0.0.0", "::ffff:10.0.0.0/104", "anybody"] {
        let wish = with(&["10.0.0.0/8", bad]);
        assert_eq!((wish.services.len(), wish.judgements[0].reason), (0, Reason::SourceRangesInvalid), "{bad}");
    }
}

#[test]
fn what_a_service_says_reaches_the_data_path() {
    let world = World::new();
    let sticky = ClusterService { affinity: Some(Duration::from_secs(90)), ..service(1, &["192.0.2.1"]) };
    let wish = world.wish(&sticky, &[slice("a", vec![endpoint("10.244.1.1", "n1")])]).unwrap();
    let served = &wish.services[0];
    assert_eq!(served.affinity, Some(Affinity { timeout: Duration::from_secs(90) }));
    assert_eq!((served.backends[0].port, &served.ports[..], &served.probe), (80, &[80][..], &None));
    assert_eq!((served.hold, served.drop_unmatched), (HoldWhen::Trusted, true));
}

#[test]
fn the_policy_is_remarked_on_and_changes_no_node_that_has_endpoints() {
    let world = World::new();
    let local = service(1, &["192.0.2.1"]);
    let cluster = ClusterService { external_policy: TrafficPolicy::Cluster, ..local.clone() };
    assert_eq!(world.story(&cluster), (vec![V4.to_owned()], vec![Reason::ClientAddressHidden]));
    let by_hand = [slice("a", vec![endpoint("203.0.113.9", "")])];
    let reasons = |service| -> Vec<Reason> {
        world.wish(service, &by_hand).unwrap().judgements.iter().map(|one| one.reason).collect()
    };
    assert_eq!(reasons(&local), [Reason::Contradictory]);
    assert_eq!(reasons(&cluster), [Reason::EndpointsElsewhere, Reason::ClientAddressHidden]);
    assert_eq!(world.wish(&local, &[]).unwrap().judgements[0].reason, Reason::NoReadyEndpoints);
}
