//! The agent's source with a real API server: what it publishes, and that it stays when the server goes away.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, CustomResourceExt, api::PostParams};
use kube_tests::{
    bed::{Bed, START},
    definitions::install,
};
use lb_agent::{
    kubernetes::{
        client::{Access, Credentials, Limits},
        crds::VipPool,
    },
    model::inventory::{Inventory, ObjectName, Origin, Snapshot},
    sources::kubernetes::{self, Source},
};
use netns_tests::wait;
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

/// Limit of what is awaited of a server that runs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Limits of the client: what hangs is noticed soon.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(1),
    answer: Duration::from_secs(3),
    watch_idle: Duration::from_secs(90),
    ping: Duration::from_secs(2),
};

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

async fn make_service(client: &Client, name: &str) -> Result<()> {
    let service: Service = object(json!({
        "metadata": { "name": name },
        "spec": { "type": "LoadBalancer", "ports": [{ "name": "http", "port": 80 }] },
    }));
    Api::namespaced(client.clone(), "default").create(&PostParams::default(), &service).await?;
    Ok(())
}

/// Makes one object of each kind.
async fn fill(client: &Client) {
    install(client, VipPool::crd()).await.unwrap();
    make_service(client, "web").await.unwrap();
    let slice: EndpointSlice = object(json!({
        "metadata": { "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.0.1.2"], "conditions": { "ready": true }, "nodeName": "node-1" }],
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    }));
    let parameters = PostParams::default();
    Api::namespaced(client.clone(), "default").create(&parameters, &slice).await.unwrap();
    let node: Node = object(json!({ "metadata": { "name": "node-1" } }));
    Api::all(client.clone()).create(&parameters, &node).await.unwrap();
    let pool = VipPool::new("first", object(json!({ "addresses": ["192.0.2.8/30"] })));
    Api::all(client.clone()).create(&parameters, &pool).await.unwrap();
}

/// The inventory, if it is from the API itself.
fn live(source: &Source) -> Result<Arc<Inventory>> {
    let snapshot: Option<Snapshot> = source.snapshots.borrow().clone();
    let snapshot = snapshot.context("no inventory")?;
    ensure!(snapshot.origin == Origin::Live, "{:?}", snapshot.origin);
    Ok(snapshot.inventory)
}

async fn shows_service(source: &Source, name: &str) -> Arc<Inventory> {
    let name = ObjectName::new("default", name);
    let look = || async {
        let inventory = live(source)?;
        ensure!(inventory.services.contains_key(&name), "Services {:?}", inventory.services.keys());
        Ok(inventory)
    };
    wait::until(&format!("the Service {name}"), PATIENCE, look).await.unwrap().0
}

/// Waits until the source knows that no server answers; the inventory is the one of before.
async fn notices(source: &Source, access: &Access, before: &Inventory) {
    let look = || async { access.state().error.context("a server answers") };
    wait::until("the failure to be noticed", PATIENCE, look).await.unwrap();
    assert_eq!(*live(source).unwrap(), *before);
}

#[tokio::test]
async fn what_was_known_stays_while_the_server_is_away_and_is_live_after() {
    let mut bed = Bed::start().await.unwrap();
    let client = bed.admin().await.unwrap();
    fill(&client).await;
    let kubeconfig = bed.access().kubeconfig(&bed.scope, "agent.kubeconfig", &bed.keys.admin).unwrap();
    let (_servers, no_servers) = watch::channel(Vec::<SocketAddr>::new());
    let access = Access::new(Credentials::Kubeconfig(kubeconfig), no_servers, LIMITS);
    let cancel = CancellationToken::new();
    let settings = kubernetes::Settings { streaming: None, ..kubernetes::Settings::default() };
    let mut source = kubernetes::spawn::<VipPool>(settings, access.clone(), cancel.clone());

    let first = shows_service(&source, "web").await;
    assert_eq!(first.nodes.keys().collect::<Vec<_>>(), ["node-1"]);
    assert_eq!(first.pools.keys().collect::<Vec<_>>(), ["first"]);
    let slices = &first.slices[&ObjectName::new("default", "web")];
    assert_eq!((slices.len(), slices[0].endpoints.len()), (1, 1), "{slices:?}");

    bed.server.kill().unwrap();
    notices(&source, &access, &first).await;
    bed.server.start(&bed.scope).unwrap();
    bed.server.ready(START).await.unwrap();
    make_service(&bed.admin().await.unwrap(), "after-the-crash").await.unwrap();
    let second = shows_service(&source, "after-the-crash").await;
    assert_eq!(second.nodes, first.nodes);

    bed.server.signal(Signal::SIGSTOP).unwrap();
    notices(&source, &access, &second).await;
    bed.server.signal(Signal::SIGCONT).unwrap();
    bed.server.ready(START).await.unwrap();
    make_service(&bed.admin().await.unwrap(), "after-the-pause").await.unwrap();
    let third = shows_service(&source, "after-the-pause").await;
    assert_eq!((&third.nodes, &third.pools, &third.slices), (&first.nodes, &first.pools, &first.slices));

    cancel.cancel();
    let ended = timeout(PATIENCE, async { while source.snapshots.changed().await.is_ok() {} }).await;
    assert!(ended.is_ok(), "the source goes on");
}
