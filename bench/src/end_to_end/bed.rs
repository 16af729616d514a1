//! The test bed: one segment with a box per balancer and two servers, so that every way costs the same hops.
//!
//! ```text
//! client ---- router ----+---- forwarder   (the kernel's forwarding: what a box on the way costs by itself)
//!                        +---- director    (lb-agent)
//!                        +---- nginx
//!                        +---- haproxy
//!                        +---- nftables
//!                        +---- server, server   (lb-agent)
//! ```
//!
//! Every link is a veth pair with all offloads off and an XDP program at both ends of each box: the agent's where one
//! runs, elsewhere one that passes everything. Every way has a VIP and a client address of its own; both ends of a
//! way's address pair are told apart by the last byte only.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use lb_agent::model::{Delivery, Protocol};
use netns_tests::{
    agent::Agent,
    config::{AgentConfig, ServiceConfig},
    link::{End, attach_pass},
    netns::Netns,
    observe::{Counters, wait_for_hops},
    process::Process,
    scope::Scope,
    topology::{Fabric, Node, Topology, UPLINK},
};

use super::{
    balancers::{load_nftables, start_haproxy, start_nginx},
    load::{self, Plan, Sample},
    server::Server,
};

/// Port of every VIP and server.
const PORT: u16 = 8080;
/// How long an agent may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// Lines of a proxy's log that go with an error.
const LOG_LINES: usize = 10;
/// Boxes on the segment.
const NODES: u8 = 7;
const FORWARDER: usize = 0;
const DIRECTOR: usize = 1;
const NGINX: usize = 2;
const HAPROXY: usize = 3;
const NFTABLES: usize = 4;
const SERVERS: [usize; 2] = [5, 6];
/// The router on the client's link and on the segment.
const ROUTER: [&str; 2] = ["10.9.0.1", "10.0.0.1"];

/// A way from the client to the servers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Way {
    /// The router spreads over the servers (ECMP). What every other way is compared with.
    Routing,
    /// Like routing, but a box forwards, and replies go past it: what one more hop costs.
    Forwarding,
    /// Levee, which rewrites MAC addresses.
    LeveeL2,
    /// Levee, which encapsulates in IP.
    LeveeIpip,
    /// nginx `stream`.
    Nginx,
    /// HAProxy in TCP mode.
    Haproxy,
    /// Destination translation by nftables.
    Nftables,
}

impl Way {
    /// Every way, in the order of the report.
    pub const ALL: [Self; 7] =
        [Self::Routing, Self::Forwarding, Self::LeveeL2, Self::LeveeIpip, Self::Nginx, Self::Haproxy, Self::Nftables];

    /// Its name in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Routing => "routing (ECMP)",
            Self::Forwarding => "routing through a box",
            Self::LeveeL2 => "Levee l2",
            Self::LeveeIpip => "Levee ipip",
            Self::Nginx => "nginx stream",
            Self::Haproxy => "HAProxy TCP",
            Self::Nftables => "nftables DNAT",
        }
    }

    fn vip(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, 10 + self as u8)
    }

    fn client(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, 10 + self as u8)
    }

    fn target(self) -> SocketAddr {
        (self.vip(), PORT).into()
    }
}

/// Everything that runs. Users stand before what they use, for that is the order in which they go.
#[derive(Debug)]
pub struct Bed {
    _servers: Vec<Server>,
    proxies: Vec<Process>,
    agents: Vec<Agent>,
    topology: Topology,
    _scope: Scope,
}

impl Bed {
    /// Builds the bed and sends a request every way.
    ///
    /// # Errors
    /// Without root, without one of the programs, or if a way does not work.
    pub fn build(scope: Scope) -> Result<Self> {
        let topology = Topology::build(&scope, Fabric::Segment, NODES)?;
        prepare(&scope, &topology)?;
        let (nodes, servers) = (&topology.nodes, addresses(&topology));
        let started = SERVERS.map(|server| Server::start(&nodes[server].netns, PORT));
        let proxies = vec![
            start_nginx(&scope, &nodes[NGINX].netns, Way::Nginx.target(), &servers)?,
            start_haproxy(&scope, &nodes[HAPROXY].netns, Way::Haproxy.target(), &servers)?,
        ];
        load_nftables(&scope, &nodes[NFTABLES].netns, Way::Nftables.target(), &servers)?;
        let agents = start_agents(&scope, &topology)?;
        let servers = started.into_iter().collect::<Result<_>>()?;
        let bed = Self { _servers: servers, proxies, agents, topology, _scope: scope };
        for way in Way::ALL {
            bed.open(way).with_context(|| format!("the way by {} does not work\n{}", way.name(), bed.logs()))?;
        }
        Ok(bed)
    }

    /// Sends requests one way.
    ///
    /// # Errors
    /// If one fails.
    pub fn measure(&self, way: Way, plan: impl FnOnce(SocketAddr) -> Plan) -> Result<Sample> {
        let plan = plan(way.target());
        self.topology.client.enter(|| plan.run())?.with_context(|| format!("measuring {}", way.name()))
    }

    /// What the director's program has counted so far.
    ///
    /// # Errors
    /// If its maps cannot be read.
    pub fn counters(&self) -> Result<Counters> {
        Counters::of(&self.agents[0])
    }

    /// Frames that the links threw away so far.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn link_drops(&self) -> Result<u64> {
        self.topology.link_drops()
    }

    /// The ends of the proxies' logs.
    fn logs(&self) -> String {
        self.proxies.iter().map(|proxy| proxy.log_tail(LOG_LINES)).collect::<Vec<_>>().join("\n")
    }

    fn open(&self, way: Way) -> Result<()> {
        let target = way.target();
        self.topology.client.enter(|| load::open(target))?
    }
}

/// Addresses, routes and programs of every way.
fn prepare(scope: &Scope, topology: &Topology) -> Result<()> {
    // The bridge would show every packet to netfilter, which no switch does.
    topology.far_side().sysctl("net/bridge/bridge-nf-call-iptables", "0")?;
    for node in &topology.nodes {
        // What comes in and leaves by the same interface is no mistake here.
        node.netns.sysctl("net/ipv4/conf/all/send_redirects", "0")?;
        node.netns.sysctl(&format!("net/ipv4/conf/{UPLINK}/send_redirects"), "0")?;
        node.netns.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
    }
    topology.client.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
    for node in [FORWARDER, NGINX, HAPROXY, NFTABLES] {
        attach_pass(scope, End { netns: &topology.nodes[node].netns, device: UPLINK })?;
    }
    for way in Way::ALL {
        let (vip, client) = (way.vip(), way.client());
        topology.client.ip(&format!("addr add {client}/24 dev {UPLINK}"))?;
        topology.client.ip(&format!("route add {vip} via {} src {client}", ROUTER[0]))?;
        topology.enter_by(vip.into(), entrances(way))?;
    }
    spread(&topology.nodes[FORWARDER].netns, Way::Forwarding.vip(), &addresses(topology))?;
    let [nginx, haproxy] = [NGINX, HAPROXY].map(|node| &topology.nodes[node].netns);
    hold(nginx, Way::Nginx)?;
    hold(haproxy, Way::Haproxy)?;
    for server in SERVERS.map(|server| &topology.nodes[server]) {
        hold(&server.netns, Way::Routing)?;
        hold(&server.netns, Way::Forwarding)?;
        // Replies to what was translated have to be translated back.
        let back = topology.nodes[NFTABLES].addresses[0];
        server.netns.ip(&format!("route add {} via {back}", Way::Nftables.client()))?;
    }
    Ok(())
}

/// Where the router sends a way's packets.
const fn entrances(way: Way) -> &'static [usize] {
    match way {
        Way::Routing => &SERVERS,
        Way::Forwarding => &[FORWARDER],
        Way::LeveeL2 | Way::LeveeIpip => &[DIRECTOR],
        Way::Nginx => &[NGINX],
        Way::Haproxy => &[HAPROXY],
        Way::Nftables => &[NFTABLES],
    }
}

/// Addresses of the servers.
fn addresses(topology: &Topology) -> [IpAddr; 2] {
    SERVERS.map(|server| topology.nodes[server].addresses[0])
}

/// Makes the kernel of `netns` spread flows to `vip` over `servers`, by ports as well.
fn spread(netns: &Netns, vip: Ipv4Addr, servers: &[IpAddr]) -> Result<()> {
    netns.sysctl("net/ipv4/fib_multipath_hash_policy", "1")?;
    let hops: String = servers.iter().map(|server| format!(" nexthop via {server}")).collect();
    netns.ip(&format!("route add {vip}{hops}"))?;
    Ok(())
}

/// Makes `netns` answer for the VIP of a way.
fn hold(netns: &Netns, way: Way) -> Result<()> {
    netns.ip(&format!("addr add {}/32 dev lo", way.vip()))?;
    Ok(())
}

/// Starts agents on the director and the servers, the director's first, and waits until they know all ways.
fn start_agents(scope: &Scope, topology: &Topology) -> Result<Vec<Agent>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    let members = [DIRECTOR, SERVERS[0], SERVERS[1]];
    let names: Vec<&str> = members.iter().map(|&member| topology.nodes[member].name.as_str()).collect();
    let mut agents = Vec::new();
    for member in members {
        let mut config = AgentConfig::for_node(scope, topology, member)?;
        config.peers.retain(|(name, _)| names.contains(&name.as_str()));
        config.services = vec![
            service(topology, "l2", Way::LeveeL2, Delivery::L2),
            service(topology, "ipip", Way::LeveeIpip, Delivery::Ipip),
        ];
        let Node { netns, .. } = &topology.nodes[member];
        agents.push(Agent::start(scope, netns, &config)?);
    }
    runtime.block_on(async {
        for agent in &mut agents {
            agent.wait_ready(PATIENCE).await?;
            wait_for_hops(agent, PATIENCE).await?;
        }
        Ok(agents)
    })
}

fn service(topology: &Topology, name: &str, way: Way, delivery: Delivery) -> ServiceConfig {
    let vips = [way.vip().into()];
    ServiceConfig {
        delivery,
        backends: addresses(topology).map(|address| (address, 1)).into(),
        probe: None, // probes would be connections that nobody counts
        ..ServiceConfig::on_all_nodes(topology, name, &vips, Protocol::Tcp, PORT)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_way_has_addresses_of_its_own() {
        let addresses: BTreeSet<_> = Way::ALL.iter().flat_map(|way| [way.vip(), way.client()]).collect();
        assert_eq!(addresses.len(), 2 * Way::ALL.len());
        let names: BTreeSet<_> = Way::ALL.map(Way::name).into();
        assert_eq!(names.len(), Way::ALL.len());
    }
}
