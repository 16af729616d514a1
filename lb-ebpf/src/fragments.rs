//! Ports of fragments: the first of a datagram records them, later ones look them up. Rare, so all of it is a function
//! of its own.
#![expect(unsafe_code, reason = "map values are borrowed from the kernel, where other CPUs may be writing them")]

use aya_ebpf::{bindings::BPF_ANY, helpers::generated::bpf_ktime_get_ns};
use lb_common::{
    addr::{Be16, IpAddr16},
    maps::{
        fragments::{FragmentEntry, FragmentKey},
        services::VipKey,
    },
    parse::{self, Bytes, Network, Transport},
    verdict::DropReason,
    wire::protocol,
};

use crate::{
    maps::{FRAGMENTS, SETTINGS},
    packet::Packet,
    peers, vip,
};

/// What a fragment is asked, and the answer.
pub struct Question {
    source: IpAddr16,
    destination: IpAddr16,
    l3: usize,
    transport: Transport,
    is_ipv4: bool,
    /// Whether a first fragment is to be remembered.
    records: bool,
    /// Protocol of the transport; valid after a success, as are the ports.
    pub protocol: u8,
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
}

/// The ports of a fragment, and the protocol they belong to. `records`: remember those of a first fragment.
///
/// # Errors
/// [`DropReason::UnknownFragment`] for a later fragment whose first one is not known, [`DropReason::NoService`] if it is
/// of no protocol that has ports; see [`parse::first_fragment`] for first ones.
#[inline(always)]
pub fn ports(packet: &Packet, network: &Network, transport: &Transport, records: bool) -> Result<Question, DropReason> {
    if !packet.reaches(transport.end) {
        return Err(DropReason::Truncated);
    }
    let mut question = Question {
        source: network.source,
        destination: network.destination,
        l3: network.l3,
        transport: *transport,
        is_ipv4: network.is_ipv4,
        records,
        protocol: 0,
        source_port: Be16::new(0),
        destination_port: Be16::new(0),
    };
    answer(&packet.linear(), &mut question)?;
    Ok(question)
}

/// Whether a later fragment that nobody knows came from another director on the link, which knew it.
#[inline(always)]
pub fn was_directed(packet: &Packet, network: &Network) -> bool {
    came_from_peer(&packet.linear(), &{ network.source })
}

#[inline(never)]
fn answer(packet: &Packet, question: &mut Question) -> Result<(), DropReason> {
    let Transport { l4, protocol: number, .. } = question.transport;
    let Some(fragment) = parse::fragment(packet, question.l3, l4, question.is_ipv4) else {
        return Err(DropReason::Truncated);
    };
    let key = FragmentKey {
        source: question.source,
        destination: question.destination,
        identification: fragment.identification,
        protocol: u32::from(if question.is_ipv4 { number } else { protocol::FRAGMENT }),
    };
    // SAFETY: the helper reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    if fragment.is_first {
        let (number, (source, destination)) = parse::first_fragment(packet, question.transport, question.is_ipv4)?;
        (question.protocol, question.source_port, question.destination_port) = (number, source, destination);
        if question.records && vip::service(&VipKey::new(question.destination, destination, number)).is_some() {
            let entry = FragmentEntry {
                time: now,
                source_port: source,
                destination_port: destination,
                protocol: u32::from(number),
            };
            // Without room the later fragments are unknown, which is counted then.
            let _ = FRAGMENTS.insert(&key, &entry, u64::from(BPF_ANY));
        }
        return Ok(());
    }
    // SAFETY: copied at once. Another CPU may take the entry for another datagram meanwhile: then the fragment goes to
    // another backend, which cannot use it, and its datagram is lost as if the entry had gone a moment earlier.
    let Some(entry) = (unsafe { FRAGMENTS.get(&key) }).copied().filter(|entry| entry.is_fresh(now)) else {
        return Err(if parse::has_ports(number) { DropReason::UnknownFragment } else { DropReason::NoService });
    };
    question.protocol = entry.protocol as u8;
    (question.source_port, question.destination_port) = (entry.source_port, entry.destination_port);
    Ok(())
}

#[inline(never)]
fn came_from_peer(packet: &Packet, source: &IpAddr16) -> bool {
    match (SETTINGS.get(0), packet.read::<6>(6)) {
        (Some(settings), Some(mac)) => peers::has_directed(settings, mac, source),
        _ => false,
    }
}
