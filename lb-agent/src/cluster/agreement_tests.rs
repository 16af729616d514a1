//! Agents and controller: what the one gives the others serve, and what it would not give they refuse.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;

use super::{
    Composed, Composer, Sources,
    allocate::{Claimant, Situation, Verdict, allocate},
    claim::{ADDRESSES, ClassRule, SHARING_KEY},
    fixtures::{self, add, given, ip, node, offered, pool, room, service, settings},
    forbidden::Forbidden,
    pools::{PoolError, PoolInForce, PoolObject, PoolSet},
};
use crate::model::{
    ClusterPool, ClusterService, DesiredState, Inventory, IpFamily, KubernetesSettings, Node, ObjectName, Origin, Pool,
    Shared, Snapshot,
    inventory::{FamilyPolicy, Labels},
};

fn octet(last: u8) -> String {
    format!("192.0.2.{last}")
}

fn label(tier: u8) -> Labels {
    Labels::from([("tier".to_owned(), tier.to_string())])
}

fn some_pool() -> impl Strategy<Value = Pool> {
    let maybe = || prop_oneof![2 => Just(None), 1 => (0u8..2).prop_map(Some)];
    (0u8..30, 0u8..14, maybe(), maybe(), any::<bool>(), any::<bool>()).prop_map(
        |(first, more, only, tier, buggy, v6)| {
            let v6 = v6.then(|| format!("2001:db8::{first}-2001:db8::{}", first + more));
            let ranges: Vec<_> = [format!("{}-{}", octet(first), octet(first + more))].into_iter().chain(v6).collect();
            Pool {
                namespaces: only.iter().map(|only| format!("ns{only}")).collect(),
                service_selector: tier.map(label).unwrap_or_default(),
                // A pool of nothing but 192.0.2.0 would be refused.
                avoid_buggy_ips: buggy && first + more > 0,
                ..pool(&ranges.iter().map(String::as_str).collect::<Vec<_>>())
            }
        },
    )
}

/// A cluster, and an address that a Service of it asks for.
#[derive(Clone, Debug)]
struct Case {
    pools: Vec<(i64, Pool)>,
    nodes: Vec<u8>,
    pods: u8,
    reserved: u8,
    cluster_ips: Vec<u8>,
    service: ClusterService,
    namespace: u8,
    address: IpAddr,
}

fn case() -> impl Strategy<Value = Case> {
    let octets = |size| proptest::collection::vec(0u8..40, 0..size);
    let address =
        prop_oneof![5 => (0u8..40).prop_map(octet), 1 => (0u8..40).prop_map(|last| format!("2001:db8::{last}"))];
    let class = prop_oneof![4 => Just(Some("levee.dev/levee")), 1 => Just(Some("else")), 1 => Just(None)];
    (
        proptest::collection::vec((0i64..3, some_pool()), 0..4),
        (octets(3), 0u8..40, 0u8..40, octets(3)),
        (0u8..2, 0u8..2, class, any::<bool>(), address),
    )
        .prop_map(|(pools, (nodes, pods, reserved, cluster_ips), (namespace, tier, class, dual, address))| {
            let mut service = ClusterService { labels: label(tier), ..service(1, &[]) };
            service.load_balancer_class = class.map(str::to_owned);
            service.annotations = [(ADDRESSES.to_owned(), address.clone())].into();
            if !dual {
                (service.families, service.family_policy) = (vec![IpFamily::Ipv4], FamilyPolicy::SingleStack);
            }
            Case { pools, nodes, pods, reserved, cluster_ips, service, namespace, address: ip(&address) }
        })
}

impl Case {
    fn name(&self) -> ObjectName {
        ObjectName::new(format!("ns{}", self.namespace), "s")
    }

    fn settings(&self) -> KubernetesSettings {
        let reserved = vec![format!("{}/30", octet(self.reserved)).parse().unwrap()];
        KubernetesSettings { reserved, ..settings() }
    }

    fn inventory(&self) -> Inventory {
        let mut inventory = Inventory::default();
        for (index, (created, pool)) in self.pools.iter().enumerate() {
            inventory.pools.insert(format!("p{index}"), offered(*created, pool.clone()));
        }
        for (index, last) in self.nodes.iter().enumerate() {
            let mut node = node(&[&octet(*last)]);
            node.pod_cidrs = vec![format!("{}/30", octet(self.pods)).parse().unwrap()];
            inventory.nodes.insert(format!("n{index}"), node);
        }
        for (index, last) in self.cluster_ips.iter().enumerate() {
            let inner = ClusterService { cluster_ips: vec![ip(&octet(*last))], ..ClusterService::default() };
            add(&mut inventory, &format!("inner{index}"), inner, Vec::new());
        }
        inventory.services.insert(self.name(), self.service.clone().into());
        inventory
    }

    /// Whether the controller gives the Service the address that it asks for.
    fn is_given(&self) -> bool {
        match &given_of(&self.inventory(), &self.settings())[&self.name()] {
            Verdict::Decided(decision) => decision.addresses.iter().any(|given| given.address == self.address),
            _ => false,
        }
    }

    /// Whether an agent serves the Service at the address, once its status has it.
    fn is_served(&self) -> bool {
        let mut inventory = self.inventory();
        inventory.services.get_mut(&self.name()).unwrap().ingress = vec![given(&self.address.to_string())];
        let composed = composed_of(inventory, &self.settings());
        composed.desired.services.iter().any(|service| service.vips == [self.address])
    }
}

/// What the controller decides.
fn given_of(inventory: &Inventory, settings: &KubernetesSettings) -> BTreeMap<ObjectName, Verdict> {
    let object = |(name, pool): (&String, &ClusterPool)| {
        let spec = Ok(pool.spec.clone().unwrap());
        let (uid, created) = (pool.uid.clone(), pool.created);
        (name.clone(), PoolObject { uid, created, deleting: false, spec, last_good: None })
    };
    let pools = PoolSet::default().update(&inventory.pools.iter().map(object).collect());
    let owned = inventory.services.iter().map(|(name, service)| (name, &**service));
    let forbidden = Forbidden::of(&inventory.nodes, owned, &settings.reserved);
    let claimant = |(name, service): (&ObjectName, &Shared<ClusterService>)| {
        (name.clone(), Claimant { service: Arc::new((**service).clone()), ours: true, pending: None })
    };
    let services = inventory.services.iter().map(claimant).collect();
    let rule = ClassRule::of(settings);
    allocate(&Situation { services: &services, pools: &pools.in_force, forbidden: &forbidden, rule: &rule })
}

/// What an agent makes of it.
fn composed_of(inventory: Inventory, settings: &KubernetesSettings) -> Composed {
    let snapshot = Snapshot { inventory: Arc::new(inventory), origin: Origin::Live };
    let node = Node { name: "n9".to_owned(), addresses: vec![ip("10.0.0.9")] };
    let desired = DesiredState { node, peers: Vec::new(), services: Vec::new(), announcements: Vec::new() };
    let sources = Sources {
        desired: &desired,
        kubernetes: Some(settings),
        control_plane: None,
        snapshot: Some(&snapshot),
        age: Duration::ZERO,
        room: room(),
        connected: &[],
    };
    Composer::default().compose(&sources)
}

/// Of a Service that has the address, beside others: when it was made, its key, its ports.
type Sharer = (i64, Option<u8>, BTreeSet<u8>);

fn sharer() -> impl Strategy<Value = Sharer> {
    let key = prop_oneof![1 => Just(None), 3 => (0u8..2).prop_map(Some)];
    (0i64..3, key, proptest::collection::btree_set(80u8..84, 1..3))
}

/// Services in whose status the same address stands, whoever wrote it there.
fn sharing(sharers: &[Sharer]) -> Inventory {
    let mut inventory = Inventory::default();
    inventory.pools.insert("p".to_owned(), offered(0, pool(&["192.0.2.0/24"])));
    for (index, (created, key, ports)) in sharers.iter().enumerate() {
        let mut service = service(*created, &["192.0.2.1"]);
        (service.families, service.family_policy) = (vec![IpFamily::Ipv4], FamilyPolicy::SingleStack);
        service.annotations.extend(key.map(|key| (SHARING_KEY.to_owned(), key.to_string())));
        service.ports = ports.iter().map(|port| fixtures::port(&port.to_string(), "TCP", u16::from(*port))).collect();
        add(&mut inventory, &format!("s{index}"), service, Vec::new());
    }
    inventory
}

/// What happens to pools.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, Pool),
    Spoilt(u8),
    Gone(u8),
    /// The controller writes what it has decided.
    Told,
    /// An agent starts anew.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0u8..4, some_pool()).prop_map(|(name, pool)| Step::Put(name, pool)),
        1 => (0u8..4).prop_map(Step::Spoilt),
        1 => (0u8..4).prop_map(Step::Gone),
        3 => Just(Step::Told),
        1 => Just(Step::Restart),
    ]
}

/// A pool of the API server.
struct Object {
    object: PoolObject,
    generation: u32,
    /// What the status says: of which generation, whether that is in force, and what is in force.
    status: Option<(u32, bool, Option<Pool>)>,
}

#[derive(Default)]
struct World {
    clock: i64,
    objects: BTreeMap<String, Object>,
    controller: PoolSet,
    agent: PoolSet,
    /// As the agent's source keeps them.
    seen: BTreeMap<String, ClusterPool>,
}

impl World {
    fn edit(&mut self, name: u8, spec: Result<Pool, PoolError>) {
        let clock = self.clock;
        let new = || Object {
            object: PoolObject {
                uid: clock.to_string(),
                created: clock,
                deleting: false,
                spec: Err(PoolError::Empty),
                last_good: None,
            },
            generation: 0,
            status: None,
        };
        let object = self.objects.entry(format!("p{name}")).or_insert_with(new);
        object.generation += u32::from(object.generation == 0 || object.object.spec != spec);
        object.object.spec = spec;
    }

    /// What the controller has in force.
    fn take(&mut self, step: &Step) -> BTreeMap<String, PoolInForce> {
        self.clock += 1;
        match step {
            Step::Put(name, pool) => self.edit(*name, Ok(pool.clone())),
            Step::Spoilt(name) => self.edit(*name, Err(PoolError::Empty)),
            Step::Gone(name) => drop(self.objects.remove(&format!("p{name}"))),
            Step::Restart => (self.agent, self.seen) = (PoolSet::default(), BTreeMap::new()),
            Step::Told => {}
        }
        let objects = self.objects.iter().map(|(name, object)| (name.clone(), object.object.clone())).collect();
        let pools = self.controller.update(&objects);
        if matches!(step, Step::Told) {
            for (name, object) in &mut self.objects {
                let in_force = pools.in_force.get(name).map(|pool| (*pool.pool).clone());
                object.status = Some((object.generation, !pools.judgements[name].is_refused(), in_force));
            }
        }
        self.see();
        pools.in_force
    }

    fn see(&mut self) {
        self.seen.retain(|name, seen| self.objects.get(name).is_some_and(|object| object.object.uid == seen.uid));
        for (name, Object { object, generation, status }) in &self.objects {
            let is_judged = status.as_ref().is_some_and(|status| status.0 == *generation);
            let last_good = status.as_ref().filter(|status| is_judged || !status.1).and_then(|status| status.2.clone());
            let spec = object.spec.clone().ok();
            if spec.is_none() && !is_judged && last_good.is_none() {
                continue; // unreadable: the version before stays
            }
            let (uid, created) = (object.uid.clone(), object.created);
            self.seen.insert(name.clone(), ClusterPool { uid, created, deleting: false, spec, last_good, is_judged });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn agents_serve_what_the_controller_gives_and_nothing_else(case in case()) {
        prop_assert_eq!(case.is_given(), case.is_served());
    }

    #[test]
    fn agents_serve_an_address_to_those_whom_the_controller_leaves_it(
        sharers in proptest::collection::vec(sharer(), 2..5),
    ) {
        let inventory = sharing(&sharers);
        let left: BTreeSet<ObjectName> = given_of(&inventory, &settings())
            .into_iter()
            .filter_map(|(name, verdict)| match verdict {
                Verdict::Decided(decision) => {
                    decision.addresses.iter().any(|given| given.address == ip("192.0.2.1")).then_some(name)
                }
                _ => None,
            })
            .collect();
        let composed = composed_of(inventory.clone(), &settings());
        let serves = |name: &&ObjectName| composed.desired.services.iter().any(|one| one.name.starts_with(&format!("{name}:")));
        let served: BTreeSet<ObjectName> = inventory.services.keys().filter(serves).cloned().collect();
        prop_assert_eq!(left, served);
    }

    #[test]
    fn agents_and_controller_have_the_same_pools_in_force_once_it_has_said_so(
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let mut world = World::default();
        for step in steps {
            let in_force = world.take(&step);
            let followed = world.agent.follow(&world.seen);
            if matches!(step, Step::Told) {
                prop_assert_eq!(&followed, &in_force);
                prop_assert_eq!(&PoolSet::default().follow(&world.seen), &in_force, "an agent that begins now");
            }
        }
    }
}
