//! Rates out of two readings of the counters. Pure.

use std::{cmp::Ordering, net::IpAddr, time::Duration};

use serde::Serialize;

use crate::inspect::{BackendView, Count, Inspection, Presence, ServiceView};

/// What happened per second between two readings.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Rates {
    pub pin_path: String,
    pub agent: Presence,
    /// Between the readings.
    pub seconds: f64,
    pub services: Vec<ServiceRate>,
    pub verdicts: Vec<EndRate>,
    pub drops: Vec<EndRate>,
}

/// One VIP, protocol and port.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct ServiceRate {
    pub name: String,
    pub vip: IpAddr,
    pub port: u16,
    pub protocol: String,
    #[serde(flatten)]
    pub rate: Rate,
    pub backends: Vec<BackendRate>,
}

/// One backend of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct BackendRate {
    pub address: IpAddr,
    pub port: u16,
    pub mode: &'static str,
    pub in_ring: bool,
    #[serde(flatten)]
    pub rate: Rate,
}

/// One verdict or drop reason.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct EndRate {
    pub name: &'static str,
    pub packets_per_second: f64,
    /// One sentence for people.
    pub text: &'static str,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Rate {
    pub packets_per_second: f64,
    pub bytes_per_second: f64,
}

/// What stands first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::cli) enum Order {
    #[default]
    Packets,
    Bytes,
    Name,
}

impl Order {
    /// The one after it.
    pub const fn next(self) -> Self {
        match self {
            Self::Packets => Self::Bytes,
            Self::Bytes => Self::Name,
            Self::Name => Self::Packets,
        }
    }

    /// For people.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Name => "name",
        }
    }

    fn compare(self, a: Rate, b: Rate) -> Ordering {
        match self {
            Self::Packets => b.packets_per_second.total_cmp(&a.packets_per_second),
            Self::Bytes => b.bytes_per_second.total_cmp(&a.bytes_per_second),
            Self::Name => Ordering::Equal,
        }
    }
}

impl Rates {
    /// What happened between `before` and `after`, of which the latter was read `elapsed` later. What is new since counts
    /// from 0, and what counts less than before was replaced by something new.
    pub fn between(before: &Inspection, after: Inspection, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        let services = after.services.into_iter().map(|service| {
            let earlier = before.services.iter().find(|earlier| is_same(earlier, &service));
            service_rate(earlier, service, seconds)
        });
        Self {
            services: services.collect(),
            verdicts: end_rates(&before.verdicts, &after.verdicts, seconds).skip(1).collect(), // "not ours" is not counted
            drops: end_rates(&before.drops, &after.drops, seconds).collect(),
            pin_path: after.pin_path,
            agent: after.agent,
            seconds,
        }
    }

    /// Sorts services, and the backends of each. Equal ones keep their order, which is that of the names.
    pub fn sort(&mut self, order: Order) {
        self.services.sort_by(|a, b| order.compare(a.rate, b.rate));
        for service in &mut self.services {
            service.backends.sort_by(|a, b| order.compare(a.rate, b.rate));
        }
    }
}

fn is_same(a: &ServiceView, b: &ServiceView) -> bool {
    (&a.name, a.vip, a.port, &a.protocol, a.index) == (&b.name, b.vip, b.port, &b.protocol, b.index)
}

fn service_rate(before: Option<&ServiceView>, after: ServiceView, seconds: f64) -> ServiceRate {
    let backend = |backend: &BackendView| {
        let earlier = before.into_iter().flat_map(|service| &service.backends);
        let id = |view: &BackendView| (view.index, view.generation);
        let earlier = earlier.into_iter().find(|earlier| id(earlier) == id(backend));
        let was = earlier.map_or((0, 0), |earlier| (earlier.packets, earlier.bytes));
        BackendRate {
            address: backend.address,
            port: backend.port,
            mode: backend.hop.mode,
            in_ring: backend.in_ring,
            rate: Rate::of(was, (backend.packets, backend.bytes), seconds),
        }
    };
    let was = before.map_or((0, 0), |before| (before.packets, before.bytes));
    ServiceRate {
        rate: Rate::of(was, (after.packets, after.bytes), seconds),
        backends: after.backends.iter().map(backend).collect(),
        name: after.name,
        vip: after.vip,
        port: after.port,
        protocol: after.protocol,
    }
}

fn end_rates(before: &[Count], after: &[Count], seconds: f64) -> impl Iterator<Item = EndRate> {
    after.iter().map(move |count| {
        let was = before.iter().find(|earlier| earlier.name == count.name).map_or(0, |earlier| earlier.packets);
        EndRate { name: count.name, packets_per_second: per_second(was, count.packets, seconds), text: count.text }
    })
}

impl Rate {
    fn of(before: (u64, u64), after: (u64, u64), seconds: f64) -> Self {
        Self {
            packets_per_second: per_second(before.0, after.0, seconds),
            bytes_per_second: per_second(before.1, after.1, seconds),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody reads the sixteenth digit of a rate")]
fn per_second(before: u64, after: u64, seconds: f64) -> f64 {
    let grown = if after >= before { after - before } else { after };
    if seconds > 0.0 { grown as f64 / seconds } else { 0.0 }
}

/// A rate for people: three or four digits and the unit's prefix.
pub(super) fn human(rate: f64) -> String {
    match rate {
        r if r < 10.0 && r.fract() != 0.0 => format!("{r:.1}"),
        r if r < 1e4 => format!("{r:.0}"),
        r if r < 1e7 => format!("{:.1} k", r / 1e3),
        r if r < 1e10 => format!("{:.1} M", r / 1e6),
        r => format!("{:.1} G", r / 1e9),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::examples;

    /// Two seconds in which the first two backends got packets, some were dropped, and a service came.
    pub fn two_seconds() -> Rates {
        let before = examples::inspection();
        let mut after = before.clone();
        let service = &mut after.services[0];
        (service.packets, service.bytes) = (service.packets + 3_000, service.bytes + 4_000_000);
        for (backend, packets) in [(0, 1_000), (1, 2_000)] {
            let backend = &mut service.backends[backend];
            (backend.packets, backend.bytes) = (backend.packets + packets, backend.bytes + packets * 1_000);
        }
        after.verdicts[1].packets += 1_000;
        after.verdicts[4].packets += 2_000;
        after.drops[13].packets += 7;
        let new = ServiceView { index: 1, name: "web".to_owned(), port: 443, packets: 10_000, ..examples::service() };
        after.services.push(new);
        Rates::between(&before, after, Duration::from_secs(2))
    }

    fn names(rates: &Rates) -> Vec<&str> {
        rates.services.iter().map(|service| service.name.as_str()).collect()
    }

    #[test]
    fn growth_is_divided_by_the_time() {
        let rates = two_seconds();
        let service = &rates.services[0];
        assert_eq!(service.rate, Rate { packets_per_second: 1_500.0, bytes_per_second: 2_000_000.0 });
        let backends: Vec<_> = service.backends.iter().map(|backend| backend.rate.packets_per_second).collect();
        assert_eq!(backends, [500.0, 1_000.0, 0.0]);
        let ends = |ends: &[EndRate]| -> Vec<(&str, f64)> {
            let moving = ends.iter().filter(|end| end.packets_per_second > 0.0);
            moving.map(|end| (end.name, end.packets_per_second)).collect()
        };
        assert_eq!(ends(&rates.verdicts), [("local", 500.0), ("l2", 1_000.0)]);
        assert_eq!(ends(&rates.drops), [("too_big", 3.5)]);
        assert_eq!(rates.services[1].rate.packets_per_second, 5_000.0, "a new one counts from 0");
    }

    #[test]
    fn a_counter_that_began_anew_does_not_run_backwards() {
        let before = examples::inspection();
        let mut after = before.clone();
        after.services[0].packets = 10;
        after.services[0].backends[1].generation = 2;
        after.services[0].backends[1].packets = 30;
        let rates = Rates::between(&before, after, Duration::from_secs(1));
        assert_eq!(rates.services[0].rate.packets_per_second, 10.0);
        assert_eq!(rates.services[0].backends[1].rate.packets_per_second, 30.0);
    }

    #[test]
    fn no_time_makes_no_rate() {
        let rates = Rates::between(&examples::inspection(), examples::inspection(), Duration::ZERO);
        assert_eq!(rates.services[0].rate, Rate::default());
    }

    #[test]
    fn the_busiest_stands_first() {
        let mut rates = two_seconds();
        rates.sort(Order::Packets);
        assert_eq!(names(&rates), ["web", "kubernetes"]);
        let backends: Vec<_> =
            rates.services[1].backends.iter().map(|backend| backend.rate.packets_per_second).collect();
        assert_eq!(backends, [1_000.0, 500.0, 0.0]);
        let mut rates = two_seconds();
        rates.sort(Order::Name);
        assert_eq!(names(&rates), ["kubernetes", "web"]);
        assert_eq!(Order::Packets.next().next().next(), Order::Packets);
    }

    #[test]
    fn rates_read_well() {
        let rates = [0.0, 3.5, 17.4, 9_999.0, 12_345.0, 9_999_999.0, 10_000_000.0, 2e10];
        let texts = ["0", "3.5", "17", "9999", "12.3 k", "10000.0 k", "10.0 M", "20.0 G"];
        assert_eq!(rates.map(human), texts);
    }
}
