//! The agent's configuration file, written from values. Keys that are not here keep their defaults.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use anyhow::Result;
use lb_agent::model::{AnnounceWhen, Delivery, Protocol};

use crate::{
    scope::Scope,
    topology::{Topology, UPLINK},
};

/// Key of the flow hash in every testbed, so that a 5-tuple takes the same way in every run.
const SECRET: &str = "000102030405060708090a0b0c0d0e0f";

/// One agent's configuration; its `Display` is the YAML.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Name and addresses of the node.
    pub node: (String, Vec<IpAddr>),
    /// Interfaces that carry the XDP program.
    pub interfaces: Vec<String>,
    /// `auto`, `native` or `generic`.
    pub mode: String,
    /// 32 hexadecimal digits.
    pub secret: String,
    /// Names and addresses of the other directors.
    pub peers: Vec<(String, Vec<IpAddr>)>,
    /// Services.
    pub services: Vec<ServiceConfig>,
    /// Announcements by the loopback announcer.
    pub announcements: Vec<AnnouncementConfig>,
    /// `keep` or `withdraw`.
    pub on_terminate: String,
    /// Pin directory of this agent alone.
    pub pin_path: PathBuf,
    /// Socket of this agent alone.
    pub socket: PathBuf,
    /// Lines put at the end as they are, for keys that have no field here.
    pub extra: String,
}

/// One entry of `services`.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Unique name.
    pub name: String,
    /// Virtual addresses.
    pub vips: Vec<IpAddr>,
    /// Ports; a single 0 stands for all.
    pub ports: Vec<u16>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Way to a backend on another node.
    pub delivery: Delivery,
    /// Slots of the ring.
    pub ring_size: u32,
    /// Addresses and weights.
    pub backends: Vec<(IpAddr, u16)>,
    /// Whether packets to its VIPs that are for no service are dropped.
    pub drop_unmatched: bool,
    /// Value of `mssClamp`.
    pub mss_clamp: &'static str,
    /// Probes; `None` believes every backend healthy.
    pub probe: Option<ProbeConfig>,
    /// What the probes ask, in YAML (`https: {...}`); empty to connect to the service's port.
    pub question: String,
    /// Time until a backend that joins others has its whole weight, whole seconds; 0 for at once.
    pub slow_start: Duration,
    /// How long a recorded flow may be silent, whole seconds; `None` for the agent's default.
    pub flow_timeout: Option<Duration>,
    /// Prefixes of clients that are admitted; none admits everybody.
    pub source_ranges: Vec<String>,
    /// Lines of YAML put at the end as they are, without their indent, for keys that have no field here.
    pub extra: Vec<String>,
}

/// A probe.
#[derive(Clone, Copy, Debug)]
pub struct ProbeConfig {
    /// From start to start, whole milliseconds.
    pub interval: Duration,
    /// Limit of one probe, whole milliseconds.
    pub timeout: Duration,
    /// Successes until healthy.
    pub rise: u8,
    /// Failures until failed.
    pub fall: u8,
}

/// One entry of `announcements`.
#[derive(Clone, Debug)]
pub struct AnnouncementConfig {
    /// VIPs of services.
    pub vips: Vec<IpAddr>,
    /// When they are announced.
    pub when: AnnounceWhen,
    /// Lifetime of the address, whole seconds.
    pub lifetime: Duration,
}

impl AgentConfig {
    /// The configuration of the agent on the node at `index`: its peers are the other nodes, services are to be added.
    ///
    /// # Errors
    /// If no bpffs is mounted.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn for_node(scope: &Scope, topology: &Topology, index: usize) -> Result<Self> {
        let node = &topology.nodes[index];
        let others = topology.nodes.iter().filter(|other| other.number != node.number);
        Ok(Self {
            node: (node.name.clone(), node.addresses.into()),
            interfaces: vec![UPLINK.to_owned()],
            mode: "auto".to_owned(),
            secret: SECRET.to_owned(),
            peers: others.map(|other| (other.name.clone(), other.addresses.into())).collect(),
            services: Vec::new(),
            announcements: Vec::new(),
            on_terminate: "keep".to_owned(),
            pin_path: scope.pin_path(&node.name)?,
            socket: scope.file(&format!("{}.sock", node.name)),
            extra: String::new(),
        })
    }

    /// Adds a service, and announces its VIPs while a backend here is healthy.
    #[must_use]
    pub fn with_service(mut self, service: ServiceConfig) -> Self {
        self.announcements.push(AnnouncementConfig {
            vips: service.vips.clone(),
            when: AnnounceWhen::LocalBackend,
            lifetime: Duration::from_secs(10),
        });
        self.services.push(service);
        self
    }
}

impl ServiceConfig {
    /// A service on `vips` and `port` with every node of the topology as a backend of weight 1, by its IPv4 address,
    /// probed five times a second: a backend falls after 2 failures and rises after 2 successes.
    #[must_use]
    pub fn on_all_nodes(topology: &Topology, name: &str, vips: &[IpAddr], protocol: Protocol, port: u16) -> Self {
        let interval = Duration::from_millis(200);
        // A UDP service has no port to connect to.
        let probe = ProbeConfig { interval, timeout: interval, rise: 2, fall: 2 };
        Self {
            name: name.to_owned(),
            vips: vips.to_vec(),
            ports: vec![port],
            protocol,
            delivery: Delivery::Auto,
            ring_size: 4096,
            backends: topology.nodes.iter().map(|node| (node.addresses[0], 1)).collect(),
            drop_unmatched: true,
            mss_clamp: "auto",
            probe: (protocol == Protocol::Tcp).then_some(probe),
            question: String::new(),
            slow_start: Duration::ZERO,
            flow_timeout: None,
            source_ranges: Vec::new(),
            extra: Vec::new(),
        }
    }
}

impl fmt::Display for AgentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, addresses) = &self.node;
        writeln!(f, "node: {{name: {name}, addresses: {}}}", list(addresses))?;
        writeln!(f, "interfaces:")?;
        for interface in &self.interfaces {
            writeln!(f, "  - {{name: {interface}, mode: {}}}", self.mode)?;
        }
        writeln!(f, "secret: \"{}\"", self.secret)?;
        writeln!(f, "peers:{}", if self.peers.is_empty() { " []" } else { "" })?;
        for (name, addresses) in &self.peers {
            writeln!(f, "  - {{name: {name}, addresses: {}}}", list(addresses))?;
        }
        writeln!(f, "services:{}", if self.services.is_empty() { " []" } else { "" })?;
        self.services.iter().try_for_each(|service| service.fmt(f))?;
        writeln!(f, "announcements:{}", if self.announcements.is_empty() { " []" } else { "" })?;
        for AnnouncementConfig { vips, when, lifetime } in &self.announcements {
            let when = if *when == AnnounceWhen::Always { "always" } else { "localBackend" };
            writeln!(f, "  - vips: {}\n    announcer: loopback\n    when: {when}", list(vips))?;
            writeln!(f, "    lifetime: {}s", lifetime.as_secs())?;
        }
        writeln!(f, "onTerminate: {}\nhttp: 127.0.0.1:{}", self.on_terminate, crate::agent::HTTP_PORT)?;
        writeln!(f, "pinPath: {}\nsocket: {}", self.pin_path.display(), self.socket.display())?;
        f.write_str(&self.extra)
    }
}

impl fmt::Display for ServiceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  - name: {}\n    vips: {}\n    ports: {:?}", self.name, list(&self.vips), self.ports)?;
        writeln!(f, "    protocol: {}\n    delivery: {}", self.protocol, self.delivery)?;
        writeln!(f, "    ringSize: {}", self.ring_size)?;
        writeln!(f, "    dropUnmatched: {}\n    slowStart: {}s", self.drop_unmatched, self.slow_start.as_secs())?;
        if let Some(timeout) = self.flow_timeout {
            writeln!(f, "    flowTimeout: {}s", timeout.as_secs())?;
        }
        writeln!(f, "    mssClamp: {}", self.mss_clamp)?;
        writeln!(f, "    sourceRanges: {:?}", self.source_ranges)?;
        self.extra.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        writeln!(f, "    backends:{}", if self.backends.is_empty() { " []" } else { "" })?;
        for (address, weight) in &self.backends {
            writeln!(f, "      - {{address: \"{address}\", weight: {weight}}}")?;
        }
        let Some(ProbeConfig { interval, timeout, rise, fall }) = self.probe else {
            return writeln!(f, "    probe: none");
        };
        let (interval, timeout) = (interval.as_millis(), timeout.as_millis());
        let comma = if self.question.is_empty() { "" } else { ", " };
        let question = format!("{}{comma}", self.question);
        writeln!(f, "    probe: {{{question}interval: {interval}ms, timeout: {timeout}ms, rise: {rise}, fall: {fall}}}")
    }
}

/// A list in YAML's flow style; IPv6 addresses need the quotes.
fn list(addresses: &[IpAddr]) -> String {
    let quoted: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    format!("[{}]", quoted.join(", "))
}
