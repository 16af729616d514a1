//! The desired state: everything a source (a file, later Kubernetes) can ask of this node.
//!
//! Values here are checked: whoever builds them refuses what does not fit, and nobody checks again.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{probe::Probe, shared::Shared};

/// All that a source asks of this node, whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DesiredState {
    /// This node.
    pub node: Node,
    /// The other directors, in the order of their names. A tunnel packet is accepted from their addresses only.
    pub peers: Vec<Peer>,
    /// Services in the order of their names.
    pub services: Vec<Shared<Service>>,
    /// What draws the VIPs' traffic to this node; one entry per VIP and announcer.
    pub announcements: Vec<Announcement>,
}

impl DesiredState {
    /// Takes services that are as they were from where they were, so that they are known for the same.
    pub fn keep(&mut self, before: &Self) {
        for service in &mut self.services {
            let known = before.services.binary_search_by(|known| known.name.cmp(&service.name));
            if let Some(known) = known.ok().map(|at| &before.services[at]).filter(|known| *known == service) {
                *service = known.clone();
            }
        }
    }
}

/// This node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// Its name, unique among the directors.
    pub name: String,
    /// Its own addresses. A backend with one of them is local; the first of a family is the source of tunnels of that family.
    pub addresses: Vec<IpAddr>,
}

/// Another node that runs the agent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Its name, unique among the directors.
    pub name: String,
    /// The addresses its tunnels come from and by which its MAC is found on a shared link.
    pub addresses: Vec<IpAddr>,
}

/// A set of VIPs and ports served by one set of backends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// Unique name; `lbctl` addresses services by it.
    pub name: String,
    /// Virtual addresses of both families, in the order of the source.
    pub vips: Vec<IpAddr>,
    /// Ports in ascending order; a single 0 stands for every port.
    pub ports: Vec<u16>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// How a packet reaches a backend that is not this node.
    pub delivery: Delivery,
    /// Slots of the ring.
    pub ring_size: RingSize,
    /// Backends ordered by (address, port), each once.
    pub backends: Vec<Backend>,
    /// How long a flow may be silent and still be remembered while backends change. 1 s..=24 h.
    pub flow_timeout: Duration,
    /// Whether a client stays with its backend, whatever port it comes from.
    pub affinity: Option<Affinity>,
    /// How backends are probed; `None` believes every backend healthy.
    pub probe: Option<Arc<Probe>>,
    /// How long the share of a backend that begins to take flows while others serve grows from a tenth to the whole. 0
    /// (at once, the default), or 1 s..=1 h.
    pub slow_start: Duration,
    /// Packets to one of these VIPs that match no service are dropped and counted (true) or passed up the stack (false).
    pub drop_unmatched: bool,
    /// Clients that are admitted, in ascending order, without host bits; empty admits everybody.
    pub source_ranges: Vec<IpNet>,
    /// What segments a server here may ask its clients for.
    pub mss_clamp: MssClamp,
    /// When a node with a backend of it holds its VIPs.
    pub hold: HoldWhen,
    /// Connections of this node's own processes to the VIPs go to a backend from the start. TCP and UDP only.
    pub connect_translation: bool,
    /// Its connections end in sockets of the nodes that hold the VIPs, so that a packet without one may belong to a former
    /// backend; false where something else delivers, as rules that translate to pods do. TCP only.
    pub second_chance: bool,
    /// A node with a healthy backend of its own gives new flows that enter there to that one alone, instead of the one
    /// that every director would choose.
    pub local_first: bool,
}

impl Service {
    /// Whether it is the same but for its backends.
    #[must_use]
    pub fn is_alike(&self, other: &Self) -> bool {
        let without_backends = |service: &Self| Self { backends: Vec::new(), ..service.clone() };
        without_backends(self) == without_backends(other)
    }

    /// The port that the service's servers on `node` listen on, if it is another than the service's own.
    #[must_use]
    pub fn target_port(&self, node: &Node) -> Option<u16> {
        let [port] = self.ports[..] else { return None };
        let own = self.backends.iter().filter(|backend| node.addresses.contains(&backend.address));
        own.map(|backend| backend.port).find(|own| port != 0 && *own != 0 && *own != port)
    }
}

/// When a node that is a backend holds the VIPs of its service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HoldWhen {
    /// Unless its own probe finds the port closed and that is believed: what another director sends is delivered.
    #[default]
    Trusted,
    /// Once its own probe has found the port open, until it finds it closed, whatever the probes of other backends say.
    /// A node whose server does not run (yet) then reaches the VIP over the wire, as anybody else.
    PortOpen,
}

/// How the maximum segment size in SYN segments from a service's VIPs is bounded, on the nodes of its backends. Clients'
/// packets that come through a tunnel then fit it, also where nothing can tell the client so.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum MssClamp {
    /// To what fits the tunnels to this node, where there are any.
    #[default]
    Auto,
    /// Not at all.
    Off,
    /// To this many bytes, [`MssClamp::LEAST`]..=65535.
    To(u16),
}

impl MssClamp {
    /// The smallest bound: what every host takes (RFC 9293 section 3.7.1), bytes.
    pub const LEAST: u16 = 536;
}

/// An address that takes flows of a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backend {
    /// Address of the node or host that holds the VIP.
    pub address: IpAddr,
    /// Port its server listens on (0 when the service takes every port or several). If it is another than the service's
    /// port, packets are given it where they are delivered: TCP and UDP only.
    pub port: u16,
    /// Share of new flows relative to the others, 0..=1000; 0 takes no new flows.
    pub weight: u16,
}

/// Transport protocols a service can have.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// IANA protocol number 6.
    Tcp,
    /// IANA protocol number 17.
    Udp,
    /// IANA protocol number 132.
    Sctp,
}

impl Protocol {
    /// The IANA protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl Protocol {
    /// The default of `flowTimeout`: for TCP longer than its two-hour keepalive (RFC 5382 REQ-5).
    #[must_use]
    pub const fn flow_timeout(self) -> Duration {
        match self {
            Self::Tcp => Duration::from_secs(2 * 3600 + 5 * 60),
            Self::Udp => Duration::from_secs(30),
            // Three heartbeats (RFC 9260 section 16).
            Self::Sctp => Duration::from_secs(90),
        }
    }
}

/// Session affinity by the client's address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Affinity {
    /// How long after its last packet a client is remembered while backends change. 1 s..=24 h, default 3 h.
    pub timeout: Duration,
}

impl Affinity {
    /// The default of `affinityTimeout`.
    pub const TIMEOUT: Duration = Duration::from_secs(3 * 3600);
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// How packets travel from the director to a backend on another node.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// `l2` to a backend on the same link, `gue` to any other.
    #[default]
    Auto,
    /// Only backends on this node take flows.
    Local,
    /// MAC rewrite; the backend has to be on the same link.
    L2,
    /// IP in IP (RFC 2003, RFC 2473, RFC 4213), any combination of families.
    Ipip,
    /// Generic UDP encapsulation, variant 0, UDP port 6080.
    Gue,
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Local => "local",
            Self::L2 => "l2",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
        })
    }
}

/// Slots of a ring: a power of two, 64..=1048576. Default 4096.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct RingSize(u8);

impl Default for RingSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl RingSize {
    /// The default of `ringSize`.
    pub const DEFAULT: Self = Self(12);

    /// The ring size of `slots` slots, if that is a power of two within 64..=1048576.
    #[must_use]
    pub const fn new(slots: u32) -> Option<Self> {
        if slots.is_power_of_two() && slots >= 64 && slots <= 1 << 20 {
            #[expect(clippy::cast_possible_truncation, reason = "at most 20")]
            Some(Self(slots.trailing_zeros() as u8))
        } else {
            None
        }
    }

    /// Number of slots.
    #[must_use]
    pub const fn slots(self) -> u32 {
        1 << self.0
    }

    /// Base-two logarithm of the number of slots.
    #[must_use]
    pub const fn log2(self) -> u8 {
        self.0
    }
}

/// One VIP to be announced by one announcer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Announcement {
    /// The VIP.
    pub vip: IpAddr,
    /// By what.
    pub announcer: AnnouncerKind,
    /// When.
    pub when: AnnounceWhen,
    /// Lifetime of the address in the kernel, renewed at a third of it: how long a hung agent can go on announcing.
    /// 3..=3600 s, default 30 s.
    pub lifetime: Duration,
}

/// What draws a VIP's traffic to a node.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AnnouncerKind {
    /// The VIP as /32 or /128 on `lo`, for a routing daemon to redistribute.
    Loopback,
}

/// When a node announces a VIP.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AnnounceWhen {
    /// While a backend of the VIP is on this node and healthy, or all of the service's backends are down.
    #[default]
    LocalBackend,
    /// Always: for directors that have no backend of their own.
    Always,
    /// While any backend of the VIP takes flows, wherever it is: every director announces.
    AnyBackend,
}
