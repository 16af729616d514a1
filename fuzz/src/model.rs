//! The decision of the program once more, over plain values: what has to become of a frame.
//!
//! It is written from the documentation of ends and stages, with a reading of frames of its own. Shared with the program
//! are the flow hash and the ring, which other tests compare with other implementations.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use lb_agent::plan::{TargetBackend, TargetService, TargetState};
use lb_common::{
    addr::{Be16, IpAddr16},
    hash::{self, Tuple},
    maglev::{self, Member},
    maps::{addresses::AddressEntry, backends::Mode, services::VipKey},
    verdict::{DropReason, Verdict},
};

use crate::packet::{self, Carried, Ip, Transport, be16, port_header};

/// How a packet ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    Verdict(Verdict),
    Drop(DropReason),
    /// It cannot go on, and its sender is told, or else it is dropped. Other tests count how often may be told.
    Refused {
        told: Verdict,
        untold: DropReason,
        can_tell: bool,
    },
    /// The model does not know: a fragment whose first one came by long ago may have been forgotten or not.
    Unknown,
}

/// Identity of a backend: address and port.
pub type Backend = (IpAddr16, Be16);

/// What the model expects of a frame.
#[derive(Clone, Debug)]
pub struct Expected {
    pub end: End,
    /// The service and its backend, if one was chosen.
    pub chosen: Option<(VipKey, Option<Backend>)>,
    /// Offset of the network header of the packet that was decided on: the inner one if a tunnel ends here.
    pub l3: usize,
    /// Its family, as the EtherType or the tunnel says.
    pub is_ipv4: bool,
    /// Length of the IP packet, bytes.
    pub length: usize,
}

type Identity = (IpAddr16, IpAddr16, u32, u8);

/// A director in memory.
pub struct Model {
    target: TargetState,
    /// Per service the members, and the index of the owner of each slot.
    rings: BTreeMap<VipKey, (Vec<Backend>, Vec<u32>)>,
    /// Ports that a first fragment told; when, and how many were told before.
    fragments: BTreeMap<Identity, (u16, u16, Instant, u64)>,
    told: u64,
}

/// What a packet is.
enum Class {
    Flow { tuple: Tuple, is_error: bool },
    Echo,
    Neighbour,
    Other,
}

/// Why a packet is of no class.
enum Stop {
    Drop(DropReason),
    Unknown,
}

impl From<DropReason> for Stop {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

impl Model {
    /// A director whose maps hold this.
    pub fn new(target: TargetState) -> Self {
        let ring = |service: &TargetService| {
            let members: Vec<_> = service.backends.iter().filter(|(_, backend)| backend.in_ring).collect();
            let member = |(key, backend): &(&Backend, &TargetBackend)| Member {
                address: key.0,
                port: key.1,
                weight: backend.weight,
            };
            let slots = maglev::build(&members.iter().map(member).collect::<Vec<_>>(), service.log2);
            (members.iter().map(|(key, _)| **key).collect(), slots)
        };
        let rings = target.services.iter().map(|(key, service)| (*key, ring(service))).collect();
        Self { target, rings, fragments: BTreeMap::new(), told: 0 }
    }

    /// What has to become of a frame, and what is remembered of it.
    pub fn expect(&mut self, frame: &[u8]) -> Expected {
        let mut expected =
            Expected { end: End::Verdict(Verdict::NotOurs), chosen: None, l3: 0, is_ipv4: false, length: 0 };
        let Some((ethertype, l3)) = packet::link(frame) else { return expected };
        if ethertype == 0x0806 {
            if self.is_arp_for_vip(frame, l3) {
                expected.end = End::Drop(DropReason::Arp);
            }
            return expected;
        }
        let is_ipv4 = ethertype == 0x0800;
        if !is_ipv4 && ethertype != 0x86dd {
            return expected;
        }
        let Some(ip) = packet::ip(frame, l3, is_ipv4) else { return expected };
        (expected.l3, expected.is_ipv4, expected.length) = (l3, is_ipv4, ip.length);
        if self.has(&ip.destination, AddressEntry::VIP) {
            expected.end = self.for_vip(frame, &ip, &mut expected);
        } else if let Some(carried) = packet::carried(frame, &ip) {
            expected.end = self.through_tunnel(frame, &ip, &carried, &mut expected);
        }
        expected
    }

    fn has(&self, address: &IpAddr16, flag: u32) -> bool {
        self.target.addresses.get(address).is_some_and(|flags| flags & flag != 0)
    }

    fn is_arp_for_vip(&self, frame: &[u8], l3: usize) -> bool {
        let (operation, target) = (be16(frame, l3 + 6), packet::address(frame, l3 + 24));
        operation == Some(1) && target.is_some_and(|target| self.has(&target, AddressEntry::VIP))
    }

    fn service(&self, to: &VipKey) -> Option<VipKey> {
        let any = VipKey::new(to.address, Be16::new(0), to.protocol);
        [*to, any].into_iter().find(|key| self.target.services.contains_key(key))
    }

    fn for_vip(&mut self, frame: &[u8], ip: &Ip, expected: &mut Expected) -> End {
        let class = self.class(frame, ip, true);
        let is = |flag| self.has(&ip.destination, flag);
        let reason = match class {
            Ok(Class::Flow { tuple, is_error }) => match self.service(&tuple.to) {
                Some(key) => return self.choose(frame, ip, &key, &tuple, is_error, expected),
                None => DropReason::NoService,
            },
            Ok(Class::Echo) if is(AddressEntry::HELD) => return End::Verdict(Verdict::Icmp),
            Ok(Class::Echo) => DropReason::EchoNotHeld,
            Ok(Class::Neighbour) => return End::Verdict(Verdict::Icmp),
            Ok(Class::Other) => DropReason::NoService,
            Err(Stop::Drop(reason)) => reason,
            Err(Stop::Unknown) => return End::Unknown,
        };
        let is_unknown = reason == DropReason::UnknownFragment;
        if is_unknown && is(AddressEntry::HELD) && self.was_directed(frame, ip) {
            End::Verdict(Verdict::Directed)
        } else if (is_unknown || reason == DropReason::NoService) && is(AddressEntry::PASS_UNMATCHED) {
            End::Verdict(Verdict::Unmatched)
        } else {
            End::Drop(reason)
        }
    }

    /// Whether a director on the link sent the frame on: from its MAC address, but not from its own IP address.
    fn was_directed(&self, frame: &[u8], ip: &Ip) -> bool {
        let peer = frame.get(6..12).and_then(|mac| self.target.peer_macs.get(mac));
        peer.is_some() && peer != self.target.peers.get(&ip.source)
    }

    fn choose(
        &self,
        frame: &[u8],
        ip: &Ip,
        key: &VipKey,
        tuple: &Tuple,
        is_error: bool,
        expected: &mut Expected,
    ) -> End {
        let service = &self.target.services[key];
        expected.chosen = Some((*key, None));
        if !admits(service, ip.is_ipv4, &tuple.source) {
            return End::Drop(DropReason::SourceDenied);
        }
        let (members, slots) = &self.rings[key];
        if slots.is_empty() {
            return End::Drop(DropReason::NoBackend);
        }
        let hash = hash::flow(&self.target.settings.hash_key, tuple, service.has_affinity, ip.is_ipv4);
        let slot = maglev::slot(hash.slot_bits(), service.log2.into());
        let backend = members[slots[slot as usize] as usize];
        expected.chosen = Some((*key, Some(backend)));
        let hop = &service.backends[&backend].hop;
        let held = |verdict| if service.held { End::Verdict(verdict) } else { End::Drop(DropReason::NotHeld) };
        let (verdict, headers) = match Mode::from_value(hop.mode) {
            Mode::Local => return held(Verdict::Local),
            _ if self.was_directed(frame, ip) => return held(Verdict::Directed),
            Mode::Unknown => return End::Drop(DropReason::NextHopUnknown),
            Mode::L2 => (Verdict::L2, 0),
            Mode::Ipip4 => (Verdict::Ipip, 20),
            Mode::Ipip6 => (Verdict::Ipip, 40),
            Mode::Gue4 => (Verdict::Gue, 20 + 8 + 4),
            Mode::Gue6 => (Verdict::Gue, 40 + 8 + 4),
        };
        let is_used_up = ip.ttl <= 1;
        if !is_used_up && ip.length + headers <= hop.mtu.into() {
            return End::Verdict(verdict);
        }
        let (told, untold) = if is_used_up {
            (Verdict::TimeExceededTold, DropReason::TtlExpired)
        } else {
            (Verdict::TooBigTold, DropReason::TooBig)
        };
        if is_error {
            End::Drop(untold)
        } else {
            End::Refused { told, untold, can_tell: may_tell(frame, ip, is_used_up) }
        }
    }

    fn through_tunnel(&mut self, frame: &[u8], outer: &Ip, carried: &Carried, expected: &mut Expected) -> End {
        let not_ours = End::Verdict(Verdict::NotOurs);
        let Some(inner) = packet::ip(frame, carried.l3, carried.is_ipv4) else { return not_ours };
        let is_vip = self.has(&inner.destination, AddressEntry::VIP);
        if !is_vip || !self.has(&outer.destination, AddressEntry::NODE) {
            return not_ours;
        }
        if !self.target.peers.contains_key(&outer.source) {
            return End::Drop(DropReason::UnknownPeer);
        }
        if !carried.is_understood {
            return End::Drop(DropReason::BadTunnel);
        }
        (expected.l3, expected.is_ipv4) = (carried.l3, carried.is_ipv4);
        let stripped = |is_held| if is_held { Ok(End::Verdict(Verdict::Terminated)) } else { Err(DropReason::NotHeld) };
        let is_held = self.has(&inner.destination, AddressEntry::HELD);
        let end = match self.class(frame, &inner, false) {
            Ok(Class::Flow { tuple, .. }) => match self.service(&tuple.to) {
                Some(key) => {
                    expected.chosen = Some((key, None));
                    stripped(self.target.services[&key].held)
                }
                None => Err(DropReason::NoService),
            },
            Ok(Class::Echo) => stripped(is_held).map_err(|_| DropReason::EchoNotHeld),
            Ok(Class::Neighbour) => Err(DropReason::IcmpUnwanted),
            Ok(Class::Other) => Err(DropReason::NoService),
            Err(Stop::Drop(DropReason::UnknownFragment)) => stripped(is_held),
            Err(Stop::Drop(reason)) => Err(reason),
            Err(Stop::Unknown) => Ok(End::Unknown),
        };
        end.unwrap_or_else(End::Drop)
    }

    /// What a packet is. `asks`: whether ports of fragments are looked up and remembered.
    fn class(&mut self, frame: &[u8], ip: &Ip, asks: bool) -> Result<Class, Stop> {
        let transport = packet::transport(frame, ip)?;
        if matches!(transport.protocol, 1 | 58) {
            return Ok(icmp(frame, ip, &transport)?);
        }
        if transport.fragment.is_some() {
            let (source, destination) = self.fragment(frame, ip, &transport, asks)?;
            return Ok(flow(ip, &transport, source, destination));
        }
        let Some(header) = port_header(transport.protocol) else { return Ok(Class::Other) };
        let (Some(source), Some(destination)) = (be16(frame, transport.l4), be16(frame, transport.l4 + 2)) else {
            return Err(DropReason::Truncated.into());
        };
        if transport.l4 + header > transport.end || transport.end > frame.len() {
            return Err(DropReason::Truncated.into());
        }
        Ok(flow(ip, &transport, source, destination))
    }

    /// The ports of a fragment.
    fn fragment(&mut self, frame: &[u8], ip: &Ip, transport: &Transport, asks: bool) -> Result<(u16, u16), Stop> {
        let (Some(fragment), true) = (transport.fragment, transport.end <= frame.len()) else {
            return Err(DropReason::Truncated.into());
        };
        if !asks {
            return Err(DropReason::UnknownFragment.into());
        }
        let number = transport.protocol;
        let identity = (ip.source, ip.destination, fragment.identification, number);
        if fragment.offset > 0 {
            return match self.fragments.get(&identity) {
                Some((source, destination, when, told)) => {
                    let is_fresh = when.elapsed().as_secs() < 20 && self.told - told < 64;
                    if is_fresh { Ok((*source, *destination)) } else { Err(Stop::Unknown) }
                }
                None if port_header(number).is_some() => Err(DropReason::UnknownFragment.into()),
                None => Err(DropReason::NoService.into()),
            };
        }
        let Some(header) = port_header(number) else {
            let hides = packet::is_extension(number);
            return Err(if hides { DropReason::ExtensionHeaders } else { DropReason::NoService }.into());
        };
        if transport.l4 + header > transport.end {
            return Err(DropReason::Fragment.into());
        }
        let (Some(source), Some(destination)) = (be16(frame, transport.l4), be16(frame, transport.l4 + 2)) else {
            return Err(DropReason::Truncated.into());
        };
        if self.service(&VipKey::new(ip.destination, Be16::new(destination), number)).is_some() {
            self.told += 1;
            self.fragments.insert(identity, (source, destination, Instant::now(), self.told));
        }
        Ok((source, destination))
    }
}

fn flow(ip: &Ip, transport: &Transport, source: u16, destination: u16) -> Class {
    let to = VipKey::new(ip.destination, Be16::new(destination), transport.protocol);
    Class::Flow { tuple: Tuple::new(ip.source, Be16::new(source), to), is_error: false }
}

/// What an ICMP message for a VIP is.
fn icmp(frame: &[u8], ip: &Ip, transport: &Transport) -> Result<Class, DropReason> {
    if ip.is_ipv4 != (transport.protocol == 1) {
        return Ok(Class::Other);
    }
    if transport.fragment.is_some() {
        return Ok(Class::Echo);
    }
    let l4 = transport.l4;
    if l4 + 8 > transport.end || transport.end > frame.len() {
        return Err(DropReason::Truncated);
    }
    match (ip.is_ipv4, frame[l4]) {
        (true, 3 | 11 | 12) | (false, 1..=4) => {}
        (true, 8) | (false, 128) => return Ok(Class::Echo),
        (false, 135 | 136) => return Ok(Class::Neighbour),
        _ => return Err(DropReason::IcmpUnwanted),
    }
    quote(frame, ip, l4 + 8, transport.end).unwrap_or(Err(DropReason::BadQuote))
}

/// The flow of the packet that an error quotes: it left from the VIP.
fn quote(frame: &[u8], ip: &Ip, at: usize, end: usize) -> Option<Result<Class, DropReason>> {
    let quoted = packet::ip(frame, at, ip.is_ipv4).filter(|quoted| quoted.source == ip.destination)?;
    let transport = packet::transport(frame, &quoted).ok()?;
    if transport.l4 + 8 > end {
        return None;
    }
    if port_header(transport.protocol).is_none() {
        return Some(Ok(Class::Echo));
    }
    if let Some(fragment) = transport.fragment {
        // Of IPv6, only one whose fragment header comes first.
        let is_first = fragment.offset == 0 && (ip.is_ipv4 || quoted.next == 44);
        is_first.then_some(())?;
    }
    let (vip_port, client_port) = (be16(frame, transport.l4)?, be16(frame, transport.l4 + 2)?);
    let to = VipKey::new(quoted.source, Be16::new(vip_port), transport.protocol);
    let tuple = Tuple::new(quoted.destination, Be16::new(client_port), to);
    Some(Ok(Class::Flow { tuple, is_error: true }))
}

/// Whether a service admits a client. Ranges of one family have no addresses of the other.
fn admits(service: &TargetService, is_ipv4: bool, source: &IpAddr16) -> bool {
    let address = u128::from_be_bytes(source.bytes());
    service.source_ranges.is_empty()
        || service.source_ranges.iter().any(|range| {
            let (first, length) = range.prefix();
            let bits = u32::from(length) + if first.is_ipv4() { 96 } else { 0 };
            let first_bits = u128::from_be_bytes(IpAddr16::from(first).bytes());
            matches!(first, IpAddr::V4(_)) == is_ipv4 && (first_bits ^ address).leading_zeros() >= bits
        })
}

/// Whether the sender of a packet may be told that it cannot go on (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
fn may_tell(frame: &[u8], ip: &Ip, is_used_up: bool) -> bool {
    let source = ip.source.bytes();
    let is_unicast = frame[0] & 1 == 0;
    if ip.is_ipv4 {
        is_unicast && ip.fragment_offset() == 0 && !matches!(source[12], 0 | 127 | 224..)
    } else {
        // An IPv6 sender never sends less than 1280 bytes at a time for being told so.
        is_unicast && source[0] != 0xff && source != [0; 16] && (is_used_up || ip.length > 1280)
    }
}
