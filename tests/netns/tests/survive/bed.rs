//! Three directors that are backends as well, a fourth node that can become a backend, and what the tests ask of them.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_agent::{
    inspect::{Inspector, Rings, ServiceView},
    model::Protocol,
};
use lb_common::{
    addr::Be16,
    maglev::{self, Member},
};
use netns_tests::{
    agent::Agent,
    client::Client,
    cluster::{Cluster, PORT},
    config::{AgentConfig, ProbeConfig, ServiceConfig},
    observe::{inspect, wait_for_hops, wait_until_settled},
    scope::Scope,
    topology::{Fabric, Topology, VIPS},
    traffic::{Life, LongLived, Tally, burst},
    wait,
};

/// The service's address.
pub const VIP: IpAddr = VIPS[0];
/// Bounds every wait.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Limit of a request: a connection that a busy machine serves late is not broken.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Time between two requests on an open connection.
pub const PULSE: Duration = Duration::from_millis(250);
/// Nodes that the router sends to.
pub const DIRECTORS: [usize; 3] = [0, 1, 2];
/// The node that no traffic enters by.
pub const JOINER: usize = 3;
/// Lifetime of the announcements.
pub const LIFETIME: Duration = Duration::from_secs(3);
/// Connections of one burst.
const BURST: usize = 48;

/// The service in one state of the configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct State {
    /// Nodes that are backends, with their weights.
    pub weights: Vec<(usize, u16)>,
    /// Slots of the ring.
    pub ring_size: u32,
    /// The shortest memory of flows, where slots are to settle.
    forgets: bool,
}

impl State {
    /// The three directors are the backends.
    pub fn first() -> Self {
        Self { weights: DIRECTORS.map(|node| (node, 1)).into(), ring_size: 1024, forgets: false }
    }

    /// The first nodes are the backends, as many as this.
    pub fn of_first(count: usize) -> Self {
        Self { weights: (0..count).map(|node| (node, 1)).collect(), ..Self::first() }
    }

    /// With the fourth node.
    pub fn joined(mut self) -> Self {
        self.weights.push((JOINER, 1));
        self
    }

    /// With a node that takes no new flows.
    pub fn drained(mut self, node: usize) -> Self {
        self.weights.iter_mut().filter(|(other, _)| *other == node).for_each(|(_, weight)| *weight = 0);
        self
    }

    /// With a ring of another size.
    pub fn resized(self, ring_size: u32) -> Self {
        Self { ring_size, ..self }
    }

    fn service(&self, topology: &Topology) -> ServiceConfig {
        // A busy machine lets a probe wait, and here no probe is to fail.
        let second = Duration::from_secs(1);
        ServiceConfig {
            ring_size: self.ring_size,
            backends: self.weights.iter().map(|&(node, weight)| (topology.nodes[node].addresses[0], weight)).collect(),
            flow_timeout: self.forgets.then_some(second),
            probe: Some(ProbeConfig { interval: second, timeout: second, rise: 2, fall: 3 }),
            ..ServiceConfig::on_all_nodes(topology, "api", &[VIP], Protocol::Tcp, PORT)
        }
    }

    fn complete(&self, topology: &Topology, mut config: AgentConfig) -> AgentConfig {
        if config.node.0 == topology.nodes[JOINER].name {
            config.services.push(self.service(topology));
            return config;
        }
        let mut config = config.with_service(self.service(topology));
        config.announcements[0].lifetime = LIFETIME;
        config
    }

    /// Names of the nodes that take new connections.
    pub fn takers(&self, bed: &Cluster) -> BTreeSet<String> {
        let takers = self.weights.iter().filter(|(_, weight)| *weight > 0);
        takers.map(|&(node, _)| bed.topology.nodes[node].name.clone()).collect()
    }
}

/// Four nodes with servers and agents in the first state, all slots settled. No route leads to the VIP yet.
pub async fn build() -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 4, &[VIP]).unwrap();
    bed.start_servers().unwrap();
    let forgetful = State { forgets: true, ..State::first() };
    bed.start_agents(|topology, config| forgetful.complete(topology, config)).unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    wait_until_settled(&bed.agents, PATIENCE).await.unwrap();
    apply(&bed, &[0, 1, 2, JOINER], &State::first()).await;
    bed
}

/// Starts the agent of the next node, which knows nothing, and waits until the state is in force there.
pub async fn start(bed: &mut Cluster, state: &State) {
    let node = bed.agents.len();
    let config = AgentConfig::for_node(&bed.scope, &bed.topology, node).unwrap();
    let config = state.complete(&bed.topology, config);
    let mut agent = Agent::start(&bed.scope, &bed.topology.nodes[node].netns, &config).unwrap();
    agent.wait_ready(PATIENCE).await.unwrap();
    wait_for_hops(&agent, PATIENCE).await.unwrap();
    bed.agents.push(agent);
    wait_for_agreement(bed, &[node], state).await;
}

/// Gives the nodes a configuration and waits until it is in force on all of them.
pub async fn apply(bed: &Cluster, nodes: &[usize], state: &State) {
    for &node in nodes {
        let config = AgentConfig::for_node(&bed.scope, &bed.topology, node).unwrap();
        bed.agents[node].reconfigure(&state.complete(&bed.topology, config)).unwrap();
    }
    wait_for_agreement(bed, nodes, state).await;
}

/// Waits until the maps of these nodes hold the state: backends, weights, and the same ring. The fourth node holds the VIP
/// from then on if it is a backend.
pub async fn wait_for_agreement(bed: &Cluster, nodes: &[usize], state: &State) {
    let mut wanted: Vec<_> =
        state.weights.iter().map(|&(node, weight)| (bed.topology.nodes[node].addresses[0], weight)).collect();
    wanted.sort_unstable();
    let look = || async {
        for &node in nodes {
            let view = service(&bed.agents[node])?;
            let mut seen: Vec<_> = view.backends.iter().map(|one| (one.address, one.weight)).collect();
            seen.sort_unstable();
            ensure!(seen == wanted, "node {node} has {seen:?}, not {wanted:?}");
            let ring = view.ring.context("no ring")?;
            let times = ring.slots / state.ring_size;
            let of_ring: Vec<_> = ring.shares.iter().map(|share| (share.address, share.slots)).collect();
            let port = view.backends.first().map_or(0, |one| one.port);
            let shares: Vec<_> = wanted.iter().copied().zip(shares(&wanted, port, state.ring_size)).collect();
            let shares: Vec<_> = shares.into_iter().map(|((address, _), slots)| (address, slots * times)).collect();
            ensure!(of_ring == shares, "node {node} has {of_ring:?}, not {shares:?}");
        }
        Ok(())
    };
    wait::until("the state to be in force", PATIENCE, look).await.unwrap();
}

/// How many slots each backend has in a ring of this size.
fn shares(backends: &[(IpAddr, u16)], port: u16, ring_size: u32) -> Vec<u32> {
    let member = |&(address, weight): &(IpAddr, u16)| Member { address: address.into(), port: Be16::new(port), weight };
    let owners =
        maglev::build(&backends.iter().map(member).collect::<Vec<_>>(), u8::try_from(ring_size.ilog2()).unwrap());
    let slots = |index: usize| owners.iter().filter(|&&owner| owner as usize == index).count();
    (0..backends.len()).map(|index| u32::try_from(slots(index)).unwrap()).collect()
}

/// The service as the maps have it, with its ring.
pub fn service(agent: &Agent) -> Result<ServiceView> {
    let read = Inspector::open(agent.pin_path()).and_then(|maps| maps.read(Rings::Read))?;
    read.services.into_iter().next().context("no service")
}

/// Packets of the service that the directors handed on or up so far.
pub fn directed(bed: &Cluster) -> [u64; 3] {
    DIRECTORS.map(|node| inspect(&bed.agents[node]).unwrap().services.iter().map(|service| service.packets).sum())
}

/// Opens connections and waits until each has been answered twice.
pub async fn open(bed: &Cluster, count: u16, first_port: u16) -> LongLived {
    let connections = LongLived::open(&bed.runtime, &client(bed), count, first_port, PULSE);
    wait_for_answers(&connections).await;
    connections
}

/// A client of the service.
pub fn client(bed: &Cluster) -> Client {
    bed.client(VIP, LIMIT).unwrap()
}

/// Waits until every connection has carried two more answers, or broke.
pub async fn wait_for_answers(connections: &LongLived) {
    let before = connections.lives();
    let look = || async {
        let lives = connections.lives();
        let silent =
            lives.iter().zip(&before).filter(|(now, then)| now.broken.is_none() && now.answered < then.answered + 2);
        let silent = silent.count();
        ensure!(silent == 0, "{silent} silent");
        Ok(())
    };
    wait::until("two answers on every connection", PATIENCE, look).await.unwrap();
}

/// Opens new connections, which have to be answered by these servers, all of them.
pub async fn expect_takers(bed: &Cluster, state: &State) {
    let tally = Tally::of(&burst(&bed.runtime, &client(bed), BURST, 8).await);
    assert_eq!(tally.failed(), 0, "{state:?}: {tally:?}");
    assert_eq!(tally.answers.keys().cloned().collect::<BTreeSet<_>>(), state.takers(bed), "{state:?}: {tally:?}");
}

/// The connections that broke, as (number, server, how).
pub fn broken(lives: &[Life]) -> Vec<(usize, &str, String)> {
    let broken = lives.iter().enumerate().filter_map(|(n, life)| Some((n, life, life.broken.as_ref()?)));
    broken.map(|(n, life, (_, how))| (n, life.server.as_deref().unwrap_or("none"), how.to_string())).collect()
}

/// How many connections the server of this node has.
pub fn of_node(bed: &Cluster, lives: &[Life], node: usize) -> usize {
    lives.iter().filter(|life| life.server.as_ref() == Some(&bed.topology.nodes[node].name)).count()
}
