//! Control-plane nodes in namespaces, each with an API server and an etcd member of its own, which die with it.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{future::Future, time::Duration};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use kube_tests::{
    access::Keys,
    assets::Assets,
    bed::START,
    etcd::Etcd,
    place::Place,
    server::{ApiServer, Settings},
};
use netns_tests::{
    netns::NetnsRuntime,
    scope::{Scope, residue, sweep},
    topology::{Fabric, Node, Topology},
    wait,
};
use nix::sys::signal::Signal;
use tokio::time::timeout;

const NODES: u8 = 3;
/// Limit of a request.
const LIMIT: Duration = Duration::from_secs(5);

/// Three nodes and a client beside them. Fields go in their order: the scope with the files last.
struct ControlPlane {
    client: NetnsRuntime,
    servers: Vec<ApiServer>,
    members: Vec<Etcd>,
    topology: Topology,
    keys: Keys,
    scope: Scope,
}

impl ControlPlane {
    /// Starts everything and waits until every server is ready.
    async fn start() -> Self {
        sweep();
        let assets = Assets::find().unwrap();
        let scope = Scope::new().unwrap();
        let topology = Topology::build(&scope, Fabric::Segment, NODES).unwrap();
        let keys = Keys::new(&scope).unwrap();
        let place = |node: &Node| (node.name.clone(), Place::inside(&node.netns, node.addresses[0]));
        let places: Vec<_> = topology.nodes.iter().map(place).collect();
        let mut members = Etcd::cluster(&scope, &assets, &places);
        for member in &mut members {
            member.start(&scope).unwrap();
        }
        for member in &mut members {
            member.ready(START).await.unwrap();
        }
        let mut servers = Vec::new();
        for ((name, place), member) in places.iter().zip(&members) {
            let own = (name.as_str(), place.clone());
            let settings = Settings::default();
            let mut server = ApiServer::new(&scope, &assets, &keys, own, &[member.url()], &settings).unwrap();
            server.start(&scope).unwrap();
            // One after the other: the first makes what all need.
            server.ready(START).await.unwrap();
            servers.push(server);
        }
        let client = NetnsRuntime::start(&topology.client).unwrap();
        Self { client, servers, members, topology, keys, scope }
    }

    /// Does something with the administrator's client of a server, from the client's namespace.
    async fn ask<T, F>(&self, server: usize, work: impl FnOnce(Client) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        let (access, admin) = (self.servers[server].access().clone(), self.keys.admin.clone());
        let asked = self.client.spawn(async move { work(access.client(&admin).await?).await });
        timeout(LIMIT, asked).await??
    }

    /// Makes a map; one that a lost answer was about is fine.
    async fn make(&self, server: usize, name: &'static str) -> Result<()> {
        let make = move |client| async move {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            let map = ConfigMap { metadata, ..ConfigMap::default() };
            match Api::<ConfigMap>::namespaced(client, "default").create(&PostParams::default(), &map).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                other => Ok(other.map(drop)?),
            }
        };
        self.ask(server, make).await
    }

    /// Reads a map.
    async fn read(&self, server: usize, name: &'static str) -> Result<()> {
        let read =
            move |client| async move { Ok(Api::<ConfigMap>::namespaced(client, "default").get(name).await.map(drop)?) };
        self.ask(server, read).await
    }
}

#[tokio::test]
async fn two_of_three_nodes_go_on_without_the_third() {
    let mut plane = ControlPlane::start().await;
    // What one server is told the others know, and all three are known as servers.
    plane.make(0, "first").await.unwrap();
    plane.read(2, "first").await.unwrap();
    let read = |client| async move { Ok(Api::<Endpoints>::namespaced(client, "default").get("kubernetes").await?) };
    let addresses = || async {
        let subsets = plane.ask(1, read).await?.subsets.unwrap_or_default();
        let known = subsets.iter().flat_map(|subset| subset.addresses.iter().flatten()).count();
        ensure!(known == usize::from(NODES), "{known} servers are known");
        Ok(())
    };
    wait::until("the addresses of all servers", START, addresses).await.unwrap();

    // The plug of the first node is pulled, and its processes die.
    plane.topology.nodes[0].set_link(false).unwrap();
    plane.servers[0].kill().unwrap();
    plane.members[0].kill().unwrap();
    wait::until("a write without the first node", START, || plane.make(1, "second")).await.unwrap();
    assert!(plane.read(0, "second").await.is_err());

    // A server that is stopped does not answer, and does when it goes on.
    plane.servers[2].signal(Signal::SIGSTOP).unwrap();
    assert!(plane.read(2, "second").await.is_err());
    plane.servers[2].signal(Signal::SIGCONT).unwrap();
    wait::until("the stopped server", START, || plane.read(2, "second")).await.unwrap();

    // The first node comes back, and knows what it missed.
    plane.topology.nodes[0].set_link(true).unwrap();
    plane.members[0].start(&plane.scope).unwrap();
    plane.members[0].ready(START).await.unwrap();
    plane.servers[0].start(&plane.scope).unwrap();
    plane.servers[0].ready(START).await.unwrap();
    wait::until("what the first node missed", START, || plane.read(0, "second")).await.unwrap();

    let prefix = plane.scope.prefix().to_owned();
    drop(plane);
    assert_eq!(residue(&prefix), Vec::<String>::new());
}
