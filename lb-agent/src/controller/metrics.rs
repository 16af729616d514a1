//! Metrics of the controller as OpenMetrics text, made of its report only.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, text::encode},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::report::Report;
use crate::{metrics::Kind, nsxt::Metric};

type Labels = Vec<(&'static str, String)>;

/// All metrics, those of routes in NSX-T among them.
pub(super) fn render(report: &Report, routes: Vec<Metric>) -> String {
    let mut registry = Registry::default();
    let version = Family::<Labels, Gauge>::default();
    version.get_or_create(&vec![("version", env!("CARGO_PKG_VERSION").to_owned())]).set(1);
    registry.register("levee_controller_build_info", "Version of the controller; always 1", version);
    let mut gauge = |name: &str, help: &str, value: i64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    gauge("levee_controller_leader", "Whether this process leads and writes", i64::from(report.leading));
    gauge(
        "levee_controller_stale",
        "Whether a watch fails, so that an earlier state is in force",
        i64::from(report.stale.is_some()),
    );
    gauge(
        "levee_controller_services_served",
        "Services of ours that have all that they ask for",
        count(report.services_served),
    );
    gauge("levee_controller_services_refused", "Services of ours that have not", count(report.services_refused));
    pools(&mut registry, report);
    counters(&mut registry, report);
    registry.register_collector(Box::new(Routes(routes)));
    let mut text = String::new();
    // Neither writing to a string nor encoding one of these metrics can fail.
    let _ = encode(&mut text, &registry);
    text
}

fn pools(registry: &mut Registry, report: &Report) {
    let addresses = Family::<Labels, Gauge>::default();
    let refused = Family::<Labels, Gauge>::default();
    for (name, pool) in &report.pools {
        let values = [
            ("ipv4", "used", pool.used.ipv4),
            ("ipv6", "used", pool.used.ipv6),
            ("ipv4", "free", pool.free.ipv4),
            ("ipv6", "free", pool.free.ipv6),
        ];
        for (family, state, value) in values {
            let labels = [("pool", name.as_str()), ("family", family), ("state", state)];
            addresses.get_or_create(&labels.map(|(key, value)| (key, value.to_owned())).to_vec()).set(value);
        }
        refused.get_or_create(&vec![("pool", name.clone())]).set(i64::from(pool.refused));
    }
    registry.register("levee_pool_addresses", "Addresses of the pool in force, by family and state", addresses);
    let help = "Whether the spec of the pool is refused, so that an earlier one or none is in force";
    registry.register("levee_pool_stale", help, refused);
}

fn counters(registry: &mut Registry, report: &Report) {
    let writes = Family::<Labels, Counter>::default();
    for ((kind, result), count) in &report.writes {
        let labels = vec![("kind", (*kind).to_owned()), ("result", (*result).to_owned())];
        writes.get_or_create(&labels).inc_by(*count);
    }
    registry.register("levee_controller_writes", "Writes to the API server, by kind of object and result", writes);
    let events = Family::<Labels, Counter>::default();
    for (result, count) in [("told", report.events_told), ("dropped", report.events_dropped)] {
        events.get_or_create(&vec![("result", result.to_owned())]).inc_by(count);
    }
    registry.register("levee_controller_events", "Events, by whether the server took them", events);
}

/// Values of routes; those of one name stand together.
#[derive(Debug)]
struct Routes(Vec<Metric>);

impl Collector for Routes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for values in self.0.chunk_by(|one, next| one.name == next.name) {
            let Some(Metric { name, help, kind, .. }) = values.first() else { continue };
            let kind = if *kind == Kind::Counter { MetricType::Counter } else { MetricType::Gauge };
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for Metric { kind, label, value, .. } in values {
                match label {
                    Some(label) => {
                        write_value(&mut family.encode_family(&std::slice::from_ref(label))?, *kind, *value)?;
                    }
                    None => write_value(&mut family, *kind, *value)?,
                }
            }
        }
        Ok(())
    }
}

fn write_value(encoder: &mut MetricEncoder<'_>, kind: Kind, value: u64) -> fmt::Result {
    match kind {
        Kind::Counter => encoder.encode_counter::<Labels, _, u64>(&value, None),
        _ => encoder.encode_gauge(&count(value)),
    }
}

fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{controller::report::PoolReport, kubernetes::crds::AddressCounts, nsxt};

    #[test]
    fn the_text_has_every_value_of_the_report() {
        let pool = PoolReport { used: AddressCounts::new(3, 0), free: AddressCounts::new(5, 7), refused: true };
        let report = Report {
            leading: true,
            pools: [("edge".to_owned(), pool)].into(),
            services_served: 2,
            services_refused: 1,
            writes: [(("service", "applied"), 9)].into(),
            events_dropped: 4,
            ..Report::default()
        };
        let routes = nsxt::Status { updates: 4, leading: true, ..nsxt::Status::default() };
        let text = render(&report, routes.metrics());
        for line in [
            "levee_controller_leader 1",
            "levee_controller_stale 0",
            "levee_controller_services_served 2",
            "levee_controller_services_refused 1",
            "levee_pool_addresses{pool=\"edge\",family=\"ipv4\",state=\"used\"} 3",
            "levee_pool_addresses{pool=\"edge\",family=\"ipv6\",state=\"free\"} 7",
            "levee_pool_stale{pool=\"edge\"} 1",
            "levee_controller_writes_total{kind=\"service\",result=\"applied\"} 9",
            "levee_controller_events_total{result=\"dropped\"} 4",
            "# TYPE levee_nsxt_route_updates counter",
            "levee_nsxt_route_updates_total 4",
            "levee_nsxt_leading 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
