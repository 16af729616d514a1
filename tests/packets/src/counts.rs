//! Every counter of the program, by name.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use aya::maps::{MapData, PerCpuArray};
use lb_agent::{dataplane::Tables, plan::MapState};
use lb_common::{
    maps::counters::Counters,
    verdict::{DropReason, Verdict},
};

use crate::world::World;

/// Counters that are not zero, summed over the CPUs, by name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Reads all counters; `state` says which service and backend an index stands for.
    ///
    /// # Panics
    /// If a map cannot be read.
    #[must_use]
    pub fn read(tables: &Tables, state: &MapState) -> Self {
        let mut counts = Self::default();
        for verdict in Verdict::ALL {
            counts.add(verdict_name(*verdict), sum(&tables.verdicts, *verdict as u32));
        }
        for reason in DropReason::ALL {
            counts.add(drop_name(*reason), sum(&tables.drops, *reason as u32));
        }
        let (mut services, mut backends) = (BTreeMap::new(), BTreeMap::new());
        for service in state.services.values() {
            services.insert(service.index, service_name(&service.name));
            for ((address, _), backend) in &service.backends {
                let name = backend_name(&service.name, IpAddr::from(*address));
                backends.insert(backend.id.index(), name);
            }
        }
        for (map, entries, names) in [
            (&tables.service_counters, state.sizes.services, services),
            (&tables.backend_counters, state.sizes.backends, backends),
        ] {
            for index in 0..entries {
                let name = names.get(&index).cloned();
                counts.add_counters(&name.unwrap_or_else(|| format!("unused entry {index}")), total(map, index));
            }
        }
        counts
    }

    /// One packet that ended in this verdict.
    #[must_use]
    pub fn of_verdict(verdict: Verdict) -> Self {
        let mut counts = Self::default();
        if verdict != Verdict::NotOurs {
            counts.add(verdict_name(verdict), 1);
        }
        counts
    }

    /// One packet that was dropped for this reason.
    #[must_use]
    pub fn of_drop(reason: DropReason) -> Self {
        let mut counts = Self::default();
        counts.add(drop_name(reason), 1);
        counts
    }

    /// And it went, with this many bytes, to a backend of a world.
    #[must_use]
    pub fn and_served(mut self, world: &World, backend: IpAddr, bytes: u64) -> Self {
        let name = world.service_of(backend).name();
        let one = Counters { packets: 1, bytes };
        self.add_counters(&service_name(&name), one);
        self.add_counters(&backend_name(&name, backend), one);
        self
    }

    /// The same, as often as this.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.0.values_mut().for_each(|value| *value *= count);
        self
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        for (name, value) in &others.0 {
            self.add(name.clone(), *value);
        }
        self
    }

    /// What was counted since an earlier reading.
    ///
    /// # Panics
    /// If a counter went backwards.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut counts = Self::default();
        for name in before.0.keys() {
            assert!(self.get(name) >= before.get(name), "the counter \"{name}\" went backwards");
        }
        for (name, value) in &self.0 {
            counts.add(name.clone(), value - before.get(name));
        }
        counts
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Packets of one verdict.
    #[must_use]
    pub fn verdict(&self, verdict: Verdict) -> u64 {
        self.get(&verdict_name(verdict))
    }

    /// Packets dropped for one reason.
    #[must_use]
    pub fn drop(&self, reason: DropReason) -> u64 {
        self.get(&drop_name(reason))
    }

    /// Packets dropped for any reason.
    #[must_use]
    pub fn drops(&self) -> u64 {
        DropReason::ALL.iter().map(|reason| self.drop(*reason)).sum()
    }

    fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn add(&mut self, name: String, value: u64) {
        if value > 0 {
            *self.0.entry(name).or_default() += value;
        }
    }

    fn add_counters(&mut self, name: &str, counters: Counters) {
        self.add(format!("{name}: packets"), counters.packets);
        self.add(format!("{name}: bytes"), counters.bytes);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: Vec<String> = self.0.iter().map(|(name, value)| format!("{name} +{value}")).collect();
        f.write_str(&if entries.is_empty() { "nothing".to_owned() } else { entries.join(", ") })
    }
}

fn verdict_name(verdict: Verdict) -> String {
    format!("verdict {}", verdict.label())
}

fn drop_name(reason: DropReason) -> String {
    format!("drop {}", reason.label())
}

fn service_name(name: &str) -> String {
    format!("service {name}")
}

fn backend_name(service: &str, address: IpAddr) -> String {
    format!("backend {address} of {service}")
}

fn sum(map: &PerCpuArray<MapData, u64>, index: u32) -> u64 {
    let values = map.get(&index, 0);
    values.unwrap_or_else(|error| panic!("reading counter {index}: {error}")).iter().sum()
}

fn total(map: &PerCpuArray<MapData, Counters>, index: u32) -> Counters {
    let values = map.get(&index, 0);
    let values = values.unwrap_or_else(|error| panic!("reading counter {index}: {error}"));
    values.iter().fold(Counters::default(), |sum, value| Counters {
        packets: sum.packets + value.packets,
        bytes: sum.bytes + value.bytes,
    })
}
