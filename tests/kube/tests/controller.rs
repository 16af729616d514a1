//! The controller as a process with a real API server: addresses, their lack, pools that are edited badly, restarts, and
//! two of them.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hyper::Request;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Event, Service},
};
use kube::{
    Api, Client, CustomResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use kube_tests::{
    ability::Ability,
    assets::Assets,
    bed::{Bed, make_namespace},
    controller::Controller,
    definitions::install,
    deployed::NAMESPACE,
};
use lb_agent::kubernetes::crds::VipPool;
use netns_tests::wait;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::sleep;

/// Limit of what is awaited of a server and a controller that run.
const PATIENCE: Duration = Duration::from_secs(60);
const LEASE: &str = "levee-controller";

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A server with a pool, and what tests ask of it.
struct Cluster {
    bed: Bed,
    client: Client,
    services: Api<Service>,
}

impl Cluster {
    async fn start(pool: &[&str]) -> Self {
        let bed = Bed::start().await.unwrap();
        let client = bed.admin().await.unwrap();
        make_namespace(&client, NAMESPACE).await.unwrap();
        install(&client, VipPool::crd()).await.unwrap();
        let pool = VipPool::new("first", object(json!({ "addresses": pool })));
        Api::all(client.clone()).create(&PostParams::default(), &pool).await.unwrap();
        Self { bed, services: Api::namespaced(client.clone(), "default"), client }
    }

    fn controller(&self, name: &str) -> Controller {
        let bed = &self.bed;
        Controller::new(&bed.scope, name, bed.access(), &bed.keys.admin, &json!({})).unwrap()
    }

    /// Makes a Service of type `LoadBalancer`, with more in its metadata and its spec.
    async fn make(&self, name: &str, metadata: &Value, spec: &Value) {
        let mut service = json!({
            "metadata": { "name": name },
            "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] },
        });
        for (part, more) in [("metadata", metadata), ("spec", spec)] {
            for (key, value) in more.as_object().into_iter().flatten() {
                service[part][key] = value.clone();
            }
        }
        if self.bed.assets.can(Ability::LoadBalancerClass) {
            service["spec"]["loadBalancerClass"] = "levee.dev/levee".into();
        }
        self.services.create(&PostParams::default(), &object(service)).await.unwrap();
    }

    async fn address(&self, name: &str) -> Result<String> {
        address(&self.services.get(name).await?).with_context(|| format!("{name} has no address"))
    }

    /// The address that a Service is given.
    async fn given(&self, name: &str, controller: &Controller) -> String {
        let awaited = wait::until(&format!("an address for {name}"), PATIENCE, || self.address(name)).await;
        awaited.unwrap_or_else(|error| panic!("{error}\n{}", controller.log_tail())).0
    }

    async fn all(&self) -> Vec<(String, Option<String>)> {
        let services = self.services.list(&ListParams::default()).await.unwrap();
        let pair = |service: Service| (service.metadata.name.clone().unwrap(), address(&service));
        services.items.into_iter().map(pair).filter(|(name, _)| name != "kubernetes").collect()
    }

    /// Waits for an Event about an object, and yields its messages.
    async fn told(&self, namespace: &str, name: &str, reason: &str, type_: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let look = || async {
            let mut found = events.list(&ListParams::default()).await?.items;
            found.retain(|event| event.involved_object.name.as_deref() == Some(name));
            let of_type =
                |event: &&Event| (event.reason.as_deref(), event.type_.as_deref()) == (Some(reason), Some(type_));
            let messages: Vec<_> = found.iter().filter(of_type).filter_map(|event| event.message.clone()).collect();
            let all: Vec<_> = found.iter().map(|event| (&event.reason, &event.message)).collect();
            ensure!(!messages.is_empty(), "Events about {name}: {all:?}");
            Ok(messages)
        };
        wait::until(&format!("{reason} of {name}"), PATIENCE, look).await.unwrap().0
    }

    /// The holder of the leader's Lease.
    async fn holder(&self) -> Result<String> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        let spec = leases.get(LEASE).await?.spec.context("the Lease is empty")?;
        spec.holder_identity.filter(|holder| !holder.is_empty()).context("nobody leads")
    }

    /// Waits for the condition of the pool.
    async fn pool_is(&self, ready: &str) -> String {
        let pools: Api<VipPool> = Api::all(self.client.clone());
        let look = || async {
            let pool = pools.get("first").await?;
            let conditions = pool.status.context("the pool has no status")?.conditions;
            let found = conditions.iter().find(|condition| condition.type_ == "Ready").context("no condition")?;
            ensure!(found.status == ready && found.observed_generation == pool.metadata.generation, "{found:?}");
            Ok(found.message.clone())
        };
        wait::until(&format!("Ready to be {ready}"), PATIENCE, look).await.unwrap().0
    }

    async fn edit_pool(&self, addresses: &[&str]) {
        let pools: Api<VipPool> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({ "spec": { "addresses": addresses } }));
        pools.patch("first", &PatchParams::default(), &patch).await.unwrap();
    }
}

/// The one address of a Service.
fn address(service: &Service) -> Option<String> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    assert_eq!(ingress.len(), 1, "{ingress:?}");
    ingress[0].ip.clone()
}

#[tokio::test]
async fn services_get_the_addresses_of_the_pool_and_keep_them() {
    let cluster = Cluster::start(&["192.0.2.8/30"]).await;
    let mut controller = cluster.controller("1");
    controller.start(&cluster.bed.scope).unwrap();

    let none = json!({});
    cluster.make("any", &none, &json!({ "externalIPs": ["198.51.100.7"] })).await;
    let any = cluster.given("any", &controller).await;
    let range: BTreeSet<_> = (8..12).map(|last| format!("192.0.2.{last}")).collect();
    assert!(range.contains(&any), "{any}");
    let (field, annotated) =
        if any == "192.0.2.10" { ("192.0.2.11", "192.0.2.9") } else { ("192.0.2.10", "192.0.2.11") };
    let annotated = if any == annotated { "192.0.2.9" } else { annotated };
    cluster.make("field", &none, &json!({ "loadBalancerIP": field })).await;
    assert_eq!(cluster.given("field", &controller).await, field);
    cluster.make("annotated", &json!({ "annotations": { "levee.dev/addresses": annotated } }), &none).await;
    assert_eq!(cluster.given("annotated", &controller).await, annotated);
    cluster.make("last", &none, &none).await;
    let last = cluster.given("last", &controller).await;
    let used: BTreeSet<_> = [any.as_str(), field, annotated, &last].map(str::to_owned).into();
    assert_eq!(used, range);
    for (name, address) in [("any", any.as_str()), ("field", field), ("annotated", annotated)] {
        let told = cluster.told("default", name, "IPAllocated", "Normal").await;
        assert!(told.len() == 1 && told[0].contains(address), "{told:?}");
    }

    // No address is left, and a taken one is nobody else's.
    cluster.make("late", &none, &none).await;
    cluster.told("default", "late", "AllocationFailed", "Warning").await;
    cluster.make("greedy", &none, &json!({ "loadBalancerIP": field })).await;
    let told = cluster.told("default", "greedy", "AllocationFailed", "Warning").await;
    assert!(told.iter().any(|message| message.contains(field) && message.contains("default/field")), "{told:?}");
    let held = cluster.all().await;
    assert_eq!(held.iter().filter(|(_, address)| address.is_some()).count(), 4, "{held:?}");

    stays_over_restarts(&cluster, &mut controller, &held).await;
    stays_over_a_bad_edit(&cluster, &controller, &held, &last).await;
}

/// Killed and started again, and ended and started again, the controller changes nothing.
async fn stays_over_restarts(cluster: &Cluster, controller: &mut Controller, held: &[(String, Option<String>)]) {
    for round in 0..4 {
        let before = cluster.holder().await.unwrap();
        if round % 2 == 0 {
            controller.kill().unwrap();
        } else {
            controller.stop().unwrap();
        }
        controller.start(&cluster.bed.scope).unwrap();
        let look = || async {
            let holder = cluster.holder().await?;
            ensure!(holder != before, "{holder} leads");
            Ok(())
        };
        wait::until("a new leader", PATIENCE, look).await.unwrap();
        // It has worked through everything when it serves a Service that was not there before.
        let probe = format!("probe-{round}");
        let refused = json!({ "loadBalancerIP": "203.0.113.1" });
        cluster.make(&probe, &json!({}), &refused).await;
        cluster.told("default", &probe, "AllocationFailed", "Warning").await;
        cluster.services.delete(&probe, &DeleteParams::default()).await.unwrap();
        assert_eq!(cluster.all().await, held, "round {round}");
    }
}

/// A bad edit is told, and the pool of before is in force: its addresses are given on.
async fn stays_over_a_bad_edit(
    cluster: &Cluster,
    controller: &Controller,
    held: &[(String, Option<String>)],
    last: &str,
) {
    cluster.pool_is("True").await;
    cluster.edit_pool(&["192.0.2.20-192.0.2.8"]).await;
    let message = cluster.pool_is("False").await;
    assert!(message.contains("192.0.2.20"), "{message}");
    // Events about what is in no namespace are kept in `default`.
    cluster.told("default", "first", "PoolInvalid", "Warning").await;
    assert_eq!(cluster.all().await, held);
    cluster.services.delete("greedy", &DeleteParams::default()).await.unwrap();
    cluster.services.delete("last", &DeleteParams::default()).await.unwrap();
    assert_eq!(cluster.given("late", controller).await, last);
    cluster.edit_pool(&["192.0.2.8/29"]).await;
    cluster.pool_is("True").await;
    cluster.make("more", &json!({}), &json!({})).await;
    let more = cluster.given("more", controller).await;
    let others = held.iter().filter(|(_, address)| address.as_ref() == Some(&more)).count();
    assert!(others == 0 && more.starts_with("192.0.2.1"), "{more} beside {held:?}");
}

/// Requests that write, by resource and verb, as the server counts them.
async fn writes(client: &Client) -> BTreeMap<(String, String), u64> {
    let request = Request::get("/metrics").body(Vec::new()).unwrap();
    let text = client.request_text(request).await.unwrap();
    let mut counts = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
        let label = |name: &str| Some(line.split_once(&format!("{name}=\""))?.1.split('"').next()?.to_owned());
        let (resource, verb) = (label("resource").unwrap(), label("verb").unwrap());
        if ["POST", "PUT", "PATCH", "APPLY", "DELETE"].contains(&verb.as_str()) {
            let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            *counts.entry((resource, verb)).or_default() += count;
        }
    }
    counts
}

#[tokio::test]
async fn at_rest_the_leaders_lease_is_all_that_is_written() {
    const SERVICES: usize = 300;
    let cluster = Cluster::start(&["198.18.0.0/20"]).await;
    let mut controllers = [cluster.controller("a"), cluster.controller("b")];
    for controller in &mut controllers {
        controller.start(&cluster.bed.scope).unwrap();
    }
    for index in 0..SERVICES {
        cluster.make(&format!("service-{index:03}"), &json!({}), &json!({})).await;
    }
    let look = || async {
        let served = cluster.all().await.iter().filter(|(_, address)| address.is_some()).count();
        ensure!(served == SERVICES, "{served} of {SERVICES} are served");
        Ok(())
    };
    wait::until("every Service to have an address", PATIENCE, look).await.unwrap();
    // Events are told at a bounded rate, five a second beyond the first hundred; then nothing.
    let rest = Duration::from_secs(10);
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let before = writes(&cluster.client).await;
        sleep(rest).await;
        let after = writes(&cluster.client).await;
        let written = after.iter().filter(|(what, count)| before.get(*what) != Some(*count));
        let written: Vec<_> = written.map(|((resource, verb), _)| (resource.as_str(), verb.as_str())).collect();
        if written == [("leases", "PUT")] {
            let lease = ("leases".to_owned(), "PUT".to_owned());
            let renewals = after[&lease] - before[&lease];
            assert!((5..=20).contains(&renewals), "{renewals} renewals in {rest:?}, one each half second is meant");
            return;
        }
        assert!(Instant::now() < deadline, "{written:?} are written without end\n{}", controllers[0].log_tail());
    }
}

#[tokio::test]
async fn a_change_of_leader_is_an_event_and_a_log_line() {
    let _kept = promises::keeps(&["S0-08"], &Assets::find().unwrap().title());
    let cluster = Cluster::start(&["192.0.2.0/28"]).await;
    let mut controllers = [cluster.controller("a"), cluster.controller("b")];
    for controller in &mut controllers {
        controller.start(&cluster.bed.scope).unwrap();
    }
    let first = wait::until("a leader", PATIENCE, || cluster.holder()).await.unwrap().0;
    let index = usize::from(!first.starts_with(controllers[0].name()));
    assert!(first.starts_with(controllers[index].name()), "{first}");
    announced(&cluster, &controllers[index], &first).await;
    let waits = format!("attempting to acquire leader lease {NAMESPACE}/{LEASE}");
    let look = || async {
        ensure!(controllers.iter().all(|it| it.log().contains(&waits)), "not both say so");
        Ok(())
    };
    wait::until(&waits, PATIENCE, look).await.unwrap();
    assert!(!controllers[1 - index].log().contains("successfully acquired"), "{}", controllers[1 - index].log());

    controllers[index].kill().unwrap();
    let other = &controllers[1 - index];
    let look = || async {
        let holder = cluster.holder().await?;
        ensure!(holder.starts_with(other.name()), "{holder} leads");
        Ok(holder)
    };
    let second = wait::until("the other to lead", PATIENCE, look).await.unwrap().0;
    announced(&cluster, other, &second).await;
    cluster.make("web", &json!({}), &json!({})).await;
    cluster.given("web", other).await;
}

/// The log line and the Event of one who became leader.
async fn announced(cluster: &Cluster, controller: &Controller, holder: &str) {
    let line = format!("successfully acquired lease {NAMESPACE}/{LEASE}");
    let look = || async {
        let told = cluster.told(NAMESPACE, LEASE, "LeaderElection", "Normal").await;
        ensure!(told.contains(&format!("{holder} became leader")), "Events {told:?}");
        ensure!(controller.log().contains(&line), "no line {line:?} in\n{}", controller.log_tail());
        Ok(())
    };
    wait::until(&format!("{holder} to be announced"), PATIENCE, look).await.unwrap();
}
