//! An agent that cannot start says what is wrong and what to do, and ends within seconds.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use anyhow::ensure;
use lb_agent::model::Protocol;
use netns_tests::{
    agent::Agent,
    cluster::PORT,
    config::{AgentConfig, ServiceConfig},
    link::{End, attach},
    pass::Action,
    process::Process,
    scope::{Scope, binary},
    topology::{Fabric, Topology, UPLINK, VIPS},
    wait,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long an agent may take to find out that it cannot start.
const LIMIT: Duration = Duration::from_secs(10);

struct Bed {
    topology: Topology,
    scope: Scope,
}

fn build() -> Bed {
    let scope = Scope::new().unwrap();
    let topology = Topology::build(&scope, Fabric::Routed, 1).unwrap();
    Bed { topology, scope }
}

/// No [`Agent`] cleans up after an agent that did not start.
impl Drop for Bed {
    fn drop(&mut self) {
        if let Ok(pins) = self.scope.pin_path(&self.topology.nodes[0].name) {
            // Most refusals come before anything is pinned.
            let _ = fs::remove_dir_all(pins);
        }
    }
}

impl Bed {
    fn config(&self, vip: IpAddr) -> AgentConfig {
        let config = AgentConfig::for_node(&self.scope, &self.topology, 0).unwrap();
        let service = ServiceConfig::on_all_nodes(&self.topology, "api", &[vip], Protocol::Tcp, PORT);
        config.with_service(service)
    }

    /// Starts an agent behind the words of `wrapper`, waits for its end, and returns its file and what it said.
    async fn refused(&self, config: &AgentConfig, wrapper: &[&str]) -> (String, String) {
        let file = self.scope.file("refused.yaml");
        fs::write(&file, config.to_string()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let words = wrapper.iter().map(ToString::to_string);
        let words: Vec<String> = words.chain([binary("lb-agent").unwrap().display().to_string()]).collect();
        let mut command = self.topology.nodes[0].netns.command(&words[0]);
        command.args(&words[1..]).args(["run", "--config"]).arg(&file);
        let mut process = Process::spawn(&self.scope, "refused", &mut command).unwrap();
        let look = || {
            let status = process.exit_status();
            async { status?.ok_or_else(|| anyhow::anyhow!("it runs")) }
        };
        let ended = wait::until("the agent to end", LIMIT, look).await;
        let said = fs::read_to_string(process.log()).unwrap();
        let (status, _) = ended.unwrap_or_else(|error| panic!("{error:#}\n{said}"));
        assert!(status.code().is_some_and(|code| code != 0), "{status}: {said}");
        (file.display().to_string(), said)
    }
}

/// Where `text` begins in the configuration, as `line:column`.
fn place(config: &AgentConfig, text: &str) -> String {
    let yaml = config.to_string();
    let (line, column) =
        yaml.lines().enumerate().find_map(|(line, words)| Some((line + 1, words.find(text)? + 1))).unwrap();
    format!("{line}:{column}")
}

fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "no `{part}` in:\n{said}");
    }
}

#[tokio::test]
async fn an_unknown_key_is_named_with_its_place() {
    let bed = build();
    let mut config = bed.config(VIPS[0]);
    "colour: blue\n".clone_into(&mut config.extra);
    let (file, said) = bed.refused(&config, &[]).await;
    says(&said, &[&format!("{file}:{}: unknown key `colour`", place(&config, "colour")), "known are"]);
}

#[tokio::test]
async fn an_absent_interface_is_named_beside_those_that_are_there() {
    let bed = build();
    let mut config = bed.config(VIPS[0]);
    config.interfaces = vec!["eth7".to_owned()];
    let (file, said) = bed.refused(&config, &[]).await;
    let line = place(&config, "- {name: eth7");
    let line = line.split(':').next().unwrap();
    says(&said, &[&format!("{file}:{line}:"), "`eth7` is absent", UPLINK]);
}

#[tokio::test]
async fn a_vip_that_hosts_on_the_link_would_ask_for_is_refused() {
    let bed = build();
    let vip = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 77));
    let config = bed.config(vip);
    let (file, said) = bed.refused(&config, &[]).await;
    assert!(!config.pin_path.exists(), "nothing was pinned, so nothing is left");
    says(&said, &[&file, "10.0.1.77", "10.0.1.0/24", UPLINK, "choose an address outside"]);
}

#[tokio::test]
async fn a_vip_that_is_the_nodes_own_address_is_refused() {
    let _kept = promises::keeps(&["F17"], "the agent");
    let bed = build();
    let config = bed.config(bed.topology.nodes[0].addresses[0]);
    let (file, said) = bed.refused(&config, &[]).await;
    says(&said, &[&format!("{file}:"), "VIP 10.0.1.2", "address of"]);
}

#[tokio::test]
async fn a_foreign_xdp_program_stays_and_is_reported() {
    let bed = build();
    let end = End { netns: &bed.topology.nodes[0].netns, device: UPLINK };
    attach(&bed.scope, end, Action::Pass).unwrap();
    let program = || bed.topology.nodes[0].netns.ip("-j link show eth0").unwrap();
    let before = program();
    let (_, said) = bed.refused(&bed.config(VIPS[0]), &[]).await;
    says(&said, &["eth0 already has an XDP program that is not Levee's", "ip link set"]);
    assert_eq!(program(), before);
    // Nobody is sent here, where no packet would be directed.
    let netns = &bed.topology.nodes[0].netns;
    let vip = VIPS[0].to_string();
    let left = netns.ip("-o addr show dev lo").unwrap() + &netns.ip("route show table local proto 76").unwrap();
    assert!(!left.contains(&vip), "{left}");
}

#[tokio::test]
async fn missing_capabilities_are_named() {
    let bed = build();
    let powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"];
    let (_, said) = bed.refused(&bed.config(VIPS[0]), &powerless).await;
    says(&said, &["CAP_BPF", "CAP_NET_ADMIN", "run as root"]);
}

#[tokio::test]
async fn a_pin_path_that_is_on_no_bpf_filesystem_is_refused() {
    let bed = build();
    let mut config = bed.config(VIPS[0]);
    config.pin_path = bed.scope.file("pins");
    let (_, said) = bed.refused(&config, &[]).await;
    says(&said, &["is not on a BPF filesystem", "mount -t bpf bpf"]);
}

#[tokio::test]
async fn a_second_agent_is_refused_with_the_name_of_the_first() {
    let bed = build();
    let config = bed.config(VIPS[0]);
    let mut first = Agent::start(&bed.scope, &bed.topology.nodes[0].netns, &config).unwrap();
    first.wait_ready(PATIENCE).await.unwrap();
    let (_, said) = bed.refused(&config, &[]).await;
    let id = first.process().id().to_string();
    says(&said, &["another agent", "node-1", &id, "already runs on"]);
    let look = || async {
        ensure!(first.http("/readyz")?.0 == 200);
        Ok(())
    };
    wait::until("the first agent to go on", PATIENCE, look).await.unwrap();
}
