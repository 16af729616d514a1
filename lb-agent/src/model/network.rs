//! What the kernel says of this node's links, addresses and ways to the backends.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Serialize, Serializer};

/// A snapshot of everything about the network that a plan depends on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Network {
    /// Interfaces by index.
    pub interfaces: BTreeMap<u32, Interface>,
    /// Addresses with their prefix on every interface, `lo` included, without the VIPs the agent itself put there.
    pub addresses: Vec<InterfaceAddress>,
    /// The way to each address that was asked for; absent while there is none.
    pub next_hops: BTreeMap<IpAddr, NextHop>,
}

impl Network {
    /// The interface of this name.
    #[must_use]
    pub fn interface_named(&self, name: &str) -> Option<&Interface> {
        self.interfaces.values().find(|interface| interface.name == name)
    }

    /// Subnets that are on a link of this node, in the order of its addresses: hosts there resolve addresses of them
    /// themselves, by ARP or NDP.
    #[must_use]
    pub fn connected(&self) -> Vec<Subnet> {
        let interface = |address: &InterfaceAddress| self.interfaces.get(&address.interface);
        let on_link = |address: &&InterfaceAddress| {
            address.net.prefix_len() < address.net.max_prefix_len()
                && interface(address).is_none_or(|interface| interface.kind != InterfaceKind::Loopback)
        };
        let subnet = |address: &InterfaceAddress| Subnet {
            net: address.net.trunc(),
            interface: interface(address).map_or("an interface", |interface| interface.name.as_str()).to_owned(),
        };
        self.addresses.iter().filter(on_link).map(subnet).collect()
    }
}

/// A subnet on a link of this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subnet {
    /// Its addresses.
    pub net: IpNet,
    /// Name of the interface.
    pub interface: String,
}

/// An address of this node.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct InterfaceAddress {
    /// Index of the interface that has it.
    pub interface: u32,
    /// The address with the length of its subnet's prefix.
    pub net: IpNet,
}

/// A network interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Kernel's index.
    pub index: u32,
    /// Name, `eth0`.
    pub name: String,
    /// Link-layer address; zero where the link has none.
    pub mac: MacAddr,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Administratively and operationally up.
    pub up: bool,
    /// What kind of link it is.
    pub kind: InterfaceKind,
}

/// Kinds of links that the packet path treats differently.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InterfaceKind {
    /// Sends and receives Ethernet frames by itself.
    Ethernet,
    /// An 802.1Q device: frames leave by `parent` with tag `id`.
    Vlan {
        /// Index of the interface beneath.
        parent: u32,
        /// VLAN identifier, 1..=4094.
        id: u16,
    },
    /// The loopback device.
    Loopback,
    /// Anything else; nothing can be forwarded through it.
    Other,
}

/// The way to one address: who to hand the frame to, and through which interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NextHop {
    /// Index of the interface that the route names (it can be a VLAN device).
    pub interface: u32,
    /// The router on the way; `None` when the address is on the link itself.
    pub gateway: Option<IpAddr>,
    /// Link-layer address of the router or host; `None` until the neighbour answered once.
    pub mac: Option<MacAddr>,
}

impl NextHop {
    /// Whether the address is on the link itself.
    #[must_use]
    pub const fn on_link(&self) -> bool {
        self.gateway.is_none()
    }
}

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
