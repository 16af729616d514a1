//! The agent: how long rings take to build, how soon a change of the file is in the kernel, what it occupies.

pub(crate) mod memory;
mod node;
mod rings;

use std::{path::Path, thread, time::Duration, time::Instant};

use anyhow::{Context, Result, anyhow};
use lb_agent::config::Reader;
use netns_tests::scope::sweep;

use self::{
    memory::Memory,
    node::{ENDPOINTS, Node},
};
use crate::{
    Options,
    interrupt::Interrupt,
    machine::Machine,
    say,
    schema::{Case, Part, Results},
};

/// Budgets of the design: services and milliseconds, services and megabytes.
const REACTION_BUDGET: (u32, f64) = (1_000, 20.0);
const MEMORY_BUDGET: (u32, f64) = (10_000, 150.0);
/// Rest between two changes, so that one does not wait for the end of the other.
const REST: Duration = Duration::from_millis(150);
/// How long the agent is watched doing nothing: two of its regular looks at all routes.
const IDLE: Duration = Duration::from_secs(20);

const METHOD: &str = "A real agent in a namespace, its endpoints behind a router. One endpoint of the service in the \
    middle is replaced; the time runs from the rename of the finished file to the change of the service's word in the \
    pinned map, which packets read. Every service has a VIP, ten endpoints of its own and 4096 slots. The agent waits \
    10 ms after the first event for more of them.";
const MEMORY: &str = "Memory after the changes: resident without the mapped arrays (the ring arena, the backends, the \
    published words), which the kernel has anyway, and anonymous memory (heap) alone.";

/// Measures.
///
/// # Errors
/// Without root, without the agent's binary, or after a signal.
pub fn run(options: &Options) -> Result<Results> {
    let interrupt = Interrupt::watch()?;
    let mut results = Results::new(Part::Agent, &Machine::here());
    results.notes = [METHOD, MEMORY].map(str::to_owned).into();
    if cfg!(debug_assertions) {
        results
            .notes
            .push("A debug build: rings and parsing take many times as long as in a release build.".to_owned());
    }
    let (samples, changes) = if options.quick { (5, 8) } else { (15, 30) };
    rings::measure(&mut results, samples);
    sweep();
    for services in [1, 100, 1_000, 10_000] {
        interrupt.check()?;
        let what = format!("measuring an agent with {services} services");
        say(&what);
        services_of(&mut results, services, changes, &interrupt).context(what)?;
    }
    Ok(results)
}

/// Everything about an agent with this many services.
fn services_of(results: &mut Results, services: u32, changes: u32, interrupt: &Interrupt) -> Result<()> {
    let mut node = Node::start(services)?;
    let with = format!("{services} services");
    thread::sleep(REST);
    let before = node.plans();
    node.change()?; // the first one finds cold caches
    let mut times = Vec::new();
    for _ in 0..changes {
        interrupt.check()?;
        let took = node.change()?;
        times.push(took.as_secs_f64() * 1e3);
        thread::sleep(REST.max(took * 2));
    }
    let case = Case::new(&format!("file to kernel, {with}"), "reaction", "ms", times);
    let (of, budget) = REACTION_BUDGET;
    results.cases.push(if services == of { case.within(budget) } else { case });
    parts(results, &node, &with, before.and_then(|before| Ok((before, node.plans()?))))?;
    results.cases.push(Case::new(&format!("start, {with}"), "start", "s", vec![node.started_in.as_secs_f64()]));

    let memory = Memory::of(node.process())?;
    let megabytes = |bytes: u64| vec![bytes as f64 / 1e6];
    let (of, budget) = MEMORY_BUDGET;
    let beside = memory.resident.saturating_sub(memory.arrays);
    let case = Case::new(&format!("resident beside the mapped arrays, {with}"), "memory", "MB", megabytes(beside));
    let endpoints = services * ENDPOINTS;
    let case = case.note(format!("{endpoints} endpoints; {:.1} MB with the arrays", memory.resident as f64 / 1e6));
    results.cases.push(if services == of { case.within(budget) } else { case });
    results.cases.push(Case::new(&format!("anonymous, {with}"), "memory", "MB", megabytes(memory.anonymous)));

    let idle = idle_share(node.process())?;
    results.cases.push(Case::new(&format!("CPU while nothing changes, {with}"), "idle", "%", vec![idle]));
    Ok(())
}

/// What the reaction is made of: reading the file, here and now, and what the agent says of its plans.
fn parts(results: &mut Results, node: &Node, with: &str, plans: Result<([f64; 3], [f64; 3])>) -> Result<()> {
    let (was, is) = (node.text_before(), node.text());
    let mut reader = Reader::default();
    let mut parse = |text: &str| {
        let start = Instant::now();
        let parsed = reader.parse("levee.yaml", text, Path::new("/"));
        parsed.map(|_| start.elapsed().as_secs_f64() * 1e3).map_err(|errors| anyhow!("{errors}"))
    };
    let first = vec![parse(&was)?];
    let again = [&is, &was].into_iter().cycle().take(6).map(|text| parse(text)).collect::<Result<_>>()?;
    let size = format!("{} bytes", is.len());
    for (what, times) in [("for the first time", first), ("with one endpoint changed", again)] {
        let case = Case::new(&format!("reading the file {what}, {with}"), "parts of the reaction", "ms", times);
        results.cases.push(case.note(size.clone()));
    }
    let (before, after) = match plans {
        Ok(plans) => plans,
        Err(error) => {
            results.notes.push(format!("No times of plans with {with}: {error:#}."));
            return Ok(());
        }
    };
    let count = after[2] - before[2];
    for (at, what) in ["deciding and planning", "applying"].into_iter().enumerate() {
        let mean = vec![(after[at] - before[at]) / count * 1e3];
        let case = Case::new(&format!("{what}, {with}"), "parts of the reaction", "ms", mean);
        results.cases.push(case.note(format!("mean of {count} plans")));
    }
    Ok(())
}

/// Percent of one CPU that a process takes when nobody wants anything.
pub(crate) fn idle_share(process: u32) -> Result<f64> {
    let ticks = || -> Result<u64> {
        let path = format!("/proc/{process}/stat");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        own_ticks(&text).with_context(|| format!("{path} is not understood: {text}"))
    };
    let (start, before) = (Instant::now(), ticks()?);
    thread::sleep(IDLE);
    let seconds = (ticks()? - before) as f64 / 100.0; // USER_HZ
    Ok(100.0 * seconds / start.elapsed().as_secs_f64())
}

/// Fields 14 and 15 (utime, stime) of proc(5), counted from behind the name.
fn own_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::own_ticks;

    #[test]
    fn own_ticks_are_user_and_system_time() {
        assert_eq!(own_ticks("77 (a) b) S 5 77 77 0 -1 4194560 100 0 0 0 11 12 13 14 20 0"), Some(23));
        assert_eq!(own_ticks("77 (a) S 5"), None);
    }
}
