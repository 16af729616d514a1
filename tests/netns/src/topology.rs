//! The network: a client, a router and nodes, each in a namespace of its own.
//!
//! ```text
//!            10.9.0.0/24            10.0.1.0/24
//! client .2 ------------- .1 router .1 --------- .2 node-1      Fabric::Routed: a link per node
//!           fd00:9::/64             fd00:1::/64
//!                                   .1 --------- .2 node-2, ...
//!
//! client ---- router .1 --+-- .11 node-1                        Fabric::Segment: one link for all
//!              10.0.0.0/24 +-- .12 node-2, ...   fd00::/64
//! ```
//!
//! The links of the nodes have an MTU of 1600 bytes and the client's link 1500: a tunnel header (at most 52 bytes, GUE
//! over IPv6) then fits around the client's largest packet, as on a fabric prepared for encapsulation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};

use crate::{
    link::{End, attach_pass, connect},
    netns::Netns,
    scope::Scope,
};

/// The VIP of the control plane, IPv4 (RFC 5737) and IPv6 (RFC 3849).
pub const VIPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10))];
/// The interface of the client and of every node.
pub const UPLINK: &str = "eth0";
/// The client's addresses.
pub const CLIENT: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2))];
/// The router's addresses on the client's link.
pub const CLIENT_GATEWAYS: [IpAddr; 2] = [v4(10, 9, 0, 1), v6(9, 1)];
/// MTU of the links of nodes, in bytes.
const NODE_MTU: u16 = 1600;
/// MTU of the client's link, in bytes.
const CLIENT_MTU: u16 = 1500;

/// How nodes reach each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fabric {
    /// Every node has a link to the router: other nodes are a hop away.
    Routed,
    /// All nodes and the router share a segment: other nodes are neighbours.
    Segment,
}

/// A node and its place in the network.
#[derive(Debug)]
pub struct Node {
    /// `node-1` and so on.
    pub name: String,
    /// 1 for the first.
    pub number: u8,
    /// Its own addresses, IPv4 and IPv6.
    pub addresses: [IpAddr; 2],
    /// The router's addresses on its link, IPv4 and IPv6.
    pub gateways: [IpAddr; 2],
    /// Its namespace.
    pub netns: Netns,
}

impl Node {
    /// Cuts its link, or connects it again. The far end of a routed link loses its carrier.
    ///
    /// # Errors
    /// If `ip` refuses.
    pub fn set_link(&self, up: bool) -> Result<()> {
        self.netns.ip(&format!("link set {UPLINK} {}", if up { "up" } else { "down" }))?;
        if up { add_default_routes(&self.netns, self.gateways) } else { Ok(()) }
    }
}

/// The namespaces, linked and addressed; dropping it deletes them.
#[derive(Debug)]
pub struct Topology {
    /// Where the client's connections come from.
    pub client: Netns,
    /// Between the client and the nodes; spreads flows over equal next hops by their 5-tuple.
    pub router: Netns,
    /// The nodes in order.
    pub nodes: Vec<Node>,
    /// How they are linked.
    pub fabric: Fabric,
    /// Holds the bridge of a segment.
    switch: Option<Netns>,
}

impl Topology {
    /// Builds the network with `nodes` nodes (1..=20).
    ///
    /// # Errors
    /// Without root, iproute2 or ethtool.
    pub fn build(scope: &Scope, fabric: Fabric, nodes: u8) -> Result<Self> {
        ensure!((1..=20).contains(&nodes), "{nodes} nodes are not within 1..=20");
        let router = build_router(scope)?;
        let client = build_client(scope, &router)?;
        let switch = (fabric == Fabric::Segment).then(|| build_switch(scope, &router)).transpose()?;
        let nodes = (1..=nodes)
            .map(|number| build_node(scope, number, &router, switch.as_ref()))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { client, router, nodes, fabric, switch })
    }

    /// The namespace that holds the far ends of the nodes' links, named `node1` and so on: the router or the switch.
    #[must_use]
    pub fn far_side(&self) -> &Netns {
        self.switch.as_ref().unwrap_or(&self.router)
    }

    /// The router's interface towards a node.
    #[must_use]
    pub fn port(&self, node: &Node) -> String {
        match self.fabric {
            Fabric::Routed => format!("node{}", node.number),
            Fabric::Segment => "segment".to_owned(),
        }
    }

    /// Takes a node's link away and makes it anew, as when a driver is loaded again. For [`Fabric::Routed`] only.
    ///
    /// # Errors
    /// If `ip` refuses, or on another fabric.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn replace_link(&self, scope: &Scope, node: usize) -> Result<()> {
        ensure!(self.fabric == Fabric::Routed, "a segment's links lie in a bridge");
        let node = &self.nodes[node];
        node.netns.ip(&format!("link del {UPLINK}"))?;
        let port = format!("node{}", node.number);
        link_node(scope, &node.netns, &self.router, &port)?;
        add_addresses(&self.router, &port, node.gateways)?;
        add_addresses(&node.netns, UPLINK, node.addresses)?;
        add_default_routes(&node.netns, node.gateways)
    }

    /// Routes `vip` at the router to the nodes at these indices, equally, in place of what a routing daemon would do.
    ///
    /// # Errors
    /// If `ip` refuses.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn enter_by(&self, vip: IpAddr, nodes: &[usize]) -> Result<()> {
        let (family, which) = if vip.is_ipv4() { ("-4", 0) } else { ("-6", 1) };
        let hops: String =
            nodes.iter().map(|&node| format!(" nexthop via {}", self.nodes[node].addresses[which])).collect();
        self.router.ip(&format!("{family} route replace {vip}{hops}"))?;
        Ok(())
    }

    /// Frames that the links threw away so far, summed over all interfaces: with closed-loop traffic 0, or the
    /// testbed and not the program under test lost packets.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn link_drops(&self) -> Result<u64> {
        let ends = self.nodes.iter().map(|node| &node.netns).chain([&self.client, &self.router]).chain(&self.switch);
        let mut drops = 0;
        for netns in ends {
            let links: Vec<serde_json::Value> = serde_json::from_str(&netns.ip("-j -s link show")?)?;
            for (link, side) in links.iter().flat_map(|link| [(link, "rx"), (link, "tx")]) {
                drops += link["stats64"][side]["dropped"].as_u64().unwrap_or(0);
            }
        }
        Ok(drops)
    }
}

fn build_router(scope: &Scope) -> Result<Netns> {
    let router = Netns::create(scope, "router")?;
    forward(&router)?;
    // Spread by ports as well, or all connections of a client would take one way.
    router.sysctl("net/ipv4/fib_multipath_hash_policy", "1")?;
    router.sysctl("net/ipv6/fib_multipath_hash_policy", "1")?;
    Ok(router)
}

fn build_client(scope: &Scope, router: &Netns) -> Result<Netns> {
    let client = Netns::create(scope, "client")?;
    let gateways = CLIENT_GATEWAYS;
    connect(End { netns: &client, device: UPLINK }, End { netns: router, device: "client" }, CLIENT_MTU)?;
    add_addresses(&client, UPLINK, CLIENT)?;
    add_addresses(router, "client", gateways)?;
    add_default_routes(&client, gateways)?;
    Ok(client)
}

/// A namespace with a bridge, and the router's link to it.
fn build_switch(scope: &Scope, router: &Netns) -> Result<Netns> {
    let switch = Netns::create(scope, "switch")?;
    switch.ip(&format!("link add br0 mtu {NODE_MTU} type bridge forward_delay 0 stp_state 0 mcast_snooping 0"))?;
    switch.ip("link set br0 up")?;
    connect(End { netns: router, device: "segment" }, End { netns: &switch, device: "router" }, NODE_MTU)?;
    switch.ip("link set router master br0")?;
    add_addresses(router, "segment", [v4(10, 0, 0, 1), v6(0, 1)])?;
    Ok(switch)
}

fn build_node(scope: &Scope, number: u8, router: &Netns, switch: Option<&Netns>) -> Result<Node> {
    let name = format!("node-{number}");
    let netns = Netns::create(scope, &name)?;
    forward(&netns)?;
    let port = format!("node{number}");
    link_node(scope, &netns, switch.unwrap_or(router), &port)?;
    let (addresses, gateways) = if let Some(switch) = switch {
        switch.ip(&format!("link set {port} master br0"))?;
        ([v4(10, 0, 0, 10 + number), v6(0, 0x10 + u16::from(number))], [v4(10, 0, 0, 1), v6(0, 1)])
    } else {
        let gateways = [v4(10, 0, number, 1), v6(u16::from(number), 1)];
        add_addresses(router, &port, gateways)?;
        ([v4(10, 0, number, 2), v6(u16::from(number), 2)], gateways)
    };
    add_addresses(&netns, UPLINK, addresses)?;
    add_default_routes(&netns, gateways)?;
    Ok(Node { name, number, addresses, gateways, netns })
}

/// Connects a node's uplink to `port` in `far`.
fn link_node(scope: &Scope, netns: &Netns, far: &Netns, port: &str) -> Result<()> {
    let device = UPLINK;
    let peer = End { netns: far, device: port };
    connect(End { netns, device }, peer, NODE_MTU)?;
    attach_pass(scope, peer)
}

/// Makes a namespace forward packets, as routers and Kubernetes nodes do.
fn forward(netns: &Netns) -> Result<()> {
    netns.sysctl("net/ipv4/ip_forward", "1")?;
    netns.sysctl("net/ipv6/conf/all/forwarding", "1")
}

fn add_addresses(netns: &Netns, device: &str, addresses: [IpAddr; 2]) -> Result<()> {
    let [ipv4, ipv6] = addresses;
    netns.ip(&format!("addr add {ipv4}/24 dev {device}"))?;
    netns.ip(&format!("addr add {ipv6}/64 dev {device} nodad"))?;
    // IPv6 addresses go with the link, unless told otherwise.
    netns.sysctl(&format!("net/ipv6/conf/{device}/keep_addr_on_down"), "1")
}

fn add_default_routes(netns: &Netns, gateways: [IpAddr; 2]) -> Result<()> {
    let [ipv4, ipv6] = gateways;
    netns.ip(&format!("-4 route replace default via {ipv4} dev {UPLINK}"))?;
    netns.ip(&format!("-6 route replace default via {ipv6} dev {UPLINK}"))?;
    Ok(())
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// `fd00:<link>::<host>`, of the unique local addresses (RFC 4193).
const fn v6(link: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, link, 0, 0, 0, 0, 0, host))
}
