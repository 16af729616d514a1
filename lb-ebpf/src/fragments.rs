//! Ports of fragments: the first of a datagram records them, later ones look them up. Rare, so all of it is a function
//! of its own.

use aya_ebpf::bindings::BPF_ANY;
use lb_common::{
    addr::{Be16, IpAddr16, wire_word},
    hash::Tuple,
    maps::{
        fragments::{FragmentEntry, FragmentKey},
        services::VipKey,
    },
    parse::{self, Bytes, Network, Transport},
    verdict::DropReason,
};

use crate::{
    maps::{self, FRAGMENTS, SETTINGS},
    packet::Packet,
    peers, vip,
};

/// What is asked about a fragment: words only, which the verifier follows through the stack.
#[repr(C)]
struct Question {
    source: IpAddr16,
    destination: IpAddr16,
    /// Offset of what tells the fragment's place. Taken from `l4` here, the verifier would not follow.
    at: usize,
    l4: usize,
    end: usize,
    protocol: u64,
    is_ipv4: u64,
    /// Whether a first fragment is to be remembered.
    records: u64,
}

/// How the ports of a fragment are found.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Ports {
    /// Not at all: every fragment is an unknown one. The verifier has half as much to follow.
    Unasked,
    /// In the first fragment, or among those recorded.
    Looked,
    /// As `Looked`, and those of a first fragment are recorded.
    Recorded,
}

/// The flow of a fragment.
///
/// # Errors
/// [`DropReason::Truncated`] if the frame ends before the packet does, [`DropReason::UnknownFragment`] for a later
/// fragment whose first one is not known, [`DropReason::NoService`] if it is of no protocol that has ports; see
/// [`parse::first_fragment`] for first ones.
#[inline(always)]
pub fn flow(packet: &Packet, network: &Network, transport: &Transport, ports: Ports) -> Result<Tuple, DropReason> {
    if !packet.reaches(transport.end) {
        return Err(DropReason::Truncated);
    }
    if ports == Ports::Unasked {
        return Err(DropReason::UnknownFragment);
    }
    let question = Question {
        source: network.source,
        destination: network.destination,
        at: transport.fragment_words(network),
        l4: transport.l4,
        end: transport.end,
        protocol: u64::from(transport.protocol),
        is_ipv4: u64::from(network.is_ipv4),
        records: u64::from(ports == Ports::Recorded),
    };
    let (source_port, destination_port) = Answer::read(answer(&Packet::linear(packet.context()), &question))?;
    let to = VipKey::new(network.destination, destination_port, transport.protocol);
    Ok(Tuple::new(network.source, source_port, to))
}

/// An answer in a register: ports in bits 0..32 as they are on the wire; or a reason, and bit 63.
struct Answer;

impl Answer {
    const FAILED: u64 = 1 << 63;

    #[inline(always)]
    fn ports(source: Be16, destination: Be16) -> u64 {
        let ([a, b], [c, d]) = (source.wire(), destination.wire());
        u64::from(wire_word([a, b, c, d]))
    }

    #[inline(always)]
    fn failed(reason: DropReason) -> u64 {
        Self::FAILED | u64::from(reason as u32)
    }

    #[inline(always)]
    fn read(answer: u64) -> Result<(Be16, Be16), DropReason> {
        if answer & Self::FAILED != 0 {
            return Err(DropReason::from_index(answer as u32).unwrap_or(DropReason::UnknownFragment));
        }
        let [a, b, c, d] = (answer as u32).to_ne_bytes();
        Ok((Be16::from_wire([a, b]), Be16::from_wire([c, d])))
    }
}

/// Whether a later fragment that nobody knows came from another director on the link, which knew it.
#[inline(always)]
pub fn was_directed(packet: &Packet, network: &Network) -> bool {
    came_from_peer(&Packet::linear(packet.context()), &{ network.source })
}

#[inline(never)]
fn answer(packet: &Packet, question: &Question) -> u64 {
    let (number, is_ipv4) = (question.protocol as u8, question.is_ipv4 != 0);
    let Some(fragment) = parse::fragment(packet, question.at, is_ipv4) else {
        return Answer::failed(DropReason::Truncated);
    };
    let key = FragmentKey {
        source: question.source,
        destination: question.destination,
        identification: fragment.identification,
        protocol: u32::from(number),
    };
    if !fragment.is_first {
        return match recall(&key) {
            Some(entry) => Answer::ports(entry.source_port, entry.destination_port),
            None if parse::has_ports(number) => Answer::failed(DropReason::UnknownFragment),
            None => Answer::failed(DropReason::NoService),
        };
    }
    let transport = Transport { protocol: number, l4: question.l4, end: question.end, is_fragment: true };
    match parse::first_fragment(packet, &transport) {
        Ok((source, destination)) => {
            let to = VipKey::new(question.destination, destination, number);
            if question.records != 0 && vip::service(&to).is_some() {
                record(&key, source, destination);
            }
            Answer::ports(source, destination)
        }
        Err(reason) => Answer::failed(reason),
    }
}

#[inline(always)]
fn recall(key: &FragmentKey) -> Option<FragmentEntry> {
    maps::fragment(key).filter(|entry| entry.is_fresh(maps::now()))
}

#[inline(always)]
fn record(key: &FragmentKey, source_port: Be16, destination_port: Be16) {
    let entry = FragmentEntry { time: maps::now(), source_port, destination_port, pad: 0 };
    // Without room the later fragments are unknown, which is counted then.
    let _ = FRAGMENTS.insert(key, entry, u64::from(BPF_ANY));
}

#[inline(never)]
fn came_from_peer(packet: &Packet, source: &IpAddr16) -> bool {
    match (SETTINGS.get(0), packet.read::<6>(6)) {
        (Some(settings), Some(mac)) => peers::has_directed(settings, mac, source),
        _ => false,
    }
}
