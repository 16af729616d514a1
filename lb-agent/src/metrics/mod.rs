//! Metrics of the agent and its maps as OpenMetrics text, made of values only.
//!
//! `facts` has every metric's name, kind and help, once; `samples` fills them.

mod cluster;
#[cfg(test)]
mod contract;
mod facts;
mod members;
mod samples;
mod source;
mod tracking;

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text::encode},
    metrics::MetricType,
    registry::Registry,
};

use crate::{inspect::Inspection, status::AgentStatus};
pub use facts::{Fact, Kind};

/// Content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The facts of every metric, in the order of the text.
pub const FACTS: &[Fact] = facts::ALL;

/// All metrics. Without `maps`, which could not be read then, those of services, verdicts and maps are absent.
#[must_use]
pub fn render(status: &AgentStatus, maps: Option<&Inspection>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(samples::families(status, maps))));
    let mut text = String::new();
    // Neither writing to a string nor encoding one of these metrics can fail.
    let _ = encode(&mut text, &registry);
    text
}

/// A metric and its values.
#[derive(Debug)]
struct Family {
    fact: &'static Fact,
    samples: Vec<Sample>,
}

type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
struct Sample {
    labels: Labels,
    value: Value,
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Count(u64),
    Gauge(i64),
    Info,
    /// Sum of durations in seconds, and how many there were.
    Durations(f64, u64),
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for Family { fact, samples } in &self.0 {
            let mut family = encoder.encode_descriptor(fact.name, fact.help, None, kind(fact.kind))?;
            for Sample { labels, value } in samples {
                match (value, labels.is_empty()) {
                    (Value::Info, _) => family.encode_info(labels)?,
                    (value, true) => write_value(&mut family, *value)?,
                    (value, false) => write_value(&mut family.encode_family(labels)?, *value)?,
                }
            }
        }
        Ok(())
    }
}

fn write_value(encoder: &mut prometheus_client::encoding::MetricEncoder<'_>, value: Value) -> fmt::Result {
    match value {
        Value::Count(count) => encoder.encode_counter::<Labels, _, u64>(&count, None),
        Value::Gauge(gauge) => encoder.encode_gauge(&gauge),
        Value::Info => Ok(()),
        Value::Durations(sum, count) => encoder.encode_histogram::<Labels>(sum, count, &[(f64::INFINITY, count)], None),
    }
}

const fn kind(kind: Kind) -> MetricType {
    match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Info => MetricType::Info,
        Kind::Durations => MetricType::Histogram,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{examples, status::DoubtedStatus};

    #[test]
    fn the_whole_text_is_as_documented() {
        let status = examples::status();
        let inspection = examples::inspection();
        insta::assert_snapshot!(render(&status, Some(&inspection)));
    }

    #[test]
    fn without_maps_the_agents_own_metrics_remain() {
        let text = render(&examples::status(), None);
        assert!(text.contains("levee_maps_readable 0\n"));
        assert!(text.contains("levee_ready 1\n"));
        assert!(!text.contains("levee_service_packets_total{"));
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_cluster_has_its_metrics() {
        let mut status = examples::status();
        let mut cluster = examples::cluster();
        let kinds = &mut cluster.source.as_mut().unwrap().kinds;
        kinds[0].doubted = Some(DoubtedStatus { listed: 1, held: 3, lists: 1, needed: 3 });
        kinds[1].failures = 2;
        kinds[3].unreadable.insert("edge".to_owned(), "no addresses".to_owned());
        status.cluster = Some(cluster);
        status.backends[0].health = "wantsCredentials".into();
        let text = render(&status, None);
        for line in [
            "levee_kubernetes_live 0",
            "levee_kubernetes_saved_timestamp_seconds 1795000000",
            "levee_kubernetes_objects{kind=\"Node\"} 3",
            "levee_kubernetes_services_served 2",
            "levee_kubernetes_judgements{severity=\"refused\",reason=\"AddressRefused\"} 1",
            "levee_kubernetes_vips_withheld 1",
            "levee_kubernetes_compose_duration_seconds_sum 0.015625",
            "levee_kubernetes_compose_duration_seconds_count 5",
            "levee_kubernetes_server_info{server=\"10.0.1.2:6443\"} 1",
            "levee_kubernetes_listed_timestamp_seconds{resource=\"nodes\"} 1795000000",
            "levee_kubernetes_heard_timestamp_seconds{resource=\"vippools\"} 1795003690",
            "levee_kubernetes_lists_total{resource=\"endpointslices\"} 1",
            "levee_kubernetes_failures_total{resource=\"services\"} 2",
            "levee_kubernetes_list_doubted{resource=\"nodes\"} 1",
            "levee_kubernetes_list_doubted{resource=\"services\"} 0",
            "levee_kubernetes_objects_unreadable{resource=\"vippools\"} 1",
            "levee_kubernetes_save_failed 0",
            "levee_kubernetes_lease_renewed_timestamp_seconds 1795003695",
            "levee_backend_wants_credentials{service=\"kubernetes\",backend=\"10.0.1.2:6443\"} 1",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_fact_stands_in_the_text_once() {
        let text = render(&examples::status(), Some(&examples::inspection()));
        for fact in FACTS {
            let help = format!("# HELP {} {}\n", fact.name, fact.help);
            assert_eq!(text.matches(&help).count(), 1, "{}", fact.name);
        }
        assert_eq!(text.matches("# HELP ").count(), FACTS.len());
    }

    #[test]
    fn label_values_are_escaped() {
        let mut status = examples::status();
        status.version = "a\"b\\c".to_owned();
        assert!(render(&status, None).contains(r#"levee_build_info{version="a\"b\\c"} 1"#));
    }
}
