//! From the samples of both processes to results with budgets and ratios.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::{
    cases::{CASES, End, Spec, names},
    programs::Order,
    session::{Measured, Plan},
};
use crate::{
    machine::Machine,
    schema::{Case, Part, Results, Source},
    statistics::quantile,
};

const UNIT: &str = "ns/packet";

/// The quotients that matter: name, case, yardstick, budget.
const RATIOS: [(&str, &str, &str, Option<f64>); 4] = [
    ("one flow, against the LRU variant", names::ONE_FLOW, names::LRU_ONE_FLOW, Some(0.6)),
    ("1,000,000 flows, against the LRU variant", names::MANY_FLOWS, names::LRU_MANY_FLOWS, Some(0.25)),
    ("ever new SYNs, against the LRU variant", names::NEW_FLOWS, names::LRU_NEW_FLOWS, Some(0.15)),
    ("one flow through ipip, against the LRU variant", names::IPIP, names::LRU_IPIP, None),
];

/// Makes the results of what the processes measured.
///
/// # Errors
/// If a process lacks a case.
pub fn results(machine: &Machine, plan: &Plan, measured: &[(Order, BTreeMap<String, Measured>)]) -> Result<Results> {
    let mut results = Results::new(Part::Micro, machine);
    results.notes = notes(plan);
    for spec in CASES {
        let of_case = measured.iter().map(|(_, cases)| cases.get(spec.name)).collect::<Option<Vec<_>>>();
        let of_case = of_case.with_context(|| format!("a process did not measure \"{}\"", spec.name))?;
        let case = case(spec, &of_case, &results);
        results.cases.push(case);
    }
    for (name, numerator, denominator, budget) in RATIOS {
        results.compare(name, numerator, denominator, budget);
    }
    results.sources = vec![Source {
        name: "the yardstick's table of flows (feature yardstick-lru)".to_owned(),
        path: "lb-ebpf/src/yardstick.rs".to_owned(),
        text: include_str!("../../../lb-ebpf/src/yardstick.rs").to_owned(),
    }];
    Ok(results)
}

fn case(spec: &Spec, measured: &[&Measured], before: &Results) -> Case {
    let samples: Vec<f64> = measured.iter().flat_map(|measured| measured.samples.iter().copied()).collect();
    let mut counters = BTreeMap::new();
    for (name, value) in measured.iter().flat_map(|measured| &measured.counters) {
        *counters.entry(name.clone()).or_default() += value;
    }
    let mut case = Case::new(spec.name, spec.group, UNIT, samples).counters(counters);
    if !matches!(spec.end, End::Floor(_)) {
        let is_ipv4 = (spec.traffic.packet)().source().is_ipv4();
        let floor = before.case(if is_ipv4 { names::FLOOR_IPV4 } else { names::FLOOR_IPV6 });
        case = case.above(floor.map_or(0.0, |floor| floor.median));
    }
    if let Some(budget) = spec.budget {
        case = case.within(budget);
    }
    let medians: Vec<_> = measured.iter().map(|measured| format!("{:.1}", quantile(&measured.samples, 0.5))).collect();
    let by_order = format!("median by load order: {}", medians.join(", "));
    case.note(spec.note.map_or_else(|| by_order.clone(), |note| format!("{note}; {by_order}")))
}

fn notes(plan: &Plan) -> Vec<String> {
    vec![
        format!(
            "{} samples of {} runs per case and process, the cases in turns; two processes, the second with its programs \
             loaded in the opposite order. One CPU. A sample is the `duration` of BPF_PROG_TEST_RUN, which the kernel cuts \
             to whole nanoseconds.",
            plan.samples, plan.repeat
        ),
        "Before each run a harness program restores the bytes that the program under test destroyed, makes the frame one of \
         the next flow, and hands it over by a tail call. The floor is the same harness with a program that only returns; \
         \"net\" is less the floor's median. Tunnels' figures contain the harness's taking back the room for their headers."
            .to_owned(),
        "Before the samples the frames that come out were compared with frames built by another implementation; after each \
         sample every counter of the program had moved by exactly the number of runs."
            .to_owned(),
        "The LRU variant is the same program with BPF_MAP_TYPE_LRU_PERCPU_HASH (1,048,576 entries, 40-byte key) in front of \
         the ring; everything else, the flow hash included, is as it was. A SYN is inserted without a lookup, and hits are \
         not counted but follow from the inserts. Each of its cases with many flows has a table of its own. A table that \
         only one flow uses is always in the cache, as no table of a busy balancer is."
            .to_owned(),
    ]
}
