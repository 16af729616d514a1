//! Real routing daemons in namespaces: nodes redistribute the host routes of their `lo` over eBGP to the router, which
//! spreads flows over all of them.
//!
//! One session per family and node, or one for both where sessions are unnumbered. Timers are short (hold 9 s, keepalive 3 s, connect retry 1 s), and speakers do not
//! ask for graceful restart, which would keep routes of a dead node.

mod bird;
mod frr;

use std::{fmt, fs, net::IpAddr, path::PathBuf};

use anyhow::Result;

use crate::{
    netns::Netns,
    process::Process,
    scope::Scope,
    topology::{CLIENT, CLIENT_GATEWAYS, Topology, UPLINK},
};

/// Autonomous system of the router; node `n` has this plus `n`.
const ROUTER_AS: u32 = 65000;
/// Autonomous system of a router in the client's place.
const OUTSIDE_AS: u32 = 65100;

/// Which routing daemon to use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Suite {
    /// BIRD 2.
    #[default]
    Bird,
    /// FRR, its `zebra` and `bgpd`.
    Frr,
    /// FRR with unnumbered sessions, which carry both families: next hops are link-local addresses (RFC 8950).
    FrrUnnumbered,
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::FrrUnnumbered => "frr-unnumbered",
        })
    }
}

/// The daemon of one router or node; dropping it ends it and removes its run directories.
#[derive(Debug)]
pub struct RoutingDaemon {
    /// `zebra` and `bgpd`, or one `bird`.
    pub processes: Vec<Process>,
    directories: Vec<PathBuf>,
}

impl RoutingDaemon {
    /// Kills it at once, as a crash would.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::kill)
    }
}

impl Drop for RoutingDaemon {
    fn drop(&mut self) {
        self.processes.clear();
        for directory in &self.directories {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// The daemons of a whole topology.
#[derive(Debug)]
pub struct Routing {
    /// The router's daemon.
    pub router: RoutingDaemon,
    /// The daemons of the nodes, in order.
    pub nodes: Vec<RoutingDaemon>,
    /// Their brand.
    suite: Suite,
}

impl Routing {
    /// Starts a daemon on the router and one on every node.
    ///
    /// # Errors
    /// If one cannot be started; that a session comes up shows in the route table only.
    pub fn start(scope: &Scope, topology: &Topology, router: Suite, nodes: Suite) -> Result<Self> {
        Ok(Self {
            router: start(scope, router, &Speaker::router(topology))?,
            nodes: topology
                .nodes
                .iter()
                .map(|node| start(scope, nodes, &Speaker::node(topology, usize::from(node.number) - 1)))
                .collect::<Result<_>>()?,
            suite: nodes,
        })
    }

    /// Starts the daemon of a node anew; one that still runs ends first.
    ///
    /// # Errors
    /// If it cannot be started; the node has none then.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn start_again(&mut self, scope: &Scope, topology: &Topology, node: usize) -> Result<()> {
        // It takes its run directories with it.
        drop(self.nodes.remove(node));
        self.nodes.insert(node, start(scope, self.suite, &Speaker::node(topology, node))?);
        Ok(())
    }

    /// Updates and withdrawals that the router's BIRD got from the nodes so far.
    ///
    /// # Errors
    /// If the router's daemon is no BIRD.
    pub fn received(&self, scope: &Scope) -> Result<(u64, u64)> {
        bird::received(scope, "router")
    }
}

/// Starts the daemon of one speaker.
///
/// # Errors
/// If it is not installed or cannot be started.
pub fn start(scope: &Scope, suite: Suite, speaker: &Speaker<'_>) -> Result<RoutingDaemon> {
    match suite {
        Suite::Bird => bird::start(scope, speaker),
        Suite::Frr => frr::start(scope, speaker, frr::Sessions::Numbered),
        Suite::FrrUnnumbered => frr::start(scope, speaker, frr::Sessions::Unnumbered),
    }
}

/// What a daemon has to know, whatever its brand.
#[derive(Debug)]
pub struct Speaker<'a> {
    netns: &'a Netns,
    name: String,
    number: u32,
    router_id: IpAddr,
    neighbors: Vec<Neighbor>,
    role: Role,
}

#[derive(Debug)]
struct Neighbor {
    name: String,
    number: u32,
    address: IpAddr,
    /// The own interface that it is behind.
    interface: String,
}

/// What a speaker is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Role {
    /// Takes every route, spreads flows over equal ones, announces nothing.
    Router,
    /// Announces the host routes of its `lo`, takes nothing.
    Node,
    /// Announces the host routes that somebody else wrote into its table, takes nothing.
    Gateway,
}

impl<'a> Speaker<'a> {
    /// The router, with every node as a neighbour.
    #[must_use]
    pub fn router(topology: &'a Topology) -> Self {
        let nodes = topology.nodes.iter();
        let neighbors = nodes.flat_map(|node| {
            let number = ROUTER_AS + u32::from(node.number);
            let interface = topology.port(node);
            node.addresses.map(|address| Neighbor {
                name: neighbor_name(&node.name, address),
                number,
                address,
                interface: interface.clone(),
            })
        });
        Self {
            netns: &topology.router,
            name: "router".to_owned(),
            number: ROUTER_AS,
            router_id: topology.nodes[0].gateways[0],
            neighbors: neighbors.collect(),
            role: Role::Router,
        }
    }

    /// The router as a gateway whose routes somebody else writes, with [`Speaker::outside`] as its neighbour. FRR only.
    #[must_use]
    pub fn gateway(topology: &'a Topology) -> Self {
        let (name, interface) = ("outside".to_owned(), "client".to_owned());
        let neighbor = Neighbor { name, number: OUTSIDE_AS, address: CLIENT[0], interface };
        Self {
            netns: &topology.router,
            name: "gateway".to_owned(),
            number: ROUTER_AS,
            router_id: CLIENT_GATEWAYS[0],
            neighbors: vec![neighbor],
            role: Role::Gateway,
        }
    }

    /// A router in the client's place, which takes what [`Speaker::gateway`] announces.
    #[must_use]
    pub fn outside(topology: &'a Topology) -> Self {
        let (name, interface) = ("gateway".to_owned(), UPLINK.to_owned());
        let neighbor = Neighbor { name, number: ROUTER_AS, address: CLIENT_GATEWAYS[0], interface };
        Self {
            netns: &topology.client,
            name: "outside".to_owned(),
            number: OUTSIDE_AS,
            router_id: CLIENT[0],
            neighbors: vec![neighbor],
            role: Role::Router,
        }
    }

    /// The node at `index`, with the router as its neighbour.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn node(topology: &'a Topology, index: usize) -> Self {
        let node = &topology.nodes[index];
        let neighbors = node.gateways.map(|address| Neighbor {
            name: neighbor_name("router", address),
            number: ROUTER_AS,
            address,
            interface: UPLINK.to_owned(),
        });
        Self {
            netns: &node.netns,
            name: node.name.clone(),
            number: ROUTER_AS + u32::from(node.number),
            router_id: node.addresses[0],
            neighbors: neighbors.into(),
            role: Role::Node,
        }
    }
}

/// A name that both daemons accept as a word.
fn neighbor_name(node: &str, address: IpAddr) -> String {
    format!("{}_{}", node.replace('-', "_"), if address.is_ipv4() { "v4" } else { "v6" })
}
