//! The decision on a packet: reads it and the maps, changes and counts nothing.
//!
//! What is not for a VIP ends as [`Verdict::NotOurs`] as early as can be. A reason to drop counts only once the
//! destination is known to be a VIP: a fault in a packet for anybody else is none of ours.

use lb_common::{
    addr::{BackendId, IpAddr16, Mac},
    hash::{self, FlowHash, Tuple},
    maps::{
        addresses::AddressEntry,
        backends::{Hop, Mode},
        published::RingWord,
        rings::SlotState,
        services::VipKey,
        settings::Settings,
    },
    parse::{self, Bytes, Network, Payload, Transport},
    report::Report,
    tracking::{Kind, OnSlot},
    verdict::{DropReason, Verdict},
    verifier::forget,
    wire::{eth, ipv4, ipv6, protocol},
};

use crate::{
    arp, extensions,
    fragments::{self, Ports},
    icmp, maglev,
    maps::{self, SETTINGS},
    packet::Packet,
    peers,
    second_chance::{self, Again},
    sources, tracking, vip,
};

/// What follows a decision. The live entry performs it, the dry one only notes it.
///
/// Decisions are handed on by calls, not returned as one value: the verifier wants every part of a value written on
/// every path, and the compiler does not write what a variant lacks.
pub trait Actor {
    /// Whether flows, and the ports of fragments, may be recorded.
    const RECORDS: bool;
    /// Up the stack as it is.
    fn pass(&self, verdict: Verdict) -> End;
    /// Up the stack, counted for the service; the backend is this node.
    fn local(&self, served: Served) -> End;
    /// Give the packet at `l3`, which is to be delivered here, the port of the servers of `service`.
    fn retarget(&self, packet: &Packet, service: u32, l3: usize, is_ipv4: bool) -> Result<(), DropReason>;
    /// Strip the tunnel header that begins at `outer_l3` and pass up.
    fn strip(&self, packet: &mut Packet, outer_l3: usize, payload: &Payload) -> End;
    /// Send on. What does not fit is answered as [`Self::refuse`] does, unless it is an error itself.
    fn forward(
        &self,
        packet: &mut Packet,
        served: Served,
        network: &Network,
        kind: Kind,
        hop: &Hop,
        hash: FlowHash,
    ) -> End;
    /// Send on to the other owner of the packet's slot.
    fn send_on(&self, packet: &mut Packet, again: &Again) -> End;
    /// Tell the sender that the packet cannot go on: too long for this MTU, or (MTU 0) its TTL is used up.
    fn refuse(&self, packet: &mut Packet, network: &Network, mtu: u16) -> End;
}

/// An `xdp_action`, or why the packet is dropped.
pub type End = Result<u32, DropReason>;

/// For whom a packet is counted.
pub struct Served {
    /// Index of the service.
    pub service: u32,
    /// Index of the backend.
    pub backend: u32,
    /// Bytes of the IP packet.
    pub bytes: u32,
}

/// Decides on a packet, noting in `report` how the choice came about.
#[inline(always)]
pub fn decide<A: Actor>(packet: &mut Packet, report: &mut Report, actor: &A) -> End {
    let Some(link) = parse::link(packet) else {
        return actor.pass(Verdict::NotOurs);
    };
    let is_ipv4 = match link.ethertype {
        eth::IPV4 => true,
        eth::IPV6 => false,
        eth::ARP => return actor.pass(arp::decide(packet, link.l3)?),
        _ => return actor.pass(Verdict::NotOurs),
    };
    let Some(network) = parse::network(packet, link.l3, is_ipv4) else {
        return actor.pass(Verdict::NotOurs);
    };
    if vip::may_be_vip(&network.destination)
        && let Some(end) = for_vip(packet, &network, report, actor)
    {
        return end;
    }
    match may_be_tunnel(packet, &network) {
        Some(payload) => from_tunnel(packet, &network, &payload, report, actor),
        None => actor.pass(Verdict::NotOurs),
    }
}

/// Decides on a packet whose destination may be a VIP; `None` if it is none.
#[inline(always)]
fn for_vip<A: Actor>(packet: &mut Packet, network: &Network, report: &mut Report, actor: &A) -> Option<End> {
    let end = match flow(packet, network, if A::RECORDS { Ports::Recorded } else { Ports::Looked }) {
        Ok(Class::Flow(flow)) => match vip::service(&flow.tuple.to) {
            Some(service) => return Some(choose(packet, service, network, &flow, report, actor)),
            None => Err(DropReason::NoService),
        },
        Ok(Class::Echo) => Err(DropReason::EchoNotHeld),
        Ok(Class::Neighbour) => Ok(Verdict::Icmp),
        Ok(Class::Other) => Err(DropReason::NoService),
        Err(reason) => Err(reason),
    };
    let address = maps::address(&network.destination);
    if !address.has(AddressEntry::VIP) {
        return None;
    }
    Some(match end {
        Err(DropReason::UnknownFragment)
            if address.has(AddressEntry::HELD) && fragments::was_directed(packet, network) =>
        {
            actor.pass(Verdict::Directed)
        }
        Err(DropReason::NoService | DropReason::UnknownFragment) if address.has(AddressEntry::PASS_UNMATCHED) => {
            actor.pass(Verdict::Unmatched)
        }
        Err(DropReason::EchoNotHeld) if address.has(AddressEntry::HELD) => actor.pass(Verdict::Icmp),
        Err(reason) => Err(reason),
        Ok(verdict) => actor.pass(verdict),
    })
}

/// Decides on a packet for a service: chooses the backend and how to get there.
#[inline(always)]
fn choose<A: Actor>(
    packet: &mut Packet,
    service: u32,
    network: &Network,
    flow: &Flow,
    report: &mut Report,
    actor: &A,
) -> End {
    report.service = service + 1;
    let ring = maglev::ring(service);
    report.ring = ring.bits();
    let Some(settings) = SETTINGS.get(0) else {
        return Err(DropReason::NoBackend);
    };
    if ring.has_source_ranges() && !sources::admits(service, network.is_ipv4, &flow.tuple.source) {
        return Err(DropReason::SourceDenied);
    }
    if ring.is_empty() {
        return Err(DropReason::NoBackend);
    }
    let hash = hash::flow(&settings.hash_key, &flow.tuple, ring.has_affinity(), network.is_ipv4);
    report.set_hash(hash);
    #[cfg(not(feature = "yardstick-lru"))]
    let id = owner::<A>(service, ring, flow, hash, report)?;
    #[cfg(feature = "yardstick-lru")]
    let id = crate::yardstick::backend(flow, || owner::<A>(service, ring, flow, hash, report))?;
    report.backend = id.bits();
    if id == BackendId::NONE {
        return Err(DropReason::NoBackend);
    }
    let Some(hop) = maglev::hop(id) else {
        return Err(DropReason::StaleBackend);
    };
    report.mode = hop.mode;
    let served = Served { service, backend: id.index(), bytes: network.length };
    let is_here = hop.mode == Mode::Local as u8;
    if is_here || was_directed(packet, settings, &network.source) {
        if !ring.is_held() {
            return Err(DropReason::NotHeld);
        }
        let to = other_owner(packet, service, ring, flow, hash, network.is_ipv4, 0);
        if to != BackendId::NONE {
            let (l3, is_ipv4) = (network.l3, network.is_ipv4);
            return actor
                .send_on(packet, &Again { outer_l3: l3, l3, is_ipv4, to, chances: 0, entropy: hash.entropy_port() });
        }
        if ring.has_target_port() {
            actor.retarget(packet, service, network.l3, network.is_ipv4)?;
        }
        return if is_here { actor.local(served) } else { actor.pass(Verdict::Directed) };
    }
    if hop.mode == Mode::Unknown as u8 {
        return Err(DropReason::NextHopUnknown);
    }
    if network.ttl <= 1 {
        return match flow.kind {
            Kind::Error => Err(DropReason::TtlExpired),
            _ => actor.refuse(packet, network, 0),
        };
    }
    actor.forward(packet, served, network, flow.kind, hop, hash)
}

/// The backend of a packet by its slot, and what is recorded of its flow.
#[inline(always)]
fn owner<A: Actor>(
    service: u32,
    ring: RingWord,
    flow: &Flow,
    hash: FlowHash,
    report: &mut Report,
) -> Result<BackendId, DropReason> {
    report.slot = maglev::slot(ring, hash);
    let slot = maglev::entry(ring, report.slot);
    report.state = slot.state() as u8;
    if matches!(slot.state(), SlotState::Settled) {
        return Ok(slot.current());
    }
    tracking::chosen(tracking::choose(&OnSlot {
        tuple: &flow.tuple,
        kind: flow.kind,
        slot_bits: hash.slot_bits(),
        service,
        has_affinity: ring.has_affinity(),
        slot,
        records: A::RECORDS,
    }))
}

/// Who else may know the flow of a packet that is to be delivered here; [`BackendId::NONE`] if it belongs here.
#[inline(always)]
fn other_owner(
    packet: &Packet,
    service: u32,
    ring: RingWord,
    flow: &Flow,
    hash: FlowHash,
    is_ipv4: bool,
    chances: u8,
) -> BackendId {
    if !ring.has_second_chance() || !second_chance::is_possible(&flow.tuple, flow.kind) {
        return BackendId::NONE;
    }
    let slot = maglev::entry(ring, maglev::slot(ring, hash));
    if matches!(slot.state(), SlotState::Settled) {
        return BackendId::NONE;
    }
    second_chance::other_owner(packet, &flow.tuple, is_ipv4, slot, service, chances)
}

/// The payload of a packet that looks as if a director had sent it through a tunnel: directors send neither options nor
/// fragments around a packet.
#[inline(always)]
fn may_be_tunnel(packet: &Packet, network: &Network) -> Option<Payload> {
    let payload = if network.is_ipv4 {
        if network.header_length != ipv4::LEN || network.is_fragment {
            return None;
        }
        parse::tunnel(packet, network.next, network.l3 + ipv4::LEN)?
    } else {
        parse::tunnel(packet, network.next, network.l3 + ipv6::LEN)?
    };
    let numbers = forget::<0x7ff>(payload.l3 | usize::from(payload.chances) << 7);
    Some(Payload { l3: numbers & 0x7f, chances: (numbers >> 7) as u8, ..payload })
}

/// Decides on a tunnel packet: ours only if the inner packet is for a VIP and the outer one for this node.
#[inline(always)]
fn from_tunnel<A: Actor>(
    packet: &mut Packet,
    outer: &Network,
    payload: &Payload,
    report: &mut Report,
    actor: &A,
) -> End {
    let Some(inner) = parse::network(packet, payload.l3, payload.is_ipv4) else {
        return actor.pass(Verdict::NotOurs);
    };
    if !vip::may_be_vip(&inner.destination) {
        return actor.pass(Verdict::NotOurs);
    }
    let address = maps::address(&inner.destination);
    if !address.has(AddressEntry::VIP) || !maps::address(&outer.destination).has(AddressEntry::NODE) {
        return actor.pass(Verdict::NotOurs);
    }
    if maps::peer(&outer.source) == 0 {
        return Err(DropReason::UnknownPeer);
    }
    if !payload.is_understood {
        return Err(DropReason::BadTunnel);
    }
    let flow = match flow(packet, &inner, Ports::Unasked) {
        Ok(Class::Flow(flow)) => flow,
        Ok(Class::Echo) if address.has(AddressEntry::HELD) => return actor.strip(packet, outer.l3, payload),
        Ok(Class::Echo) => return Err(DropReason::EchoNotHeld),
        Ok(Class::Neighbour) => return Err(DropReason::IcmpUnwanted),
        Ok(Class::Other) => return Err(DropReason::NoService),
        // The director knew its service; here it is enough to hold the VIP.
        Err(DropReason::UnknownFragment) if address.has(AddressEntry::HELD) => {
            return actor.strip(packet, outer.l3, payload);
        }
        Err(DropReason::UnknownFragment) => return Err(DropReason::NotHeld),
        Err(reason) => return Err(reason),
    };
    let Some(service) = vip::service(&flow.tuple.to) else {
        return Err(DropReason::NoService);
    };
    report.service = service + 1;
    let ring = maglev::ring(service);
    report.ring = ring.bits();
    if !ring.is_held() {
        return Err(DropReason::NotHeld);
    }
    if ring.has_second_chance()
        && let Some(settings) = SETTINGS.get(0)
    {
        let chances = payload.chances;
        let hash = hash::flow(&settings.hash_key, &flow.tuple, ring.has_affinity(), inner.is_ipv4);
        let to = other_owner(packet, service, ring, &flow, hash, inner.is_ipv4, chances);
        if to != BackendId::NONE {
            let again = Again {
                outer_l3: outer.l3,
                l3: payload.l3,
                is_ipv4: inner.is_ipv4,
                to,
                chances,
                entropy: hash.entropy_port(),
            };
            return actor.send_on(packet, &again);
        }
    }
    if ring.has_target_port() {
        actor.retarget(packet, service, payload.l3, inner.is_ipv4)?;
    }
    actor.strip(packet, outer.l3, payload)
}

/// What a packet is, as far as its headers tell.
pub enum Class {
    /// It belongs to a flow.
    Flow(Flow),
    /// An echo request, or what else of ICMP concerns the one node that holds the VIP.
    Echo,
    /// Neighbour discovery.
    Neighbour,
    /// Another protocol.
    Other,
}

/// The flow of a packet.
pub struct Flow {
    /// Its name.
    pub tuple: Tuple,
    /// What the packet tells about it.
    pub kind: Kind,
}

/// The flow that a packet belongs to. `fragments` says how the ports of fragments are found.
#[inline(always)]
fn flow(packet: &Packet, network: &Network, fragments: Ports) -> Result<Class, DropReason> {
    let transport: Transport = extensions::transport(packet, network)?;
    match transport.protocol {
        protocol::ICMP | protocol::ICMPV6 => return icmp::class(packet, network, &transport),
        _ if transport.is_fragment => {
            let tuple = fragments::flow(packet, network, &transport, fragments)?;
            // Only the first fragment tells more, and it comes once.
            let kind = if transport.protocol == protocol::TCP { Kind::Segment } else { Kind::Datagram };
            return Ok(Class::Flow(Flow { tuple, kind }));
        }
        number if parse::has_ports(number) => {}
        _ => return Ok(Class::Other),
    }
    let ports = parse::ports(packet, &transport)?;
    let to = VipKey::new(network.destination, ports.destination, transport.protocol);
    let tuple = Tuple::new(network.source, ports.source, to);
    Ok(Class::Flow(Flow { tuple, kind: ports.kind }))
}

/// Whether another director on the link has already chosen this node.
#[inline(always)]
fn was_directed(packet: &Packet, settings: &Settings, source: &IpAddr16) -> bool {
    let Some(mac) = packet.read::<6>(6) else { return false };
    let mac: Mac = mac;
    peers::has_directed(settings, mac, source)
}
