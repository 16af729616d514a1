//! Samples to cases: rates, percentiles, CPU time, and what each way adds to plain routing.

use std::time::Duration;

use netns_tests::observe::Counters;

use super::{Load, Record, Scale, bed::Way, load::Sample};
use crate::{
    machine::Machine,
    schema::{Case, Part, Results},
    statistics::quantile,
};

/// Bytes of a gigabyte.
const GB: f64 = 1e9;

const METHOD: &str = "In network namespaces of one machine: client, router, one box per balancer and two servers on one \
    segment. All offloads are off, every box carries an XDP program (the agent's, or one that passes), each way has its \
    own VIP and client address. Plain routing is ECMP at the router, straight to the servers; \"routing through a box\" \
    is the kernel forwarding at one more hop, which every balancer is too. Rounds interleave all ways, and the one that \
    begins changes from round to round.";
const ACCOUNTING: &str = "CPU time is that of the whole machine (clock x CPUs, less idle, iowait and steal of \
    /proc/stat, less the CPU time of processes that do not belong to the benchmark), because what XDP does in softirqs \
    is charged to nobody in particular. \"Added\" is the median over all rounds of a way's figure less that of plain \
    routing in the same round.";
const TUNING: &str = "nginx: 2 workers, reuseport, 16384 connections each, no access log. HAProxy: nbthread 2, no log. \
    nftables: dnat to `numgen random` over a map, replies through the box, no other rule. Levee: an agent on the \
    director and on both servers, probes off; replies go straight to the router.";
const CAUTION: &str = "A veth pair with native XDP copies frames that come from a socket and has no segmentation \
    offload: bulk figures are those of the test bed, and only their differences say something.";

/// Makes the results of a run; `counted` is what the director's program counted meanwhile.
pub(super) fn results(scale: &Scale, record: &Record, counted: &Counters, lost: u64) -> Results {
    let mut results = Results::new(Part::EndToEnd, &Machine::here());
    results.notes = [METHOD, ACCOUNTING, TUNING, CAUTION].map(str::to_owned).into();
    results.notes.push(format!(
        "{} rounds; per round and way {} short connections, {} at a time, {} one after the other, and {} MiB each way \
         over one connection. {lost} frames were lost on the links.",
        scale.rounds,
        scale.connections,
        scale.parallel,
        scale.alone,
        scale.bytes >> 20,
    ));
    results.notes.push(disturbance(record));
    connections(&mut results, scale, record, counted);
    latencies(&mut results, record);
    transfers(&mut results, scale, record);
    ratios(&mut results);
    results
}

/// How much the rest of the machine got in the way.
fn disturbance(record: &Record) -> String {
    let share = |of: fn(&Sample) -> Duration| {
        let samples = record.values().flatten();
        let (time, all) = samples.fold((0.0, 0.0), |(time, all), sample| {
            (time + of(sample).as_secs_f64(), all + sample.spent.busy.as_secs_f64())
        });
        100.0 * time / all
    };
    format!(
        "Foreign processes took {:.1} % of the benchmark's own CPU time, the hypervisor {:.1} %.",
        share(|sample| sample.spent.foreign),
        share(|sample| sample.spent.steal)
    )
}

fn connections(results: &mut Results, scale: &Scale, record: &Record, counted: &Counters) {
    let count = f64::from(scale.connections);
    let samples = |way, of: &dyn Fn(&Sample) -> f64| figures(record, Load::Connections, way, of);
    for way in Way::ALL {
        let rates = samples(way, &|sample| count / sample.spent.elapsed.as_secs_f64());
        results.cases.push(Case::new(&rate_name(way), "new connections", "1/s", rates));
    }
    let cost = |way| samples(way, &|sample| microseconds(sample.spent.busy) / count);
    for way in Way::ALL {
        let name = format!("{}: CPU time per connection", way.name());
        results.cases.push(Case::new(&name, "CPU time per connection", "us", cost(way)));
    }
    for way in added_ways() {
        let added = differences(&cost(way), &cost(Way::Routing));
        let mut case = Case::new(&added_name(way), "CPU time added per connection", "us", added);
        let label = match way {
            Way::LeveeL2 => Some("l2"),
            Way::LeveeIpip => Some("ipip"),
            _ => None,
        };
        case.counters.extend(label.map(|label| (format!("verdict {label}"), counted.get(label))));
        results.cases.push(case);
    }
    for way in added_ways().filter(|way| *way != Way::Forwarding) {
        let beyond = differences(&cost(way), &cost(Way::Forwarding));
        results.cases.push(Case::new(&beyond_name(way), "CPU time per connection beyond that of a hop", "us", beyond));
    }
}

fn latencies(results: &mut Results, record: &Record) {
    for (load, group) in [(Load::Alone, "latency of a request alone"), (Load::Connections, "latency at full load")] {
        for (way, percent) in Way::ALL.into_iter().flat_map(|way| [50, 90, 99].map(|percent| (way, percent))) {
            let of = |sample: &Sample| {
                let latencies: Vec<f64> = sample.latencies.iter().copied().map(microseconds).collect();
                quantile(&latencies, f64::from(percent) / 100.0)
            };
            let name = format!("{}: {group}, p{percent}", way.name());
            results.cases.push(Case::new(&name, group, "us", figures(record, load, way, &of)));
        }
    }
}

fn transfers(results: &mut Results, scale: &Scale, record: &Record) {
    let gigabytes = scale.bytes as f64 / GB;
    for (load, what) in [(Load::Download, "download"), (Load::Upload, "upload")] {
        for way in Way::ALL {
            let of = |sample: &Sample| gigabytes / sample.spent.elapsed.as_secs_f64();
            let name = format!("{}: throughput, {what}", way.name());
            results.cases.push(Case::new(
                &name,
                &format!("throughput, {what}"),
                "GB/s",
                figures(record, load, way, &of),
            ));
        }
        let cost = |way| figures(record, load, way, &|sample| milliseconds(sample.spent.busy) / gigabytes);
        let routing = format!("{}: CPU time per GB, {what}", Way::Routing.name());
        results.cases.push(Case::new(&routing, &format!("CPU time per GB, {what}"), "ms", cost(Way::Routing)));
        for way in added_ways() {
            let added = differences(&cost(way), &cost(Way::Routing));
            let group = format!("CPU time added per GB, {what}");
            results.cases.push(Case::new(&format!("{}: {group}", way.name()), &group, "ms", added));
        }
    }
}

/// Budgets of the design: at most 0.15 of what nginx adds per new connection, and less than nftables.
fn ratios(results: &mut Results) {
    for way in [Way::LeveeL2, Way::LeveeIpip] {
        for (other, budget) in [(Way::Nginx, Some(0.15)), (Way::Haproxy, None), (Way::Nftables, Some(1.0))] {
            let name = format!("CPU time added per connection: {} over {}", way.name(), other.name());
            compare(results, &name, &added_name(way), &added_name(other), budget);
            let name = format!("CPU time per connection beyond that of a hop: {} over {}", way.name(), other.name());
            compare(results, &name, &beyond_name(way), &beyond_name(other), None);
            for what in ["download", "upload"] {
                let case = |way: Way| format!("{}: CPU time added per GB, {what}", way.name());
                let name = format!("CPU time added per GB, {what}: {} over {}", way.name(), other.name());
                compare(results, &name, &case(way), &case(other), None);
            }
        }
    }
    for way in added_ways() {
        let name = format!("new connections per second: {} over {}", way.name(), Way::Routing.name());
        results.compare(&name, &rate_name(way), &rate_name(Way::Routing), None);
    }
}

/// Compares two added costs, unless the one below is lost in the noise: a quotient by nothing says nothing.
fn compare(results: &mut Results, name: &str, numerator: &str, denominator: &str, budget: Option<f64>) {
    if results.case(denominator).is_some_and(|case| case.q1 > 0.0) {
        results.compare(name, numerator, denominator, budget);
    }
}

fn added_ways() -> impl Iterator<Item = Way> {
    Way::ALL.into_iter().filter(|way| *way != Way::Routing)
}

fn rate_name(way: Way) -> String {
    format!("{}: new connections", way.name())
}

fn added_name(way: Way) -> String {
    format!("{}: CPU time added per connection", way.name())
}

/// What a balancer takes beyond a box at the same place that forwards only.
fn beyond_name(way: Way) -> String {
    format!("{}: CPU time per connection beyond that of a hop", way.name())
}

fn figures(record: &Record, load: Load, way: Way, of: &dyn Fn(&Sample) -> f64) -> Vec<f64> {
    record[&(load, way)].iter().map(of).collect()
}

/// Sample by sample: the two were taken in the same round.
fn differences(of: &[f64], base: &[f64]) -> Vec<f64> {
    of.iter().zip(base).map(|(one, other)| one - other).collect()
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::super::cpu::Spent;
    use super::*;

    /// Two rounds in which the machine itself became slower by 10 us a connection, and each way adds 5 us times its place.
    fn record(scale: &Scale) -> Record {
        let mut record = Record::new();
        for (load, way) in Load::ALL.into_iter().flat_map(|load| Way::ALL.map(|way| (load, way))) {
            let sample = |round: u32| {
                let each = Duration::from_micros(u64::from(90 + 10 * round + 5 * way as u32));
                let busy = each * scale.connections;
                let foreign = busy / 10;
                let spent = Spent { elapsed: busy / 2, busy, foreign, steal: Duration::ZERO };
                Sample { spent, latencies: vec![each, each * 3] }
            };
            record.insert((load, way), vec![sample(0), sample(1)]);
        }
        record
    }

    #[test]
    fn added_time_is_the_difference_within_a_round() {
        let scale = Scale { rounds: 2, connections: 1000, parallel: 1, alone: 2, bytes: 1_000_000_000 };
        let results = results(&scale, &record(&scale), &Counters::default(), 0);
        for way in added_ways() {
            let case = results.case(&added_name(way)).unwrap();
            let expected = 5.0 * f64::from(way as u32);
            assert!(case.samples.iter().all(|sample| (sample - expected).abs() < 1e-6), "{case:?}");
        }
        let rate = results.case(&rate_name(Way::Routing)).unwrap();
        assert!((rate.samples[0] - 2e6 / 90.0).abs() < 1e-3, "{rate:?}");
        let ratio = results.ratios.iter().find(|ratio| ratio.budget == Some(0.15)).unwrap();
        assert!((ratio.value - 10.0 / 20.0).abs() < 1e-9 && ratio.met == Some(false), "{ratio:?}");
        assert!(results.notes.last().unwrap().contains("10.0 %"), "{:?}", results.notes);
    }

    #[test]
    fn a_cost_that_may_be_none_is_no_divisor() {
        let mut results = Results::new(Part::EndToEnd, &Machine::here());
        for (name, samples) in [("a", vec![1.0]), ("some", vec![2.0, 3.0]), ("none", vec![-1.0, 3.0])] {
            results.cases.push(Case::new(name, "group", "us", samples));
        }
        compare(&mut results, "a over some", "a", "some", None);
        compare(&mut results, "a over none", "a", "none", None);
        let names: Vec<_> = results.ratios.iter().map(|ratio| ratio.name.as_str()).collect();
        assert_eq!(names, ["a over some"]);
    }

    #[test]
    fn percentiles_are_of_single_requests() {
        let scale = Scale { rounds: 2, connections: 1000, parallel: 1, alone: 2, bytes: 1_000_000_000 };
        let results = results(&scale, &record(&scale), &Counters::default(), 0);
        let case = results.case("routing (ECMP): latency of a request alone, p50").unwrap();
        assert!((case.samples[0] - 180.0).abs() < 1e-9, "{case:?}");
    }
}
