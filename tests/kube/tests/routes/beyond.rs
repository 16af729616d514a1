//! The way of the route on from the gateway that it was written for, to the routers beyond.

use std::{fs, net::IpAddr};

use anyhow::ensure;
use kube_tests::{
    access::Keys,
    controller::Controller,
    place::Place,
    stub::{Settings, Stub},
};
use netns_tests::{
    cluster::{Cluster, PORT},
    netns::NetnsRuntime,
    routes::{next_hops, wait_for_route},
    routing::{self, Speaker, Suite},
    scope::{Scope, sweep},
    topology::{CLIENT_GATEWAYS, Fabric},
    traffic::{Tally, burst},
    wait,
};
use nsxt_tests::{ADMIN, Server};
use serde_json::{Value, json};

use crate::bed::{BUDGET, PATIENCE, ROUTE, SLICE, VIP};

const GATEWAY: &str = "/infra/tier-1s/t1";

/// The gateway: the router's namespace, where the API, the manager and the controller are as well.
struct Gateway {
    _controller: Controller,
    stub: Stub,
    manager: Server,
    _runtime: NetnsRuntime,
    cluster: Cluster,
}

impl Gateway {
    async fn start() -> Self {
        sweep();
        let vip = VIP.parse().unwrap();
        let mut cluster = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 3, &[vip]).unwrap();
        cluster.start_servers().unwrap();
        let (scope, router) = (&cluster.scope, &cluster.topology.router);
        let keys = Keys::new(scope).unwrap();
        let stub = Stub::start(scope, &keys, &Place::inside(router, CLIENT_GATEWAYS[0]), Settings::default()).unwrap();
        let runtime = NetnsRuntime::start(router).unwrap();
        let manager = runtime.spawn(Server::start(1)).await.unwrap();
        manager.world.add_gateway(GATEWAY, "t1", None);
        fs::write(scope.file("nsxt-ca.pem"), manager.authority.pem()).unwrap();
        fs::write(scope.file("nsxt-password"), ADMIN.1).unwrap();
        let settings = json!({
            "controlPlane": { "vips": [VIP], "serverPort": PORT, "probe": { "tcp": {} } },
            "nsxt": {
                "cluster": "c1", "managers": manager.urls(), "tier1": "t1", "username": ADMIN.0,
                "passwordFile": "nsxt-password", "caFile": "nsxt-ca.pem",
            },
        });
        let controller = Controller::new(scope, "gateway", stub.access(), &keys.admin, &settings).unwrap();
        let mut controller = controller.inside(router);
        controller.start(scope).unwrap();
        Self { _controller: controller, stub, manager, _runtime: runtime, cluster }
    }

    /// The API names the servers of these nodes.
    fn name(&self, nodes: &[usize]) {
        let address = |node: &usize| json!({ "addresses": [self.cluster.topology.nodes[*node].addresses[0]] });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": "kubernetes", "namespace": "default", "labels": { "kubernetes.io/service-name": "kubernetes" },
            },
            "endpoints": nodes.iter().map(address).collect::<Vec<_>>(),
            "ports": [{ "name": "https", "port": PORT, "protocol": "TCP" }],
        });
        self.stub.put(SLICE, slice).unwrap();
    }

    /// Waits until the route in NSX-T has so many next hops, and does with it what a gateway would.
    async fn applies(&self, hops: usize) {
        let look = || async {
            let route = self.manager.world.route(ROUTE).unwrap_or_default();
            let found = route["next_hops"].as_array().cloned().unwrap_or_default();
            ensure!(found.len() == hops, "{route}");
            Ok((route["network"].clone(), found))
        };
        let ((network, found), _) = wait::until("the route in NSX-T", PATIENCE, look).await.unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let ways: String = found.iter().map(|hop| format!(" nexthop via {}", text(&hop["ip_address"]))).collect();
        self.cluster.topology.router.ip(&format!("route replace {}{ways}", text(&network))).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_route_reaches_the_routers_beyond_the_gateway() {
    let _kept = promises::keeps(&["S0-04"], "FRR");
    let gateway = Gateway::start().await;
    let (topology, vip) = (&gateway.cluster.topology, VIP.parse::<IpAddr>().unwrap());
    let scope = &gateway.cluster.scope;
    let _daemons = [Speaker::gateway(topology), Speaker::outside(topology)]
        .map(|speaker| routing::start(scope, Suite::Frr, &speaker).unwrap());
    assert!(next_hops(&topology.client, vip).unwrap().is_empty(), "nobody has told of it yet");
    for node in &topology.nodes {
        node.netns.ip(&format!("addr add {VIP}/32 dev lo")).unwrap();
    }

    gateway.name(&[0, 1, 2]);
    gateway.applies(3).await;
    wait_for_route(&topology.router, vip, 3, BUDGET).await.unwrap();
    wait_for_route(&topology.client, vip, 1, PATIENCE).await.unwrap();
    let hops = next_hops(&topology.client, vip).unwrap();
    assert!(hops.iter().all(|hop| hop.starts_with(&CLIENT_GATEWAYS[0].to_string())), "by the gateway: {hops:?}");
    let client = gateway.cluster.client(vip, BUDGET).unwrap();
    let tally = Tally::of(&burst(&gateway.cluster.runtime, &client, 60, 6).await);
    assert_eq!((tally.failed(), tally.answers.len()), (0, 3), "{tally:?}");

    gateway.name(&[0, 2]);
    gateway.applies(2).await;
    wait_for_route(&topology.router, vip, 2, BUDGET).await.unwrap();
    wait_for_route(&topology.client, vip, 1, PATIENCE).await.unwrap();
    let tally = Tally::of(&burst(&gateway.cluster.runtime, &client, 60, 6).await);
    assert_eq!((tally.failed(), tally.answers.len()), (0, 2), "{tally:?}");
}
