//! What the agent says of itself, to `lbctl` over the local socket and to Prometheus.

mod cluster;
mod members;
mod source;
mod tracking;

use std::{borrow::Cow, net::IpAddr};

use serde::{Deserialize, Serialize};

pub use cluster::{ClusterStatus, WithheldStatus};
pub use members::{MembershipStatus, PeerStatus};
pub use source::{DoubtedStatus, FollowStatus, NodeLeaseStatus, SavedStatus, WatchStatus};
pub use tracking::{ChangeStatus, DrainStatus, PairStatus, ScanStatus};

use crate::model::Shared;

/// The agent's whole state, as one document. Its JSON form is stable: fields are added, never renamed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Name of the node.
    pub node: String,
    /// Version of the agent.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// When it started, seconds of Unix time.
    pub started: u64,
    /// Whether the first complete plan was applied.
    pub ready: bool,
    /// The configuration.
    pub config: ConfigStatus,
    /// The maps.
    pub dataplane: DataplaneStatus,
    /// The program on its interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// VIPs that this node terminates.
    pub held: Vec<IpAddr>,
    /// VIPs and why they are or are not announced.
    pub announcements: Vec<AnnouncementStatus>,
    /// What goes wrong with addresses and routes, in words.
    pub announce_errors: Vec<String>,
    /// Services in the order of their names.
    #[serde(default)]
    pub services: Vec<ServiceStatus>,
    /// Backends in the order of services and backends.
    pub backends: Vec<BackendStatus>,
    /// Nodes that are drained as a whole.
    #[serde(default)]
    pub drained_nodes: Vec<String>,
    /// Services with slots that are not settled.
    #[serde(default)]
    pub changes: Vec<ChangeStatus>,
    /// Scans of the tables of flows.
    #[serde(default)]
    pub scans: ScanStatus,
    /// The other nodes' agents.
    #[serde(default)]
    pub membership: MembershipStatus,
    /// The cluster that is followed; `null` if there is none.
    #[serde(default)]
    pub cluster: Option<ClusterStatus>,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// Path of the file.
    pub path: String,
    /// Counts the configurations that came into force.
    pub generation: u64,
    /// When the one in force was loaded, seconds of Unix time.
    pub loaded: u64,
    /// Why the latest edit was refused; the last good one stays in force.
    pub refused: Option<String>,
    /// What takes effect at the next start only, in words.
    pub pending_restart: Vec<String>,
    /// Fingerprint of the secret; the same on all directors.
    pub secret_fingerprint: String,
}

/// The maps and how they follow the plans.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DataplaneStatus {
    /// Where the maps are pinned.
    pub pin_path: String,
    /// Whether the maps of an earlier agent were adopted.
    pub adopted: bool,
    /// Counts the plans that were applied.
    pub plans_applied: u64,
    /// Counts the plans that failed.
    pub plans_failed: u64,
    /// Why the latest plan failed, if it did.
    pub error: Option<String>,
    /// Time that deciding and planning took in all, seconds.
    pub plan_seconds: f64,
    /// Time that applying took in all, seconds, without waiting for grace periods.
    pub apply_seconds: f64,
    /// The latest plan's time to decide and plan, seconds.
    pub last_plan_seconds: f64,
    /// The latest plan's time to apply, seconds.
    pub last_apply_seconds: f64,
}

/// The program on an interface.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceStatus {
    /// Name of the interface.
    pub name: String,
    /// `native`, `generic`, or `none` while it is not attached.
    pub mode: String,
    /// Why it is not as configured: why generic, or why not attached.
    pub reason: Option<String>,
}

/// One VIP and one announcer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncementStatus {
    /// The VIP.
    pub vip: IpAddr,
    /// Whether this node announces it.
    pub announced: bool,
    /// Why.
    pub reason: Shared<String>,
}

/// One service.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Its name.
    pub service: Shared<String>,
    /// Whether its probes are believed: not while they fail every backend, which all take flows then.
    pub probes_believed: bool,
    /// Whether new flows that enter here go to this node's own backends alone (`localFirst`).
    #[serde(default)]
    pub local_first: bool,
}

/// One backend of one service.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendStatus {
    /// Name of the service.
    pub service: Shared<String>,
    /// Address.
    pub address: IpAddr,
    /// Port, 0 for every port.
    pub port: u16,
    /// Weight, 0..=1000.
    pub weight: u16,
    /// How it is probed, `tcp :6443` or `https :6443/readyz`; `null` if it is not.
    #[serde(default)]
    pub probe: Option<Shared<String>>,
    /// `unknown`, `healthy` or `failed`; services without probes have healthy backends.
    pub health: Cow<'static, str>,
    /// Whether it takes new flows.
    pub takes_flows: bool,
    /// How its packets leave this node.
    pub mode: Cow<'static, str>,
    /// Why it is as it is.
    pub reason: Shared<String>,
    /// How it is drained; `null` if it is not.
    #[serde(default)]
    pub drain: Option<Box<DrainStatus>>,
}

impl BackendStatus {
    /// Why it is as it is, with what is left if it is drained.
    #[must_use]
    pub fn story(&self) -> String {
        let left = self.drain.as_ref().map(|drain| format!(", {}", drain.left()));
        format!("{}{}", self.reason, left.unwrap_or_default())
    }
}
