//! The values of the metrics.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{Family, Labels, Sample, Value, cluster, facts, facts::Fact, members, tracking};
use crate::{
    inspect::{BackendView, Count, Inspection, MapUse, ServiceView},
    status::AgentStatus,
};

/// Every metric with its values, in the order of `facts`.
pub(super) fn families(status: &AgentStatus, maps: Option<&Inspection>) -> Vec<Family> {
    let mut families = of_agent(status);
    families.extend(members::families(status));
    families.extend(cluster::families(status));
    families.push(single(facts::MAPS_READABLE, flag(maps.is_some())));
    families.extend(maps.into_iter().flat_map(of_maps));
    families
}

fn of_agent(status: &AgentStatus) -> Vec<Family> {
    let config = &status.config;
    let dataplane = &status.dataplane;
    let plans = dataplane.plans_applied + dataplane.plans_failed;
    vec![
        labelled(facts::BUILD, "version", [(status.version.clone(), Value::Info)]),
        single(facts::READY, flag(status.ready)),
        labelled(facts::SECRET, "fingerprint", [(config.secret_fingerprint.clone(), Value::Info)]),
        single(facts::CONFIG_GENERATION, gauge(config.generation)),
        single(facts::CONFIG_STALE, flag(config.refused.is_some())),
        single(facts::PLAN_DURATION, Value::Durations(dataplane.plan_seconds, plans)),
        single(facts::APPLY_DURATION, Value::Durations(dataplane.apply_seconds, plans)),
        single(facts::PLANS_FAILED, Value::Count(dataplane.plans_failed)),
        labelled(
            facts::INTERFACE_NATIVE,
            "interface",
            status.interfaces.iter().map(|interface| (interface.name.clone(), flag(interface.mode == "native"))),
        ),
        vips(facts::VIP_HELD, all_vips(status), &status.held.iter().copied().collect()),
        vips(facts::VIP_ANNOUNCED, announced_or_not(status), &announced(status)),
        takes_flows(status),
        labelled(
            facts::PROBES_BELIEVED,
            "service",
            status.services.iter().map(|service| (service.service.to_string(), flag(service.probes_believed))),
        ),
        tracking::slots(status),
        single(facts::SCAN_DURATION, Value::Durations(status.scans.seconds, status.scans.count)),
        single(facts::FLOWS_EXPIRED, Value::Count(status.scans.expired)),
    ]
}

fn all_vips(status: &AgentStatus) -> BTreeSet<IpAddr> {
    status.held.iter().copied().chain(announced_or_not(status)).collect()
}

fn announced_or_not(status: &AgentStatus) -> BTreeSet<IpAddr> {
    status.announcements.iter().map(|announcement| announcement.vip).collect()
}

fn announced(status: &AgentStatus) -> BTreeSet<IpAddr> {
    let announced = status.announcements.iter().filter(|announcement| announcement.announced);
    announced.map(|announcement| announcement.vip).collect()
}

fn vips(fact: &'static Fact, all: BTreeSet<IpAddr>, set: &BTreeSet<IpAddr>) -> Family {
    labelled(fact, "vip", all.into_iter().map(|vip| (vip.to_string(), flag(set.contains(&vip)))))
}

fn takes_flows(status: &AgentStatus) -> Family {
    let samples = status.backends.iter().map(|backend| Sample {
        labels: vec![
            ("service", backend.service.to_string()),
            ("backend", SocketAddr::new(backend.address, backend.port).to_string()),
        ],
        value: flag(backend.takes_flows),
    });
    Family { fact: facts::BACKEND_TAKES_FLOWS, samples: samples.collect() }
}

fn of_maps(maps: &Inspection) -> Vec<Family> {
    let map = |fact, value: fn(&MapUse) -> Option<u64>| {
        let values = maps.maps.iter().filter_map(|map| Some((map.name.to_owned(), gauge(value(map)?))));
        labelled(fact, "map", values)
    };
    vec![
        services(facts::SERVICE_PACKETS, maps, |service| service.packets),
        services(facts::SERVICE_BYTES, maps, |service| service.bytes),
        backends(facts::BACKEND_PACKETS, maps, |backend| backend.packets),
        backends(facts::BACKEND_BYTES, maps, |backend| backend.bytes),
        tracking::recorded(maps),
        tracking::limits(maps),
        tracking::refused(maps),
        // What is not for a VIP is not counted, so that a zero would mislead.
        counts(facts::VERDICTS, "verdict", maps.verdicts.get(1..).unwrap_or_default()),
        counts(facts::DROPS, "reason", &maps.drops),
        map(facts::MAP_ENTRIES, |map| map.entries.map(u64::from)),
        map(facts::MAP_CAPACITY, |map| Some(u64::from(map.capacity))),
        map(facts::MAP_MEMORY, |map| Some(map.memory_bytes)),
    ]
}

fn services(fact: &'static Fact, maps: &Inspection, value: fn(&ServiceView) -> u64) -> Family {
    let samples = maps
        .services
        .iter()
        .map(|service| Sample { labels: service_labels(service), value: Value::Count(value(service)) });
    Family { fact, samples: samples.collect() }
}

fn backends(fact: &'static Fact, maps: &Inspection, value: fn(&BackendView) -> u64) -> Family {
    let of_service = |service: &ServiceView| {
        let labels = service_labels(service);
        let sample = move |backend: &BackendView| {
            let address = SocketAddr::new(backend.address, backend.port).to_string();
            Sample {
                labels: labels.iter().cloned().chain([("backend", address)]).collect(),
                value: Value::Count(value(backend)),
            }
        };
        service.backends.iter().map(sample).collect::<Vec<_>>()
    };
    Family { fact, samples: maps.services.iter().flat_map(of_service).collect() }
}

pub(super) fn service_labels(service: &ServiceView) -> Labels {
    vec![
        ("service", service.name.clone()),
        ("vip", service.vip.to_string()),
        ("port", service.port.to_string()),
        ("protocol", service.protocol.clone()),
    ]
}

fn counts(fact: &'static Fact, label: &'static str, counts: &[Count]) -> Family {
    let values = counts.iter().map(|count| (count.name.to_owned(), Value::Count(count.packets)));
    labelled(fact, label, values)
}

pub(super) fn labelled(
    fact: &'static Fact,
    label: &'static str,
    values: impl IntoIterator<Item = (String, Value)>,
) -> Family {
    let sample = |(name, value)| Sample { labels: vec![(label, name)], value };
    Family { fact, samples: values.into_iter().map(sample).collect() }
}

pub(super) fn single(fact: &'static Fact, value: Value) -> Family {
    Family { fact, samples: vec![Sample { labels: Vec::new(), value }] }
}

pub(super) fn flag(is_set: bool) -> Value {
    Value::Gauge(i64::from(is_set))
}

pub(super) fn gauge(value: u64) -> Value {
    Value::Gauge(i64::try_from(value).unwrap_or(i64::MAX))
}
