//! What the pinned maps say, as values to print, to serialize and to make metrics of.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::flows::TrackingView;
use crate::{dataplane::PinOwner, model::MacAddr};

/// Who keeps the maps.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    /// Whether an agent runs: it holds the lock on the pin directory.
    pub running: bool,
    /// The agent that runs, or the last one that did. `None` if no map says.
    pub owner: Option<PinOwner>,
}

/// All that the maps hold, but for the rings' slots and the dumps of single maps.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// Where the maps are pinned.
    pub pin_path: String,
    /// Who keeps them.
    pub agent: Presence,
    /// Fingerprint of the secret; the same on all directors.
    pub secret_fingerprint: String,
    /// Interfaces to which the program is pinned.
    pub interfaces: Vec<String>,
    /// VIPs and addresses of this node, in their order.
    pub addresses: Vec<AddressView>,
    /// Addresses of the other directors, in their order.
    pub peers: Vec<IpAddr>,
    /// Services in the order of name, VIP, protocol and port.
    pub services: Vec<ServiceView>,
    /// Packets per verdict, in the order of [`lb_common::verdict::Verdict::ALL`].
    pub verdicts: Vec<Count>,
    /// Packets per drop reason, in the order of [`lb_common::verdict::DropReason::ALL`].
    pub drops: Vec<Count>,
    /// Size and use of every map, in the order of [`lb_common::maps::ALL`].
    pub maps: Vec<MapUse>,
}

/// What an address means.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressView {
    /// The address.
    pub address: IpAddr,
    /// Whether it is a VIP.
    pub vip: bool,
    /// Whether packets to it that match no service are passed up the stack instead of being dropped.
    pub pass_unmatched: bool,
    /// Whether it is an address of this node, where tunnels may end.
    pub node: bool,
}

/// One VIP, protocol and port.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// Index in the maps.
    pub index: u32,
    /// Name of the service in the configuration; several entries have it if it has several VIPs or ports.
    pub name: String,
    /// The VIP.
    pub vip: IpAddr,
    /// Port, 0 for every port.
    pub port: u16,
    /// `tcp` or `udp`, or the IANA number of another protocol.
    pub protocol: String,
    /// Slots of its ring, 0 while no backend takes flows.
    pub ring_slots: u32,
    /// Counts the publications of its ring, modulo 2^24.
    pub generation: u32,
    /// Whether this node terminates flows to the VIP.
    pub held: bool,
    /// Port that its servers on this node listen on, if it is another than the service's.
    pub target_port: Option<u16>,
    /// Where connections of this node's own processes go; empty if they are not translated.
    pub connects_to: Vec<SocketAddr>,
    /// Packets handed on or up.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How its flows are recorded while backends change.
    pub tracking: TrackingView,
    /// Its backends in the order of address and port.
    pub backends: Vec<BackendView>,
    /// Its ring, if rings were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingView>,
}

/// One backend of one service entry.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendView {
    /// Index in the maps.
    pub index: u32,
    /// Generation of the entry; index and generation are the backend's id.
    pub generation: u16,
    /// Its address.
    pub address: IpAddr,
    /// Its port, 0 for every port.
    pub port: u16,
    /// Its weight, 0..=1000.
    pub weight: u16,
    /// Whether it takes new flows.
    pub in_ring: bool,
    /// How its packets leave this node.
    #[serde(flatten)]
    pub hop: HopView,
    /// Packets handed on or up to it.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How packets leave this node. What the mode does not need is `null`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HopView {
    /// A label of [`lb_common::maps::backends::Mode`].
    pub mode: &'static str,
    /// Index of the interface that the packets leave by.
    pub interface: Option<u32>,
    /// Its name, if it is there.
    pub interface_name: Option<String>,
    /// Link-layer address of the next hop.
    pub next_hop_mac: Option<MacAddr>,
    /// Link-layer address of the interface.
    pub source_mac: Option<MacAddr>,
    /// 802.1Q tag.
    pub vlan: Option<u16>,
    /// Longest IP packet that may leave, outer header included, in bytes.
    pub mtu: Option<u16>,
    /// Where the tunnel ends.
    pub tunnel_destination: Option<IpAddr>,
    /// Where the tunnel begins.
    pub tunnel_source: Option<IpAddr>,
}

/// A ring as it is published.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RingView {
    /// Its slots; 0 while no backend takes flows.
    pub slots: u32,
    /// Sixteen hexadecimal digits made of the secret and the owner of every slot: equal on all directors.
    pub fingerprint: String,
    /// The largest deviation of a backend's share from the ideal one, in percent of all slots.
    pub largest_deviation_percent: f64,
    /// Slots that name a backend which is gone.
    pub stale_slots: u32,
    /// Shares in the order of the backends.
    pub shares: Vec<ShareView>,
    /// Slots that are not settled.
    pub changes: Vec<ChangeView>,
}

/// Slots that went from one backend to another and are not settled.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeView {
    /// Bits of the id of the backend that takes new flows; 0 for none.
    pub current: u32,
    /// Its address and port; `null` if there is none.
    pub current_backend: Option<SocketAddr>,
    /// Bits of the id of the backend that had the slots before.
    pub old: u32,
    /// Its address and port; `null` if it is gone.
    pub old_backend: Option<SocketAddr>,
    /// `unsettled` or `settling`.
    pub state: &'static str,
    /// How many.
    pub slots: u32,
}

/// What a backend has of a ring.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareView {
    /// Its address.
    pub address: IpAddr,
    /// Its port, 0 for every port.
    pub port: u16,
    /// Its weight, 0..=1000.
    pub weight: u16,
    /// Its slots.
    pub slots: u32,
    /// Its slots in percent of all.
    pub percent: f64,
    /// Percent that its weight entitles it to.
    pub ideal_percent: f64,
}

/// A counted end of packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    /// Its name in metrics.
    pub name: &'static str,
    /// Packets that ended so.
    pub packets: u64,
    /// One sentence for people.
    pub text: &'static str,
}

/// Size and use of a map.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MapUse {
    /// Name of the map.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Entries in use. `None` for maps that are always full, such as the settings.
    pub entries: Option<u32>,
    /// Entries it has room for.
    pub capacity: u32,
    /// Memory it takes, bytes.
    pub memory_bytes: u64,
}

impl MapUse {
    /// Use above which people are warned, percent.
    const NEARLY_FULL: u64 = 80;

    /// Whether more than 80 % of the entries are in use.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.entries.is_some_and(|entries| u64::from(entries) * 100 > u64::from(self.capacity) * Self::NEARLY_FULL)
    }
}

impl ServiceView {
    /// Backends that take new flows.
    #[must_use]
    pub fn in_ring(&self) -> usize {
        self.backends.iter().filter(|backend| backend.in_ring).count()
    }
}

impl Inspection {
    /// The service entry with this index.
    #[must_use]
    pub fn service(&self, index: u32) -> Option<&ServiceView> {
        self.services.iter().find(|service| service.index == index)
    }
}
