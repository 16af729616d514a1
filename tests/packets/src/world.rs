//! What the maps are to hold: VIPs, backends, peers, as a test says it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use lb_agent::plan::{TargetBackend, TargetService, TargetState};
use lb_common::{
    addr::{Be16, IpAddr16},
    hash::{HashKey, mac_bit},
    maps::{
        addresses::AddressEntry,
        backends::{Hop, Mode},
        services::VipKey,
        settings::Settings,
        sources::SourceRange,
        translations::Endpoint,
    },
    wire::{eth, protocol},
};

use crate::{
    frame::MacBytes,
    link::{IN, OUT},
};

/// Who is who in the tests (addresses of RFC 5737 and RFC 3849).
#[expect(missing_docs, reason = "names of hosts, one address per family")]
pub mod addresses {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use crate::frame::MacBytes;

    const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    }

    const fn v6(net: u16, host: u16) -> IpAddr {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host))
    }

    pub const CLIENT4: IpAddr = v4(203, 0, 113, 7);
    pub const CLIENT6: IpAddr = v6(0xc, 7);
    pub const VIP4: IpAddr = v4(198, 51, 100, 10);
    pub const VIP6: IpAddr = v6(0xf, 0x10);
    pub const NODE4: IpAddr = v4(192, 0, 2, 1);
    pub const NODE6: IpAddr = v6(1, 1);
    pub const PEER4: IpAddr = v4(192, 0, 2, 2);
    pub const PEER6: IpAddr = v6(1, 2);
    pub const STRANGER4: IpAddr = v4(192, 0, 2, 99);
    pub const STRANGER6: IpAddr = v6(1, 0x99);
    pub const A4: IpAddr = v4(192, 0, 2, 11);
    pub const A6: IpAddr = v6(1, 0x11);
    pub const B4: IpAddr = v4(192, 0, 2, 12);
    pub const B6: IpAddr = v6(1, 0x12);

    pub const ROUTER_MAC: MacBytes = [2, 0, 0, 0, 0, 0xfe];
    pub const NODE_MAC: MacBytes = [2, 0, 0, 0, 0, 1];
    pub const PEER_MAC: MacBytes = [2, 0, 0, 0, 0, 2];
    /// The next hop towards every backend, unless told otherwise.
    pub const NEXT_MAC: MacBytes = [2, 0, 0, 0, 0, 0x33];
}

/// All that the maps are to hold.
#[derive(Clone, Debug)]
pub struct World {
    /// The cluster's secret.
    pub secret: [u8; 16],
    /// Services.
    pub services: Vec<Service>,
    /// Addresses of this node.
    pub node: Vec<IpAddr>,
    /// The other directors: address, link-layer address if it is on the link, number.
    pub peers: Vec<(IpAddr, Option<MacBytes>, u32)>,
    /// Interfaces in the device map.
    pub devices: BTreeSet<u32>,
}

/// A world without services: this node, one peer on the link, and the interface [`OUT`] in the device map.
#[must_use]
pub fn world() -> World {
    World {
        secret: *b"sixteen secrets!",
        services: Vec::new(),
        node: vec![addresses::NODE4, addresses::NODE6],
        peers: vec![(addresses::PEER4, Some(addresses::PEER_MAC), 1), (addresses::PEER6, None, 1)],
        devices: BTreeSet::from([OUT]),
    }
}

impl World {
    /// With one more service.
    #[must_use]
    pub fn with(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// With another secret.
    #[must_use]
    pub fn secret(mut self, secret: [u8; 16]) -> Self {
        self.secret = secret;
        self
    }

    /// The same as the plan takes it.
    #[must_use]
    pub fn target(&self) -> TargetState {
        let mut target = TargetState {
            settings: Settings { hash_key: HashKey::new(self.secret), peer_macs: [0; 8], node: self.sources() },
            devices: self.devices.clone(),
            ..TargetState::default()
        };
        for address in &self.node {
            *target.addresses.entry((*address).into()).or_default() |= AddressEntry::NODE;
        }
        for (address, mac, id) in &self.peers {
            target.peers.insert((*address).into(), *id);
            if let Some(mac) = mac {
                target.peer_macs.insert(*mac, *id);
                let bit = mac_bit(mac) as usize;
                target.settings.peer_macs[bit / 64] |= 1 << (bit % 64);
            }
        }
        for service in &self.services {
            let held = if service.held { AddressEntry::HELD } else { 0 };
            let flags = AddressEntry::with_mss(service.flags | held, service.mss);
            *target.addresses.entry(service.vip.into()).or_default() |= flags;
            target.services.insert(service.key(), service.target().into());
            if service.target_port != 0 {
                let of = VipKey::new(service.vip.into(), Be16::new(service.target_port), service.protocol);
                target.rewrites.insert(of, Be16::new(service.port));
            }
            if !service.translations.is_empty() {
                target.translations.insert(service.key(), service.translations.clone());
            }
        }
        target
    }

    /// Where this node's errors come from, for each family.
    fn sources(&self) -> [IpAddr16; 2] {
        let own = |is_ipv4| self.node.iter().find(|address| address.is_ipv4() == is_ipv4);
        [true, false].map(|is_ipv4| own(is_ipv4).map_or_else(IpAddr16::default, |address| (*address).into()))
    }

    /// The service that has this backend.
    ///
    /// # Panics
    /// If none or more than one has it.
    #[must_use]
    pub fn service_of(&self, backend: IpAddr) -> &Service {
        let mut having = self.services.iter().filter(|service| service.backends.contains_key(&backend));
        let service = having.next().unwrap_or_else(|| panic!("no service has the backend {backend}"));
        assert!(having.next().is_none(), "more than one service has the backend {backend}");
        service
    }
}

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    vip: IpAddr,
    port: u16,
    protocol: u8,
    held: bool,
    flags: u32,
    log2: u8,
    has_affinity: bool,
    window: Duration,
    mss: u16,
    backends: BTreeMap<IpAddr, (Hop, bool)>,
    source_ranges: BTreeSet<SourceRange>,
    target_port: u16,
    second_chance: bool,
    translations: Vec<Endpoint>,
}

/// A TCP service without backends that this node does not hold; a ring of 64 slots.
#[must_use]
pub fn service(vip: IpAddr, port: u16) -> Service {
    Service {
        vip,
        port,
        protocol: protocol::TCP,
        held: false,
        flags: AddressEntry::VIP,
        log2: 6,
        has_affinity: false,
        window: Duration::from_secs(7500),
        mss: 0,
        backends: BTreeMap::new(),
        source_ranges: BTreeSet::new(),
        target_port: 0,
        second_chance: true,
        translations: Vec::new(),
    }
}

impl Service {
    /// For UDP.
    #[must_use]
    pub fn udp(mut self) -> Self {
        self.protocol = protocol::UDP;
        self
    }

    /// For SCTP.
    #[must_use]
    pub fn sctp(mut self) -> Self {
        self.protocol = protocol::SCTP;
        self
    }

    /// Admitting the addresses of one more prefix, and of no others but those of earlier ones.
    #[must_use]
    pub fn from(mut self, address: IpAddr, length: u8) -> Self {
        self.source_ranges.insert(SourceRange::new(address, length));
        self
    }

    /// This node terminates its flows.
    #[must_use]
    pub fn held(mut self) -> Self {
        self.held = true;
        self
    }

    /// What matches no service of the VIP is passed up the stack.
    #[must_use]
    pub fn passing_unmatched(mut self) -> Self {
        self.flags |= AddressEntry::PASS_UNMATCHED;
        self
    }

    /// With servers on another port, on this node.
    #[must_use]
    pub fn target_port(mut self, port: u16) -> Self {
        self.target_port = port;
        self.flags |= AddressEntry::REWRITTEN;
        self
    }

    /// Whose connections are no sockets of the nodes.
    #[must_use]
    pub fn without_second_chance(mut self) -> Self {
        self.second_chance = false;
        self
    }

    /// Connections of this node's own processes go to these instead, or to one more.
    #[must_use]
    pub fn translated_to(mut self, address: IpAddr, port: u16) -> Self {
        self.translations.push(Endpoint { address: address.into(), port: Be16::new(port), pad: 0 });
        self
    }

    /// With a bound for the segments that leave from its VIP.
    #[must_use]
    pub fn mss(mut self, bytes: u16) -> Self {
        self.mss = bytes;
        self
    }

    /// With a ring of `1 << log2` slots.
    #[must_use]
    pub fn ring(mut self, log2: u8) -> Self {
        self.log2 = log2;
        self
    }

    /// With clients that stay with their backend.
    #[must_use]
    pub fn with_affinity(mut self) -> Self {
        self.has_affinity = true;
        self
    }

    /// With flows that are forgotten after this long.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Without a backend.
    #[must_use]
    pub fn without(mut self, address: IpAddr) -> Self {
        self.backends.remove(&address);
        self
    }

    /// With one more backend that takes flows.
    #[must_use]
    pub fn backend(mut self, address: IpAddr, way: Way) -> Self {
        self.backends.insert(address, (way.0, true));
        self
    }

    /// With one more backend that takes no new flows.
    #[must_use]
    pub fn idle_backend(mut self, address: IpAddr, way: Way) -> Self {
        self.backends.insert(address, (way.0, false));
        self
    }

    /// What it listens on.
    #[must_use]
    pub fn key(&self) -> VipKey {
        VipKey::new(self.vip.into(), Be16::new(self.port), self.protocol)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.vip, self.protocol, self.port)
    }

    fn target(&self) -> TargetService {
        let backend = |(address, (hop, in_ring)): (&IpAddr, &(Hop, bool))| {
            let backend = TargetBackend { weight: 1, in_ring: *in_ring, keeps_flows: true, drain: None, hop: *hop };
            ((IpAddr16::from(*address), Be16::new(self.port)), backend)
        };
        TargetService {
            name: self.name(),
            log2: self.log2,
            held: self.held,
            rejoins: false,
            has_affinity: self.has_affinity,
            window: u64::try_from(self.window.as_nanos()).expect("at most centuries"),
            backends: self.backends.iter().map(backend).collect(),
            source_ranges: self.source_ranges.clone(),
            target_port: self.target_port,
            second_chance: self.second_chance,
        }
    }
}

/// How packets get to a backend: by default from this node to [`addresses::NEXT_MAC`] by the interface [`IN`], untagged,
/// MTU 1500.
#[derive(Clone, Copy, Debug)]
pub struct Way(Hop);

impl Way {
    /// The backend is this node.
    #[must_use]
    pub fn local() -> Self {
        Self(Hop { mode: Mode::Local as u8, ..Hop::default() })
    }

    /// The way is not known.
    #[must_use]
    pub fn unknown() -> Self {
        Self(Hop::default())
    }

    /// The backend is on the link.
    #[must_use]
    pub fn l2() -> Self {
        Self::by(Mode::L2)
    }

    /// Through an IP-in-IP tunnel to this address.
    #[must_use]
    pub fn ipip(to: IpAddr) -> Self {
        Self::by(if to.is_ipv4() { Mode::Ipip4 } else { Mode::Ipip6 }).to(to)
    }

    /// Through a GUE tunnel to this address.
    #[must_use]
    pub fn gue(to: IpAddr) -> Self {
        Self::by(if to.is_ipv4() { Mode::Gue4 } else { Mode::Gue6 }).to(to)
    }

    /// With this 802.1Q tag.
    #[must_use]
    pub fn tagged(mut self, tag: u16) -> Self {
        self.0.vlan = tag;
        self
    }

    /// With this MTU.
    #[must_use]
    pub fn mtu(mut self, bytes: u16) -> Self {
        self.0.mtu = bytes;
        self
    }

    /// By another interface.
    #[must_use]
    pub fn out_of(mut self, interface: u32) -> Self {
        self.0.interface = interface;
        self
    }

    /// To another next hop.
    #[must_use]
    pub fn next(mut self, mac: MacBytes) -> Self {
        self.0.macs = eth::addresses(mac, addresses::NODE_MAC);
        self
    }

    fn by(mode: Mode) -> Self {
        Self(Hop {
            macs: eth::addresses(addresses::NEXT_MAC, addresses::NODE_MAC),
            interface: IN,
            mtu: 1500,
            mode: mode as u8,
            ..Hop::default()
        })
    }

    fn to(mut self, to: IpAddr) -> Self {
        let from = if to.is_ipv4() { addresses::NODE4 } else { addresses::NODE6 };
        self.0.tunnel_source = from.into();
        self.0.tunnel_destination = to.into();
        self
    }
}
