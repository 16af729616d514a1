//! The demo's cluster, with its progress shown.

use std::{net::IpAddr, ops, time::Duration};

use anyhow::Result;
use lb_agent::model::Protocol;
use tokio::time::sleep;

use super::{
    Options,
    console::{Console, milliseconds},
};
use crate::{
    client::Client,
    cluster::{Cluster, PORT},
    config::ServiceConfig,
    routes::wait_for_route,
    routing::Suite,
    scope::Scope,
    topology::Fabric,
};

/// Limit for agents and routes to come up.
const PATIENCE: Duration = Duration::from_secs(15);
/// Two probes of 200 ms until a backend rises, with their jitter and the map update, and room for a busy machine.
const SETTLED: Duration = Duration::from_millis(1200);
/// Name of the service.
pub(super) const SERVICE: &str = "kubernetes";

/// The cluster and what it was asked for.
pub(super) struct Bed {
    cluster: Cluster,
    suite: Suite,
}

impl ops::Deref for Bed {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl ops::DerefMut for Bed {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}

impl Bed {
    /// Builds the network, in which nothing runs yet.
    pub(super) fn build(scope: Scope, options: &Options, console: &mut Console) -> Result<Self> {
        console.step("Building a client, a router and three control-plane nodes out of network namespaces");
        let cluster = Cluster::build(scope, Fabric::Routed, 3, &options.vips)?;
        for node in &cluster.topology.nodes {
            let [ipv4, ipv6] = node.addresses;
            console.note(&format!("{}  {ipv4}  {ipv6}  ({})", node.name, node.netns.name()));
        }
        Ok(Self { cluster, suite: options.suite })
    }

    /// Starts servers, routing daemons and agents, and waits until the router spreads over all three nodes.
    pub(super) async fn start(&mut self, console: &mut Console) -> Result<()> {
        console.step(&format!("Starting on every node: an HTTPS server on {PORT}, {} and lb-agent", self.suite));
        self.cluster.start_servers()?;
        self.cluster.start_routing(self.suite, self.suite)?;
        let vips = self.vips.clone();
        self.cluster.start_agents(|topology, config| {
            config.with_service(ServiceConfig::on_all_nodes(topology, SERVICE, &vips, Protocol::Tcp, PORT))
        })?;
        for (agent, name) in self.cluster.agents.iter_mut().zip(self.cluster.topology.nodes.iter().map(|n| &n.name)) {
            let took = agent.wait_ready(PATIENCE).await?;
            console.note(&format!("agent on {name} ready after {}", milliseconds(took)));
        }
        self.settle(console).await
    }

    /// Waits until the router has all next hops, and then for the other agents: each probes by itself, so one may take a
    /// backend in a little after another, and a connection begun in between could change its server.
    pub(super) async fn settle(&self, console: &Console) -> Result<()> {
        self.wait_for_routes(self.topology.nodes.len(), console).await?;
        sleep(SETTLED).await;
        Ok(())
    }

    /// Waits until the router has `count` next hops to every VIP.
    pub(super) async fn wait_for_routes(&self, count: usize, console: &Console) -> Result<()> {
        for &vip in &self.vips {
            let took = wait_for_route(&self.topology.router, vip, count, PATIENCE).await?;
            console.note(&format!("router: {count} equal next hops to {vip} after {}", milliseconds(took)));
        }
        Ok(())
    }

    /// Clients of every VIP asked for.
    pub(super) fn clients(&self, limit: Duration) -> Result<Vec<Client>> {
        self.vips.iter().map(|&vip: &IpAddr| self.client(vip, limit)).collect()
    }

    /// How to look around while the demo is kept.
    pub(super) fn directions(&self) -> String {
        let client = self.topology.client.path();
        let mut text = format!("\nKept until Ctrl-C. Look around with\n  nsenter --net={} bash\n", client.display());
        for (agent, node) in self.agents.iter().zip(&self.topology.nodes) {
            let (path, pins) = (node.netns.path(), agent.pin_path());
            text += &format!("  nsenter --net={} lbctl --pin-path {} status\n", path.display(), pins.display());
        }
        text
    }
}
