//! Path MTU discovery through directors: a client behind a hop of 1400 bytes downloads and uploads, though the router's
//! "too big" arrives at another director than the flow does, and though the client's packets do not fit the tunnel.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use lb_agent::model::{Delivery, Protocol};
use netns_tests::{
    cluster::Cluster,
    config::{AgentConfig, ServiceConfig},
    echo::{self, Kind},
    observe::{Counters, counters_at_rest, wait_for_hops, wait_until_settled},
    scope::Scope,
    topology::{CLIENT, Fabric, Topology, UPLINK, VIPS},
    wait,
};
use socket2::{Domain, Protocol as Number, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing may move. A lost packet is sent again within a second or two; what is always lost never arrives.
const LIMIT: Duration = Duration::from_secs(10);
const PORT: u16 = 9;
/// 160 messages of 64,000 bytes and their numbers: 10 MB each way.
const MESSAGES: (usize, u64) = (64_000, 160);
/// Longest packet that the router sends to the client, bytes.
const HOP: u16 = 1400;
/// Where flows enter, where ICMP enters, and where the only backend is.
const DIRECTOR: usize = 0;
const OTHER: usize = 1;
const BACKEND: usize = 2;

/// Three nodes whose links take 1500 bytes, as those of the client.
async fn build(fabric: Fabric, delivery: Delivery, mss_clamp: &'static str) -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), fabric, 3, &VIPS).unwrap();
    for node in &bed.topology.nodes {
        node.netns.ip(&format!("link set {UPLINK} mtu 1500")).unwrap();
    }
    let server = &bed.topology.nodes[BACKEND];
    let listen = format!("[::]:{PORT}").parse().unwrap();
    bed.echoes.push(echo::spawn(&bed.scope, &server.netns, Kind::Tcp, &server.name, &[listen]).unwrap());
    bed.start_agents(|topology, config| complete(topology, config, delivery, mss_clamp)).unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    wait_until_settled(&bed.agents, PATIENCE).await.unwrap();
    for (family, vip) in VIPS.into_iter().enumerate() {
        bed.topology.enter_by(vip, &[DIRECTOR]).unwrap();
        send_icmp_to(&bed.topology, vip, bed.topology.nodes[OTHER].addresses[family]);
        let client = CLIENT[family];
        bed.topology.router.ip(&format!("route replace {client} dev client mtu lock {HOP}")).unwrap();
    }
    bed
}

fn complete(topology: &Topology, config: AgentConfig, delivery: Delivery, mss_clamp: &'static str) -> AgentConfig {
    config.with_service(ServiceConfig {
        delivery,
        mss_clamp,
        flow_timeout: Some(Duration::from_secs(1)), // soon every slot is settled, and nothing gets a second chance
        backends: vec![(topology.nodes[BACKEND].addresses[0], 1)],
        ..ServiceConfig::on_all_nodes(topology, "echo", &VIPS, Protocol::Tcp, PORT)
    })
}

/// Makes the router send ICMP for `vip` to another node than all the rest.
fn send_icmp_to(topology: &Topology, vip: IpAddr, node: IpAddr) {
    let (family, protocol) = if vip.is_ipv4() { ("-4", "icmp") } else { ("-6", "ipv6-icmp") };
    topology.router.ip(&format!("{family} route add {vip} via {node} table 100")).unwrap();
    topology.router.ip(&format!("{family} rule add pref 100 to {vip} ipproto {protocol} lookup 100")).unwrap();
}

/// 10 MB go either way over each family; `sent` is what directors count, `taken` what the backend's node does.
async fn ten_megabytes_go_either_way(mut bed: Cluster, sent: &str, taken: &str, is_told: bool) {
    for vip in VIPS {
        let before = counters(&bed).await;
        let (size, count) = MESSAGES;
        let exchange = || echo::exchange_tcp(SocketAddr::new(vip, PORT), size, count, LIMIT);
        let server = bed.topology.client.enter(exchange).unwrap();
        let grown: Vec<_> = counters(&bed).await.iter().zip(&before).map(|(now, then)| now.since(then)).collect();
        let server = server.unwrap_or_else(|error| panic!("{vip}: {error:#}\n{grown:#?}\n{}", bed.log_tails()));
        assert_eq!(server, bed.topology.nodes[BACKEND].name);
        // The other director saw errors and nothing else, and sent each to the backend.
        let errors = grown[OTHER].get(sent);
        assert!(errors > 0, "{vip}: {grown:?}");
        assert_eq!(grown[OTHER], grown[OTHER].only(&[sent]), "{vip}: {grown:?}");
        assert_eq!(grown[BACKEND].get(taken), grown[DIRECTOR].get(sent) + errors, "{vip}: {grown:?}");
        assert_eq!(grown[DIRECTOR].get("too_big_told") > 0, is_told, "{vip}: {grown:?}");
        assert_eq!(grown[DIRECTOR], grown[DIRECTOR].only(&[sent, "too_big_told"]), "{vip}: {grown:?}");
    }
}

async fn counters(bed: &Cluster) -> Vec<Counters> {
    counters_at_rest(&bed.agents, PATIENCE).await.unwrap()
}

#[tokio::test]
async fn ten_megabytes_go_through_l2() {
    let bed = build(Fabric::Segment, Delivery::L2, "auto").await;
    ten_megabytes_go_either_way(bed, "l2", "local", false).await;
}

/// The client's first packets of full size fit its own link, and no tunnel: it has to be told.
#[tokio::test]
async fn ten_megabytes_go_through_ipip() {
    let bed = build(Fabric::Routed, Delivery::Ipip, "off").await;
    ten_megabytes_go_either_way(bed, "ipip", "terminated", true).await;
}

#[tokio::test]
async fn ten_megabytes_go_through_gue() {
    let bed = build(Fabric::Routed, Delivery::Gue, "off").await;
    ten_megabytes_go_either_way(bed, "gue", "terminated", true).await;
}

/// The servers ask for segments that fit the tunnels.
#[tokio::test]
async fn with_segment_sizes_bounded_nothing_is_too_big() {
    for (delivery, sent) in [(Delivery::Ipip, "ipip"), (Delivery::Gue, "gue")] {
        let bed = build(Fabric::Routed, delivery, "auto").await;
        ten_megabytes_go_either_way(bed, sent, "terminated", false).await;
    }
}

/// Segments that the client of a new connection sends, in bytes, over each family.
fn segments(bed: &Cluster) -> [u32; 2] {
    VIPS.map(|vip| {
        let connect = || {
            let socket = Socket::new(Domain::for_address(SocketAddr::new(vip, PORT)), Type::STREAM, None).unwrap();
            socket.connect_timeout(&SocketAddr::new(vip, PORT).into(), LIMIT).unwrap();
            socket.tcp_mss().unwrap()
        };
        bed.topology.client.enter(connect).unwrap()
    })
}

/// The bound is there while the agent is not, is adopted, and goes with the configuration or with `lbctl detach`.
#[tokio::test]
async fn segment_sizes_stay_bounded_while_the_agent_is_away() {
    // Headers of IP and TCP, and the time stamps in every segment.
    const FREE: [u32; 2] = [1500 - 20 - 20 - 12, 1500 - 40 - 20 - 12];
    // GUE over IPv4 adds 32 bytes.
    const BOUNDED: [u32; 2] = [FREE[0] - 32, FREE[1] - 32];
    let mut bed = build(Fabric::Routed, Delivery::Gue, "auto").await;
    assert_eq!(segments(&bed), BOUNDED);
    bed.agents[BACKEND].process().terminate().unwrap();
    assert_eq!(segments(&bed), BOUNDED, "without an agent");
    let scope = &bed.scope;
    bed.agents[BACKEND].start_again(scope).unwrap();
    bed.agents[BACKEND].wait_ready(PATIENCE).await.unwrap();
    assert_eq!(segments(&bed), BOUNDED, "adopted");

    let pinned = bed.agents[BACKEND].pin_path().join("clamps").join(UPLINK);
    for (clamp, expected) in [("off", FREE), ("1200", [1200 - 12; 2])] {
        let own = AgentConfig::for_node(&bed.scope, &bed.topology, BACKEND).unwrap();
        bed.agents[BACKEND].reconfigure(&complete(&bed.topology, own, Delivery::Gue, clamp)).unwrap();
        let look = || async {
            let found = (segments(&bed), pinned.exists());
            anyhow::ensure!(found == (expected, clamp != "off"), "{found:?}");
            Ok(())
        };
        let waited = wait::until(clamp, PATIENCE, look).await;
        waited.unwrap_or_else(|error| panic!("{error:#}\n{}", bed.agents[BACKEND].process().log_tail(20)));
    }
    bed.agents[BACKEND].process().terminate().unwrap();
    bed.agents[BACKEND].lbctl(&["detach"]).unwrap();
    assert!(!pinned.exists());
}

/// A traceroute sees the router, the director and the backend's node, in this order, and no packet goes round.
#[tokio::test]
async fn a_traceroute_ends_at_the_vip() {
    let bed = build(Fabric::Routed, Delivery::Gue, "auto").await;
    for (family, vip) in VIPS.into_iter().enumerate() {
        let before = counters(&bed).await;
        let hops: Vec<IpAddr> = (1..=3).map(|ttl| bed.topology.client.enter(|| hop(vip, ttl)).unwrap()).collect();
        let router = if vip.is_ipv4() { "10.9.0.1" } else { "fd00:9::1" };
        let director = bed.topology.nodes[DIRECTOR].addresses[family];
        assert_eq!(hops, [router.parse().unwrap(), director, vip]);
        let grown = counters(&bed).await[DIRECTOR].since(&before[DIRECTOR]);
        assert_eq!(grown.get("time_exceeded_told"), 1, "{grown:?}");
    }
}

/// Who answers a SYN to `vip` of this TTL: the VIP itself, or the sender of "time exceeded".
fn hop(vip: IpAddr, ttl: u32) -> IpAddr {
    let (domain, number, time_exceeded) =
        if vip.is_ipv4() { (Domain::IPV4, Number::ICMPV4, 11) } else { (Domain::IPV6, Number::ICMPV6, 3) };
    let errors = Socket::new(domain, Type::RAW, Some(number)).unwrap();
    errors.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let errors = UdpSocket::from(OwnedFd::from(errors)); // for its `recv_from`
    let probe = Socket::new(domain, Type::STREAM, None).unwrap();
    if vip.is_ipv4() {
        probe.set_ttl_v4(ttl).unwrap();
    } else {
        probe.set_unicast_hops_v6(ttl).unwrap();
    }
    probe.set_nonblocking(true).unwrap();
    let connecting = probe.connect(&SocketAddr::new(vip, PORT).into()).unwrap_err();
    assert_eq!(connecting.raw_os_error(), Some(nix::libc::EINPROGRESS));
    let (start, mut buffer) = (Instant::now(), [0; 512]);
    while start.elapsed() < LIMIT {
        if probe.peer_addr().is_ok() {
            return vip;
        }
        let Ok((_, from)) = errors.recv_from(&mut buffer) else {
            continue;
        };
        // A raw IPv4 socket hands over the IP header as well.
        let at = if vip.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
        if buffer[at] == time_exceeded {
            return from.ip();
        }
    }
    panic!("nobody answered a SYN to {vip} of TTL {ttl}");
}
