//! What a configuration asks of the other parts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::model::{Backend, DesiredState, ProbeTarget, Service, Shared};

/// What services ask for, each with how many backends do: of a new configuration only those services are looked at that
/// are not in the very same place as before.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    backends: BTreeMap<IpAddr, usize>,
    probes: BTreeMap<ProbeTarget, usize>,
}

/// Addresses whose way a plan depends on.
pub fn wanted_hops(desired: &DesiredState) -> BTreeSet<IpAddr> {
    Wanted::of(&desired.services).hops(desired)
}

/// What has to be probed.
pub fn wanted_probes(desired: &DesiredState) -> BTreeSet<ProbeTarget> {
    Wanted::of(&desired.services).probes()
}

impl Wanted {
    /// What these services ask for.
    pub fn of(services: &[Shared<Service>]) -> Self {
        let mut wanted = Self::default();
        wanted.follow(&[], services);
        wanted
    }

    /// Goes on from services to others, both in the order of their names.
    pub fn follow(&mut self, before: &[Shared<Service>], after: &[Shared<Service>]) {
        let mut before = before.iter().peekable();
        for service in after {
            if before.next_if(|known| known.is(service)).is_some() {
                continue;
            }
            while let Some(known) = before.next_if(|known| known.name < service.name) {
                self.forget(known);
            }
            match before.next_if(|known| known.name == service.name) {
                Some(known) if known.is(service) => continue,
                Some(known) => self.forget(known),
                None => {}
            }
            for backend in &service.backends {
                *self.backends.entry(backend.address).or_default() += 1;
                if let Some(target) = target(service, backend) {
                    *self.probes.entry(target).or_default() += 1;
                }
            }
        }
        before.for_each(|known| self.forget(known));
    }

    /// Addresses whose way a plan depends on.
    pub fn hops(&self, desired: &DesiredState) -> BTreeSet<IpAddr> {
        let peers = desired.peers.iter().flat_map(|peer| &peer.addresses);
        let all = self.backends.keys().chain(peers);
        all.copied().filter(|address| !desired.node.addresses.contains(address)).collect()
    }

    /// What has to be probed.
    pub fn probes(&self) -> BTreeSet<ProbeTarget> {
        self.probes.keys().cloned().collect()
    }

    fn forget(&mut self, service: &Service) {
        for backend in &service.backends {
            forget(&mut self.backends, &backend.address);
            if let Some(target) = target(service, backend) {
                forget(&mut self.probes, &target);
            }
        }
    }
}

fn target(service: &Service, backend: &Backend) -> Option<ProbeTarget> {
    service.probe.as_ref().map(|probe| ProbeTarget { address: backend.address, probe: Arc::clone(probe) })
}

fn forget<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Delivery, HoldWhen, MssClamp, Probe, ProbeKind, Protocol, RingSize};

    /// A service with backends of these last bytes, probed or not.
    fn service(number: u8, backends: &BTreeSet<u8>, is_probed: bool) -> Shared<Service> {
        let second = Duration::from_secs(1);
        let probe = Probe { kind: ProbeKind::Tcp, port: 80, interval: second, timeout: second, rise: 1, fall: 1 };
        let service = Service {
            name: format!("s{number}"),
            vips: vec![[192, 0, 2, number].into()],
            ports: vec![80],
            protocol: Protocol::Tcp,
            delivery: Delivery::Auto,
            ring_size: RingSize::DEFAULT,
            backends: backends.iter().map(|last| Backend { address: address(*last), port: 80, weight: 1 }).collect(),
            probe: is_probed.then(|| probe.into()),
            flow_timeout: second,
            affinity: None,
            slow_start: Duration::ZERO,
            source_ranges: Vec::new(),
            drop_unmatched: true,
            mss_clamp: MssClamp::Off,
            hold: HoldWhen::Trusted,
            connect_translation: false,
            second_chance: true,
            local_first: false,
        };
        service.into()
    }

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn services() -> impl Strategy<Value = BTreeMap<u8, (BTreeSet<u8>, bool)>> {
        let backends = prop::collection::btree_set(0u8..5, 0..4);
        prop::collection::btree_map(0u8..5, (backends, any::<bool>()), 0..5)
    }

    proptest! {
        #[test]
        fn what_follows_is_what_begins_there(history in prop::collection::vec(services(), 1..10)) {
            let (mut wanted, mut before) = (Wanted::default(), Vec::new());
            for services in history {
                let now = services.iter().map(|(number, (backends, is_probed))| service(*number, backends, *is_probed));
                let mut now: Vec<Shared<Service>> = now.collect();
                // Some that did not change are in their place, others are made anew.
                for service in now.iter_mut().skip(1) {
                    *service = before.iter().find(|known| *known == service).unwrap_or(service).clone();
                }
                wanted.follow(&before, &now);
                prop_assert_eq!(&wanted, &Wanted::of(&now));
                let backends = services.values().flat_map(|(backends, _)| backends.iter().copied().map(address));
                prop_assert_eq!(wanted.backends.keys().copied().collect::<BTreeSet<_>>(), backends.collect());
                before = now;
            }
        }
    }
}
