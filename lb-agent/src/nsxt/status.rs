//! What is known of the routes, for people and for metrics.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    client::{Counts, ManagerStatus},
    gateway::Realization,
    route::Dialect,
};
use crate::metrics::Kind;

/// How the routes are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// Whether this process writes them now.
    pub leading: bool,
    /// The gateway's path or id, once it was found.
    pub gateway: Option<String>,
    /// Which API serves it.
    pub api: Option<Dialect>,
    /// By VIP, as of the last comparison.
    pub routes: BTreeMap<IpAddr, RouteStatus>,
    /// The managers.
    pub managers: Vec<ManagerStatus>,
    /// What is accepted but keeps traffic away, and what to do.
    pub hints: Vec<String>,
    /// Why the last comparison did not come to its end.
    pub error: Option<String>,
    /// Comparisons that were begun since the start.
    pub attempts: u64,
    /// Those that came to their end.
    pub passes: u64,
    /// Routes that were made, changed or removed since the start.
    pub updates: u64,
    /// Requests since the start.
    pub counts: Counts,
}

/// How the route of one VIP is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteStatus {
    /// Its id; `None` if there is none.
    pub id: Option<String>,
    /// Its next hops, or those it would have.
    pub hops: Vec<IpAddr>,
    /// Ready nodes that `maxNextHops` leaves out.
    pub left_out: usize,
    /// Why it is not as it should be.
    pub problem: Option<String>,
    /// How far it is from being in force.
    pub realization: Realization,
}

/// One value for Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name without the suffix of its kind.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// One sentence, without the full stop.
    pub help: &'static str,
    /// Label and value, if it has one.
    pub label: Option<(&'static str, String)>,
    /// The value.
    pub value: u64,
}

impl Status {
    /// Whether every VIP has its route in force.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let good = |route: &RouteStatus| route.problem.is_none() && route.realization == Realization::Realized;
        self.error.is_none() && self.routes.values().all(good)
    }

    /// All values; those of one name stand together.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let single = |name, kind, help, value| Metric { name, kind, help, label: None, value };
        let mut metrics = vec![
            single(
                "levee_nsxt_leading",
                Kind::Gauge,
                "Whether this process writes routes to NSX-T",
                self.leading.into(),
            ),
            single(
                "levee_nsxt_route_updates",
                Kind::Counter,
                "Routes that were made, changed or removed",
                self.updates,
            ),
            single("levee_nsxt_requests", Kind::Counter, "Requests to NSX-T managers", self.counts.requests),
            single(
                "levee_nsxt_request_failures",
                Kind::Counter,
                "Requests that were refused or not answered",
                self.counts.failures,
            ),
            single("levee_nsxt_logins", Kind::Counter, "Logins at NSX-T managers", self.counts.logins),
            single(
                "levee_nsxt_failing",
                Kind::Gauge,
                "Whether the last comparison with NSX-T failed",
                self.error.is_some().into(),
            ),
            single("levee_nsxt_hints", Kind::Gauge, "Hints about what keeps traffic away", self.hints.len() as u64),
        ];
        let mut of_routes = |name, help, value: fn(&RouteStatus) -> u64| {
            metrics.extend(self.routes.iter().map(|(vip, route)| Metric {
                name,
                kind: Kind::Gauge,
                help,
                label: Some(("vip", vip.to_string())),
                value: value(route),
            }));
        };
        of_routes("levee_nsxt_route_hops", "Next hops of the VIP's route", |route| {
            if route.id.is_some() { route.hops.len() as u64 } else { 0 }
        });
        of_routes("levee_nsxt_route_hops_left_out", "Ready nodes that maxNextHops leaves out", |route| {
            route.left_out as u64
        });
        of_routes("levee_nsxt_route_realized", "Whether the VIP's route is in force", |route| {
            (route.problem.is_none() && route.realization == Realization::Realized).into()
        });
        metrics.extend(self.managers.iter().map(|manager| Metric {
            name: "levee_nsxt_manager_up",
            kind: Kind::Gauge,
            help: "Whether the manager is asked",
            label: Some(("manager", manager.url.clone())),
            value: manager.down.is_none().into(),
        }));
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_count_only_where_there_is_a_route() {
        let route = |id: Option<&str>, realization| RouteStatus {
            id: id.map(str::to_owned),
            hops: vec!["10.20.4.2".parse().unwrap(), "10.20.4.3".parse().unwrap()],
            left_out: 1,
            problem: None,
            realization,
        };
        let status = Status {
            routes: [
                ("192.0.2.1".parse().unwrap(), route(Some("to-192.0.2.1"), Realization::Realized)),
                ("192.0.2.2".parse().unwrap(), route(None, Realization::Pending)),
            ]
            .into(),
            updates: 4,
            ..Status::default()
        };
        let value = |name: &str, vip: Option<&str>| {
            let metrics = status.metrics();
            let of =
                |metric: &&Metric| metric.name == name && metric.label.as_ref().map(|(_, vip)| vip.as_str()) == vip;
            metrics.iter().find(of).map(|metric| metric.value)
        };
        assert_eq!(value("levee_nsxt_route_updates", None), Some(4));
        assert_eq!(value("levee_nsxt_route_hops", Some("192.0.2.1")), Some(2));
        assert_eq!(value("levee_nsxt_route_hops", Some("192.0.2.2")), Some(0));
        assert_eq!(value("levee_nsxt_route_realized", Some("192.0.2.1")), Some(1));
        assert_eq!(value("levee_nsxt_route_realized", Some("192.0.2.2")), Some(0));
        assert!(!status.is_good());
    }
}
