//! The controller as a process with the stand-in: writes that fail while it is restarted again and again, a Lease that
//! cannot be read, two controllers, and what all of Levee asks for at rest.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{WatchEvent, WatchParams},
};
use kube_tests::{
    access::{Keys, User},
    controller::Controller,
    deployed::NAMESPACE,
    place::Place,
    stub::{
        Settings, Stub,
        faults::{Fault, Only, Verb},
        record::Record,
        status::Failure,
    },
};
use lb_agent::{
    election::{Timing, lease::node},
    kubernetes::{
        client::{Access, Credentials, Limits},
        crds::VipPool,
    },
    sources::kubernetes,
};
use netns_tests::{scope::Scope, wait};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Limit of what is awaited of a controller that runs.
const PATIENCE: Duration = Duration::from_secs(60);
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/levee-system/leases/levee-controller";

struct Bed {
    stub: Stub,
    keys: Keys,
    scope: Scope,
}

impl Bed {
    fn new() -> Self {
        let scope = Scope::new().unwrap();
        let keys = Keys::new(&scope).unwrap();
        let stub = Stub::start(&scope, &keys, &Place::loopback(), Settings::default()).unwrap();
        stub.put("/api/v1/namespaces/levee-system", json!({ "metadata": {} })).unwrap();
        let pool = json!({ "metadata": {}, "spec": { "addresses": ["198.18.0.0/20"] } });
        stub.put("/apis/levee.dev/v1alpha1/vippools/first", pool).unwrap();
        Self { stub, keys, scope }
    }

    /// A controller whose requests are recorded under its name.
    fn controller(&self, name: &str, settings: &Value) -> Controller {
        let user = User::Token(format!("token-{name}"));
        self.stub.know(name, &user).unwrap();
        Controller::new(&self.scope, name, self.stub.access(), &user, settings).unwrap()
    }

    fn make(&self, name: &str, node_port: u32) {
        let ports = json!([{ "port": 80, "nodePort": node_port, "protocol": "TCP" }]);
        let service = json!({ "metadata": {}, "spec": { "type": "LoadBalancer", "ports": ports } });
        self.stub.put(&path(name), service).unwrap();
    }

    /// The addresses of Services by their names; an error while one has none.
    fn addresses(&self, names: &[String]) -> Result<BTreeMap<String, String>> {
        let address = |name: &String| {
            let service = self.stub.get(&path(name)).with_context(|| format!("{name} is gone"))?;
            let address = address(&service).with_context(|| format!("{name} has no address"))?;
            Ok((name.clone(), address))
        };
        names.iter().map(address).collect()
    }

    async fn all_have(&self, names: &[String], controller: &Controller) -> BTreeMap<String, String> {
        let awaited =
            wait::until("every Service to have an address", PATIENCE, || async { self.addresses(names) }).await;
        awaited.unwrap_or_else(|error| panic!("{error}\n{}", controller.log_tail())).0
    }

    /// Who holds the Lease: the name of its controller.
    fn holder(&self) -> Result<String> {
        let lease = self.stub.get(LEASE).context("no Lease")?;
        let holder = lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty());
        let holder = holder.context("nobody leads")?;
        Ok(holder.trim_start_matches("controller-").split('_').next().unwrap_or_default().to_owned())
    }

    async fn leads(&self, name: &str, limit: Duration) -> Duration {
        let look = || async {
            let holder = self.holder()?;
            ensure!(holder == name, "{holder} leads");
            Ok(())
        };
        wait::until(&format!("{name} to lead"), limit, look).await.unwrap().1
    }

    /// Who wrote, Leases aside.
    fn writers(&self) -> BTreeSet<String> {
        let writes =
            self.stub.requests().into_iter().filter(|record| record.verb.writes() && record.resource != "leases");
        writes.map(|record| record.user).collect()
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/default/services/{name}")
}

fn address(service: &Value) -> Option<String> {
    service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(str::to_owned)
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("service-{index:03}")).collect()
}

/// Numbers that look random and are the same in every run (Knuth, TAOCP 2, section 3.2.1).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// 409 or 500, or a write that is done and not answered: for the next so many status writes of Services.
fn break_writes(stub: &Stub, random: &mut Random) {
    stub.heal_all();
    for _ in 0..3 {
        let times = u32::try_from(random.below(3)).unwrap();
        let fault = match random.below(3) {
            0 => Fault::Fails(Failure::new(409, "Conflict", "told to refuse"), None),
            1 => Fault::internal_error(),
            _ => Fault::LostWrite,
        };
        stub.fault(Only::writes().of("services").times(times), fault);
    }
}

#[tokio::test]
async fn restarts_and_failing_writes_change_no_address() {
    let _kept = promises::keeps(&["F23"], "the stand-in");
    let bed = Bed::new();
    let begin = bed.stub.version();
    // No election: a killed leader would make each of the fifty wait for its lease to end.
    let mut controller = bed.controller("a", &json!({ "leaderElection": "off" }));
    let (mut random, mut failed) = (Random(23), 0);
    // Not in the order of their names: who decided anew from what is there would decide otherwise.
    let names: Vec<_> = (0..100).map(|index| format!("service-{:03}", index * 37 % 100)).collect();
    for (round, pair) in names.chunks(2).enumerate() {
        break_writes(&bed.stub, &mut random);
        for name in pair {
            bed.make(name, 30_000 + u32::try_from(round).unwrap());
        }
        bed.stub.forget_requests();
        controller.start(&bed.scope).unwrap();
        if random.below(2) == 0 {
            bed.all_have(&names[..2 * round + 2], &controller).await;
        } else {
            // Killed in the midst: after the first attempt, or a few milliseconds later.
            let look = || async {
                let wrote =
                    bed.stub.requests().iter().any(|record| record.verb.writes() && record.resource == "services");
                ensure!(wrote, "nothing was written");
                Ok(())
            };
            wait::until("a write", PATIENCE, look).await.unwrap();
            sleep(Duration::from_millis(random.below(30))).await;
        }
        controller.kill().unwrap();
        let writes = bed.stub.requests().into_iter().filter(|it| it.verb.writes() && it.resource == "services");
        failed += writes.filter(|record| record.answered() != Some(200)).count();
    }
    assert!(failed >= 50, "{failed} writes failed in 50 rounds");
    bed.stub.heal_all();
    controller.start(&bed.scope).unwrap();
    let last = bed.all_have(&names, &controller).await;
    assert_eq!(last.values().collect::<BTreeSet<_>>().len(), names.len(), "every Service has an address of its own");
    let history = history(&bed, begin).await;
    for (name, states) in &history {
        let given: BTreeSet<_> = states.iter().filter_map(|(address, _)| address.clone()).collect();
        assert_eq!(given, BTreeSet::from([last[name].clone()]), "{name}");
        let first = states.iter().position(|(address, _)| address.is_some()).unwrap();
        assert!(
            states[first..].iter().all(|(address, _)| address.is_some()),
            "{name} was without its address: {states:?}"
        );
        assert!(states.iter().all(|(_, ports)| *ports == states[0].1), "ports of {name}: {states:?}");
    }
    assert_eq!(history.len(), names.len());
}

/// Address and ports of each Service after each of its changes.
async fn history(bed: &Bed, begin: u64) -> BTreeMap<String, Vec<(Option<String>, Value)>> {
    let client = bed.stub.access().client(&bed.keys.admin).await.unwrap();
    let services: Api<Service> = Api::all(client);
    bed.make("end-of-history", 31_999);
    let mut events = services.watch(&WatchParams::default(), &begin.to_string()).await.unwrap().boxed();
    let mut history: BTreeMap<String, Vec<_>> = BTreeMap::new();
    loop {
        let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap();
        let (WatchEvent::Added(service) | WatchEvent::Modified(service)) = event else { panic!("{event:?}") };
        let service = serde_json::to_value(&service).unwrap();
        let name = service["metadata"]["name"].as_str().unwrap().to_owned();
        if name == "end-of-history" {
            return history;
        }
        history.entry(name).or_default().push((address(&service), service["spec"]["ports"].clone()));
    }
}

#[tokio::test]
async fn who_has_no_address_is_told_why_in_a_condition() {
    let bed = Bed::new();
    let pool = json!({ "metadata": {}, "spec": { "addresses": ["198.18.0.1"] } });
    bed.stub.put("/apis/levee.dev/v1alpha1/vippools/first", pool).unwrap();
    let mut controller = bed.controller("a", &json!({}));
    controller.start(&bed.scope).unwrap();
    let condition = async |name: &str, type_: &str, expected: (&str, &str)| {
        let look = || async {
            let service = bed.stub.get(&path(name)).context("no Service")?;
            let all = service["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = all.into_iter().find(|it| it["type"] == type_).context("no such condition")?;
            ensure!(found["status"] == expected.0 && found["reason"] == expected.1, "{found}");
            Ok(())
        };
        wait::until(&format!("{type_} of {name} to be {expected:?}"), PATIENCE, look).await.unwrap();
    };
    bed.make("first", 30_000);
    condition("first", "levee.dev/AddressAllocated", ("True", "Allocated")).await;
    condition("first", "levee.dev/ClientAddressHidden", ("True", "TrafficPolicyCluster")).await;
    bed.make("second", 30_001);
    condition("second", "levee.dev/AddressAllocated", ("False", "NoAddressFree")).await;
    assert!(bed.addresses(&["second".to_owned()]).is_err());
    bed.stub.delete(&path("first")).unwrap();
    condition("second", "levee.dev/AddressAllocated", ("True", "Allocated")).await;
    assert_eq!(bed.addresses(&["second".to_owned()]).unwrap()["second"], "198.18.0.1");
}

#[tokio::test]
async fn a_lease_that_cannot_be_read_is_survived() {
    let _kept = promises::keeps(&["S0-14"], "the stand-in");
    let bed = Bed::new();
    let mut leader = bed.controller("a", &json!({}));
    leader.start(&bed.scope).unwrap();
    bed.leads("a", PATIENCE).await;
    let mut follower = bed.controller("b", &json!({}));
    follower.start(&bed.scope).unwrap();
    let saw = || async {
        let reads = bed.stub.requests();
        let read =
            reads.iter().any(|record| record.user == "b" && record.resource == "leases" && record.verb == Verb::Get);
        ensure!(read, "no read");
        Ok(())
    };
    wait::until("the follower to read the Lease", PATIENCE, saw).await.unwrap();

    let unavailable = Failure::new(503, "ServiceUnavailable", "etcdserver: leader changed");
    let fault = bed.stub.fault(Only::verbs(&[Verb::Get]).of("leases"), Fault::Fails(unavailable, None));
    leader.kill().unwrap();
    bed.stub.forget_requests();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(20) {
        assert!(follower.runs().unwrap(), "{}", follower.log_tail());
        assert_eq!(bed.holder().unwrap(), "a", "nobody takes what he cannot read");
        sleep(Duration::from_millis(100)).await;
    }
    let tries = bed.stub.requests().iter().filter(|record| record.resource == "leases").count();
    assert!((10..=100).contains(&tries), "{tries} requests in 20 s");
    bed.stub.heal(fault);
    // The Lease is over after 3 s of its being seen unchanged, and looked at each 600 ms; the rest is the machine's.
    bed.leads("b", Duration::from_secs(10)).await;
    bed.make("web", 30_000);
    bed.all_have(&["web".to_owned()], &follower).await;
    assert!(follower.log().contains("could not be read or written; trying again"), "{}", follower.log());
    assert_eq!(bed.writers(), BTreeSet::from(["b".to_owned()]));
}

#[tokio::test]
async fn of_two_controllers_the_leader_alone_writes() {
    let _kept = promises::keeps(&["S0-07"], "the stand-in");
    let bed = Bed::new();
    let mut first = bed.controller("a", &json!({}));
    first.start(&bed.scope).unwrap();
    bed.leads("a", PATIENCE).await;
    let mut second = bed.controller("b", &json!({}));
    second.start(&bed.scope).unwrap();
    let names = names(20);
    for name in &names {
        bed.make(name, 30_000);
    }
    let before = bed.all_have(&names, &first).await;
    assert_eq!(bed.writers(), BTreeSet::from(["a".to_owned()]));
    assert!(second.log().contains("attempting to acquire leader lease levee-system/levee-controller"));

    // A leader that stops in order hands over: nobody waits for the end of the lease.
    bed.stub.forget_requests();
    first.stop().unwrap();
    bed.leads("b", PATIENCE).await;
    bed.make("later", 30_000);
    bed.all_have(&["later".to_owned()], &second).await;
    assert_eq!(bed.addresses(&names).unwrap(), before);
    let records = bed.stub.requests();
    let last_of_first = records.iter().rposition(|record| record.user == "a" && record.verb.writes());
    let first_of_second =
        records.iter().position(|record| record.user == "b" && record.verb.writes() && record.resource != "leases");
    assert!(last_of_first < first_of_second, "{records:?}");
    assert!(bed.stub.get(&format!("/api/v1/namespaces/{NAMESPACE}")).is_some());
    a_leader_that_cannot_renew_stops(&bed, &second).await;
}

/// Its Lease cannot be written any more, and everything else can: it stops before its time is over.
async fn a_leader_that_cannot_renew_stops(bed: &Bed, leader: &Controller) {
    let fault = bed.stub.fault(Only::writes().of("leases"), Fault::Hang);
    sleep(Timing::default().lease_duration()).await;
    bed.make("nobody-leads", 30_000);
    let begin = Instant::now();
    while begin.elapsed() < Timing::default().lease_duration() {
        assert!(bed.addresses(&["nobody-leads".to_owned()]).is_err(), "written without a lead\n{}", leader.log_tail());
        sleep(Duration::from_millis(100)).await;
    }
    bed.stub.heal(fault);
    bed.all_have(&["nobody-leads".to_owned()], leader).await;
}

#[tokio::test]
async fn the_lease_of_a_node_that_is_gone_goes_and_one_that_is_renewed_stays() {
    let bed = Bed::new();
    let path = |node: &str| LEASE.replace("levee-controller", &format!("levee-node-{node}"));
    let renew = |node: &str, labels: Value| {
        let spec = json!({ "holderIdentity": node, "leaseTransitions": bed.stub.version() });
        bed.stub.put(&path(node), json!({ "metadata": { "labels": labels }, "spec": spec })).unwrap();
    };
    let label = json!({ "levee.dev/lease": "node" });
    bed.stub.put("/api/v1/nodes/here", json!({ "metadata": {} })).unwrap();
    for node in ["here", "gone", "renewed"] {
        renew(node, label.clone());
    }
    renew("unlabelled", json!({}));
    let mut controller = bed.controller("a", &json!({ "nodeLeaseGrace": "2s" }));
    controller.start(&bed.scope).unwrap();
    let goes = async |node: &str| {
        let look = || async {
            renew("renewed", label.clone());
            ensure!(bed.stub.get(&path(node)).is_none(), "it is there");
            Ok(())
        };
        let awaited = wait::until(&format!("the Lease of {node} to go"), PATIENCE, look).await;
        awaited.unwrap_or_else(|error| panic!("{error}\n{}", controller.log_tail()));
    };
    goes("gone").await;
    assert!(bed.stub.get(&path("here")).is_some(), "its node is there");
    bed.stub.delete("/api/v1/nodes/here").unwrap();
    goes("here").await;
    for other in ["renewed", "unlabelled"] {
        assert!(bed.stub.get(&path(other)).is_some(), "{other}");
    }
    assert_eq!(bed.holder().unwrap(), "a");
}

/// What is counted at rest.
const REST: Duration = Duration::from_secs(30);
/// Most requests in that time: a renewal of the leader's Lease and a look of the other controller each half second at the
/// earliest, the node's Lease each 10 s, and a few watches that begin anew.
const BUDGET: usize = 60 + 60 + 4 + 6;

#[tokio::test]
async fn at_rest_the_leases_are_all_that_is_written() {
    let _kept = promises::keeps(&["F27"], "the stand-in");
    let bed = Bed::new();
    let names = names(500);
    for name in &names {
        bed.make(name, 30_000);
    }
    let mut controllers = [bed.controller("a", &json!({})), bed.controller("b", &json!({}))];
    for controller in &mut controllers {
        controller.start(&bed.scope).unwrap();
    }
    let cancel = CancellationToken::new();
    be_an_agent(&bed, &cancel).await;
    bed.all_have(&names, &controllers[0]).await;
    quiet(&bed).await;

    let (version, begin) = (bed.stub.version(), Instant::now());
    bed.stub.forget_requests();
    sleep(REST).await;
    let records: Vec<Record> = bed.stub.requests();
    assert!(begin.elapsed() < REST + Duration::from_secs(5), "the machine slept");
    let leader = bed.holder().unwrap();
    let writes: Vec<_> = records.iter().filter(|record| record.verb.writes()).collect();
    for write in &writes {
        let allowed = match write.user.as_str() {
            "agent" => write.path.ends_with("/levee-node-node-1"),
            user => user == leader && write.path == LEASE,
        };
        assert!(allowed, "{} by {}", write.path, write.user);
    }
    let of_agent = writes.iter().filter(|record| record.user == "agent").count();
    assert!((2..=4).contains(&of_agent), "the node's Lease was renewed {of_agent} times in {REST:?}");
    let changes = usize::try_from(bed.stub.version() - version).unwrap();
    assert!(changes <= writes.len() + 1, "{changes} changes, {} writes", writes.len());
    assert!(records.len() <= BUDGET, "{} requests in {REST:?}: {records:?}", records.len());
    cancel.cancel();
}

/// An agent's share in it: its source and its node's Lease.
async fn be_an_agent(bed: &Bed, cancel: &CancellationToken) {
    let user = User::Token("token-agent".to_owned());
    bed.stub.know("agent", &user).unwrap();
    let kubeconfig = bed.stub.access().kubeconfig(&bed.scope, "agent.kubeconfig", &user).unwrap();
    let servers = watch::Sender::default().subscribe();
    let access = Access::new(Credentials::Kubeconfig(kubeconfig), servers, Limits::default());
    let source = kubernetes::spawn::<VipPool>(kubernetes::Settings::default(), access.clone(), cancel.clone());
    let look = || async { source.snapshots.borrow().clone().context("no inventory") };
    wait::until("the agent's inventory", PATIENCE, look).await.unwrap();
    let (sender, fingerprint) = watch::channel("0011223344556677".to_owned());
    let (client, stop) = (access.client(), cancel.clone());
    tokio::spawn(async move {
        node::renew(client, NAMESPACE.to_owned(), "node-1".to_owned(), fingerprint, stop).await;
        drop((sender, source));
    });
}

/// Waits until nothing but Leases was written for two seconds.
async fn quiet(bed: &Bed) {
    let look = || async {
        let records = bed.stub.requests();
        let last = records.iter().rfind(|record| record.verb.writes() && record.resource != "leases");
        let since = last.map_or(Duration::MAX, |record| record.at.elapsed());
        ensure!(since > Duration::from_secs(2), "{:?}", last.map(|record| &record.path));
        Ok(())
    };
    wait::until("quiet", Duration::from_secs(120), look).await.unwrap();
}
