//! What the configuration says of a Kubernetes cluster, and what was judged of the cluster's objects, as plain values.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    inventory::{Labels, ObjectName},
    probe::Probe,
};

/// `kubernetes` of the configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KubernetesSettings {
    /// How the cluster is read.
    pub access: ClusterAccess,
    /// How old a saved inventory may be for the VIPs of its Services to be announced. 1 m..=720 h, default 24 h.
    pub max_snapshot_age: Duration,
    /// The `loadBalancerClass` that is acted on. Default `levee.dev/levee`.
    pub class: String,
    /// Whether Services without a class are acted on, too. Default false.
    pub default_class: bool,
    /// Whether Services are served at all. Default true.
    pub services: bool,
    /// Addresses that no Service gets: the range of Services, gateways, whatever else is in use. Default none.
    pub reserved: Vec<IpNet>,
    /// Lifetime of the Services' VIPs on `lo`. 3 s..=1 h, default 30 s.
    pub lifetime: Duration,
    /// Whether a node with ready endpoints gives them the new flows that enter there. Default no.
    pub local_first: bool,
    /// Whether connections of Services end in sockets of the nodes, by their VIPs, so that a packet without one may belong
    /// to a former backend: so it is where nothing translates to pods, as kube-proxy does. Default no.
    pub second_chance: bool,
    /// Name of this node's object. Default the name of the node.
    pub node_name: String,
    /// Whether the other nodes of the cluster are peers. Default true unless peers are written.
    pub peers_from_nodes: bool,
}

/// How a cluster is read; another one is another source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClusterAccess {
    /// File with servers and credentials; `None` stands for those of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// API servers to try behind those that are known otherwise.
    pub servers: Vec<SocketAddr>,
    /// Where the last complete inventory is kept. Default `/var/lib/levee/inventory.json`.
    pub state_file: PathBuf,
}

/// `controlPlane` of the configuration: the VIP of the API servers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ControlPlaneSettings {
    /// Virtual addresses; at least one.
    pub vips: Vec<IpAddr>,
    /// Port of the VIP. Default 6443.
    pub port: u16,
    /// Port that the servers listen on. Default `port`.
    pub server_port: u16,
    /// Whether connections of a node's own processes to the VIPs go to a server from the start. Default no.
    pub connect_translation: bool,
    /// Whether a node with a healthy server gives it the new flows that enter there. Default no.
    pub local_first: bool,
    /// Servers that are known without the API, in ascending order.
    pub backends: Vec<IpAddr>,
    /// Where the servers are learned from.
    pub from: ServersFrom,
    /// Labels of the nodes that have a server, for [`ServersFrom::Nodes`]; an empty value stands for any.
    pub node_selector: Labels,
    /// How servers are probed.
    pub probe: Option<Arc<Probe>>,
    /// Lifetime of the VIPs on `lo`, 3 s..=1 h, default 30 s; `None` if they are not announced.
    pub announced_for: Option<Duration>,
}

/// Where API servers are learned from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ServersFrom {
    /// The slices of the Service `default/kubernetes`, which the servers write themselves.
    #[default]
    Endpoints,
    /// Nodes with the labels of the selector.
    Nodes,
    /// The configuration alone.
    Static,
}

/// Something about an object of the cluster that its owner should know.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    /// What it is about.
    pub subject: Subject,
    /// How bad it is.
    pub severity: Severity,
    /// The reason in one word, as conditions and Events have it.
    pub reason: Reason,
    /// The reason with its values, and what to do.
    pub message: String,
}

/// What a judgement is about.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// The cluster, or the reading of it.
    Cluster,
    /// The VIP of the API servers.
    ControlPlane,
    /// A node.
    Node(String),
    /// A Service.
    Service(ObjectName),
}

/// How bad a judgement is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Something of the object is not served.
    Refused,
    /// Everything is served, but hardly as meant.
    Warning,
    /// As it has to be; good to know.
    Note,
}

macro_rules! reasons {
    ($($(#[$meta:meta])* $name:ident,)+) => {
        /// Reasons of judgements, as `reason` of conditions and Events has them.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        pub enum Reason { $($(#[$meta])* $name,)+ }

        impl Reason {
            /// The reason in one word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }
        }
    };
}

reasons! {
    /// An address may not be used by this Service.
    AddressRefused,
    /// Another Service has the address, and does not share it.
    AddressTaken,
    /// The Service has no address yet.
    AddressPending,
    /// kube-proxy hides the clients' addresses from the pods.
    ClientAddressHidden,
    /// Nothing takes new flows of a port.
    NoReadyEndpoints,
    /// Endpoints are on no node that takes flows, so every node forwards.
    EndpointsElsewhere,
    /// A protocol or port that cannot be forwarded.
    PortUnsupported,
    /// Source ranges that cannot be read.
    SourceRangesInvalid,
    /// Fields that contradict each other.
    Contradictory,
    /// A capacity of the maps is used up.
    NoRoom,
    /// Addresses are not announced by this node, though it serves them.
    NotAnnounced,
    /// A node's object lacks an address, or has another than the configuration.
    NodeAddress,
    /// No API server is known, or the API says that there is none.
    NoServers,
    /// API servers listen on another port than the VIP's.
    ServerPort,
    /// An address lies in a subnet on a link of this node, where nobody answers for it.
    AddressOnLink,
}

impl Judgement {
    /// A judgement on a Service.
    #[must_use]
    pub fn on(service: &ObjectName, severity: Severity, reason: Reason, message: impl Into<String>) -> Self {
        Self { subject: Subject::Service(service.clone()), severity, reason, message: message.into() }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("cluster"),
            Self::ControlPlane => f.write_str("control plane"),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Service(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refused => "refused",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}): {}", self.subject, self.severity, self.reason, self.message)
    }
}
