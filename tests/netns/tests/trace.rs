//! `lbctl trace`: packets are told while somebody listens, by a program that comes and goes without a packet lost.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, ensure};
use lb_agent::{inspect::linked_program, model::Protocol};
use netns_tests::{
    agent::Agent,
    cluster::{Cluster, PORT},
    config::ServiceConfig,
    flood::{Flood, Plan},
    observe::{Counters, wait_for_hops},
    process::Process,
    scope::{Scope, binary},
    topology::{Fabric, VIPS},
    wait,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(5);
/// The port of the UDP service.
const UDP_PORT: u16 = 5353;
/// Times that somebody begins and ends to listen under traffic.
const TURNS: usize = 8;

/// Two nodes, both directors, with an HTTPS service and a UDP service; the client's traffic comes in by the first.
async fn build() -> Cluster {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 2, &VIPS).unwrap();
    bed.start_servers().unwrap();
    bed.start_udp_echoes(&[UDP_PORT]).unwrap();
    for vip in VIPS {
        bed.topology.enter_by(vip, &[0]).unwrap();
    }
    bed.start_agents(|topology, config| {
        let service = |name, protocol, port| ServiceConfig::on_all_nodes(topology, name, &VIPS, protocol, port);
        let mut config = config.with_service(service("api", Protocol::Tcp, PORT));
        config.services.push(service("echo", Protocol::Udp, UDP_PORT));
        config
    })
    .unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
    }
    bed
}

/// Starts `lbctl trace --output json` on the first node, and waits until packets are told of.
async fn listen(bed: &Cluster, name: &str, arguments: &[&str]) -> Process {
    let agent = &bed.agents[0];
    let mut command = bed.topology.nodes[0].netns.command(binary("lbctl").unwrap());
    command.arg("--pin-path").arg(agent.pin_path()).arg("--socket").arg(agent.socket());
    command.args(["--output", "json", "trace"]).args(arguments);
    let process = Process::spawn(&bed.scope, name, &mut command).unwrap();
    wait_for_program(agent, true, &process).await;
    process
}

/// Name of the program under the pinned link of a node's uplink.
fn program(agent: &Agent) -> anyhow::Result<String> {
    Ok(linked_program(agent.pin_path(), netns_tests::topology::UPLINK)?.1)
}

/// Waits until the tracing program, or the plain one, is under the link.
async fn wait_for_program(agent: &Agent, tracing: bool, listener: &Process) {
    let look = || async {
        let name = program(agent)?;
        ensure!(name.starts_with("levee_trace") == tracing && name.starts_with("levee"), "{name}");
        Ok(())
    };
    let waited = wait::until(&format!("the tracing program to be on the interface: {tracing}"), PATIENCE, look).await;
    waited.unwrap_or_else(|error| panic!("{error:#}\n{}", listener.log_tail(20)));
}

/// Waits for the end of a listener that counts, and returns its lines.
async fn told(mut listener: Process) -> Vec<Value> {
    let look = || {
        let status = listener.exit_status();
        async { status?.context("it listens") }
    };
    let (status, _) = wait::until("the listener to have enough", PATIENCE, look).await.unwrap();
    assert!(status.success(), "{status}: {}", listener.log_tail(20));
    lines(&listener)
}

fn lines(listener: &Process) -> Vec<Value> {
    let text = fs::read_to_string(listener.log()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

#[tokio::test]
async fn a_connection_is_told_of_with_names_and_the_plain_program_comes_back() {
    let mut bed = build().await;
    let listener = listen(&bed, "listener", &["--service", "api", "--client", "10.0.0.0/8", "-n", "5"]).await;
    let client = bed.client(VIPS[0], LIMIT).unwrap();
    let request = bed.runtime.spawn(async move { client.request().await });
    let (greeting, _) = request.await.unwrap().unwrap();
    let events = told(listener).await;
    assert_eq!(events.len(), 5, "{events:?}");
    let address = |name: &str| {
        let node = bed.topology.nodes.iter().find(|node| node.name == name).unwrap();
        node.addresses[0].to_string()
    };
    let here = greeting.server == bed.topology.nodes[0].name;
    for event in &events {
        assert_eq!((&event["protocol"], &event["service"]), (&"tcp".into(), &"api".into()), "{event}");
        let to = (&event["destination"], &event["destinationPort"]);
        assert_eq!(to, (&VIPS[0].to_string().into(), &PORT.into()), "{event}");
        assert_eq!(event["sourcePort"], events[0]["sourcePort"], "one connection: {event}");
        assert_eq!(event["backend"]["address"], address(&greeting.server), "{event}");
        assert_eq!((&event["dropped"], event["result"] == "local"), (&false.into(), here), "{event}");
        assert_eq!(event["interface"], netns_tests::topology::UPLINK, "{event}");
    }
    // The others of the connection may come after the listener left.
    let gone = Process::spawn(&bed.scope, "nobody", &mut std::process::Command::new("true")).unwrap();
    wait_for_program(&bed.agents[0], false, &gone).await;
    let log = bed.agents[0].process().log_tail(40);
    assert!(log.contains("nobody listens any more"), "{log}");
}

#[tokio::test]
async fn drops_are_told_of_with_their_reason() {
    let bed = build().await;
    let listener = listen(&bed, "drops", &["--drops", "-n", "1"]).await;
    let target = SocketAddr::new(VIPS[1], 9);
    let sent = bed.topology.client.enter(|| {
        let socket = std::net::UdpSocket::bind("[::]:0")?;
        socket.send_to(b"anybody?", target)
    });
    sent.unwrap().unwrap();
    let events = told(listener).await;
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&event["dropped"], &event["result"]), (&true.into(), &"no_service".into()), "{event}");
    assert_eq!(event["destination"].as_str().unwrap().parse::<IpAddr>().unwrap(), VIPS[1]);
    assert_eq!((&event["service"], &event["backend"]), (&Value::Null, &Value::Null), "{event}");
}

#[tokio::test]
async fn no_packet_is_lost_while_listeners_come_and_go_or_die() {
    let bed = build().await;
    let before = Counters::of(&bed.agents[0]).unwrap();
    // Late is not lost: a busy machine can let an answer wait for more than a second.
    let (pause, patience) = (Duration::from_millis(1), Duration::from_secs(10));
    let plan = Plan { pause, patience, ..Plan::new(SocketAddr::new(VIPS[0], UDP_PORT), u64::MAX) };
    let flood = Flood::start(&bed.topology.client, plan, |_, _| true).unwrap();
    for turn in 0..TURNS {
        let mut listener = listen(&bed, &format!("turn-{turn}"), &["--service", "echo", "--rate", "200"]).await;
        let look = || async {
            ensure!(fs::read_to_string(listener.log())?.lines().count() > 10, "too few lines");
            Ok(())
        };
        wait::until("packets to be told of", PATIENCE, look).await.unwrap();
        if turn % 2 == 0 {
            listener.kill().unwrap();
        } else {
            listener.terminate().unwrap();
        }
        wait_for_program(&bed.agents[0], false, &listener).await;
    }
    let report = flood.stop().unwrap();
    assert!(report.sent > 5_000, "{report:?}");
    assert_eq!((report.lost, report.stray), (0, 0), "{report:?}");
    let counted = Counters::of(&bed.agents[0]).unwrap().since(&before);
    let forwarded: u64 = ["local", "l2", "gue"].iter().map(|label| counted.get(label)).sum();
    assert!(forwarded >= report.sent, "every packet is counted, whichever program took it: {counted:?}, {report:?}");
}
