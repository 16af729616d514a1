//! The demo's network, servers, daemons and agents.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use lb_agent::model::Protocol;
use tokio::time::sleep;

use super::{
    Options,
    console::{Console, milliseconds},
};
use crate::{
    agent::Agent,
    authority::Authority,
    client::Client,
    config::{AgentConfig, ServiceConfig},
    netns::NetnsRuntime,
    process::Process,
    routes::wait_for_route,
    routing::{Routing, Suite},
    scope::Scope,
    server,
    topology::{Fabric, Topology},
};

/// The port of the Kubernetes API.
const PORT: u16 = 6443;
/// Limit for agents and routes to come up.
const PATIENCE: Duration = Duration::from_secs(15);
/// Two probes of 200 ms until a backend rises, with their jitter and the map update, and room for a busy machine.
const SETTLED: Duration = Duration::from_millis(1200);
/// Name of the service.
pub(super) const SERVICE: &str = "kubernetes";

/// Everything that runs. The fields are in the order in which they have to go: users before what they use.
pub(super) struct Bed {
    pub(super) runtime: NetnsRuntime,
    pub(super) agents: Vec<Agent>,
    servers: Vec<Process>,
    routing: Option<Routing>,
    pub(super) topology: Topology,
    authority: Authority,
    vips: Vec<IpAddr>,
    suite: Suite,
    scope: Scope,
}

impl Bed {
    /// Builds the network, in which nothing runs yet.
    pub(super) fn build(scope: Scope, options: &Options, console: &mut Console) -> Result<Self> {
        console.step("Building a client, a router and three control-plane nodes out of network namespaces");
        let topology = Topology::build(&scope, Fabric::Routed, 3)?;
        for node in &topology.nodes {
            let [ipv4, ipv6] = node.addresses;
            console.note(&format!("{}  {ipv4}  {ipv6}  ({})", node.name, node.netns.name()));
        }
        Ok(Self {
            runtime: NetnsRuntime::start(&topology.client)?,
            agents: Vec::new(),
            servers: Vec::new(),
            routing: None,
            topology,
            authority: Authority::new()?,
            vips: options.vips.clone(),
            suite: options.suite,
            scope,
        })
    }

    /// Starts servers, routing daemons and agents, and waits until the router spreads over all three nodes.
    pub(super) async fn start(&mut self, console: &mut Console) -> Result<()> {
        console.step(&format!(
            "Starting on every node: an HTTPS server on {PORT}, {} and lb-agent",
            self.suite
        ));
        for node in 0..self.topology.nodes.len() {
            let server = self.spawn_server(node)?;
            self.servers.push(server);
        }
        self.routing = Some(Routing::start(&self.scope, &self.topology, self.suite, self.suite)?);
        for node in 0..self.topology.nodes.len() {
            let service = ServiceConfig::on_all_nodes(&self.topology, SERVICE, &self.vips, Protocol::Tcp, PORT);
            let config = AgentConfig::for_node(&self.scope, &self.topology, node)?.with_service(service);
            self.agents
                .push(Agent::start(&self.scope, &self.topology.nodes[node].netns, &config)?);
        }
        for (agent, node) in self.agents.iter_mut().zip(&self.topology.nodes) {
            let took = agent.wait_ready(PATIENCE).await?;
            console.note(&format!("agent on {} ready after {}", node.name, milliseconds(took)));
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
            console.note(&format!(
                "router: {count} equal next hops to {vip} after {}",
                milliseconds(took)
            ));
        }
        Ok(())
    }

    /// A client of `vip`.
    pub(super) fn client(&self, vip: IpAddr, limit: Duration) -> Result<Client> {
        Ok(Client::new(
            self.authority.client_config()?,
            SocketAddr::new(vip, PORT),
            limit,
        ))
    }

    /// Clients of every VIP asked for.
    pub(super) fn clients(&self, limit: Duration) -> Result<Vec<Client>> {
        self.vips.iter().map(|&vip| self.client(vip, limit)).collect()
    }

    /// Names of the nodes in order.
    pub(super) fn names(&self) -> Vec<String> {
        self.topology.nodes.iter().map(|node| node.name.clone()).collect()
    }

    fn spawn_server(&self, node: usize) -> Result<Process> {
        let node = &self.topology.nodes[node];
        let identity = self.authority.issue(&self.scope, &node.name, &self.vips)?;
        server::spawn(&self.scope, &node.netns, &node.name, &identity, PORT)
    }

    /// Starts the server of a node again.
    pub(super) fn start_server(&mut self, node: usize) -> Result<()> {
        self.servers[node] = self.spawn_server(node)?;
        Ok(())
    }

    /// Kills the server of a node with SIGKILL.
    pub(super) fn kill_server(&mut self, node: usize) -> Result<()> {
        self.servers[node].kill()
    }

    /// Cuts a node's link and kills all its processes with SIGKILL, as a loss of power would.
    pub(super) fn kill_node(&mut self, node: usize) -> Result<()> {
        self.topology.nodes[node].set_link(false)?;
        self.agents[node].process().kill()?;
        self.servers[node].kill()?;
        self.routing
            .as_mut()
            .map_or(Ok(()), |routing| routing.nodes[node].kill())
    }

    /// The ends of all logs.
    pub(super) fn log_tails(&mut self) -> String {
        let agents = self.agents.iter_mut().map(|agent| agent.process().log_tail(15));
        let servers = self.servers.iter().map(|server| server.log_tail(5));
        let daemons = self
            .routing
            .iter()
            .flat_map(|routing| routing.nodes.iter().chain([&routing.router]));
        let daemons = daemons
            .flat_map(|daemon| &daemon.processes)
            .map(|process| process.log_tail(8));
        agents.chain(servers).chain(daemons).collect::<Vec<_>>().join("\n")
    }

    /// How to look around while the demo is kept.
    pub(super) fn directions(&self) -> String {
        let client = self.topology.client.path();
        let mut text = format!(
            "\nKept until Ctrl-C. Look around with\n  nsenter --net={} bash\n",
            client.display()
        );
        for (agent, node) in self.agents.iter().zip(&self.topology.nodes) {
            let (path, pins) = (node.netns.path(), agent.pin_path());
            text += &format!(
                "  nsenter --net={} lbctl --pin-path {} status\n",
                path.display(),
                pins.display()
            );
        }
        text
    }
}
