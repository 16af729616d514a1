//! A decider that remembers decides as one that begins.

use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::model::Failing;

#[derive(Clone, Debug)]
enum Step {
    /// Other backends of a service: last bytes and weights.
    Backends(usize, Vec<(usize, u16)>),
    /// Another service at the same place.
    Service(usize, usize),
    /// A service less, or one more that was there before.
    Without(usize),
    Probe(usize, usize),
    /// A backend failed its latest probe, since this second; it had answered a second before.
    Failing(usize, Option<u64>),
    /// What the maps say of the VIPs.
    Held(bool),
    Drain(usize),
    Undrain,
    Unproven(bool),
    Way(bool),
    Silent(bool),
    Time(u64),
}

const BACKENDS: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.9.3"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..4, prop::collection::vec((0usize..3, 0u16..3), 0..4))
            .prop_map(|(service, backends)| Step::Backends(service, backends)),
        2 => (0usize..4, 0usize..8).prop_map(|(service, kind)| Step::Service(service, kind)),
        1 => (0usize..4).prop_map(Step::Without),
        2 => (0usize..3, 0usize..4).prop_map(|(backend, state)| Step::Probe(backend, state)),
        2 => (0usize..3, prop::option::of(0u64..4)).prop_map(|(backend, since)| Step::Failing(backend, since)),
        2 => any::<bool>().prop_map(Step::Held),
        1 => (0usize..3).prop_map(Step::Drain),
        1 => Just(Step::Undrain),
        1 => any::<bool>().prop_map(Step::Unproven),
        1 => any::<bool>().prop_map(Step::Way),
        1 => any::<bool>().prop_map(Step::Silent),
        2 => (1u64..20).prop_map(Step::Time),
    ]
}

/// A service at one of two VIPs, so that one may hold what another is served at.
fn service(number: usize, kind: usize) -> Service {
    let world = World::new(Delivery::Auto);
    let mut service = (*world.desired.services[0]).clone();
    service.name = format!("s{number}");
    service.vips = vec![ip(["192.0.2.10", "192.0.2.11"][number % 2])];
    service.ports = vec![7000 + u16::try_from(number).unwrap()];
    match kind {
        1 => service.slow_start = Duration::from_secs(30),
        2 => service.hold = HoldWhen::PortOpen,
        3 => service.probe = None,
        4 => service.delivery = Delivery::Local,
        5 => service.connect_translation = true,
        6 => service.local_first = true,
        7 => (service.local_first, service.hold) = (true, HoldWhen::PortOpen),
        _ => {}
    }
    service
}

impl World {
    /// Takes a step of a history that began then.
    fn take(&mut self, step: &Step, began: Instant) {
        let services = &mut self.desired.services;
        match step {
            Step::Backends(at, backends) if *at < services.len() => {
                let backends: BTreeMap<usize, u16> = backends.iter().copied().collect();
                let backend = |(index, weight)| Backend { address: ip(BACKENDS[index]), port: 6443, weight };
                services[*at].backends = backends.into_iter().map(backend).collect();
            }
            Step::Service(number, kind) => {
                services.retain(|known| known.name != format!("s{number}"));
                services.push(service(*number, *kind).into());
                services.sort_by(|a, b| a.name.cmp(&b.name));
            }
            Step::Without(at) if *at < services.len() => drop(services.remove(*at)),
            Step::Backends(..) | Step::Without(_) => {}
            Step::Probe(backend, state) => {
                let states = [ProbeState::Unknown, ProbeState::Healthy, failed(), not_ready()];
                self.probe(BACKENDS[*backend], states[*state].clone());
            }
            Step::Failing(backend, since) => {
                let target = ProbeTarget { address: ip(BACKENDS[*backend]), probe: tcp_probe() };
                self.health.failing.remove(&target);
                let at = |second: u64| began + Duration::from_secs(second);
                let failing =
                    since.map(|since| Failing { since: at(since + 1), answered: Some(at(since)), ended: None });
                self.health.failing.extend(failing.map(|failing| (target, failing)));
            }
            Step::Held(is_so) => {
                let flags = if *is_so { AddressEntry::VIP | AddressEntry::HELD } else { AddressEntry::VIP };
                self.addresses = ["192.0.2.10", "192.0.2.11"].map(|vip| (ip(vip).into(), flags)).into();
            }
            Step::Drain(node) => {
                let drain = Drain { since: 1, deadline: Some(self.monotonic + 9), with_node: true };
                self.drains.nodes.insert(format!("node-{}", 1 + node % 2), drain);
            }
            Step::Undrain => self.drains = Drains::default(),
            Step::Unproven(is_so) => {
                let own = BackendAddress { address: ip(BACKENDS[0]), port: 6443 };
                self.unproven = is_so.then(|| ("s0".to_owned(), own)).into_iter().collect();
            }
            Step::Way(there) => {
                self.network = network();
                self.network.next_hops.retain(|_, _| *there);
            }
            Step::Silent(is_so) => self.members = if *is_so { silent() } else { Members::default() },
            Step::Time(seconds) => {
                self.now += Duration::from_secs(*seconds);
                self.monotonic += seconds;
            }
        }
    }
}

fn silent() -> Members {
    let state = crate::model::MemberState::Silent { since: Instant::now() };
    let member = crate::model::Member { addresses: vec![ip("10.0.0.2")], state, knows_us: Some(true) };
    Members { peers: BTreeMap::from([("node-2".to_owned(), member)]), ..Members::default() }
}

proptest! {
    #[test]
    fn a_decider_that_remembers_decides_as_one_that_begins(
        kinds in prop::array::uniform3(0usize..8),
        steps in prop::collection::vec(step(), 1..25),
    ) {
        let mut world = World::new(Delivery::Auto);
        world.desired.services = (0..3).zip(kinds).map(|(number, kind)| service(number, kind).into()).collect();
        let (mut decider, began) = (Decider::default(), Instant::now());
        for step in steps {
            world.take(&step, began);
            let decision = decider.decide(&world.inputs());
            prop_assert_eq!(&*decision, &world.decide());
            world.addresses.clone_from(&decision.target.addresses);
            world.takers.clone_from(&decision.takers);
        }
    }

    #[test]
    fn what_did_not_change_stays_in_its_place(at in 0usize..3) {
        let mut world = World::new(Delivery::Auto);
        world.desired.services = (0..3).map(|number| service(number, 3).into()).collect();
        let mut decider = Decider::default();
        let before = decider.decide(&world.inputs()).target.services.clone();
        world.desired.services[at].backends[1].weight = 7;
        let after = &decider.decide(&world.inputs()).target.services;
        let moved = before.iter().filter(|(key, target)| !target.is(&after[*key]));
        prop_assert_eq!(moved.map(|(_, target)| target.name.clone()).collect::<Vec<_>>(), [format!("s{at}")]);
    }
}
