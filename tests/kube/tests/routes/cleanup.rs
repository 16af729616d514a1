//! What is left when Levee goes: nothing.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use kube_tests::{
    access::Keys,
    deployed::objects_of,
    place::Place,
    stub::{Settings, Stub},
};
use netns_tests::{
    cluster::{Cluster, PORT},
    netns::NetnsRuntime,
    process::Process,
    scope::{Scope, binary},
    topology::{Fabric, Node, VIPS},
    wait,
};
use nsxt_tests::{ADMIN, Server};
use serde_json::{Value, json};

use crate::bed::{PATIENCE, SLICE};

/// A control-plane node with all that runs on it, and NSX-T, which `lbctl` has to reach from there. Fields go in their order.
struct Deployed {
    nsxt: Server,
    controller: Process,
    _stub: Stub,
    _inside: NetnsRuntime,
    cluster: Cluster,
}

impl Deployed {
    async fn new() -> Self {
        let mut cluster = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 1, &VIPS[..1]).unwrap();
        let (scope, node) = (&cluster.scope, &cluster.topology.nodes[0]);
        let inside = NetnsRuntime::start(&node.netns).unwrap();
        let nsxt = inside.spawn(Server::start(1)).await.unwrap();
        nsxt.world.add_gateway("/infra/tier-1s/t1", "t1", None);
        fs::write(scope.file("nsxt-ca.pem"), nsxt.authority.pem()).unwrap();
        fs::write(scope.file("nsxt-password"), ADMIN.1).unwrap();
        let keys = Keys::new(scope).unwrap();
        let place = Place::inside(&node.netns, node.addresses[0]);
        let stub = Stub::start(scope, &keys, &place, Settings::default()).unwrap();
        stub.put(SLICE, slice(node)).unwrap();
        let kubeconfig = stub.access().kubeconfig(scope, "kubeconfig", &keys.admin).unwrap();
        let controller = format!(
            "kubeconfig: {}\nidentity: n1\nhttp: off\nlog: {{format: json}}\n\
             controlPlane: {{vips: [{}], port: {PORT}, probe: {{tcp: {{}}}}}}\n\
             nsxt: {{cluster: c1, managers: [\"{}\"], tier1: t1, username: {}, passwordFile: nsxt-password, caFile: nsxt-ca.pem}}\n",
            kubeconfig.display(),
            VIPS[0],
            nsxt.urls()[0],
            ADMIN.0,
        );
        fs::write(scope.file("controller.yaml"), controller).unwrap();
        let mut command: Command = node.netns.command(binary("lb-agent").unwrap());
        command.arg("controller").arg("--config").arg(scope.file("controller.yaml"));
        let controller = Process::spawn(scope, "controller", &mut command).unwrap();
        let state = scope.file("inventory.json").display().to_string();
        cluster
            .start_agents(|_, mut config| {
                config.extra = format!(
                    "kubernetes: {{kubeconfig: {}, stateFile: {state}}}\n\
                     controlPlane: {{vips: [{}], port: {PORT}, probe: {{https: {{insecureSkipVerify: true}}}}}}\n",
                    kubeconfig.display(),
                    VIPS[0],
                );
                config
            })
            .unwrap();
        Self { nsxt, controller, _stub: stub, _inside: inside, cluster }
    }

    fn has_route(&self) -> bool {
        self.nsxt.world.route(&format!("/infra/tier-1s/t1/static-routes/to-{}", VIPS[0])).is_some()
    }

    /// Whether the VIP is on `lo`, and whether it is held.
    fn has_vip(&self) -> (bool, bool) {
        let netns = &self.cluster.topology.nodes[0].netns;
        let addresses = netns.ip("-4 -o addr show dev lo").unwrap();
        let routes = netns.ip("-4 route show table local proto 76").unwrap();
        (addresses.contains(&format!(" {}/", VIPS[0])), routes.contains(&VIPS[0].to_string()))
    }
}

fn slice(node: &Node) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": "kubernetes", "namespace": "default", "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "endpoints": [{ "addresses": [node.addresses[0]], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": PORT, "protocol": "TCP" }],
    })
}

/// What the manifests install runs on control-plane nodes: the agents there too, the controller only there.
fn control_plane_nodes_are_deployed_to() -> Result<()> {
    let role = "node-role.kubernetes.io/control-plane";
    for object in objects_of(&["DaemonSet", "Deployment"])? {
        let pod = &object["spec"]["template"]["spec"];
        let tolerations = pod["tolerations"].as_array().cloned().unwrap_or_default();
        let tolerates = |one: &Value| one["operator"] == "Exists" && (one["key"].is_null() || one["key"] == role);
        ensure!(tolerations.iter().any(tolerates), "{object}");
        let terms = pod["affinity"]["nodeAffinity"].to_string();
        ensure!((object["kind"] == "Deployment") == terms.contains(role), "{object}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_removes_the_route_and_the_vip() {
    let _kept = promises::keeps(&["S0-15"], "the stand-ins");
    control_plane_nodes_are_deployed_to().unwrap();
    let mut bed = Deployed::new().await;
    bed.cluster.wait_ready(PATIENCE).await.unwrap();
    let there = || async {
        let (route, vip) = (bed.has_route(), bed.has_vip());
        ensure!(route && vip == (true, true), "route: {route}, (on lo, held): {vip:?}");
        Ok(())
    };
    let awaited = wait::until("the route and the VIP", PATIENCE, there).await;
    awaited.unwrap_or_else(|error| panic!("{error}\n{}", bed.controller.log_tail(40)));

    let file = bed.cluster.scope.file("controller.yaml").display().to_string();
    let looked = bed.cluster.agents[0].lbctl(&["cleanup", "--config", &file, "--dry-run"]).unwrap();
    assert!(looked.contains(&format!("would remove  to-{}", VIPS[0])) && bed.has_route(), "{looked}");
    bed.controller.terminate().unwrap();
    bed.cluster.agents[0].process().terminate().unwrap();
    assert_eq!((bed.has_route(), bed.has_vip()), (true, (true, true)), "ends of programs remove nothing");
    bed.cluster.agents[0].lbctl(&["cleanup", "--config", &file]).unwrap();
    assert_eq!((bed.has_route(), bed.has_vip()), (false, (false, false)));
    assert!(bed.nsxt.world.routes().is_empty());
}
