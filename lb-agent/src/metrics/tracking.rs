//! The metrics of recorded flows and of slots that are not settled.

use super::{
    Family, Labels, Sample, Value, facts,
    samples::{gauge, service_labels},
};
use crate::{
    inspect::{Inspection, ServiceView},
    status::AgentStatus,
};

/// Slots that are not settled, by service and state.
pub(super) fn slots(status: &AgentStatus) -> Family {
    let samples = status.changes.iter().flat_map(|one| {
        let labels: Labels = vec![
            ("service", one.service.clone()),
            ("vip", one.vip.to_string()),
            ("port", one.port.to_string()),
            ("protocol", one.protocol.clone()),
        ];
        let of = move |state: &str, slots| sample(labels.clone(), "state", state, gauge(slots));
        [of("unsettled", one.unsettled), of("settling", one.settling)]
    });
    Family { fact: facts::SLOTS_NOT_SETTLED, samples: samples.collect() }
}

/// Recorded flows by service and table.
pub(super) fn recorded(maps: &Inspection) -> Family {
    let of = |service: &ServiceView, table: &str, flows| sample(service_labels(service), "table", table, gauge(flows));
    let both =
        |service: &ServiceView| [of(service, "new", service.tracking.new), of(service, "old", service.tracking.old)];
    Family { fact: facts::FLOWS, samples: maps.services.iter().flat_map(both).collect() }
}

/// The most flows of each service in either table.
pub(super) fn limits(maps: &Inspection) -> Family {
    let of = |service: &ServiceView| Sample { labels: service_labels(service), value: gauge(service.tracking.limit) };
    Family { fact: facts::FLOWS_LIMIT, samples: maps.services.iter().map(of).collect() }
}

/// What found no room, by service and table.
pub(super) fn refused(maps: &Inspection) -> Family {
    let of = |service: &ServiceView, table: &str, count| {
        sample(service_labels(service), "table", table, Value::Count(count))
    };
    let both = |service: &ServiceView| {
        [of(service, "new", service.tracking.new_refused), of(service, "old", service.tracking.old_refused)]
    };
    Family { fact: facts::FLOWS_REFUSED, samples: maps.services.iter().flat_map(both).collect() }
}

fn sample(mut labels: Labels, name: &'static str, value: &str, of: Value) -> Sample {
    labels.push((name, value.to_owned()));
    Sample { labels, value: of }
}
