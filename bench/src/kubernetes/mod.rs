//! Agent and controller with a stand-in for the API: how soon a Service is served and gone, what many Services cost, and
//! what is written while nothing changes.

mod crowd;
mod rest;
mod services;

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kube_tests::{
    access::{Keys, User},
    follow::node,
    place::Place,
    stub::{Settings, Stub},
};
use netns_tests::{
    config::AgentConfig,
    scope::{Scope, sweep},
    topology::{CLIENT, Fabric, Topology},
};

use crate::{
    Options,
    interrupt::Interrupt,
    machine::Machine,
    say,
    schema::{Part, Results},
};

/// How long anything may take that does not depend on the number of Services.
const PATIENCE: Duration = Duration::from_secs(60);
/// Milliseconds from a Service's creation to the first connection, and from its deletion to the first that fails.
const SERVICE_BUDGET: f64 = 1000.0;
/// Milliseconds from a changed endpoint to the kernel, at every size.
const CHANGE_BUDGET: f64 = 50.0;
/// Megabytes of an agent, at every size.
const MEMORY_BUDGET: f64 = 150.0;

const PLACE: &str = "A stand-in for the API, which keeps objects in memory and serves them over HTTPS, and a real agent and \
    controller in namespaces, all on the same CPUs.";
const SERVICES: &str = "A Service with a host-network backend on the one node is put at the API without an address: the \
    controller gives it the pool's only one, the agent fills the maps and puts the address on lo, BIRD tells the router, and \
    a client there tries to connect every few milliseconds. Gone is the first connection that fails after the Service was \
    deleted.";
const SIZE: &str = "Each Service has a VIP, ten endpoints on ten of 100 nodes behind the router, 4096 slots, and is \
    announced. One endpoint of the Service in the middle moves to another node; the time runs from the change at the API to \
    that of the Service's word in the pinned map, which packets read. Start is from the process to the last Service's ring. \
    Memory is taken after the changes: resident without the mapped arrays (the ring arena, the backends, the published \
    words), which the kernel has anyway. Nobody reads metrics or status meanwhile.";
const REST: &str = "Writes are requests that create, change or delete, counted at the API while 500 Services stand and nothing \
    changes. The agent's and the controller's are told apart by their credentials.";

/// Measures.
///
/// # Errors
/// Without root, without the agent's binary, or after a signal.
pub fn run(options: &Options) -> Result<Results> {
    let interrupt = Interrupt::watch()?;
    let mut results = Results::new(Part::Kubernetes, &Machine::here());
    results.notes = [PLACE, SERVICES, SIZE, REST].map(str::to_owned).into();
    if cfg!(debug_assertions) {
        results.notes.push("A debug build: everything takes many times as long as in a release build.".to_owned());
    }
    sweep();
    say("measuring a Service's appearance and disappearance");
    services::measure(&mut results, if options.quick { 3 } else { 20 }, &interrupt)?;
    let sizes: &[u32] = if options.quick { &[500] } else { &[2_000, 10_000] };
    for services in sizes {
        interrupt.check()?;
        let what = format!("measuring an agent with {services} Services");
        say(&what);
        crowd::measure(&mut results, *services, if options.quick { 5 } else { 30 }, &interrupt).context(what)?;
    }
    interrupt.check()?;
    say("counting writes at rest");
    rest::measure(&mut results, Duration::from_secs(if options.quick { 10 } else { 60 }))?;
    Ok(results)
}

/// One node, the router, and the stand-in at the client.
struct Bed {
    stub: Stub,
    keys: Keys,
    topology: Topology,
    scope: Scope,
}

impl Bed {
    fn build() -> Result<Self> {
        let scope = Scope::new()?;
        let topology = Topology::build(&scope, Fabric::Routed, 1)?;
        let keys = Keys::new(&scope)?;
        let place = Place::inside(&topology.client, CLIENT[0]);
        let stub = Stub::start(&scope, &keys, &place, Settings::default())?;
        let bed = Self { stub, keys, topology, scope };
        bed.put(&format!("/api/v1/nodes/{}", bed.topology.nodes[0].name), node(&bed.topology.nodes[0]))?;
        Ok(bed)
    }

    fn put(&self, path: &str, object: serde_json::Value) -> Result<()> {
        self.stub.put(path, object).map_err(|failure| anyhow!("{path}: {failure:?}"))
    }

    /// The node's configuration, with what `complete` adds; it follows the API as `user`.
    fn config(&self, user: &User, complete: impl Fn(AgentConfig) -> AgentConfig) -> Result<AgentConfig> {
        let kubeconfig = self.stub.access().kubeconfig(&self.scope, "agent.kubeconfig", user)?;
        let mut config = complete(AgentConfig::for_node(&self.scope, &self.topology, 0)?);
        let state = self.scope.file("inventory.json");
        let (kubeconfig, state) = (kubeconfig.display(), state.display());
        config.extra.push_str(&format!("kubernetes: {{kubeconfig: {kubeconfig}, stateFile: {state}}}\n"));
        config.extra.push_str("membership: off\n"); // the other nodes have no agents
        Ok(config)
    }
}
