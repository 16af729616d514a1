//! The demonstration with Kubernetes: an API behind a VIP of its own nodes, and a Service that comes, moves and goes.
//!
//! As in the other demo everything that is claimed is measured from the client and checked.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kube::{Client, CustomResourceExt, api::DeleteParams};
use lb_agent::kubernetes::crds::VipPool;
use netns_tests::{
    client,
    demo::console::{Console, milliseconds},
    process::Process,
    routes::wait_for_route,
    routing::Suite,
    scope::Scope,
    server,
    traffic::{Tally, burst},
    wait,
};
use serde_json::{Value, json};

use crate::{
    ability::Ability,
    definitions::install,
    deployed::api_of,
    follow::{Pod, in_version, pool, slice},
    masters::{Masters, PATIENCE, VIP, ask::tally, create},
};

/// Requests in a row.
const REQUESTS: usize = 90;
/// Requests under way at once.
const PARALLEL: usize = 6;
/// Limit of a request.
const LIMIT: Duration = Duration::from_secs(3);
/// Port of the Service and of its pods.
const PORT: u16 = 8443;
/// What the Service asks for (RFC 5737).
const WEB: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10));

/// What to show.
#[derive(Clone, Debug)]
pub struct Options {
    /// The routing daemon of the nodes.
    pub suite: Suite,
    /// Whether to leave everything running at the end, until interrupted.
    pub keep: bool,
}

/// Runs the demo, with names of `scope`.
///
/// # Errors
/// If a step cannot be done or a claim failed; what was expected and seen has been printed then.
pub async fn run(scope: Scope, options: &Options) -> Result<()> {
    let mut console = Console::new();
    console.step("Making three control-plane nodes, a router and a client, each a network namespace");
    let mut masters = Masters::build_in(scope, options.suite)?;
    let mut pods = Vec::new();
    let shown = show(&mut masters, &mut pods, &mut console).await;
    if !console.is_right(shown) {
        console.raw(&masters.log_tails());
    }
    if options.keep {
        let router = masters.cluster.topology.router.name();
        console.raw(&format!("\nEverything runs until Ctrl-C. Look around with: ip netns exec {router} ip route"));
        std::future::pending::<()>().await;
    }
    console.step("Removing everything");
    drop(pods);
    drop(masters);
    console.verdict()
}

async fn show(masters: &mut Masters, pods: &mut Vec<Process>, console: &mut Console) -> Result<()> {
    console.step("Starting etcd, kube-apiserver, an agent and a controller on every node (half a minute)");
    masters.start_servers().await?;
    masters.describe().await?;
    masters.start_agents(&[0, 1, 2])?;
    masters.settled().await?;
    masters.start_controllers(&json!({ "defaultClass": true }))?;
    route(masters, VIP, console)?;

    console.step(&format!("Asking the API by its VIP {VIP}, on {REQUESTS} connections"));
    ask_api(masters, 3, console).await?;

    console.step("Applying a VipPool, and a Service with a pod on every node, through the VIP");
    *pods = start_pods(masters)?;
    apply(masters).await?;
    given(masters, console).await?;
    let took = wait_for_route(&masters.cluster.topology.router, WEB, 3, PATIENCE).await?;
    console.note(&format!("routed to three nodes {} later", milliseconds(took)));
    route(masters, WEB, console)?;
    lbctl(masters, &["explain", &format!("default/web:{PORT}/tcp")], console)?;
    ask_service(masters, &["node-1", "node-2", "node-3"], console).await?;

    console.step("Draining node-2: its pod is not ready any more");
    place(masters, &[0, 2]).await?;
    let took = wait_for_route(&masters.cluster.topology.router, WEB, 2, PATIENCE).await?;
    console.note(&format!("node-2 announces it no longer, after {}", milliseconds(took)));
    ask_service(masters, &["node-1", "node-3"], console).await?;

    console.step("Pulling the plug of node-3: API server, etcd member, agent and link are gone");
    masters.pull_plug(2)?;
    for vip in [VIP, WEB] {
        let left = if vip == VIP { 2 } else { 1 };
        let took = wait_for_route(&masters.cluster.topology.router, vip, left, PATIENCE).await?;
        console.note(&format!("{vip} has {left} next hops after {}", milliseconds(took)));
    }
    for agent in [0, 1] {
        masters.serve(agent, &[0, 1]).await?;
    }
    ask_api(masters, 2, console).await?;
    ask_service(masters, &["node-1"], console).await?;

    console.step("Deleting the Service");
    remove(masters).await?;
    let took = wait_for_route(&masters.cluster.topology.router, WEB, 0, PATIENCE).await?;
    console.note(&format!("nobody announces {WEB} any more, after {}", milliseconds(took)));
    Ok(())
}

/// Asks the API, and claims that nothing fails and so many servers answer.
async fn ask_api(masters: &Masters, servers: usize, console: &mut Console) -> Result<()> {
    let attempts = masters.asker(LIMIT)?.many(&masters.cluster.runtime, REQUESTS, PARALLEL).await;
    let (answers, failures) = tally(&attempts);
    let seen = format!("{answers:?}, failures {failures:?}");
    let holds = failures.is_empty() && attempts.len() == REQUESTS && answers.len() == servers;
    console.expect(holds, &format!("all {REQUESTS} requests are answered, by {servers} servers"), &seen);
    Ok(())
}

/// Asks the Service, and claims that nothing fails and exactly these nodes answer.
async fn ask_service(masters: &Masters, nodes: &[&str], console: &mut Console) -> Result<()> {
    let config = masters.cluster.authority.client_config()?;
    let asker = client::Client::new(config, SocketAddr::new(WEB, PORT), LIMIT);
    let attempts = burst(&masters.cluster.runtime, &asker, REQUESTS, PARALLEL).await;
    let tally = Tally::of(&attempts);
    console.answers(&masters.cluster.names(), &[(WEB, attempts)]);
    let holds = tally.answered() == REQUESTS && tally.answers.keys().eq(nodes);
    let expected = format!("all {REQUESTS} requests are answered by {}", nodes.join(", "));
    console.expect(holds, &expected, &format!("failures {:?}", tally.failures));
    Ok(())
}

/// The pods: a server in the network of every node.
fn start_pods(masters: &Masters) -> Result<Vec<Process>> {
    let cluster = &masters.cluster;
    let start = |node: &netns_tests::topology::Node| {
        let identity = cluster.authority.issue(&cluster.scope, &node.name, &[WEB])?;
        server::spawn(&cluster.scope, &node.netns, &node.name, &identity, PORT)
    };
    cluster.topology.nodes.iter().map(start).collect()
}

/// Makes what the Service needs.
async fn apply(masters: &Masters) -> Result<()> {
    let ports = json!([{ "port": PORT, "targetPort": PORT, "protocol": "TCP" }]);
    let spec =
        json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "loadBalancerIP": WEB, "ports": ports });
    let mut service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default" }, "spec": spec });
    if masters.assets.can(Ability::LoadBalancerClass) {
        service["spec"]["loadBalancerClass"] = json!("levee.dev/levee");
    }
    let pool = pool("edge", &["198.51.100.0/28"], &json!({ "nodes": "localBackends" }));
    let slice = endpoints(masters, &[0, 1, 2]);
    let make = |client: Client| async move {
        install(&client, VipPool::crd()).await?;
        for object in [pool, service, slice] {
            create(&client, &object).await?;
        }
        Ok(())
    };
    masters.ask_vip(make).await
}

fn endpoints(masters: &Masters, nodes: &[usize]) -> Value {
    let pods: Vec<_> = nodes.iter().map(|node| Pod::on(&masters.cluster.topology.nodes[*node])).collect();
    in_version(&masters.assets, slice("web", PORT, &pods))
}

/// Puts the pods on these nodes.
async fn place(masters: &Masters, nodes: &[usize]) -> Result<()> {
    let slice = endpoints(masters, nodes);
    let put = |client: Client| async move {
        let change = json!({ "endpoints": slice["endpoints"] });
        let patch = kube::api::Patch::Merge(&change);
        api_of(&client, &slice).patch("web-1", &kube::api::PatchParams::default(), &patch).await?;
        Ok(())
    };
    masters.ask_vip(put).await
}

/// Waits until the Service has its address in its status.
async fn given(masters: &Masters, console: &Console) -> Result<()> {
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "default" } });
    let look = || async {
        let service = service.clone();
        let read = |client: Client| async move { Ok(api_of(&client, &service).get("web").await?.data) };
        let ingress = masters.ask_vip(read).await?["status"]["loadBalancer"]["ingress"][0]["ip"].clone();
        ensure!(ingress == json!(WEB), "status.loadBalancer.ingress is {ingress}");
        Ok(())
    };
    let (_, took) = wait::until("the Service's address", PATIENCE, look).await?;
    console.note(&format!("the controller has given it {WEB}, {} later", milliseconds(took)));
    Ok(())
}

/// Deletes the Service. A new leader of etcd may take some seconds.
async fn remove(masters: &Masters) -> Result<()> {
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "default" } });
    let look = || async {
        let service = service.clone();
        let delete = |client: Client| async move {
            match api_of(&client, &service).delete("web", &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                done => done.map(drop).context("deleting the Service"),
            }
        };
        masters.ask_vip(delete).await
    };
    wait::until("the Service to be deleted", PATIENCE, look).await.map(drop)
}

/// Shows how the router gets to a VIP.
fn route(masters: &Masters, vip: IpAddr, console: &Console) -> Result<()> {
    console.note("router$ ip route");
    console.block(&masters.cluster.topology.router.ip(&format!("route show {vip}"))?);
    Ok(())
}

/// Shows what `lbctl` says on the first node.
fn lbctl(masters: &Masters, arguments: &[&str], console: &Console) -> Result<()> {
    console.note(&format!("node-1$ lbctl {}", arguments.join(" ")));
    console.block(&masters.cluster.agents[0].lbctl(arguments)?);
    Ok(())
}
