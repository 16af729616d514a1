//! A real agent with many services, in a namespace of its own behind a router.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb_agent::{
    dataplane::{PinDirectory, Tables},
    model::Protocol,
};
use lb_common::{addr::Be16, maps::services::VipKey};
use netns_tests::{
    agent::Agent,
    config::{AgentConfig, ServiceConfig},
    scope::Scope,
    topology::{Fabric, Topology},
};

/// Endpoints of each service.
pub const ENDPOINTS: u32 = 10;
const PORT: u16 = 8080;
/// The first VIP and the first endpoint. Endpoints are behind the router, so each has a way, and none has to exist.
const FIRST_VIP: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const FIRST_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
/// How long an agent with every service may take to start.
const STARTING: Duration = Duration::from_secs(300);
/// How long a change may take to arrive.
const ARRIVING: Duration = Duration::from_secs(60);
/// Between two looks at the kernel's word.
const PAUSE: Duration = Duration::from_micros(100);

/// The agent, what it is told, and the maps it keeps. Dropped from first to last.
pub struct Node {
    agent: Agent,
    config: AgentConfig,
    tables: Tables,
    /// Index of the service that is changed.
    watched: u32,
    /// Where the next configuration is written: a folder that the agent does not watch.
    beside: PathBuf,
    changes: u32,
    /// From the start of the process to its first plan in force.
    pub started_in: Duration,
    _topology: Topology,
    _scope: Scope,
}

impl Node {
    /// Starts an agent with `services` services of [`ENDPOINTS`] endpoints each.
    ///
    /// # Errors
    /// Without root, or if the agent does not get ready.
    pub fn start(services: u32) -> Result<Self> {
        let scope = Scope::new()?;
        let topology = Topology::build(&scope, Fabric::Routed, 1)?;
        let config = config(&scope, &topology, services)?;
        let mut agent = Agent::start(&scope, &topology.nodes[0].netns, &config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
        let started_in = runtime.block_on(agent.wait_ready(STARTING))?;
        let pins = PinDirectory::new(agent.pin_path());
        let tables = Tables::open(|name| pins.map(name))?;
        let key = VipKey::new(vip(services / 2).into(), Be16::new(PORT), Protocol::Tcp.number());
        let watched = tables.services.get(&key, 0).context("looking for the service that is to be changed")?.index;
        let beside = scope.file("beside");
        fs::create_dir(&beside).with_context(|| format!("making {}", beside.display()))?;
        let changes = 0;
        Ok(Self { agent, config, tables, watched, beside, changes, started_in, _topology: topology, _scope: scope })
    }

    /// Replaces one endpoint of the service in the middle and returns how long it took from the file's change until
    /// the kernel's word names the new ring.
    ///
    /// # Errors
    /// If it does not arrive.
    pub fn change(&mut self) -> Result<Duration> {
        self.changes += 1;
        let middle = self.config.services.len() / 2;
        self.config.services[middle].backends[0].0 = spare(self.changes);
        let next = self.beside.join("levee.yaml");
        fs::write(&next, self.text()).with_context(|| format!("writing {}", next.display()))?;
        fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).context("closing the file to others")?;
        let before = self.word()?;
        let start = Instant::now();
        fs::rename(&next, self.agent.file()).context("replacing the configuration")?;
        while self.word()? == before {
            ensure!(start.elapsed() < ARRIVING, "no change arrived within {} s", ARRIVING.as_secs());
            thread::sleep(PAUSE);
        }
        Ok(start.elapsed())
    }

    /// The configuration file as it is now.
    #[must_use]
    pub fn text(&self) -> String {
        self.config.to_string()
    }

    /// The configuration file as it was before the last change.
    #[must_use]
    pub fn text_before(&self) -> String {
        let mut config = self.config.clone();
        let middle = config.services.len() / 2;
        config.services[middle].backends[0].0 = spare(self.changes.saturating_sub(1));
        config.to_string()
    }

    /// The agent's process id.
    pub fn process(&mut self) -> u32 {
        self.agent.process().id()
    }

    /// Seconds that the agent spent in all on deciding and on applying, and the number of plans.
    ///
    /// # Errors
    /// If its metrics cannot be read.
    pub fn plans(&self) -> Result<[f64; 3]> {
        let metric = |name: &str| self.agent.metric(name)?.with_context(|| format!("the agent has no metric {name}"));
        Ok([
            metric("levee_plan_duration_seconds_sum")?,
            metric("levee_apply_duration_seconds_sum")?,
            metric("levee_plan_duration_seconds_count")?,
        ])
    }

    fn word(&self) -> Result<u64> {
        self.tables.published.get(&self.watched, 0).context("reading PUBLISHED")
    }
}

fn config(scope: &Scope, topology: &Topology, services: u32) -> Result<AgentConfig> {
    let mut config = AgentConfig::for_node(scope, topology, 0)?;
    config.services = (0..services)
        .map(|number| ServiceConfig {
            backends: (0..ENDPOINTS).map(|at| (endpoint(number * ENDPOINTS + at), 1)).collect(),
            probe: None,
            ..ServiceConfig::on_all_nodes(topology, &format!("service-{number}"), &[vip(number)], Protocol::Tcp, PORT)
        })
        .collect();
    let slots = config.services.first().map_or(0, |service| service.ring_size);
    config.extra = format!(
        "capacities: {{services: {}, backends: {}, ringSlots: {}, addresses: {}}}\n",
        services + 8,
        (services + 8) * ENDPOINTS,
        (services + 8) * slots,
        services + 8
    );
    Ok(config)
}

fn vip(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(FIRST_VIP.to_bits() + number).into()
}

fn endpoint(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(FIRST_ENDPOINT.to_bits() + number).into()
}

/// An endpoint that no service has at the start.
fn spare(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 255, 0, 0).to_bits() + number).into()
}
