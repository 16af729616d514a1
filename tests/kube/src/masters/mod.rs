//! Three control-plane nodes in namespaces: each has an etcd member, an API server that keeps its objects there, an agent and a
//! routing daemon of its own, which die with it. A client reaches them by the VIP.

pub mod ask;

use std::{
    fmt::Write,
    future::Future,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use kube::Client;
use netns_tests::{
    agent::Agent,
    cluster::{Cluster, PORT},
    config::AgentConfig,
    netns::NetnsRuntime,
    routing::Suite,
    scope::{Scope, sweep},
    topology::{Fabric, Topology, VIPS},
    wait,
};
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    ability::Ability,
    access::{Access, Keys},
    assets::Assets,
    bed::{START, make_namespace},
    controller::Controller,
    deployed::{NAMESPACE, api_of},
    etcd::Etcd,
    follow::{self, follow},
    place::Place,
    server::{ApiServer, Settings},
};
use ask::Asker;

/// How many there are.
pub const NODES: u8 = 3;
/// The address of the API.
pub const VIP: IpAddr = VIPS[0];
/// Time between two probes of a server, and the limit of one.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Successes until a failed server is healthy.
pub const RISE: u32 = 2;
/// Failures until a healthy one has failed.
pub const FALL: u32 = 3;
/// Name of the service of the API servers.
const CONTROL_PLANE: &str = "control-plane";
/// Bounds what is awaited of agents.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Limit of a request.
pub const LIMIT: Duration = Duration::from_secs(5);

/// The nodes. Fields go in their order: the network and the files last.
#[derive(Debug)]
pub struct Masters {
    /// Controllers, once started.
    pub controllers: Vec<Controller>,
    /// API servers in the order of the nodes.
    pub servers: Vec<ApiServer>,
    /// Their etcd members.
    pub members: Vec<Etcd>,
    /// Keys and certificates.
    pub keys: Keys,
    /// The programs.
    pub assets: Assets,
    /// Network, agents and routing daemons.
    pub cluster: Cluster,
}

impl Masters {
    /// The network with its routing daemons, of this brand on the nodes. Nothing else runs yet.
    ///
    /// # Errors
    /// If a program is missing.
    pub fn build(routing: Suite) -> Result<Self> {
        sweep();
        Self::build_in(Scope::new()?, routing)
    }

    /// The same with names of this scope.
    ///
    /// # Errors
    /// As [`Masters::build`].
    pub fn build_in(scope: Scope, routing: Suite) -> Result<Self> {
        let assets = Assets::find()?;
        let keys = Keys::new(&scope)?;
        let mut cluster = Cluster::build(scope, Fabric::Routed, NODES, &[VIP])?;
        cluster.start_routing(Suite::Bird, routing)?;
        let places = places(&cluster.topology);
        let members = Etcd::cluster(&cluster.scope, &assets, &places);
        let servers = places.iter().zip(&members).map(|((name, place), member)| {
            let own = (name.as_str(), place.clone());
            ApiServer::new(&cluster.scope, &assets, &keys, own, &[member.url()], &settings(&assets))
        });
        let servers = servers.collect::<Result<_>>()?;
        Ok(Self { controllers: Vec::new(), servers, members, keys, assets, cluster })
    }

    /// Everything runs: servers that know each other, agents that follow them and have the VIP announced, nobody's controller.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn start(routing: Suite) -> Result<Self> {
        let mut masters = Self::build(routing)?;
        masters.start_servers().await?;
        masters.describe().await?;
        masters.start_agents(&[0, 1, 2])?;
        masters.settled().await?;
        Ok(masters)
    }

    /// Starts etcd members and servers, and waits until they are ready.
    ///
    /// # Errors
    /// If one is not.
    pub async fn start_servers(&mut self) -> Result<()> {
        self.members.iter_mut().try_for_each(|member| member.start(&self.cluster.scope))?;
        for member in &mut self.members {
            member.ready(START).await?;
        }
        // The first makes what all need; then the others together.
        let (first, others) = self.servers.split_at_mut(1);
        for servers in [first, others] {
            servers.iter_mut().try_for_each(|server| server.start(&self.cluster.scope))?;
            for server in servers {
                server.ready(START).await?;
            }
        }
        Ok(())
    }

    /// Makes what the API says of the nodes.
    ///
    /// # Errors
    /// If the first server refuses.
    pub async fn describe(&self) -> Result<()> {
        let nodes: Vec<_> = self.cluster.topology.nodes.iter().map(follow::node).collect();
        let make = |client: Client| async move {
            make_namespace(&client, NAMESPACE).await?;
            for node in nodes {
                create(&client, &node).await?;
            }
            Ok(())
        };
        self.ask(0, make).await
    }

    /// Starts an agent on every node that knows these nodes' servers before the API tells it of others.
    ///
    /// # Errors
    /// If one does not start.
    pub fn start_agents(&mut self, known: &[usize]) -> Result<()> {
        (0..self.servers.len()).try_for_each(|node| self.start_agent(&self.agent_config(node, known)?))
    }

    /// Starts the agent of the next node.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_agent(&mut self, config: &AgentConfig) -> Result<()> {
        let netns = &self.cluster.topology.nodes[self.cluster.agents.len()].netns;
        self.cluster.agents.push(Agent::start(&self.cluster.scope, netns, config)?);
        Ok(())
    }

    /// The configuration of a node's agent: it follows the API by way of its own server, and learns of its peers there.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn agent_config(&self, node: usize, known: &[usize]) -> Result<AgentConfig> {
        let (scope, nodes) = (&self.cluster.scope, &self.cluster.topology.nodes);
        let mut config = AgentConfig::for_node(scope, &self.cluster.topology, node)?;
        let known: Vec<_> = known.iter().map(|node| nodes[*node].addresses[0].to_string()).collect();
        let (seconds, ca) = (INTERVAL.as_secs(), self.keys.ca.display());
        write!(
            config.extra,
            "controlPlane:\n  vips: [{VIP}]\n  port: {PORT}\n  backends: [{}]\n  from: endpoints\n  \
             probe: {{https: {{caFile: \"{ca}\"}}, interval: {seconds}s, timeout: {seconds}s, rise: {RISE}, fall: {FALL}}}\n  \
             announceLifetime: {}s\n",
            known.join(", "),
            follow::LIFETIME,
        )?;
        Ok(follow(scope, config, &self.kubeconfig(node)?, &["defaultClass: true"]))
    }

    /// A kubeconfig of a node's administrator for its own server.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn kubeconfig(&self, node: usize) -> Result<PathBuf> {
        let name = format!("{}.kubeconfig", self.cluster.topology.nodes[node].name);
        self.servers[node].access().kubeconfig(&self.cluster.scope, &name, &self.keys.admin)
    }

    /// Starts a controller on every node, with the administrator's rights, by way of its own server.
    ///
    /// # Errors
    /// If one does not start.
    pub fn start_controllers(&mut self, settings: &Value) -> Result<()> {
        for (node, server) in self.cluster.topology.nodes.iter().zip(&self.servers) {
            let (scope, admin) = (&self.cluster.scope, &self.keys.admin);
            let controller = Controller::new(scope, &node.name, server.access(), admin, settings)?;
            let mut controller = controller.inside(&node.netns);
            controller.start(scope)?;
            self.controllers.push(controller);
        }
        Ok(())
    }

    /// Waits until every agent follows a live API, knows all peers and servers and finds them well, and the router has a way
    /// to every node.
    ///
    /// # Errors
    /// If that does not come about, with the ends of the logs.
    pub async fn settled(&mut self) -> Result<()> {
        let settled = self.wait_until_settled().await;
        settled.map_err(|error| anyhow!("{error:#}\n{}", self.log_tails()))
    }

    async fn wait_until_settled(&mut self) -> Result<()> {
        self.cluster.wait_ready(PATIENCE).await?;
        let all: Vec<_> = (0..self.servers.len()).collect();
        for node in &all {
            self.serve(*node, &all).await?;
            self.follows(*node, "live").await?;
        }
        self.cluster.wait_for_routes(all.len(), PATIENCE).await
    }

    /// Waits until an agent finds exactly these nodes' servers healthy.
    ///
    /// # Errors
    /// If it does not, with what it finds.
    pub async fn serve(&self, agent: usize, healthy: &[usize]) -> Result<Duration> {
        let wanted: Vec<_> = healthy.iter().map(|node| self.address(*node).to_string()).collect();
        let look = || async {
            let mut found = self.backends(agent)?;
            found.retain(|one| one["health"] == "healthy");
            let mut found: Vec<_> = found.iter().filter_map(|one| one["address"].as_str()).collect();
            found.sort_unstable();
            ensure!(found == wanted, "{found:?}");
            Ok(())
        };
        Ok(wait::until(&format!("agent {agent} to find the servers {healthy:?} healthy"), PATIENCE, look).await?.1)
    }

    /// Waits until an agent's inventory is `live`, or `saved`, and it hears all of its peers.
    ///
    /// # Errors
    /// If it is not, with what the agent says.
    pub async fn follows(&self, agent: usize, origin: &str) -> Result<()> {
        let others = self.servers.len() - 1;
        let look = || async {
            let status = &self.status(agent)?;
            ensure!(status["cluster"]["origin"] == origin, "{}", status["cluster"]);
            let peers = status["membership"]["peers"].as_array().cloned().unwrap_or_default();
            let heard = peers.iter().filter(|peer| peer["state"] == "heard").count();
            ensure!(heard == others, "{peers:?}");
            Ok(())
        };
        wait::until(&format!("agent {agent} to follow ({origin})"), PATIENCE, look).await.map(drop)
    }

    /// What an agent says of itself.
    ///
    /// # Errors
    /// If it says nothing.
    pub fn status(&self, agent: usize) -> Result<Value> {
        Ok(self.cluster.agents[agent].lbctl_json(&["status"])?["status"].clone())
    }

    /// What an agent says of the API servers.
    ///
    /// # Errors
    /// As [`Masters::status`].
    pub fn backends(&self, agent: usize) -> Result<Vec<Value>> {
        let mut backends = self.status(agent)?["backends"].as_array().cloned().unwrap_or_default();
        backends.retain(|one| one["service"] == CONTROL_PLANE);
        Ok(backends)
    }

    /// Whether a node's kernel holds the VIP, and whether it announces it.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn held_and_announced(&self, node: usize) -> Result<(bool, bool)> {
        let netns = &self.cluster.topology.nodes[node].netns;
        let routes = netns.ip("-4 route show table local proto 76")?;
        let addresses = netns.ip("-4 -o addr show dev lo")?;
        let held = routes.split_whitespace().any(|word| word == VIP.to_string());
        Ok((held, addresses.contains(&format!(" {VIP}/32 "))))
    }

    /// Waits until a node holds and announces the VIP, or does not.
    ///
    /// # Errors
    /// If it does otherwise for too long.
    pub async fn wait_for(&self, node: usize, expected: (bool, bool), limit: Duration) -> Result<Duration> {
        let look = || async {
            let now = self.held_and_announced(node)?;
            ensure!(now == expected, "{now:?}");
            Ok(())
        };
        Ok(wait::until(&format!("(held, announced) of node {node} to be {expected:?}"), limit, look).await?.1)
    }

    /// Address of a node.
    #[must_use]
    pub fn address(&self, node: usize) -> IpAddr {
        self.cluster.topology.nodes[node].addresses[0]
    }

    /// A client of the VIP that tells servers by their nodes' names.
    ///
    /// # Errors
    /// As [`Asker::new`].
    pub fn asker(&self, limit: Duration) -> Result<Asker> {
        let names = self.cluster.topology.nodes.iter().map(|node| node.name.as_str());
        Asker::new(&self.keys, SocketAddr::new(VIP, PORT), limit, names.zip(&self.servers))
    }

    /// A runtime on a node, for clients there.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn on_node(&self, node: usize) -> Result<NetnsRuntime> {
        NetnsRuntime::start(&self.cluster.topology.nodes[node].netns)
    }

    /// Does something with the administrator's client of a server, from the client's namespace.
    ///
    /// # Errors
    /// As the work, or if it takes longer than the limit of its requests.
    pub async fn ask<T, F>(&self, server: usize, work: impl FnOnce(Client) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        self.ask_at(self.servers[server].access().clone(), work).await
    }

    /// As [`Masters::ask`], by the VIP.
    ///
    /// # Errors
    /// As [`Masters::ask`].
    pub async fn ask_vip<T, F>(&self, work: impl FnOnce(Client) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        self.ask_at(Access::new(SocketAddr::new(VIP, PORT), &self.keys), work).await
    }

    async fn ask_at<T, F>(&self, access: Access, work: impl FnOnce(Client) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        let admin = self.keys.admin.clone();
        let asked = self.cluster.runtime.spawn(async move { work(access.client(&admin).await?).await });
        timeout(LIMIT * 2, asked).await??
    }

    /// Ends all that runs on a node and cuts its link, as when its plug is pulled.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn pull_plug(&mut self, node: usize) -> Result<()> {
        self.cluster.kill_node(node)?;
        self.servers[node].kill()?;
        self.members[node].kill()?;
        self.controllers.get_mut(node).map_or(Ok(()), Controller::kill)
    }

    /// Ends every API server and etcd member at once.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn lose_api(&mut self) -> Result<()> {
        self.servers.iter_mut().try_for_each(ApiServer::kill)?;
        self.members.iter_mut().try_for_each(Etcd::kill)
    }

    /// The ends of all logs.
    pub fn log_tails(&mut self) -> String {
        let servers = self.servers.iter().map(ApiServer::log_tail);
        let members = self.members.iter().map(Etcd::log_tail);
        let controllers = self.controllers.iter().map(Controller::log_tail);
        let others: Vec<_> = servers.chain(members).chain(controllers).collect();
        format!("{}\n{}", others.join("\n"), self.cluster.log_tails())
    }
}

fn places(topology: &Topology) -> Vec<(String, Place)> {
    let place = |node: &netns_tests::topology::Node| (node.name.clone(), Place::inside(&node.netns, node.addresses[0]));
    topology.nodes.iter().map(place).collect()
}

/// A server that is reached by the VIP as well, and writes the slices of its own address in a version that it has.
#[must_use]
pub fn settings(assets: &Assets) -> Settings {
    let flags = if assets.can(Ability::Slices) {
        Vec::new()
    } else {
        vec!["--runtime-config=discovery.k8s.io/v1beta1=true".to_owned()]
    };
    Settings { names: vec![VIP], flags, ..Settings::default() }
}

/// Makes an object, whatever it is; one that is there already is fine.
///
/// # Errors
/// If the server refuses.
pub async fn create(client: &Client, object: &Value) -> Result<()> {
    let title = crate::deployed::title(object);
    let parsed = serde_json::from_value(object.clone()).with_context(|| format!("reading {title}"))?;
    match api_of(client, object).create(&kube::api::PostParams::default(), &parsed).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        made => made.map(drop).with_context(|| format!("making {title}")),
    }
}
