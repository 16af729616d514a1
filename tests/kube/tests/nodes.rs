//! Control-plane nodes in namespaces, each with an API server and an etcd member of its own, which die with it.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Endpoints};
use kube::{
    Api,
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
    topology::{Fabric, Topology},
    wait,
};
use nix::sys::signal::Signal;

const NODES: u8 = 3;

#[tokio::test]
async fn two_of_three_nodes_go_on_without_the_third() {
    sweep();
    let assets = Assets::find().unwrap();
    let scope = Scope::new().unwrap();
    let prefix = scope.prefix().to_owned();
    let topology = Topology::build(&scope, Fabric::Segment, NODES).unwrap();
    let keys = Keys::new(&scope).unwrap();
    let places: Vec<_> =
        topology.nodes.iter().map(|node| (node.name.clone(), Place::inside(&node.netns, node.addresses[0]))).collect();
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
        let mut server = ApiServer::new(&scope, &assets, &keys, own, &[member.url()], &Settings::default()).unwrap();
        server.start(&scope).unwrap();
        // One after the other: the first makes what all need.
        server.ready(START).await.unwrap();
        servers.push(server);
    }

    // From the client's namespace, what one server is told the others know, and all three are known as servers.
    let runtime = NetnsRuntime::start(&topology.client).unwrap();
    let ask = |server: &ApiServer, name: &'static str, make: bool| {
        let (access, admin) = (server.access().clone(), keys.admin.clone());
        let asked = runtime.spawn(async move {
            let maps: Api<ConfigMap> = Api::namespaced(access.client(&admin).await?, "default");
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            if make {
                maps.create(&PostParams::default(), &ConfigMap { metadata, ..ConfigMap::default() }).await?;
            }
            anyhow::Ok(maps.get(name).await.map(drop)?)
        });
        async move { tokio::time::timeout(Duration::from_secs(5), asked).await?? }
    };
    ask(&servers[0], "first", true).await.unwrap();
    ask(&servers[2], "first", false).await.unwrap();
    let addresses = || async {
        let (access, admin) = (servers[1].access().clone(), keys.admin.clone());
        let asked = runtime.spawn(async move {
            let endpoints: Api<Endpoints> = Api::namespaced(access.client(&admin).await?, "default");
            anyhow::Ok(endpoints.get("kubernetes").await?)
        });
        let subsets = asked.await??.subsets.unwrap_or_default();
        let known = subsets.iter().flat_map(|subset| subset.addresses.iter().flatten()).count();
        anyhow::ensure!(known == usize::from(NODES), "{known} servers are known");
        Ok(())
    };
    wait::until("the addresses of all servers", START, addresses).await.unwrap();

    // The plug of the first node is pulled, and its processes die.
    topology.nodes[0].set_link(false).unwrap();
    servers[0].kill().unwrap();
    members[0].kill().unwrap();
    let write = || ask(&servers[1], "second", true);
    let written = |result: anyhow::Result<()>| match result {
        Err(error) if error.to_string().contains("already exists") => Ok(()),
        other => other,
    };
    wait::until("a write without the first node", START, || async { written(write().await) }).await.unwrap();

    // A server that is stopped does not answer, and does when it goes on.
    servers[2].signal(Signal::SIGSTOP).unwrap();
    assert!(ask(&servers[2], "second", false).await.is_err());
    servers[2].signal(Signal::SIGCONT).unwrap();
    wait::until("the stopped server", START, || ask(&servers[2], "second", false)).await.unwrap();

    // The first node comes back, and knows what it missed.
    topology.nodes[0].set_link(true).unwrap();
    members[0].start(&scope).unwrap();
    servers[0].start(&scope).unwrap();
    members[0].ready(START).await.unwrap();
    servers[0].ready(START).await.unwrap();
    wait::until("what the first node missed", START, || ask(&servers[0], "second", false)).await.unwrap();
    drop((runtime, servers, members, topology, scope));
    assert_eq!(residue(&prefix), Vec::<String>::new());
}
