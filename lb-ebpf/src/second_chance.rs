//! A packet that is for this node has no socket here, and the owner of its slot has changed: it goes on to the slot's
//! other owner, and if it has no socket there, to the owner before that. A mark counts, so that it does not go on for ever.
//! Directors probe and read their configuration each on its own, so for a moment they can send a flow that moves between
//! them to different owners; and a director that joined later knows no owner from before.
#![expect(unsafe_code, reason = "the verifier knows global functions by the names that the linker sees")]

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    addr::{BackendId, Be16},
    hash::Tuple,
    maps::{
        backends::{Hop, Mode},
        rings::Slot,
    },
    parse::{self, Payload},
    tracking::Kind,
    verdict::{DropReason, Verdict},
    wire::protocol,
};

use crate::{act, encap, maglev, maps, packet::Packet, socket, stats, tracking};

/// Whether a packet can belong to a flow of another node: it is of a TCP connection that has begun.
#[inline(always)]
pub fn is_possible(tuple: &Tuple, kind: Kind) -> bool {
    tuple.to.protocol == protocol::TCP && matches!(kind, Kind::Segment | Kind::Fin | Kind::Reset)
}

/// Who else may have the flow, if this node has no socket for it; else [`BackendId::NONE`]. `chances` terminators have sent
/// the packet on before.
#[inline(always)]
pub fn other_owner(packet: &Packet, tuple: &Tuple, is_ipv4: bool, slot: Slot, service: u32, chances: u8) -> BackendId {
    let numbers = u64::from(service) << 16 | u64::from(chances) << 8 | u64::from(is_ipv4);
    BackendId::from_bits(find(packet.context(), tuple, slot.bits(), numbers))
}

#[inline(never)]
fn find(ctx: *mut xdp_md, tuple: &Tuple, slot: u64, numbers: u64) -> u32 {
    let (service, chances, is_ipv4) = ((numbers >> 16) as u32, (numbers >> 8) as u8, numbers & 1 == 1);
    let port = match maps::target_port(service) {
        0 => tuple.to.port,
        port => Be16::new(port),
    };
    if socket::is_known(ctx, tuple, port, is_ipv4) {
        return BackendId::NONE.bits();
    }
    tracking::known(tuple, Slot::from_bits(slot)).next(chances, is_elsewhere).bits()
}

/// Whether a backend is on a node that a tunnel leads to.
#[inline(always)]
fn is_elsewhere(id: BackendId) -> bool {
    levee_is_elsewhere(id.bits()) != 0
}

/// As [`is_elsewhere`]. A global function: the verifier looks at it once and not once for every owner that is asked.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn levee_is_elsewhere(id: u32) -> u32 {
    let hop = maglev::hop(BackendId::from_bits(id));
    hop.is_some_and(|hop| hop.mode > Mode::Local as u8 && hop.tunnel_destination.words() != [0; 4]).into()
}

/// Where a packet goes that gets a second chance.
pub struct Again {
    /// Offset of the outermost network header.
    pub outer_l3: usize,
    /// Offset of the network header of the packet for the VIP: the same if it came without a tunnel.
    pub l3: usize,
    /// IPv4 or IPv6.
    pub is_ipv4: bool,
    /// The backend.
    pub to: BackendId,
    /// How many terminators have sent the packet on before.
    pub chances: u8,
    /// Source port of the tunnel.
    pub entropy: u16,
}

/// Strips the tunnel header if there is one, and sends the packet on, marked. Returns an `xdp_action`.
///
/// # Errors
/// Why it is dropped.
#[inline(always)]
pub fn send_on(packet: &Packet, again: &Again) -> Result<u32, DropReason> {
    let numbers = again.outer_l3 as u64 & 0xff
        | (again.l3 as u64 & 0xff) << 8
        | u64::from(again.is_ipv4) << 16
        | u64::from(again.chances) << 24
        | u64::from(again.entropy) << 32;
    let result = levee_send_on(packet.context(), numbers, again.to.bits());
    match result >> 16 {
        0 => Ok(result),
        _ => Err(DropReason::from_index(result & 0xffff).unwrap_or(DropReason::NotLinear)),
    }
}

/// As [`send_on`]: `numbers` holds `outer_l3`, `l3`, whether the packet is IPv4, `chances`, and in its upper half the entropy. An action,
/// or with bit 16 a reason. A global function: the verifier looks at it once and not once per way to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn levee_send_on(ctx: *mut xdp_md, numbers: u64, to: u32) -> u32 {
    let mut packet = Packet::linear(ctx);
    match perform(&mut packet, numbers, BackendId::from_bits(to)) {
        Ok(action) => action,
        Err(reason) => 1 << 16 | reason as u32,
    }
}

#[inline(always)]
fn perform(packet: &mut Packet, numbers: u64, to: BackendId) -> Result<u32, DropReason> {
    let (outer_l3, l3) = ((numbers & 0x1f) as usize, (numbers >> 8 & 0x7f) as usize);
    let is_ipv4 = numbers >> 16 & 1 == 1;
    if l3 > outer_l3 {
        encap::strip(packet, outer_l3, &Payload::new(l3, is_ipv4))?;
    }
    let network = parse::network(packet, outer_l3, is_ipv4).ok_or(DropReason::NotLinear)?;
    if network.ttl <= 1 {
        return Err(DropReason::TtlExpired);
    }
    let hop: &Hop = maglev::hop(to).ok_or(DropReason::StaleBackend)?;
    let chance = (numbers >> 24 & 0xff) as u8 + 1;
    encap::forward_marked(packet, &network, hop, (numbers >> 32) as u16, chance)?;
    stats::verdict(Verdict::SecondChance);
    act::leave(packet, hop)
}
