//! Metrics of the reading of the cluster.

use super::{
    Family, Sample, Value, facts,
    facts::Fact,
    samples::{flag, gauge, labelled},
};
use crate::status::{FollowStatus, WatchStatus};

/// Their values in the order of `facts`; none of a source that does not run.
pub(super) fn families(source: Option<&FollowStatus>) -> Vec<Family> {
    let kinds = |fact, value: fn(&WatchStatus) -> Option<Value>| {
        let kinds = source.into_iter().flat_map(|source| &source.kinds);
        labelled(fact, "resource", kinds.filter_map(|kind| Some((kind.resource.clone(), value(kind)?))))
    };
    let server = source.filter(|source| source.error.is_none()).and_then(|source| source.server.clone());
    let server = server.map(|server| Sample { labels: vec![("server", server)], value: Value::Info });
    let saved = source.and_then(|source| source.saved.as_ref());
    let renewed = source.and_then(|source| source.lease.renewed);
    vec![
        Family { fact: facts::KUBERNETES_SERVER, samples: server.into_iter().collect() },
        kinds(facts::KUBERNETES_LISTED, |kind| kind.listed.map(gauge)),
        kinds(facts::KUBERNETES_HEARD, |kind| kind.heard.map(gauge)),
        kinds(facts::KUBERNETES_LISTS, |kind| Some(Value::Count(kind.lists))),
        kinds(facts::KUBERNETES_FAILURES, |kind| Some(Value::Count(kind.failures))),
        kinds(facts::KUBERNETES_DOUBTED, |kind| Some(flag(kind.doubted.is_some()))),
        kinds(facts::KUBERNETES_UNREADABLE, |kind| Some(gauge(kind.unreadable.len() as u64))),
        at_most_one(facts::KUBERNETES_SAVE_FAILED, saved.map(|saved| flag(saved.error.is_some()))),
        at_most_one(facts::KUBERNETES_LEASE, renewed.map(gauge)),
    ]
}

fn at_most_one(fact: &'static Fact, value: Option<Value>) -> Family {
    let samples = value.map(|value| Sample { labels: Vec::new(), value });
    Family { fact, samples: samples.into_iter().collect() }
}
