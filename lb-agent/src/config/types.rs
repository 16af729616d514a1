//! The settings of the agent itself, checked: what is not part of the desired state.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use super::secret::Secret;

/// Settings of the agent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentConfig {
    /// Interfaces that carry the program, in the order of the file; at least one.
    pub interfaces: Vec<InterfaceSpec>,
    /// Key of the flow hash, the same on every director.
    pub secret: Secret,
    /// Directory on bpffs for maps and links. Default `/sys/fs/bpf/levee`.
    pub pin_path: PathBuf,
    /// Where `/healthz`, `/readyz` and `/metrics` are served; `None` when off. Default 127.0.0.1:9090.
    pub http: Option<SocketAddr>,
    /// Socket that `lbctl` talks to. Default `/run/levee/agent.sock`.
    pub socket: PathBuf,
    /// Log output.
    pub log: LogConfig,
    /// What SIGTERM does to the announcements.
    pub on_terminate: OnTerminate,
    /// Sizes of the maps.
    pub capacities: Capacities,
    /// How agents tell one another that they live; `None` when off.
    pub membership: Option<MembershipConfig>,
    /// The cgroup of version 2 whose processes' connections are translated; `None`, the default, for that of every process.
    pub cgroup_path: Option<PathBuf>,
}

/// How agents tell one another that they live. The same on every node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MembershipConfig {
    /// UDP port, 1..=65535. Default 7472.
    pub port: u16,
    /// Time between two datagrams to a peer, 100 ms..=1 s. Default 500 ms.
    pub interval: Duration,
    /// So many intervals without a datagram make a peer silent, 2..=100. Default 3.
    pub silent_after: u32,
}

impl Default for MembershipConfig {
    fn default() -> Self {
        Self { port: 7472, interval: Duration::from_millis(500), silent_after: 3 }
    }
}

/// An interface that carries the program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InterfaceSpec {
    /// Name, 1..=15 bytes.
    pub name: String,
    /// How the program is attached.
    pub mode: XdpMode,
}

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum XdpMode {
    /// Native, else generic.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the stack, after the kernel built its packet structure: slower, works with any driver.
    Generic,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// Log output.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LogConfig {
    /// Shape of a line. Default text.
    pub format: LogFormat,
    /// The least important events that are written. Default info.
    pub level: LogLevel,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Importance of a log event.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum LogLevel {
    /// Something does not work.
    Error,
    /// Something works less well than it should.
    Warn,
    /// State changes.
    #[default]
    Info,
    /// The odd path.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The name that `tracing` filters understand.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// What SIGTERM does.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnTerminate {
    /// Announcements stay (until their lifetime ends), forwarding goes on: for upgrades and restarts.
    #[default]
    Keep,
    /// Announcements are withdrawn first; forwarding goes on.
    Withdraw,
}

/// Sizes of the maps, in entries. A changed size takes a new set of maps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Capacities {
    /// (VIP, protocol, port) entries, 1..=65536. Default 1024.
    pub services: u32,
    /// Entries per (VIP, protocol, port) and backend, 1..=1048576. Default 8192.
    pub backends: u32,
    /// Slots of all rings together, 8 bytes each, 64..=268435456. Default 4194304 (32 MiB).
    pub ring_slots: u32,
    /// Recorded flows in each of the two tables. Default 131072.
    pub flows: u32,
    /// The most of them for one service (VIP, protocol, port). Default a quarter of `flows`.
    pub flows_per_service: u32,
    /// Addresses of peers, 1..=65536. Default 1024.
    pub peers: u32,
    /// VIP addresses, 1..=65536. Default 1024.
    pub addresses: u32,
    /// Source ranges per (VIP, protocol, port) entry, 1..=1048576. Default 16384.
    pub source_ranges: u32,
    /// Datagrams in fragments whose ports are remembered, 1024..=1048576. Default 16384 (2 MiB).
    pub fragments: u32,
}

impl Capacities {
    /// The largest value of each.
    pub(super) const MAX: Self = Self {
        services: 1 << 16,
        backends: 1 << 20,
        ring_slots: 1 << 28,
        flows: 1 << 24,
        flows_per_service: 1 << 24,
        peers: 1 << 16,
        addresses: 1 << 16,
        source_ranges: 1 << 20,
        fragments: 1 << 20,
    };
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            services: 1024,
            backends: 8192,
            ring_slots: 4_194_304,
            flows: 131_072,
            flows_per_service: 32_768,
            peers: 1024,
            addresses: 1024,
            source_ranges: 16_384,
            fragments: 16_384,
        }
    }
}
