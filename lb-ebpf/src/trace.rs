//! The tracing variant: decides and acts as the plain one, and writes an event for every packet that concerns a VIP into
//! the ring buffer. The agent puts it on the interfaces while somebody listens, so the plain one pays nothing for it.
//!
//! What a packet is about is noted before it is decided on, since acting rewrites it.

use core::cell::Cell;

use aya_ebpf::programs::XdpContext;
use lb_common::{
    addr::{Be16, IpAddr16},
    hash::FlowHash,
    maps::{
        addresses::AddressEntry,
        backends::Hop,
        trace::{Event, Filter, TraceCounts},
    },
    parse::{self, Bytes, Network, Payload},
    report::{End as ReportedEnd, Report},
    tracking::Kind,
    verdict::{Action, DropReason, Verdict},
    wire::{eth, ipv4, ipv6, protocol},
};

use crate::{
    act::{self, Live},
    decide::{self, Actor, End, Served},
    encap,
    maps::{self, EVENTS, TRACE_FILTER},
    packet::Packet,
    second_chance::Again,
    stats, vip,
};

const SECOND: u64 = 1_000_000_000;

/// Length of an ARP packet for IPv4 over Ethernet, bytes (RFC 826).
const ARP_LEN: u32 = 28;

/// The whole way of a packet, told if it is wanted. Returns an `xdp_action`.
///
/// What is noted goes through the scratch, whose contents the verifier does not follow: a value that it followed from
/// here through the decision would multiply the paths it has to check. The steps are calls, so that only one of them has
/// its variables on the stack.
#[inline(always)]
pub fn run<const MULTI_BUFFER: bool>(ctx: &XdpContext) -> u32 {
    let packet = Packet::new(ctx); // what is noted lies in the first buffer
    find(&packet);
    note(&packet);
    let action = act::<MULTI_BUFFER>(ctx);
    tell();
    action
}

/// Decides on a packet and acts, and notes how it ended.
#[inline(never)]
fn act<const MULTI_BUFFER: bool>(ctx: &XdpContext) -> u32 {
    let mut packet = if MULTI_BUFFER { Packet::multi_buffer(ctx) } else { Packet::new(ctx) };
    let Some(report) = maps::trace_report() else { return Action::Pass as u32 };
    *report = Report::START;
    let actor = Tracing { verdict: Cell::new(Verdict::NotOurs as u32) };
    let (action, end) = match decide::decide(&mut packet, report, &actor) {
        Ok(action) => (action, ReportedEnd::Verdict(actor.verdict.get())),
        Err(reason) => {
            stats::drop(reason);
            (reason.action() as u32, ReportedEnd::Drop(reason as u32))
        }
    };
    report.end = end;
    if let Some(event) = maps::scratch() {
        event.report = report.to_words();
    }
    action
}

/// Acts as the plain program does, and remembers the verdict.
struct Tracing {
    verdict: Cell<u32>,
}

impl Tracing {
    #[inline(always)]
    fn noting(&self, verdict: Verdict, end: End) -> End {
        self.verdict.set(verdict as u32);
        end
    }
}

impl Actor for Tracing {
    const RECORDS: bool = Live::RECORDS;

    #[inline(always)]
    fn pass(&self, verdict: Verdict) -> End {
        self.noting(verdict, Live.pass(verdict))
    }

    #[inline(always)]
    fn local(&self, served: Served) -> End {
        self.noting(Verdict::Local, Live.local(served))
    }

    #[inline(always)]
    fn retarget(&self, packet: &Packet, service: u32, l3: usize, is_ipv4: bool) -> Result<(), DropReason> {
        Live.retarget(packet, service, l3, is_ipv4)
    }

    #[inline(always)]
    fn strip(&self, packet: &mut Packet, outer_l3: usize, payload: &Payload) -> End {
        self.noting(Verdict::Terminated, Live.strip(packet, outer_l3, payload))
    }

    #[inline(always)]
    fn forward(
        &self,
        packet: &mut Packet,
        served: Served,
        network: &Network,
        kind: Kind,
        hop: &Hop,
        hash: FlowHash,
    ) -> End {
        let room = encap::room(hop);
        let fits = network.length <= u32::from(room);
        let verdict = if fits { encap::verdict(hop.mode) } else { act::refusal(room.max(ipv4::MIN_MTU)).0 };
        self.noting(verdict, Live.forward(packet, served, network, kind, hop, hash))
    }

    #[inline(always)]
    fn send_on(&self, packet: &mut Packet, again: &Again) -> End {
        self.noting(Verdict::SecondChance, Live.send_on(packet, again))
    }

    #[inline(always)]
    fn refuse(&self, packet: &mut Packet, network: &Network, mtu: u16) -> End {
        self.noting(act::refusal(mtu).0, Live.refuse(packet, network, mtu))
    }
}

/// Finds the packet for a VIP in a frame, and notes where it is and how it came.
#[inline(never)]
fn find(packet: &Packet) {
    let Some(event) = maps::scratch() else { return };
    event.interface = packet.interface();
    event.tunnel_source = IpAddr16::v6([0; 4]);
    event.source = IpAddr16::v6([0; 4]);
    (event.source_port, event.destination_port) = (Be16::new(0), Be16::new(0));
    (event.protocol, event.flags, event.found) = (0, 0, Event::NOTHING);
    let Some(link) = parse::link(packet) else { return };
    let is_ipv4 = match link.ethertype {
        eth::IPV4 => true,
        eth::IPV6 => false,
        eth::ARP => return note_arp(packet, link.l3, event),
        _ => return,
    };
    let Some(network) = parse::network(packet, link.l3, is_ipv4) else { return };
    if is_vip(&network.destination) {
        event.found = found(is_ipv4);
        event.l3 = link.l3 as u8;
        return;
    }
    if is_ipv4 && network.header_length != ipv4::LEN {
        return;
    }
    let l4 = network.l3 + if is_ipv4 { ipv4::LEN } else { ipv6::LEN };
    let Some(payload) = parse::tunnel(packet, network.next, l4) else { return };
    let Some(inner) = parse::network(packet, payload.l3, payload.is_ipv4) else { return };
    if is_vip(&inner.destination) {
        event.tunnel_source = network.source;
        event.flags = Event::TUNNEL;
        event.found = found(payload.is_ipv4);
        event.l3 = payload.l3 as u8;
    }
}

#[inline(always)]
const fn found(is_ipv4: bool) -> u8 {
    if is_ipv4 { Event::IPV4 } else { Event::IPV6 }
}

/// Notes what the packet that was found is about, before acting on it rewrites it.
#[inline(never)]
fn note(packet: &Packet) {
    let Some(event) = maps::scratch() else { return };
    let is_ipv4 = match event.found {
        Event::IPV4 => true,
        Event::IPV6 => false,
        _ => return,
    };
    if let Some(network) = parse::network(packet, usize::from(event.l3), is_ipv4) {
        note_packet(packet, &network, event);
    }
}

#[inline(always)]
fn is_vip(address: &IpAddr16) -> bool {
    vip::may_be_vip(address) && maps::address(address).has(AddressEntry::VIP)
}

/// Notes addresses, and ports as far as the packet has any that can be read.
#[inline(always)]
fn note_packet(packet: &Packet, network: &Network, event: &mut Event) {
    event.source = network.source;
    event.destination = network.destination;
    event.length = network.length;
    event.protocol = network.next;
    let Ok(transport) = parse::transport(packet, network) else { return };
    event.protocol = transport.protocol;
    if transport.is_fragment {
        event.flags |= Event::FRAGMENT;
        return;
    }
    if !matches!(transport.protocol, protocol::TCP | protocol::UDP) {
        return;
    }
    if let Some([ports]) = packet.words(transport.l4) {
        let [s0, s1, d0, d1] = ports.to_ne_bytes();
        event.source_port = Be16::from_wire([s0, s1]);
        event.destination_port = Be16::from_wire([d0, d1]);
    }
}

/// Notes sender and target of an ARP packet (RFC 826).
#[inline(always)]
fn note_arp(packet: &Packet, l3: usize, event: &mut Event) {
    let (Some([sender]), Some([target])) = (packet.words(l3 + 14), packet.words(l3 + 24)) else { return };
    event.source = IpAddr16::v4(sender);
    event.destination = IpAddr16::v4(target);
    event.length = ARP_LEN;
    event.flags = Event::ARP;
    if is_vip(&event.destination) {
        event.found = Event::OTHER;
    }
}

/// Tells the event that was noted, if the filter and the rate allow it.
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would be copied through the stack")]
#[inline(never)]
fn tell() {
    let (Some(event), Some(counts)) = (maps::scratch(), maps::trace_counts()) else { return };
    let Some(filter) = TRACE_FILTER.get(0) else { return };
    if event.found == Event::NOTHING || event.is_for_nobody() || !filter.wants(event) {
        return;
    }
    event.time = maps::now();
    if !may_tell(filter, counts, event.time) || EVENTS.output(&*event, 0).is_err() {
        counts.lost += 1;
    }
}

/// Counts an event against the rate; false if there were as many within this second.
#[inline(always)]
fn may_tell(filter: &Filter, counts: &mut TraceCounts, now: u64) -> bool {
    let second = now / SECOND;
    if counts.second != second {
        counts.second = second;
        counts.told = 0;
    }
    counts.told += 1;
    filter.rate == 0 || counts.told <= u64::from(filter.rate)
}
