//! What an agent costs that serves many Services.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use kube_tests::{
    crowd::{Crowd, PORT, vip},
    words::Words,
};
use netns_tests::agent::Agent;
use serde_json::Value;

use super::{Bed, CHANGE_BUDGET, MEMORY_BUDGET};
use crate::{
    agent::{idle_share, memory::Memory},
    interrupt::Interrupt,
    schema::{Case, Results},
};

const ENDPOINTS: u32 = 10;
const NODES: u32 = 100;
/// How long an agent with every Service may take to start.
const STARTING: Duration = Duration::from_secs(300);
/// How long a change may take to arrive.
const ARRIVING: Duration = Duration::from_secs(60);
/// Between two looks at the kernel's word.
const PAUSE: Duration = Duration::from_micros(100);
/// Rest between two changes, so that one does not wait for the end of the other.
const REST: Duration = Duration::from_millis(200);
/// What follows the start: the first inventory is saved, the last addresses are announced.
const SETTLING: Duration = Duration::from_secs(15);

/// Adds the cases of an agent with so many Services.
pub fn measure(results: &mut Results, services: u32, changes: u32, interrupt: &Interrupt) -> Result<()> {
    let bed = Bed::build()?;
    let crowd = Crowd { services, endpoints: ENDPOINTS, nodes: NODES };
    crowd.fill(&bed.stub)?;
    let config = bed.config(&bed.keys.admin, |config| crowd.with_capacities(config))?;
    let start = Instant::now();
    let mut agent = Agent::start(&bed.scope, &bed.topology.nodes[0].netns, &config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    runtime.block_on(agent.wait_ready(STARTING))?;
    let words = Words::open(agent.pin_path())?;
    while words.served()? < services {
        ensure!(start.elapsed() < STARTING, "{} of {services} Services are served", words.served()?);
        thread::sleep(Duration::from_millis(10));
    }
    let with = format!("{services} Services, {} endpoints", services * ENDPOINTS);
    let case = Case::new(&format!("start to all served, {with}"), "start", "s", vec![start.elapsed().as_secs_f64()]);
    results.cases.push(case);
    thread::sleep(SETTLING);

    let watched = Watched { crowd, words, service: services / 2, index: 0 };
    let watched = Watched { index: watched.words.index(vip(services / 2).into(), PORT)?, ..watched };
    watched.change(&bed, 1)?; // the first one finds cold caches
    let mut times = Vec::new();
    for round in 2..changes + 2 {
        interrupt.check()?;
        thread::sleep(REST);
        times.push(watched.change(&bed, round)?.as_secs_f64() * 1e3);
    }
    let name = format!("endpoint to kernel, {with}");
    results.cases.push(Case::new(&name, "reaction", "ms", times).within(CHANGE_BUDGET));

    thread::sleep(REST);
    let memory = Memory::of(agent.process().id())?;
    let megabytes = |bytes: u64| vec![bytes as f64 / 1e6];
    let beside = memory.resident.saturating_sub(memory.arrays);
    let case = Case::new(&format!("resident beside the mapped arrays, {with}"), "memory", "MB", megabytes(beside));
    let case = case.note(format!("{:.1} MB with the arrays", memory.resident as f64 / 1e6));
    results.cases.push(case.within(MEMORY_BUDGET));
    results.cases.push(Case::new(&format!("anonymous, {with}"), "memory", "MB", megabytes(memory.anonymous)));
    let idle = idle_share(agent.process().id())?;
    results.cases.push(Case::new(&format!("CPU while nothing changes, {with}"), "idle", "%", vec![idle]));
    parts(results, &agent, &with, || watched.change(&bed, changes + 2).map(drop))
}

/// What the last change was made of, by what the agent says.
fn parts(results: &mut Results, agent: &Agent, with: &str, change: impl Fn() -> Result<()>) -> Result<()> {
    let status = || -> Result<Value> { Ok(agent.lbctl_json(&["status"])?["status"].take()) };
    let number = |status: &Value, at: &str| status.pointer(at).and_then(Value::as_f64).unwrap_or_default();
    let before = status()?;
    thread::sleep(REST);
    change()?;
    thread::sleep(REST);
    let after = status()?;
    let composing = number(&after, "/cluster/composeSeconds") - number(&before, "/cluster/composeSeconds");
    for (what, seconds) in [
        ("composing", composing),
        ("deciding and planning", number(&after, "/dataplane/lastPlanSeconds")),
        ("applying", number(&after, "/dataplane/lastApplySeconds")),
    ] {
        results.cases.push(Case::new(&format!("{what}, {with}"), "parts of the reaction", "ms", vec![seconds * 1e3]));
    }
    Ok(())
}

/// The Service whose endpoints change.
struct Watched {
    crowd: Crowd,
    words: Words,
    service: u32,
    index: u32,
}

impl Watched {
    /// Moves an endpoint and returns how long it took until the kernel's word names the new ring.
    fn change(&self, bed: &Bed, round: u32) -> Result<Duration> {
        let before = self.words.of_index(self.index)?;
        let start = Instant::now();
        self.crowd.place(&bed.stub, self.service, round)?;
        while self.words.of_index(self.index)? == before {
            ensure!(start.elapsed() < ARRIVING, "no change arrived within {} s", ARRIVING.as_secs());
            thread::sleep(PAUSE);
        }
        Ok(start.elapsed())
    }
}
