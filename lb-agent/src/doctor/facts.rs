//! What is known of a node before it is judged.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use crate::{
    inspect::{Inspection, Presence},
    model::Network,
    netlink::XdpOnLink,
    status::AgentStatus,
};

/// What was read, or why it could not be.
pub type Read<T> = Result<T, String>;

/// All that is judged.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The kernel.
    pub system: System,
    /// The agent.
    pub agent: AgentFacts,
    /// Where maps are pinned, and whether a BPF filesystem is there.
    pub bpffs: (PathBuf, Read<bool>),
    /// What the pinned maps hold.
    pub maps: Read<Inspection>,
    /// Links, addresses, and the ways to the backends and peers.
    pub network: Read<Network>,
    /// The interfaces that have or should have the program.
    pub interfaces: Vec<InterfaceFacts>,
    /// Addresses that the agent announces on `lo`, with the seconds until they expire.
    pub announced: Read<Vec<(IpAddr, u32)>>,
    /// Settings for all interfaces.
    pub sysctls: Sysctls,
    /// What the controller's file says of routes in NSX-T, if one was named.
    pub routed: Option<Read<Routed>>,
}

/// VIPs to which NSX-T has routes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Routed {
    /// The gateway that has them.
    pub tier1: String,
    /// The VIPs; empty if the controller keeps no routes.
    pub vips: BTreeSet<IpAddr>,
}

/// The kernel.
#[derive(Clone, Debug)]
pub struct System {
    /// Its version, major and minor.
    pub version: (u32, u32),
    /// Whether it describes its own types.
    pub has_btf: bool,
    /// `net.core.bpf_jit_enable`.
    pub jit: Read<u32>,
}

/// The agent.
#[derive(Clone, Debug)]
pub struct AgentFacts {
    /// Whether one runs, and which.
    pub presence: Presence,
    /// What it says of itself.
    pub status: Read<AgentStatus>,
    /// Whose capabilities these are, in words.
    pub capabilities_of: String,
    /// Its effective capabilities, a bit each.
    pub capabilities: Read<u64>,
}

/// An interface that has or should have the program.
#[derive(Clone, Debug)]
pub struct InterfaceFacts {
    /// Its name.
    pub name: String,
    /// XDP programs that the kernel reports on it.
    pub programs: Read<Vec<XdpOnLink>>,
    /// Id of the program that the agent's link keeps there.
    pub linked: Read<u32>,
    /// Offloads that are on, by their names in the kernel.
    pub offloads: Read<BTreeSet<String>>,
    /// Whether it is one end of a veth pair.
    pub is_veth: bool,
    /// Its driver, if it has one.
    pub driver: Option<String>,
    /// Its settings.
    pub sysctls: Sysctls,
}

/// Settings under `/proc/sys/net`, of one interface or of all.
#[derive(Clone, Debug)]
pub struct Sysctls {
    /// `ipv4.conf.*.rp_filter`.
    pub rp_filter: Read<u32>,
    /// `ipv4.conf.*.arp_announce`.
    pub arp_announce: Read<u32>,
    /// `ipv4.conf.*.arp_ignore`.
    pub arp_ignore: Read<u32>,
    /// `ipv4.conf.*.forwarding`.
    pub forwarding4: Read<u32>,
    /// `ipv6.conf.*.forwarding`.
    pub forwarding6: Read<u32>,
}
