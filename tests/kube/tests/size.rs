//! What an agent does at 2,000 Services with 10,000 endpoints: it is counted, not timed.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kube_tests::{
    access::Keys,
    crowd::{Crowd, PORT, put, slice_path, vip},
    follow::{follow, node},
    place::Place,
    stub::{Settings, Stub, record::Record},
    words::Words,
};
use netns_tests::{
    agent::Agent,
    config::AgentConfig,
    scope::{Scope, residue, sweep},
    topology::{Fabric, Topology},
    wait,
};
use serde_json::Value;
use tokio::time::sleep;

const CROWD: Crowd = Crowd { services: 2_000, endpoints: 5, nodes: 20 };
/// What thousands of Services may take in a debug build.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long nothing has to happen for the agent to be at rest: longer than whatever it waits for before it goes on.
const REST: Duration = Duration::from_secs(2);
/// Changes that come one after the other.
const CHANGES: u32 = 20;
/// Changes that come at once.
const BURST: u32 = 500;
/// The least time between two inventories.
const COALESCE: Duration = Duration::from_millis(10);
/// At most so many bytes are around an object in a list or in an event.
const FRAME: u64 = 128;
/// What an agent that follows a cluster reads.
const RESOURCES: [&str; 4] = ["nodes", "services", "endpointslices", "vippools"];

/// One node's agent, and the stand-in that it follows, at the router.
struct Bed {
    agent: Agent,
    words: Words,
    stub: Stub,
    _topology: Topology,
    scope: Scope,
}

/// What was done until a moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Done {
    publications: u64,
    compositions: u64,
    plans: u64,
    /// Requests that read.
    reads: usize,
    /// Bytes of the answers to them, by resource.
    bytes: [u64; 4],
}

impl Bed {
    async fn start() -> Self {
        sweep();
        let scope = Scope::new().unwrap();
        let topology = Topology::build(&scope, Fabric::Routed, 1).unwrap();
        let keys = Keys::new(&scope).unwrap();
        let place = Place::inside(&topology.router, topology.nodes[0].gateways[0]);
        let stub = Stub::start(&scope, &keys, &place, Settings::default()).unwrap();
        put(&stub, &format!("/api/v1/nodes/{}", topology.nodes[0].name), node(&topology.nodes[0])).unwrap();
        CROWD.fill(&stub).unwrap();
        let kubeconfig = stub.access().kubeconfig(&scope, "kubeconfig", &keys.admin).unwrap();
        let config = CROWD.with_capacities(AgentConfig::for_node(&scope, &topology, 0).unwrap());
        let mut config = follow(&scope, config, &kubeconfig, &[]);
        config.extra.push_str("membership: off\n"); // no other node has an agent
        let mut agent = Agent::start(&scope, &topology.nodes[0].netns, &config).unwrap();
        agent.wait_ready(PATIENCE).await.unwrap();
        let words = Words::open(agent.pin_path()).unwrap();
        Self { agent, words, stub, _topology: topology, scope }
    }

    fn done(&self) -> Result<Done> {
        let status = self.agent.lbctl_json(&["status"])?["status"].take();
        let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        let requests = self.stub.requests();
        let reads = || requests.iter().filter(|request| !request.verb.writes());
        let bytes = |resource| reads().filter(|one| one.resource == resource).map(Record::bytes_sent).sum();
        Ok(Done {
            publications: number("/cluster/source/publications"),
            compositions: number("/cluster/compositions"),
            plans: number("/dataplane/plansApplied"),
            reads: reads().count(),
            bytes: RESOURCES.map(bytes),
        })
    }

    /// Waits until every Service is served and nothing more is done.
    async fn rests(&self) -> Done {
        let look = || async {
            let served = self.words.served()?;
            ensure!(served == CROWD.services, "{served} Services are served");
            let before = self.done()?;
            sleep(REST).await;
            let after = self.done()?;
            ensure!(before == after, "{before:?}, then {after:?}");
            Ok(after)
        };
        wait::until("rest", PATIENCE, look).await.unwrap().0
    }

    /// Moves an endpoint of each of these Services, all at once, and waits until the last is in the maps: changes arrive
    /// in their order.
    async fn change(&self, services: &[u32], round: u32) {
        let last = self.words.index(vip(*services.last().unwrap()).into(), PORT).unwrap();
        let before = self.words.of_index(last).unwrap();
        for service in services {
            CROWD.place(&self.stub, *service, round).unwrap();
        }
        let look = || async {
            ensure!(self.words.of_index(last)? != before, "the ring is the one of before");
            Ok(())
        };
        wait::until("the change in the maps", PATIENCE, look).await.unwrap();
    }

    /// Bytes of these Services' slices, each in an event or a list.
    fn size(&self, services: impl Iterator<Item = u32>) -> u64 {
        let of = |service| self.stub.get(&slice_path(service)).unwrap().to_string().len() as u64 + FRAME;
        services.map(of).sum()
    }
}

impl Done {
    /// What was done since.
    fn since(self, before: Self) -> Self {
        let bytes = std::array::from_fn(|at| self.bytes[at] - before.bytes[at]);
        Self {
            publications: self.publications - before.publications,
            compositions: self.compositions - before.compositions,
            plans: self.plans - before.plans,
            reads: self.reads - before.reads,
            bytes,
        }
    }
}

#[tokio::test]
async fn work_is_bounded_by_what_changes_and_not_by_what_there_is() {
    let _kept = promises::keeps(&["S1-16"], "the stand-in");
    let bed = Bed::start().await;

    // Everything was read once: one streaming list a kind, which goes on as its watch.
    let started = bed.rests().await;
    assert_eq!(started.reads, RESOURCES.len(), "{:?}", bed.stub.requests());
    let all = bed.size(0..CROWD.services);
    assert!(started.bytes[2] <= all, "{} bytes of slices, which have {all}", started.bytes[2]);

    // At rest nothing is read and nothing is done; the node's Lease is what is written.
    let before = bed.rests().await;
    let writes = bed.stub.requests().into_iter().filter(|request| request.verb.writes());
    let others: Vec<_> = writes.filter(|request| request.resource != "leases").collect();
    assert!(others.is_empty(), "{others:?}");

    // One change is one event, one inventory, one composition and one plan.
    let services: Vec<u32> = (1..=CHANGES).map(|round| round * 97 % CROWD.services).collect();
    for (round, service) in (1..).zip(&services) {
        bed.change(&[*service], round).await;
    }
    let after = bed.rests().await;
    let (done, size, once) = (after.since(before), bed.size(services.into_iter()), u64::from(CHANGES));
    assert_eq!((done.publications, done.compositions, done.plans, done.reads), (once, once, once, 0), "{done:?}");
    assert!(done.bytes[2] <= size && done.bytes[2] > 0, "{done:?}, the slices have {size}");
    assert_eq!([done.bytes[0], done.bytes[1], done.bytes[3]], [0; 3], "{done:?}");

    // Many at once are composed together: at most one time in every interval.
    let (services, began) = ((0..BURST).collect::<Vec<_>>(), Instant::now());
    bed.change(&services, CHANGES + 1).await;
    let intervals = began.elapsed().as_millis() / COALESCE.as_millis() + 2;
    let done = bed.rests().await.since(after);
    let most = u64::try_from(intervals).unwrap().min(BURST.into());
    assert!(
        done.publications <= most && done.compositions <= done.publications,
        "{done:?} within {intervals} intervals"
    );
    // A ring is changed once, be it with others or in a plan of its own.
    assert!(done.plans <= BURST.into() && done.reads == 0, "{done:?}");
    let size = bed.size(0..BURST);
    assert!(done.bytes[2] <= size, "{done:?}, the slices have {size}");

    let prefix = bed.scope.prefix().to_owned();
    drop(bed);
    assert_eq!(residue(&prefix), Vec::<String>::new());
}
