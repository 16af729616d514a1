//! Metrics of the cluster that is followed, and of probes that it does not answer.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{
    Family, Sample, Value, facts,
    samples::{flag, gauge, labelled, single},
    source,
};
use crate::status::{AgentStatus, ClusterStatus};

/// Their values; of a cluster only if one is followed.
pub(super) fn families(status: &AgentStatus) -> Vec<Family> {
    let cluster = status.cluster.as_ref();
    let one = |fact, value: fn(&ClusterStatus) -> Value| match cluster {
        Some(cluster) => single(fact, value(cluster)),
        None => Family { fact, samples: Vec::new() },
    };
    let saved = cluster.and_then(|cluster| cluster.saved).map(gauge);
    let mut families = vec![
        wants_credentials(status),
        one(facts::KUBERNETES_LIVE, |cluster| flag(cluster.origin == "live")),
        saved.map_or(Family { fact: facts::KUBERNETES_SAVED, samples: Vec::new() }, |at| {
            single(facts::KUBERNETES_SAVED, at)
        }),
        labelled(facts::KUBERNETES_OBJECTS, "kind", cluster.into_iter().flat_map(objects)),
        one(facts::KUBERNETES_SERVED, |cluster| gauge(cluster.served as u64)),
        Family { fact: facts::KUBERNETES_JUDGEMENTS, samples: cluster.map(judgements).unwrap_or_default() },
        one(facts::KUBERNETES_WITHHELD, |cluster| gauge(cluster.withheld.len() as u64)),
        one(facts::KUBERNETES_COMPOSE, |cluster| Value::Durations(cluster.compose_seconds, cluster.compositions)),
    ];
    families.extend(source::families(cluster.and_then(|cluster| cluster.source.as_ref())));
    families
}

fn objects(cluster: &ClusterStatus) -> [(String, Value); 3] {
    [("Node", cluster.nodes), ("Service", cluster.services), ("VipPool", cluster.pools)]
        .map(|(kind, count)| (kind.to_owned(), gauge(count as u64)))
}

fn judgements(cluster: &ClusterStatus) -> Vec<Sample> {
    let mut counts: BTreeMap<_, u64> = BTreeMap::new();
    for judgement in &cluster.judgements {
        *counts.entry((judgement.severity, judgement.reason)).or_default() += 1;
    }
    let samples = counts.into_iter().map(|((severity, reason), count)| Sample {
        labels: vec![("severity", severity.to_string()), ("reason", reason.to_string())],
        value: gauge(count),
    });
    samples.collect()
}

fn wants_credentials(status: &AgentStatus) -> Family {
    let refused = status.backends.iter().filter(|backend| backend.health == "wantsCredentials");
    let samples = refused.map(|backend| Sample {
        labels: vec![
            ("service", backend.service.to_string()),
            ("backend", SocketAddr::new(backend.address, backend.port).to_string()),
        ],
        value: flag(true),
    });
    Family { fact: facts::WANTS_CREDENTIALS, samples: samples.collect() }
}
