//! The decision on a packet: reads it and the maps, changes and counts nothing.
//!
//! What is not for a VIP ends as [`Verdict::NotOurs`] as early as can be. A reason to drop counts only once the
//! destination is known to be a VIP: a fault in a packet for anybody else is none of ours.

use lb_common::{
    addr::{IpAddr16, Mac},
    hash::{self, FlowHash, Tuple},
    maps::{
        addresses::AddressEntry,
        backends::{Hop, Mode},
        services::VipKey,
        settings::Settings,
    },
    parse::{self, Bytes, Network, Payload, Transport},
    report::Report,
    verdict::{DropReason, Verdict},
    wire::{eth, ipv4, ipv6, protocol},
};

use crate::{arp, maglev, maps::SETTINGS, packet::Packet, peers, vip};

/// What is to be done with a packet that is not dropped.
pub enum Decision {
    /// Nothing: up the stack as it is.
    Pass(Verdict),
    /// Up the stack, counted for the service; the backend is this node.
    Local(Served),
    /// Strip the tunnel header that begins at `outer_l3` and pass up.
    Strip { outer_l3: usize, payload: Payload },
    /// Send on.
    Forward {
        served: Served,
        network: Network,
        hop: &'static Hop,
        hash: FlowHash,
    },
}

/// For whom a packet is counted.
pub struct Served {
    /// Index of the service.
    pub service: u32,
    /// Index of the backend.
    pub backend: u32,
    /// Bytes of the IP packet.
    pub bytes: u32,
}

const NOT_OURS: Result<Decision, DropReason> = Ok(Decision::Pass(Verdict::NotOurs));

/// Decides on a packet, noting in `report` how the choice came about.
#[inline(always)]
pub fn decide(packet: &Packet, report: &mut Report) -> Result<Decision, DropReason> {
    let Some(link) = parse::link(packet) else {
        return NOT_OURS;
    };
    let is_ipv4 = match link.ethertype {
        eth::IPV4 => true,
        eth::IPV6 => false,
        eth::ARP => return arp::decide(packet, link.l3).map(Decision::Pass),
        _ => return NOT_OURS,
    };
    let Some(network) = parse::network(packet, link.l3, is_ipv4) else {
        return NOT_OURS;
    };
    if vip::may_be_vip(&network.destination) {
        return for_vip(packet, network, report);
    }
    match may_be_tunnel(packet, &network) {
        Some(payload) => from_tunnel(packet, &network, payload, report),
        None => NOT_OURS,
    }
}

/// Decides on a packet whose destination may be a VIP.
#[inline(always)]
fn for_vip(packet: &Packet, network: Network, report: &mut Report) -> Result<Decision, DropReason> {
    let end = match flow(packet, &network) {
        Ok(Class::Flow(tuple)) => match vip::service(&tuple.to) {
            Some(service) => return choose(packet, service, network, &tuple, report),
            None => Err(DropReason::NoService),
        },
        Ok(Class::Icmp) => Ok(Verdict::Icmp),
        Ok(Class::Other) => Err(DropReason::NoService),
        Err(reason) => Err(reason),
    };
    let address = vip::address(&network.destination);
    if !address.has(AddressEntry::VIP) {
        return NOT_OURS;
    }
    match end {
        Err(DropReason::NoService) if address.has(AddressEntry::PASS_UNMATCHED) => {
            Ok(Decision::Pass(Verdict::Unmatched))
        }
        end => end.map(Decision::Pass),
    }
}

/// Decides on a packet for a service: chooses the backend and how to get there.
#[inline(always)]
fn choose(
    packet: &Packet,
    service: u32,
    network: Network,
    tuple: &Tuple,
    report: &mut Report,
) -> Result<Decision, DropReason> {
    report.service = service + 1;
    let ring = maglev::ring(service);
    report.ring = ring.bits();
    let Some(settings) = SETTINGS.get(0) else {
        return Err(DropReason::NoBackend);
    };
    if ring.is_empty() {
        return Err(DropReason::NoBackend);
    }
    let hash = hash::flow(&settings.hash_key, tuple, network.is_ipv4);
    report.set_hash(hash);
    let slot = maglev::slot(ring, hash);
    report.slot = slot;
    let id = maglev::backend(ring, slot);
    report.backend = id.bits();
    let Some(hop) = maglev::hop(id) else {
        return Err(DropReason::StaleBackend);
    };
    report.mode = hop.mode;
    let served = Served {
        service,
        backend: id.index(),
        bytes: network.length,
    };
    if hop.mode == Mode::Local as u8 {
        return if ring.is_held() {
            Ok(Decision::Local(served))
        } else {
            Err(DropReason::NotHeld)
        };
    }
    if was_directed(packet, settings, &network.source) {
        return if ring.is_held() {
            Ok(Decision::Pass(Verdict::Directed))
        } else {
            Err(DropReason::NotHeld)
        };
    }
    if hop.mode == Mode::Unknown as u8 {
        return Err(DropReason::NextHopUnknown);
    }
    if network.ttl <= 1 {
        return Err(DropReason::TtlExpired);
    }
    Ok(Decision::Forward {
        served,
        network,
        hop,
        hash,
    })
}

/// The payload of a packet that looks as if a director had sent it through a tunnel: directors send neither options nor
/// fragments around a packet.
#[inline(always)]
fn may_be_tunnel(packet: &Packet, network: &Network) -> Option<Payload> {
    if network.is_ipv4 {
        if network.header_length != ipv4::LEN || network.is_fragment {
            return None;
        }
        parse::tunnel(packet, network.next, network.l3 + ipv4::LEN)
    } else {
        parse::tunnel(packet, network.next, network.l3 + ipv6::LEN)
    }
}

/// Decides on a tunnel packet: ours only if the inner packet is for a VIP and the outer one for this node.
#[inline(always)]
fn from_tunnel(
    packet: &Packet,
    outer: &Network,
    payload: Payload,
    report: &mut Report,
) -> Result<Decision, DropReason> {
    let Some(inner) = parse::network(packet, payload.l3, payload.is_ipv4) else {
        return NOT_OURS;
    };
    if !vip::may_be_vip(&inner.destination)
        || !vip::address(&inner.destination).has(AddressEntry::VIP)
        || !vip::address(&outer.destination).has(AddressEntry::NODE)
    {
        return NOT_OURS;
    }
    if peers::by_address(&outer.source) == 0 {
        return Err(DropReason::UnknownPeer);
    }
    if !payload.is_understood {
        return Err(DropReason::BadTunnel);
    }
    let strip = Ok(Decision::Strip {
        outer_l3: outer.l3,
        payload,
    });
    let tuple = match flow(packet, &inner)? {
        Class::Flow(tuple) => tuple,
        Class::Icmp => return strip,
        Class::Other => return Err(DropReason::NoService),
    };
    let Some(service) = vip::service(&tuple.to) else {
        return Err(DropReason::NoService);
    };
    report.service = service + 1;
    let ring = maglev::ring(service);
    report.ring = ring.bits();
    if ring.is_held() {
        strip
    } else {
        Err(DropReason::NotHeld)
    }
}

enum Class {
    Flow(Tuple),
    Icmp,
    Other,
}

/// The flow that a packet belongs to.
#[inline(always)]
fn flow(packet: &Packet, network: &Network) -> Result<Class, DropReason> {
    let transport: Transport = parse::transport(packet, network)?;
    match transport.protocol {
        protocol::ICMP | protocol::ICMPV6 => return Ok(Class::Icmp),
        protocol::TCP | protocol::UDP => {}
        _ => return Ok(Class::Other),
    }
    if transport.is_fragment {
        return Err(DropReason::Fragment);
    }
    let (source_port, destination_port) = parse::ports(packet, &transport)?;
    let to = VipKey::new(network.destination, destination_port, transport.protocol);
    Ok(Class::Flow(Tuple {
        to,
        source: network.source,
        source_port,
    }))
}

/// Whether another director on the link has already chosen this node.
#[inline(always)]
fn was_directed(packet: &Packet, settings: &Settings, source: &IpAddr16) -> bool {
    let Some(mac) = packet.read::<6>(6) else { return false };
    let mac: Mac = mac;
    peers::has_directed(settings, mac, source)
}
