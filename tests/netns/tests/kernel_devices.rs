//! The kernel's own devices as our peers: its `ipip`, `sit`, `ip6tnl` and GUE tunnels at either end, and 802.1Q devices.
//!
//! Not every kernel has them, so these tests are for the guests of `cargo xtask vm`, which do; there a device that cannot
//! be made is a failure.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_agent::model::{Delivery, Protocol};
use netns_tests::{
    agent::Agent,
    config::{AgentConfig, ServiceConfig},
    echo::{self, Kind},
    netns::Netns,
    observe::{Counters, wait_for_hops},
    process::Process,
    scope::Scope,
    topology::{Fabric, Node, Topology, UPLINK, VIPS},
};

/// How long an agent may take to start; an emulated processor is slow.
const PATIENCE: Duration = Duration::from_secs(180);
/// Limit of a question and its answer.
const LIMIT: Duration = Duration::from_secs(5);
const ECHO: u16 = 7;
/// Port of GUE, as IANA assigns it.
const GUE: u16 = 6080;
/// Payload bytes of the questions.
const SIZES: [usize; 3] = [0, 100, 1400];
/// Questions to each VIP.
const QUESTIONS: u64 = 4 * SIZES.len() as u64;

/// A client, a router and two nodes. The fields are in the order in which they have to go.
struct Bed {
    agents: Vec<Agent>,
    _echoes: Vec<Process>,
    topology: Topology,
    scope: Scope,
}

impl Bed {
    /// With an echo server on each of these nodes.
    fn build(echoing: &[usize]) -> Self {
        let scope = Scope::new().unwrap();
        let topology = Topology::build(&scope, Fabric::Routed, 2).unwrap();
        let targets = VIPS.map(|vip| SocketAddr::new(vip, ECHO));
        let echoes = echoing.iter().map(|&node| {
            let node = &topology.nodes[node];
            echo::spawn(&scope, &node.netns, Kind::Udp, &node.name, &targets).unwrap()
        });
        Self { agents: Vec::new(), _echoes: echoes.collect(), topology, scope }
    }

    /// Starts the agent of a node, with a service on these backends.
    async fn start_agent(&mut self, node: usize, delivery: Delivery, backends: &[IpAddr]) {
        let mut config = AgentConfig::for_node(&self.scope, &self.topology, node).unwrap();
        // Maps of the default sizes take an emulated processor minutes to create and read.
        "capacities: {services: 16, backends: 64, ringSlots: 4096}\n".clone_into(&mut config.extra);
        config.services.push(ServiceConfig {
            delivery,
            ring_size: 256,
            backends: backends.iter().map(|address| (*address, 1)).collect(),
            ..ServiceConfig::on_all_nodes(&self.topology, "echo", &VIPS, Protocol::Udp, ECHO)
        });
        let mut agent = Agent::start(&self.scope, &self.topology.nodes[node].netns, &config).unwrap();
        agent.wait_ready(PATIENCE).await.unwrap();
        wait_for_hops(&agent, PATIENCE).await.unwrap();
        self.agents.push(agent);
    }

    /// Asks a VIP from the client; returns who answered. Every question comes from another port.
    fn ask(&self, vip: IpAddr) -> BTreeSet<String> {
        let target = SocketAddr::new(vip, ECHO);
        let ask = || {
            let sizes = SIZES.iter().cycle().take(usize::try_from(QUESTIONS).unwrap());
            sizes.map(|&size| echo::ask_udp(target, size, LIMIT)).collect::<anyhow::Result<_>>()
        };
        let answers = self.topology.client.enter(ask).unwrap();
        answers.unwrap_or_else(|error| {
            let seen: Vec<_> = self.agents.iter().map(|agent| Counters::of(agent).unwrap()).collect();
            panic!("{target}: {error:#}; {seen:?}")
        })
    }

    fn counters(&self) -> Counters {
        Counters::of(&self.agents[0]).unwrap()
    }
}

/// Makes the kernel's tunnel devices on `here` with `there` as the other end, over one outer family; returns the device
/// for packets of each family. Everything that the kernel would add by itself to a header is left away.
fn tunnels(here: &Node, there: &Node, outer: usize, encapsulation: &str) -> [&'static str; 2] {
    let ends = format!("local {} remote {}", here.addresses[outer], there.addresses[outer]);
    let devices: &[(&str, &str)] = if outer == 0 {
        &[("kernel4", "ipip"), ("kernel6", "sit")]
    } else {
        &[("kernel", "ip6tnl mode any encaplimit none")]
    };
    for (device, kind) in devices {
        here.netns.ip(&format!("link add {device} type {kind} {ends} {encapsulation}")).unwrap();
        here.netns.ip(&format!("link set {device} up")).unwrap();
    }
    if outer == 0 { ["kernel4", "kernel6"] } else { ["kernel"; 2] }
}

/// Packets that a device received or sent.
fn packets(netns: &Netns, device: &str, way: &str) -> u64 {
    let links: serde_json::Value =
        serde_json::from_str(&netns.ip(&format!("-j -s link show {device}")).unwrap()).unwrap();
    links[0]["stats64"][way]["packets"].as_u64().unwrap()
}

/// Our director sends to a backend without an agent, whose kernel takes the tunnel header off.
async fn the_kernel_terminates(delivery: Delivery, label: &str, outer: usize) {
    let mut bed = Bed::build(&[1]);
    let [director, receiver] = &bed.topology.nodes[..] else { unreachable!("two nodes") };
    let devices = tunnels(receiver, director, outer, "");
    if delivery == Delivery::Gue {
        let family = if outer == 0 { "" } else { "-6 " };
        receiver.netns.ip(&format!("{family}fou add port {GUE} gue")).unwrap();
    }
    for (vip, length) in VIPS.into_iter().zip([32, 128]) {
        receiver.netns.ip(&format!("addr add {vip}/{length} dev lo nodad")).unwrap();
        bed.topology.enter_by(vip, &[0]).unwrap();
    }
    let backend = receiver.addresses[outer];
    bed.start_agent(0, delivery, &[backend]).await;
    for (vip, device) in VIPS.into_iter().zip(devices) {
        let (netns, before) = (&bed.topology.nodes[1].netns, bed.counters());
        let received = packets(netns, device, "rx");
        assert_eq!(bed.ask(vip), BTreeSet::from(["node-2".to_owned()]), "{vip}");
        let grown = bed.counters().since(&before);
        assert_eq!(grown.get(label), QUESTIONS, "{vip}: {grown:?}");
        assert_eq!(packets(netns, device, "rx") - received, QUESTIONS, "{vip}: what {device} received");
    }
}

/// A node without an agent sends through its kernel's tunnel to a node whose agent's program takes the header off.
async fn the_kernel_directs(encapsulation: &str, outer: usize) {
    let mut bed = Bed::build(&[0]);
    let [terminator, sender] = &bed.topology.nodes[..] else { unreachable!("two nodes") };
    let devices = tunnels(sender, terminator, outer, encapsulation);
    for (vip, device) in VIPS.into_iter().zip(devices) {
        sender.netns.ip(&format!("route add {vip} dev {device}")).unwrap();
        bed.topology.enter_by(vip, &[1]).unwrap();
    }
    let backend = terminator.addresses[outer];
    bed.start_agent(0, Delivery::Auto, &[backend]).await;
    for (vip, device) in VIPS.into_iter().zip(devices) {
        let (netns, before) = (&bed.topology.nodes[1].netns, bed.counters());
        let sent = packets(netns, device, "tx");
        assert_eq!(bed.ask(vip), BTreeSet::from(["node-1".to_owned()]), "{vip}");
        let grown = bed.counters().since(&before);
        assert_eq!(grown, grown.only(&["terminated"]), "{vip}");
        assert_eq!(grown.get("terminated"), QUESTIONS, "{vip}: {grown:?}");
        assert_eq!(packets(netns, device, "tx") - sent, QUESTIONS, "{vip}: what {device} sent");
    }
}

fn gue_by_the_kernel() -> String {
    format!("encap gue encap-sport auto encap-dport {GUE}")
}

#[tokio::test]
async fn our_ipip_over_ipv4_is_stripped_by_ipip_and_sit_devices() {
    the_kernel_terminates(Delivery::Ipip, "ipip", 0).await;
}

#[tokio::test]
async fn our_ipip_over_ipv6_is_stripped_by_an_ip6tnl_device() {
    the_kernel_terminates(Delivery::Ipip, "ipip", 1).await;
}

#[tokio::test]
async fn our_gue_over_ipv4_is_stripped_by_fou() {
    the_kernel_terminates(Delivery::Gue, "gue", 0).await;
}

#[tokio::test]
async fn our_gue_over_ipv6_is_stripped_by_fou() {
    the_kernel_terminates(Delivery::Gue, "gue", 1).await;
}

#[tokio::test]
async fn we_strip_what_ipip_and_sit_devices_send_over_ipv4() {
    the_kernel_directs("", 0).await;
}

#[tokio::test]
async fn we_strip_what_an_ip6tnl_device_sends_over_ipv6() {
    the_kernel_directs("", 1).await;
}

#[tokio::test]
async fn we_strip_the_kernels_gue_over_ipv4() {
    the_kernel_directs(&gue_by_the_kernel(), 0).await;
}

#[tokio::test]
async fn we_strip_the_kernels_gue_over_ipv6() {
    the_kernel_directs(&gue_by_the_kernel(), 1).await;
}

/// Moves a node's addresses to an 802.1Q device on its uplink, and the router's to one on the other end.
fn tag(topology: &Topology, number: usize, id: u16) {
    let (node, port) = (&topology.nodes[number], format!("node{}", number + 1));
    for (netns, device, addresses) in
        [(&topology.router, port.as_str(), node.gateways), (&node.netns, UPLINK, node.addresses)]
    {
        // A veth hands the tag over beside the frame unless told otherwise, where no XDP program sees it.
        netns.run("ethtool", &["-K", device, "txvlan", "off", "rxvlan", "off"]).unwrap();
        netns.ip(&format!("link add link {device} name tagged{id} type vlan id {id}")).unwrap();
        netns.ip(&format!("addr flush dev {device} scope global")).unwrap();
        netns.ip(&format!("link set tagged{id} up")).unwrap();
        let [ipv4, ipv6] = addresses;
        netns.ip(&format!("addr add {ipv4}/24 dev tagged{id}")).unwrap();
        netns.ip(&format!("addr add {ipv6}/64 dev tagged{id} nodad")).unwrap();
    }
    let [ipv4, ipv6] = node.gateways;
    node.netns.ip(&format!("-4 route replace default via {ipv4} dev tagged{id}")).unwrap();
    node.netns.ip(&format!("-6 route replace default via {ipv6} dev tagged{id}")).unwrap();
}

/// The program sits on the uplink and sees tagged frames; addresses, routes and next hops are those of the 802.1Q device.
#[tokio::test]
async fn a_director_on_the_parent_of_a_vlan_device_takes_and_sends_tagged_frames() {
    let mut bed = Bed::build(&[0, 1]);
    tag(&bed.topology, 0, 100);
    for vip in VIPS {
        bed.topology.enter_by(vip, &[0]).unwrap();
    }
    let backends = [bed.topology.nodes[0].addresses[0], bed.topology.nodes[1].addresses[0]];
    bed.start_agent(0, Delivery::Auto, &backends).await;
    bed.start_agent(1, Delivery::Auto, &backends).await;
    for vip in VIPS {
        let before = bed.counters();
        let mut answering = BTreeSet::new();
        let mut rounds = 0;
        // Which backend a port falls to is up to the hash; that sixty ports fall to one is not to be expected.
        while answering.len() < 2 && rounds < 5 {
            answering.append(&mut bed.ask(vip));
            rounds += 1;
        }
        assert_eq!(answering.into_iter().collect::<Vec<_>>(), ["node-1", "node-2"], "{vip}");
        let grown = bed.counters().since(&before);
        assert_eq!(grown, grown.only(&["local", "gue"]), "{vip}");
        assert_eq!(grown.get("local") + grown.get("gue"), rounds * QUESTIONS, "{vip}: {grown:?}");
    }
}
