//! XDP in generic mode: forwards as native mode does, and is refused behind offloads that merge packets.

use std::time::Duration;

use lb_agent::model::{Delivery, Protocol};
use netns_tests::{
    cluster::{Cluster, PORT},
    config::{AgentConfig, ServiceConfig},
    observe::{Counters, wait_for_hops},
    scope::Scope,
    topology::{Fabric, Topology, UPLINK, VIPS},
    traffic::{Tally, burst},
    wait,
};

const LIMIT: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(20);

/// Three nodes behind the VIPs, each with a configuration in generic mode that agents have not been started by yet.
fn generic(topology: &Topology, config: AgentConfig) -> AgentConfig {
    let service = ServiceConfig {
        delivery: Delivery::Gue,
        ..ServiceConfig::on_all_nodes(topology, "api", &VIPS, Protocol::Tcp, PORT)
    };
    AgentConfig { mode: "generic".to_owned(), ..config }.with_service(service)
}

#[tokio::test]
async fn generic_mode_forwards_and_says_that_it_is_generic() {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 3, &VIPS).unwrap();
    bed.start_servers().unwrap();
    bed.start_agents(generic).unwrap();
    bed.wait_ready(PATIENCE).await.unwrap();
    for agent in &bed.agents {
        wait_for_hops(agent, PATIENCE).await.unwrap();
        let status = agent.lbctl_json(&["status"]).unwrap();
        assert!(status.to_string().contains("\"generic\""), "{status}");
    }
    for vip in VIPS {
        bed.topology.enter_by(vip, &[0]).unwrap();
        let client = bed.client(vip, LIMIT).unwrap();
        let tally = Tally::of(&burst(&bed.runtime, &client, 60, 4).await);
        assert_eq!(tally.answered(), 60, "{tally:?}\n{}", bed.log_tails());
    }
    let counters = Counters::of(&bed.agents[0]).unwrap();
    assert!(counters.get("gue") > 0 && counters.get("local") > 0, "{counters:?}");
}

#[tokio::test]
async fn generic_mode_behind_gro_is_refused_with_the_command_that_helps() {
    let mut bed = Cluster::build(Scope::new().unwrap(), Fabric::Routed, 1, &VIPS).unwrap();
    bed.topology.nodes[0].netns.run("ethtool", &["-K", UPLINK, "gro", "on"]).unwrap();
    bed.start_agents(generic).unwrap();
    let agent = &mut bed.agents[0];
    let ended = wait::until("the agent to end", PATIENCE, || {
        let status = agent.process().exit_status();
        async { status?.ok_or_else(|| anyhow::anyhow!("it runs")) }
    });
    let (status, _) = ended.await.unwrap();
    assert!(!status.success(), "{status}");
    let said = bed.log_tails();
    for part in ["eth0 has XDP in generic mode", "rx-gro", "ethtool -K eth0 gro off lro off"] {
        assert!(said.contains(part), "no `{part}` in:\n{said}");
    }
    let link = bed.topology.nodes[0].netns.ip("-d link show eth0").unwrap();
    assert!(!link.contains("xdp"), "{link}");
}
