//! Random histories: Services and pools come, change and go; writes are lost, shown late, or applied although they
//! seemed to fail; the process starts anew.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    cluster::{
        claim::{ADDRESSES, SHARING_KEY, sharing_key},
        pools::{PoolError, PoolObject, PoolSet, Pools},
    },
    model::{
        inventory::{Ingress, ServicePort},
        pool::{AnnouncePolicy, Pool},
    },
};

/// What happens between two rounds.
#[derive(Clone, Debug)]
enum Step {
    /// A Service comes, or is changed.
    Service { name: u8, shape: Shape },
    /// A Service goes.
    Gone(u8),
    /// A pool comes, or is changed.
    Pool { name: u8, first: u8, more: u8, only: Option<u8>, priority: i32 },
    /// A pool's spec makes no sense any more.
    Spoilt(u8),
    /// A pool goes.
    PoolGone(u8),
    /// The process starts anew: only what the API server has is left.
    Restart,
}

#[derive(Clone, Debug)]
struct Shape {
    key: Option<u8>,
    port: u16,
    asks: Option<u8>,
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Applied and shown at once.
    Shown,
    /// Applied, shown one round later.
    Late,
    /// Never applied.
    Lost,
}

fn shape() -> impl Strategy<Value = Shape> {
    let asks = prop_oneof![4 => Just(None), 1 => (0u8..40).prop_map(Some)];
    let key = prop_oneof![2 => Just(None), 1 => (0u8..2).prop_map(Some)];
    (key, 80u16..83, asks).prop_map(|(key, port, asks)| Shape { key, port, asks })
}

fn step() -> impl Strategy<Value = Step> {
    let only = prop_oneof![2 => Just(None), 1 => (0u8..2).prop_map(Some)];
    prop_oneof![
        6 => (0u8..8, shape()).prop_map(|(name, shape)| Step::Service { name, shape }),
        2 => (0u8..8).prop_map(Step::Gone),
        3 => (0u8..3, 0u8..30, 0u8..12, only, 0i32..2)
            .prop_map(|(name, first, more, only, priority)| Step::Pool { name, first, more, only, priority }),
        1 => (0u8..3).prop_map(Step::Spoilt),
        1 => (0u8..3).prop_map(Step::PoolGone),
        3 => Just(Step::Restart),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![2 => Just(Fate::Shown), 1 => Just(Fate::Late), 1 => Just(Fate::Lost)]
}

fn addresses_of(decision: &Decision) -> Vec<IpAddr> {
    decision.addresses.iter().map(|given| given.address).collect()
}

fn octet(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn service_name(number: u8) -> ObjectName {
    ObjectName::new(format!("ns{}", number % 2), format!("s{number}"))
}

/// The API server and the process beside it.
#[derive(Default)]
struct World {
    clock: i64,
    services: BTreeMap<ObjectName, ClusterService>,
    /// What was written and is not in the cache yet; also what was lost, as the process cannot know.
    pending: BTreeMap<ObjectName, (Vec<IpAddr>, bool)>,
    objects: BTreeMap<String, PoolObject>,
    set: PoolSet,
    pools: Pools,
}

impl World {
    fn take(&mut self, step: &Step) {
        self.clock += 1;
        match step {
            Step::Service { name, shape } => self.put_service(service_name(*name), shape),
            Step::Gone(name) => {
                self.services.remove(&service_name(*name));
                self.pending.remove(&service_name(*name));
            }
            Step::Pool { name, first, more, only, priority } => {
                let range = format!("{}-{}", octet(*first), octet(first + more));
                let pool = Pool {
                    addresses: vec![range.parse().unwrap()],
                    namespaces: only.iter().map(|only| format!("ns{only}")).collect(),
                    service_selector: BTreeMap::new(),
                    priority: *priority,
                    auto_assign: true,
                    avoid_buggy_ips: false,
                    allow_external_ips: false,
                    announce: AnnouncePolicy::default(),
                };
                let object = self.object(*name);
                object.spec = Ok(pool);
            }
            Step::Spoilt(name) => {
                if self.objects.contains_key(&format!("p{name}")) {
                    self.object(*name).spec = Err(PoolError::Empty);
                }
            }
            Step::PoolGone(name) => {
                self.objects.remove(&format!("p{name}"));
            }
            Step::Restart => {
                // What is written comes to be seen: a new process begins with a complete list.
                self.show();
                self.pending.clear();
                self.set = PoolSet::default();
            }
        }
        self.pools = self.set.update(&self.objects);
        // As the status of the pools remembers it.
        for (name, object) in &mut self.objects {
            object.last_good = self.pools.in_force.get(name).map(|pool| (*pool.pool).clone());
        }
    }

    fn object(&mut self, name: u8) -> &mut PoolObject {
        let new = PoolObject {
            uid: format!("{}", self.clock),
            created: self.clock,
            deleting: false,
            spec: Err(PoolError::Empty),
            last_good: None,
        };
        self.objects.entry(format!("p{name}")).or_insert(new)
    }

    fn put_service(&mut self, name: ObjectName, shape: &Shape) {
        // Another version of the object ends the doubt.
        self.show();
        self.pending.remove(&name);
        let clock = self.clock;
        let service = self.services.entry(name).or_insert_with(|| ClusterService {
            created: clock,
            is_load_balancer: true,
            load_balancer_class: Some("levee.dev/levee".to_owned()),
            families: vec![IpFamily::Ipv4],
            ..ClusterService::default()
        });
        service.ports = vec![ServicePort { name: String::new(), protocol: "TCP".to_owned(), port: shape.port }];
        let key = shape.key.map(|key| (SHARING_KEY.to_owned(), key.to_string()));
        let asks = shape.asks.map(|last| (ADDRESSES.to_owned(), octet(last).to_string()));
        service.annotations = key.into_iter().chain(asks).collect();
    }

    fn show(&mut self) {
        for (name, (addresses, applied)) in &self.pending {
            if *applied && let Some(service) = self.services.get_mut(name) {
                let entry = |address: &IpAddr| Ingress { ip: Some(address.to_string()), ..Ingress::default() };
                service.ingress = addresses.iter().map(entry).collect();
            }
        }
    }

    fn verdicts(&self) -> BTreeMap<ObjectName, Verdict> {
        let claimant = |name: &ObjectName, service: &ClusterService| Claimant {
            service: Arc::new(service.clone()),
            ours: true,
            pending: self.pending.get(name).map(|(addresses, _)| addresses.clone()),
        };
        let services: BTreeMap<_, _> =
            self.services.iter().map(|(name, service)| (name.clone(), claimant(name, service))).collect();
        let (forbidden, rule) = (Forbidden::default(), ClassRule::default());
        let situation =
            Situation { services: &services, pools: &self.pools.in_force, forbidden: &forbidden, rule: &rule };
        allocate(&situation)
    }

    /// Services whose status is not shown as it is.
    fn late(&self) -> BTreeSet<ObjectName> {
        self.pending.iter().filter(|(_, (_, applied))| *applied).map(|(name, _)| name.clone()).collect()
    }

    /// What every Service really has, be it shown or not.
    fn live(&self) -> BTreeMap<ObjectName, Vec<IpAddr>> {
        let shown = |service: &ClusterService| {
            service.ingress.iter().map(|entry| entry.ip.as_deref().unwrap().parse().unwrap()).collect()
        };
        let mut live: BTreeMap<_, Vec<IpAddr>> =
            self.services.iter().map(|(name, service)| (name.clone(), shown(service))).collect();
        for (name, (addresses, applied)) in &self.pending {
            if *applied {
                live.insert(name.clone(), addresses.clone());
            }
        }
        live
    }

    /// Writes what differs from what is shown; the server refuses what is not based on the latest version.
    fn write(&mut self, verdicts: &BTreeMap<ObjectName, Verdict>, fates: &[Fate]) {
        let stale = self.late();
        self.show();
        self.pending.clear();
        let live = self.live();
        for (index, (name, verdict)) in verdicts.iter().enumerate() {
            let Verdict::Decided(decision) = verdict else { continue };
            let addresses = addresses_of(decision);
            if live[name] == addresses || stale.contains(name) {
                continue;
            }
            match fates[index % fates.len()] {
                Fate::Lost => self.pending.insert(name.clone(), (addresses, false)),
                Fate::Shown | Fate::Late => self.pending.insert(name.clone(), (addresses, true)),
            };
            if matches!(fates[index % fates.len()], Fate::Shown) {
                self.show();
                self.pending.remove(name);
            }
        }
    }

    fn assert_none_twice(&self, live: &BTreeMap<ObjectName, Vec<IpAddr>>) {
        let mut seen: BTreeMap<IpAddr, &ObjectName> = BTreeMap::new();
        for (name, address) in live.iter().flat_map(|(name, all)| all.iter().map(move |address| (name, *address))) {
            if let Some(other) = seen.insert(address, name) {
                let (a, b) = (&self.services[name], &self.services[other]);
                let shared = sharing_key(a).is_some() && sharing_key(a) == sharing_key(b) && a.ports != b.ports;
                assert!(shared, "{name} and {other} both have {address}");
            }
        }
    }

    /// Whether a Service may go on having the address, by the rules as they are told to users.
    fn may_keep(&self, name: &ObjectName, address: IpAddr, all: &BTreeMap<ObjectName, Vec<IpAddr>>) -> bool {
        let service = &self.services[name];
        let admitted =
            self.pools.in_force.values().filter(|pool| pool.contains(address)).all(|pool| pool.admits(name, service));
        let asks_for_other = service.annotations.get(ADDRESSES).is_some_and(|asked| *asked != address.to_string());
        // A write in doubt counts as done.
        let doubted = self.pending.iter().map(|(other, (addresses, _))| (other, addresses));
        let contested = all.iter().chain(doubted).any(|(other, has)| other != name && has.contains(&address));
        admitted && !asks_for_other && !contested
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_address_is_given_twice_and_none_changes_while_it_may_stay(
        steps in proptest::collection::vec((step(), proptest::collection::vec(fate(), 1..5)), 1..50),
    ) {
        let mut world = World::default();
        for (step, fates) in steps {
            world.take(&step);
            let before = world.live();
            let verdicts = world.verdicts();
            prop_assert_eq!(&world.verdicts(), &verdicts, "deterministic");
            let late = world.late();
            for (name, addresses) in before.iter().filter(|(name, _)| !late.contains(*name)) {
                for address in addresses.iter().filter(|address| world.may_keep(name, **address, &before)) {
                    let Verdict::Decided(decision) = &verdicts[name] else { panic!("{name}: not decided") };
                    let kept = decision.addresses.iter().any(|given| given.address == *address);
                    prop_assert!(kept, "{} had {} and may keep it, but gets {:?}", name, address, decision);
                }
            }
            world.write(&verdicts, &fates);
            // Users' edits of keys and ports can part those that share, until the next write.
            let decided = verdicts.iter().filter_map(|(name, verdict)| match verdict {
                Verdict::Decided(decision) => Some((name.clone(), addresses_of(decision))),
                _ => None,
            });
            world.assert_none_twice(&decided.collect());
        }
    }

    #[test]
    fn fifty_restarts_with_lost_writes_change_no_address(
        shapes in proptest::collection::vec(shape(), 1..8),
        fates in proptest::collection::vec(proptest::collection::vec(fate(), 8), 50),
    ) {
        let mut world = World::default();
        world.take(&Step::Pool { name: 0, first: 0, more: 40, only: None, priority: 0 });
        for (number, shape) in (0u8..).zip(&shapes) {
            world.take(&Step::Service { name: number, shape: shape.clone() });
        }
        let mut first_seen: BTreeMap<ObjectName, Vec<IpAddr>> = BTreeMap::new();
        for fates in &fates {
            let verdicts = world.verdicts();
            world.write(&verdicts, fates);
            let live = world.live();
            world.assert_none_twice(&live);
            for (name, addresses) in live.into_iter().filter(|(_, addresses)| !addresses.is_empty()) {
                let first = first_seen.entry(name.clone()).or_insert_with(|| addresses.clone());
                prop_assert_eq!(&*first, &addresses, "{}", name);
            }
            world.take(&Step::Restart);
        }
    }
}
