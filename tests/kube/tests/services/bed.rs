//! Three nodes with servers, agents and routing daemons that follow a stand-in for the API, which is beyond the router.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kube_tests::{
    access::Keys,
    controller::Controller,
    follow::{Pod, follow, node, pool, slice},
    place::Place,
    stub::{Settings, Stub},
};
use netns_tests::{
    agent::Agent,
    cluster::{Cluster, PORT},
    config::AgentConfig,
    observe::{backends, wait_for_hops},
    routes::next_hops,
    routing::Suite,
    scope::{Scope, sweep},
    topology::{CLIENT, Fabric},
    traffic::{Tally, burst},
    wait,
};
use serde_json::{Value, json};

/// For what takes as long as starting processes does.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// Limit of a request.
pub const LIMIT: Duration = Duration::from_secs(3);
/// Addresses that Services may have.
const POOL: &str = "192.0.2.0/28";

/// Everything. The stand-in goes first: its agents are told to end by what comes after it.
pub struct Bed {
    pub stub: Stub,
    pub cluster: Cluster,
    pub keys: Keys,
    kubeconfig: PathBuf,
}

/// An address of the pool by its last byte.
pub fn vip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

fn vips(last: &[u8]) -> BTreeSet<IpAddr> {
    last.iter().copied().map(vip).collect()
}

impl Bed {
    /// The servers, the daemons and the objects, without agents.
    pub fn build(routing: Suite, nodes: u8) -> Result<Self> {
        sweep();
        let all: Vec<IpAddr> = (0..16).map(vip).collect();
        let mut cluster = Cluster::build(Scope::new()?, Fabric::Routed, nodes, &all)?;
        cluster.start_servers()?;
        cluster.start_routing(routing, routing)?;
        let keys = Keys::new(&cluster.scope)?;
        let place = Place::inside(&cluster.topology.client, CLIENT[0]);
        let stub = Stub::start(&cluster.scope, &keys, &place, Settings::default())?;
        let kubeconfig = stub.access().kubeconfig(&cluster.scope, "kubeconfig", &keys.admin)?;
        let bed = Self { stub, cluster, keys, kubeconfig };
        for one in &bed.cluster.topology.nodes {
            bed.put(&format!("/api/v1/nodes/{}", one.name), node(one))?;
        }
        bed.put(
            "/apis/levee.dev/v1alpha1/vippools/first",
            pool("first", &[POOL], &json!({ "nodes": "localBackends" })),
        )?;
        Ok(bed)
    }

    /// With agents on all nodes, ready.
    pub async fn start(routing: Suite, nodes: u8) -> Result<Self> {
        let mut bed = Self::build(routing, nodes)?;
        bed.start_agents(|config| config).await?;
        Ok(bed)
    }

    /// Starts the agents, each with what `complete` makes of its configuration.
    pub async fn start_agents(&mut self, complete: impl Fn(AgentConfig) -> AgentConfig) -> Result<()> {
        self.start_agents_by(&[], complete).await
    }

    /// The same by way of another program.
    pub async fn start_agents_by(&mut self, by: &[&str], complete: impl Fn(AgentConfig) -> AgentConfig) -> Result<()> {
        for (index, node) in self.cluster.topology.nodes.iter().enumerate() {
            let config = AgentConfig::for_node(&self.cluster.scope, &self.cluster.topology, index)?;
            let config = follow(&self.cluster.scope, complete(config), &self.kubeconfig, &[]);
            self.cluster.agents.push(Agent::start_by(&self.cluster.scope, &node.netns, &config, by)?);
        }
        self.cluster.wait_ready(PATIENCE).await
    }

    pub fn put(&self, path: &str, object: Value) -> Result<()> {
        self.stub.put(path, object).map_err(|failure| anyhow::anyhow!("{path}: {failure:?}"))
    }

    /// Makes or changes a Service with this address, in `spec.externalIPs`.
    pub fn serve(&self, name: &str, address: u8) -> Result<()> {
        self.serve_with(name, address, &json!({}))
    }

    /// As [`Self::serve`], with more in its spec.
    pub fn serve_with(&self, name: &str, address: u8, spec: &Value) -> Result<()> {
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": "default" },
            "spec": {
                "type": "LoadBalancer", "loadBalancerClass": "levee.dev/levee", "externalTrafficPolicy": "Local",
                "externalIPs": [vip(address)], "ipFamilies": ["IPv4"],
                "ports": [{ "port": PORT, "targetPort": PORT, "protocol": "TCP" }],
            },
        });
        for (key, value) in spec.as_object().into_iter().flatten() {
            service["spec"][key] = value.clone();
        }
        self.put(&format!("/api/v1/namespaces/default/services/{name}"), service)
    }

    /// Starts a controller beside the stand-in.
    pub fn controller(&self, settings: &Value) -> Result<Controller> {
        let scope = &self.cluster.scope;
        let controller = Controller::new(scope, "1", self.stub.access(), &self.keys.admin, settings)?;
        let mut controller = controller.inside(&self.cluster.topology.client);
        controller.start(scope)?;
        Ok(controller)
    }

    /// Puts ready pods of a Service on these nodes, and nowhere else.
    pub fn place(&self, service: &str, nodes: &[usize]) -> Result<()> {
        let pods: Vec<_> = nodes.iter().map(|index| Pod::on(&self.cluster.topology.nodes[*index])).collect();
        self.endpoints(service, &pods)
    }

    pub fn endpoints(&self, service: &str, pods: &[Pod]) -> Result<()> {
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/{service}-1");
        self.put(&path, slice(service, PORT, pods))
    }

    /// The VIPs on `lo` of a node, with whatever else is there besides loopback's own addresses.
    pub fn on_lo(&self, node: usize) -> Result<BTreeSet<IpAddr>> {
        let shown = self.cluster.topology.nodes[node].netns.ip("-j -4 addr show dev lo")?;
        let links: Value = serde_json::from_str(&shown)?;
        let local = links[0]["addr_info"].as_array().into_iter().flatten().filter_map(|one| one["local"].as_str());
        let all: BTreeSet<IpAddr> = local.map(str::parse).collect::<Result<_, _>>()?;
        Ok(all.into_iter().filter(|address| !address.is_loopback()).collect())
    }

    /// Waits until `lo` of a node has these VIPs and nothing else.
    pub async fn has(&self, node: usize, expected: &[u8]) -> Result<Duration> {
        let expected = vips(expected);
        let look = || async {
            let now = self.on_lo(node)?;
            ensure!(now == expected, "{now:?} instead of {expected:?}");
            Ok(())
        };
        let waited = wait::until(&format!("the addresses of node {node}"), PATIENCE, look).await;
        Ok(waited.with_context(|| self.cluster.agents[node].log_tail())?.1)
    }

    /// The nodes that the router sends a VIP to.
    pub fn ways(&self, address: u8) -> Result<BTreeSet<usize>> {
        let hops = next_hops(&self.cluster.topology.router, vip(address))?;
        let nodes = self.cluster.topology.nodes.iter().enumerate();
        let goes_there = |port: &str| hops.iter().any(|hop| hop.ends_with(&format!(" {port}")));
        Ok(nodes.filter(|(_, node)| goes_there(&self.cluster.topology.port(node))).map(|(index, _)| index).collect())
    }

    /// Waits until the router sends a VIP to exactly these nodes.
    pub async fn goes_to(&self, address: u8, nodes: &[usize]) -> Result<Duration> {
        let expected: BTreeSet<usize> = nodes.iter().copied().collect();
        let look = || async {
            let now = self.ways(address)?;
            ensure!(now == expected, "{now:?} instead of {expected:?}");
            Ok(())
        };
        Ok(wait::until(&format!("the ways to {}", vip(address)), PATIENCE, look).await?.1)
    }

    /// Waits until these directors give new connections to a Service to exactly these nodes.
    pub async fn directs(&self, directors: &[usize], service: &str, nodes: &[usize]) -> Result<Duration> {
        let expected: BTreeSet<_> = nodes.iter().map(|node| self.cluster.topology.nodes[*node].addresses[0]).collect();
        let name = format!("default/{service}:{PORT}/tcp");
        let look = || async {
            for director in directors {
                let all = backends(&self.cluster.agents[*director], &name)?.into_iter();
                let now: BTreeSet<_> = all.filter(|backend| backend.in_ring).map(|backend| backend.address).collect();
                ensure!(now == expected, "node {director} gives them to {now:?}");
            }
            Ok(())
        };
        Ok(wait::until(&format!("connections to {service} to be given to {nodes:?}"), PATIENCE, look).await?.1)
    }

    /// Connections of the client to a VIP, once the nodes that the router sends it to know the way to every backend.
    pub async fn ask(&self, address: u8, count: usize) -> Result<Tally> {
        for node in self.ways(address)? {
            wait_for_hops(&self.cluster.agents[node], PATIENCE).await?;
        }
        let client = self.cluster.client(vip(address), LIMIT)?;
        Ok(Tally::of(&burst(&self.cluster.runtime, &client, count, 4).await))
    }

    /// The whole log of an agent.
    pub fn log(&mut self, node: usize) -> String {
        std::fs::read_to_string(self.cluster.agents[node].process().log()).unwrap_or_default()
    }
}
