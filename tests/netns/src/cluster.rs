//! A topology with all that can run in it: servers, routing daemons, agents, and the client's runtime.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, anyhow};

use crate::{
    agent::Agent,
    authority::Authority,
    client::Client,
    config::AgentConfig,
    echo::{self, Kind},
    netns::NetnsRuntime,
    process::Process,
    routes::wait_for_route,
    routing::{Routing, Suite},
    scope::Scope,
    server,
    topology::{Fabric, Topology},
};

/// The port of the HTTPS servers, that of the Kubernetes API.
pub const PORT: u16 = 6443;

/// Everything that runs. The fields are in the order in which they have to go: users before what they use.
#[derive(Debug)]
pub struct Cluster {
    /// Where the client's connections are made.
    pub runtime: NetnsRuntime,
    /// Agents, in the order of their start.
    pub agents: Vec<Agent>,
    /// HTTPS servers, one per node once started.
    pub servers: Vec<Process>,
    /// Echo servers.
    pub echoes: Vec<Process>,
    /// Routing daemons, once started.
    pub routing: Option<Routing>,
    /// The network.
    pub topology: Topology,
    /// Signs the servers' certificates.
    pub authority: Authority,
    /// The VIPs in use.
    pub vips: Vec<IpAddr>,
    /// Names and files.
    pub scope: Scope,
}

impl Cluster {
    /// Builds the network, in which nothing runs yet.
    ///
    /// # Errors
    /// As [`Topology::build`].
    pub fn build(scope: Scope, fabric: Fabric, nodes: u8, vips: &[IpAddr]) -> Result<Self> {
        let topology = Topology::build(&scope, fabric, nodes)?;
        Ok(Self {
            runtime: NetnsRuntime::start(&topology.client)?,
            agents: Vec::new(),
            servers: Vec::new(),
            echoes: Vec::new(),
            routing: None,
            topology,
            authority: Authority::new()?,
            vips: vips.to_vec(),
            scope,
        })
    }

    /// Starts an HTTPS server on every node.
    ///
    /// # Errors
    /// If one does not start.
    pub fn start_servers(&mut self) -> Result<()> {
        self.servers = (0..self.topology.nodes.len()).map(|node| self.spawn_server(node)).collect::<Result<_>>()?;
        Ok(())
    }

    /// Starts the server of the node at this index again.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_server(&mut self, node: usize) -> Result<()> {
        self.servers[node] = self.spawn_server(node)?;
        Ok(())
    }

    fn spawn_server(&self, node: usize) -> Result<Process> {
        let node = &self.topology.nodes[node];
        let addresses = [&self.vips[..], &node.addresses].concat();
        let identity = self.authority.issue(&self.scope, &node.name, &addresses)?;
        server::spawn(&self.scope, &node.netns, &node.name, &identity, PORT)
    }

    /// Starts a UDP echo server on every node, on these ports of the VIPs.
    ///
    /// # Errors
    /// If one does not start.
    pub fn start_udp_echoes(&mut self, ports: &[u16]) -> Result<()> {
        let vips = self.vips.iter();
        let targets: Vec<_> = vips.flat_map(|&vip| ports.iter().map(move |&port| SocketAddr::new(vip, port))).collect();
        for node in &self.topology.nodes {
            let echo = echo::spawn(&self.scope, &node.netns, Kind::Udp, &node.name, &targets)?;
            self.echoes.push(echo);
        }
        Ok(())
    }

    /// Starts the routing daemons of the router and of every node.
    ///
    /// # Errors
    /// If one does not start.
    pub fn start_routing(&mut self, router: Suite, nodes: Suite) -> Result<()> {
        self.routing = Some(Routing::start(&self.scope, &self.topology, router, nodes)?);
        Ok(())
    }

    /// Starts an agent on every node, each with the configuration that `complete` makes of one without services.
    ///
    /// # Errors
    /// If one does not start.
    pub fn start_agents(&mut self, complete: impl Fn(&Topology, AgentConfig) -> AgentConfig) -> Result<()> {
        for (index, node) in self.topology.nodes.iter().enumerate() {
            let config = complete(&self.topology, AgentConfig::for_node(&self.scope, &self.topology, index)?);
            self.agents.push(Agent::start(&self.scope, &node.netns, &config)?);
        }
        Ok(())
    }

    /// Waits until every agent is ready.
    ///
    /// # Errors
    /// If one is not after `limit`, with the end of its log.
    pub async fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        for agent in &mut self.agents {
            agent.wait_ready(limit).await?;
        }
        Ok(())
    }

    /// Waits until the router has `count` next hops to every VIP.
    ///
    /// # Errors
    /// If it has not after `limit`, with the ends of all logs.
    pub async fn wait_for_routes(&mut self, count: usize, limit: Duration) -> Result<()> {
        for vip in self.vips.clone() {
            let waited = wait_for_route(&self.topology.router, vip, count, limit).await;
            waited.map_err(|error| anyhow!("{error:#}\n{}", self.log_tails()))?;
        }
        Ok(())
    }

    /// A client of the HTTPS service on `vip`.
    ///
    /// # Errors
    /// If the CA's certificate is not accepted.
    pub fn client(&self, vip: IpAddr, limit: Duration) -> Result<Client> {
        Ok(Client::new(self.authority.client_config()?, SocketAddr::new(vip, PORT), limit))
    }

    /// Names of the nodes in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.topology.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// Cuts a node's link and kills all its processes with SIGKILL, as a loss of power would.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill_node(&mut self, node: usize) -> Result<()> {
        self.topology.nodes[node].set_link(false)?;
        self.agents[node].process().kill()?;
        self.servers.get_mut(node).map_or(Ok(()), Process::kill)?;
        self.routing.as_mut().map_or(Ok(()), |routing| routing.nodes[node].kill())
    }

    /// Connects a node again that [`Self::kill_node`] ended, and starts what ran there. Its agent begins with empty maps, as after a
    /// loss of power.
    ///
    /// # Errors
    /// If something does not start.
    pub fn start_node(&mut self, node: usize) -> Result<()> {
        // What is pinned outlives an agent, and no loss of power.
        self.agents[node].lbctl(&["detach"])?;
        self.topology.nodes[node].set_link(true)?;
        if node < self.servers.len() {
            self.start_server(node)?;
        }
        if let Some(routing) = &mut self.routing {
            routing.start_again(&self.scope, &self.topology, node)?;
        }
        self.agents[node].start_again(&self.scope)
    }

    /// The ends of all logs.
    pub fn log_tails(&mut self) -> String {
        let agents = self.agents.iter_mut().map(|agent| agent.process().log_tail(15));
        let servers = self.servers.iter().map(|server| server.log_tail(5));
        let daemons = self.routing.iter().flat_map(|routing| routing.nodes.iter().chain([&routing.router]));
        let daemons = daemons.flat_map(|daemon| &daemon.processes).map(|process| process.log_tail(8));
        agents.chain(servers).chain(daemons).collect::<Vec<_>>().join("\n")
    }
}
