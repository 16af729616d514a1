//! Frames: what the harness is to restore, and what has to come out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::wire::protocol;
use packets_tests::{Frame, Packet, World, addresses::*, flow_hash, gue, ipip, tcp, udp};

use super::{
    cases::{Delivery, End, Traffic},
    template::{Flow, Template},
};

/// Length of the Ethernet header.
const LINK: usize = 14;

/// What the harness needs to make the frames of some traffic.
///
/// # Panics
/// If the first frame is too short for a transport header.
#[must_use]
pub fn template(traffic: &Traffic) -> Template {
    let frame = (traffic.packet)().frame().bytes();
    let hop = if is_ipv4(&frame) { 22 } else { 14 };
    let at = Offsets::of(&frame);
    Template {
        length: frame.len() as u64,
        flows: traffic.flows,
        vips: traffic.vips,
        link: u64::from_le_bytes(bytes(&frame, 0)),
        link_end: u64::from_le_bytes(bytes(&frame, 6)),
        hop: u64::from_le_bytes(bytes(&frame, hop)),
        source: u32::from_le_bytes(bytes(&frame, at.source)),
        destination: u32::from_le_bytes(bytes(&frame, at.destination)),
        ports: u32::from_le_bytes(bytes(&frame, at.ports)),
        pad: 0,
    }
}

/// The packet of a flow, built anew and not cut from the template's bytes.
#[must_use]
pub fn packet_of(traffic: &Traffic, flow: Flow) -> Packet {
    let first = (traffic.packet)();
    let [s0, s1, d0, d1] = flow.ports.to_le_bytes();
    let (source_port, destination_port) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    let source = with_last_word(first.source(), flow.source);
    let destination = with_last_word(first.destination(), flow.destination);
    if first.protocol() == protocol::UDP {
        return udp(source, source_port, destination, destination_port);
    }
    let packet = tcp(source, source_port, destination, destination_port);
    if is_syn(&first) { packet.syn() } else { packet }
}

/// The frame that has to come out for a packet.
#[must_use]
pub fn expected(end: End, world: &World, packet: &Packet) -> Vec<u8> {
    let delivery = match end {
        End::Floor(0) | End::NotOurs | End::Local => return packet.frame().bytes(),
        End::Floor(grown) => return [vec![0; grown], packet.frame().bytes()].concat(),
        End::Sent(delivery, _) => delivery,
    };
    let inner = packet.clone().ttl(63);
    let hash = flow_hash(world, packet);
    let entropy = u16::try_from(0xc000 | (hash & 0x3fff)).expect("few bits");
    let label = u32::try_from(hash & 0xf_ffff).expect("few bits");
    let leaving = match delivery {
        Delivery::L2 => inner,
        Delivery::Ipip4 => ipip(NODE4, A4, &inner),
        Delivery::Ipip6 => ipip(NODE6, A6, &inner).flow_label(label),
        Delivery::Gue4 => gue(NODE4, A4, entropy, &inner),
        Delivery::Gue6 => gue(NODE6, A6, entropy, &inner).flow_label(label),
    };
    Frame::of(&leaving).between(NODE_MAC, NEXT_MAC).bytes()
}

/// A frame without what the harness leaves as it was in the template: the checksums of the packet that came in, which
/// are at the same distance from the frame's end on both sides, and the bytes that only a floor makes room for.
#[must_use]
pub fn without_checksums(end: End, came_in: &[u8], frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let Some(grown) = frame.len().checked_sub(came_in.len()) else { return frame };
    if matches!(end, End::Floor(_)) {
        frame[..grown].fill(0);
    }
    let at = Offsets::of(came_in);
    for at in at.checksums.into_iter().flatten() {
        frame[grown + at..grown + at + 2].fill(0);
    }
    frame
}

/// Where things are in a frame that comes in: untagged, without options or extension headers.
struct Offsets {
    source: usize,
    destination: usize,
    ports: usize,
    checksums: [Option<usize>; 2],
}

impl Offsets {
    fn of(frame: &[u8]) -> Self {
        let is_ipv4 = is_ipv4(frame);
        let (next, l4) = if is_ipv4 { (frame[LINK + 9], LINK + 20) } else { (frame[LINK + 6], LINK + 40) };
        let transport = l4 + if next == protocol::UDP { 6 } else { 16 };
        let (source, destination) = if is_ipv4 { (26, 30) } else { (34, 50) };
        Self { source, destination, ports: l4, checksums: [is_ipv4.then_some(LINK + 10), Some(transport)] }
    }
}

fn is_ipv4(frame: &[u8]) -> bool {
    frame[12..14] == [0x08, 0x00]
}

fn is_syn(packet: &Packet) -> bool {
    let frame = packet.frame().bytes();
    let flags = frame[Offsets::of(&frame).ports + 13];
    packet.protocol() == protocol::TCP && flags & 2 != 0
}

fn with_last_word(address: IpAddr, word: u32) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(word.to_le_bytes())),
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[12..].copy_from_slice(&word.to_le_bytes());
            IpAddr::V6(Ipv6Addr::from(octets))
        }
    }
}

fn bytes<const N: usize>(frame: &[u8], at: usize) -> [u8; N] {
    frame[at..at + N].try_into().expect("the slice has this length")
}
