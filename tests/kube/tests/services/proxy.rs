//! Pods behind the rules that kube-proxy writes, in both of its modes and with both policies.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Result, ensure};
use kube_tests::{
    follow::{Pod, slice},
    proxy::{Exposed, Mode, load},
};
use netns_tests::{
    client::Client,
    link::{End, connect},
    netns::Netns,
    process::Process,
    routing::Suite,
    server,
    topology::CLIENT,
    traffic::LongLived,
    wait,
};
use serde_json::json;

use super::bed::{Bed, PATIENCE, vip};

const LIMIT: Duration = Duration::from_secs(3);
/// Port of the VIP, of the pods, and of every node.
const PORT: u16 = 443;
const POD_PORT: u16 = 8443;
const NODE_PORT: u16 = 30443;
const SERVICE: u8 = 1;
/// Connections that stay open, the port of the first, and time between two requests on each.
const OPEN: u16 = 40;
const FIRST_PORT: u16 = 20_000;
const PULSE: Duration = Duration::from_millis(200);

/// The pod of a node: in a namespace behind its node, as container networks make them.
struct PodOn {
    address: Ipv4Addr,
    _server: Process,
    _netns: Netns,
}

/// Starts a pod on every node, with the ways between them.
fn pods(bed: &Bed) -> Result<Vec<PodOn>> {
    let (cluster, topology) = (&bed.cluster, &bed.cluster.topology);
    let scope = &cluster.scope;
    let names: Vec<IpAddr> =
        std::iter::once(vip(SERVICE)).chain(topology.nodes.iter().map(|n| n.addresses[0])).collect();
    let mut pods = Vec::new();
    for node in &topology.nodes {
        let name = format!("pod-{}", node.number);
        let netns = Netns::create(scope, &name)?;
        let (address, gateway) = (Ipv4Addr::new(10, 244, node.number, 2), Ipv4Addr::new(10, 244, node.number, 1));
        connect(End { netns: &netns, device: "eth0" }, End { netns: &node.netns, device: "pod" }, 1500)?;
        netns.ip(&format!("addr add {address}/24 dev eth0"))?;
        netns.ip(&format!("route add default via {gateway}"))?;
        node.netns.ip(&format!("addr add {gateway}/24 dev pod"))?;
        topology.router.ip(&format!("route add 10.244.{}.0/24 via {}", node.number, node.addresses[0]))?;
        let identity = cluster.authority.issue(scope, &name, &names)?;
        pods.push(PodOn { address, _server: server::spawn(scope, &netns, &name, &identity, POD_PORT)?, _netns: netns });
    }
    Ok(pods)
}

/// Writes the Service and every node's rules for it.
fn expose(bed: &Bed, pods: &[PodOn], mode: Mode, local: bool) -> Result<()> {
    let policy = if local { "Local" } else { "Cluster" };
    let ports = json!([{ "port": PORT, "targetPort": POD_PORT, "nodePort": NODE_PORT, "protocol": "TCP" }]);
    bed.serve_with("web", SERVICE, &json!({ "externalTrafficPolicy": policy, "ports": ports }))?;
    let IpAddr::V4(external) = vip(SERVICE) else { unreachable!("the pool is of IPv4") };
    let endpoints: Vec<_> = pods.iter().map(|pod| SocketAddrV4::new(pod.address, POD_PORT)).collect();
    for (node, endpoint) in bed.cluster.topology.nodes.iter().zip(&endpoints) {
        let exposed = Exposed {
            name: "default/web".to_owned(),
            cluster: SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 80), PORT),
            external: SocketAddrV4::new(external, PORT),
            node_port: NODE_PORT,
            local,
            endpoints: endpoints.clone(),
            here: vec![*endpoint],
        };
        load(&bed.cluster.scope, &node.netns, mode, &exposed)?;
    }
    Ok(())
}

/// Names of the pods that answer, and the addresses that they see.
async fn answers(bed: &Bed, target: SocketAddr, count: usize) -> Result<(BTreeSet<String>, BTreeSet<IpAddr>)> {
    let client = Client::new(bed.cluster.authority.client_config()?, target, LIMIT);
    let (mut names, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..count {
        let client = client.clone();
        let answer = bed.cluster.runtime.spawn(async move { client.request().await }).await?;
        let (greeting, _) = answer.map_err(|failure| anyhow::anyhow!("{target}: {failure}"))?;
        names.insert(greeting.server);
        seen.insert(greeting.client.ip());
    }
    Ok((names, seen))
}

#[tokio::test]
async fn pods_are_reached_through_the_rules_of_kube_proxy_and_node_ports_are_left_alone() {
    let _kept = promises::keeps(&["F26"], "the stand-in, rules of kube-proxy");
    let bed = Bed::start(Suite::Bird, 2).await.unwrap();
    let pods = pods(&bed).unwrap();
    let nodes = &bed.cluster.topology.nodes;
    let endpoints: Vec<_> =
        pods.iter().zip(nodes).map(|(pod, node)| Pod { address: pod.address.into(), ..Pod::on(node) }).collect();
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/web-1";
    bed.put(path, slice("web", POD_PORT, &endpoints)).unwrap();
    let both: BTreeSet<String> = ["pod-1", "pod-2"].map(str::to_owned).into();

    for mode in [Mode::Iptables, Mode::Nftables] {
        for local in [true, false] {
            expose(&bed, &pods, mode, local).unwrap();
            bed.goes_to(SERVICE, &[0, 1]).await.unwrap();
            let is_told = || async { hidden(&bed, !local) };
            wait::until("what is said of the policy", PATIENCE, is_told).await.unwrap();
            let (names, seen) = answers(&bed, SocketAddr::new(vip(SERVICE), PORT), 40).await.unwrap();
            assert_eq!(names, both, "{mode:?}, local {local}");
            assert_eq!(seen == [CLIENT[0]].into(), local, "{mode:?}, local {local}: pods see {seen:?}");
            for (node, pod) in nodes.iter().zip(["pod-1", "pod-2"]) {
                let (names, seen) = answers(&bed, SocketAddr::new(node.addresses[0], NODE_PORT), 8).await.unwrap();
                assert!(!local || names == [pod.to_owned()].into(), "{mode:?}: {} gave {names:?}", node.name);
                assert_eq!(seen == [CLIENT[0]].into(), local, "{mode:?}, local {local}: pods see {seen:?}");
            }
        }
    }
}

/// The kernel keeps no socket of connections that kube-proxy's rules hand to a pod.
#[tokio::test(flavor = "multi_thread")]
async fn connections_to_pods_outlive_pods_that_come_elsewhere() {
    let bed = Bed::start(Suite::Bird, 2).await.unwrap();
    let pods = pods(&bed).unwrap();
    let nodes = &bed.cluster.topology.nodes;
    let endpoints: Vec<_> =
        pods.iter().zip(nodes).map(|(pod, node)| Pod { address: pod.address.into(), ..Pod::on(node) }).collect();
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/web-1";
    bed.put(path, slice("web", POD_PORT, &endpoints[..1])).unwrap();
    expose(&bed, &pods, Mode::Nftables, true).unwrap();
    bed.goes_to(SERVICE, &[0]).await.unwrap();

    let target = SocketAddr::new(vip(SERVICE), PORT);
    let client = Client::new(bed.cluster.authority.client_config().unwrap(), target, LIMIT);
    let runtime = &bed.cluster.runtime;
    let before = LongLived::open(runtime, &client, OPEN, FIRST_PORT, PULSE);
    let (names, _) = answers(&bed, target, 10).await.unwrap();
    assert_eq!(names, ["pod-1".to_owned()].into());
    bed.put(path, slice("web", POD_PORT, &endpoints)).unwrap();
    bed.goes_to(SERVICE, &[0, 1]).await.unwrap();
    let after = LongLived::open(runtime, &client, OPEN, FIRST_PORT + OPEN, PULSE);
    let (names, _) = answers(&bed, target, 40).await.unwrap();
    assert_eq!(names.len(), 2, "{names:?}");
    for (when, open) in [("before", before), ("after", after)] {
        let lives = open.close().await;
        let broken: Vec<_> = lives.iter().filter(|life| life.broken.is_some() || life.answered == 0).collect();
        assert!(broken.is_empty(), "{} of {OPEN} from {when}: {broken:?}", broken.len());
    }
}

/// The agents say that clients' addresses are hidden, or do not.
fn hidden(bed: &Bed, expected: bool) -> Result<()> {
    for agent in &bed.cluster.agents {
        let status = agent.lbctl_json(&["status"])?["status"].to_string();
        ensure!(status.contains("ClientAddressHidden") == expected, "{status}");
    }
    Ok(())
}
