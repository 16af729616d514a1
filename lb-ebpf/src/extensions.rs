//! The transport header behind IPv6 extension headers.
//!
//! A global function follows them: the verifier looks at it once, and what comes behind it once, whatever the number of
//! headers.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    parse::{self, Network, Transport},
    verdict::DropReason,
};

use crate::packet::Packet;

/// Finds the transport header, as [`parse::transport`] does.
///
/// # Errors
/// As [`parse::transport`].
#[inline(always)]
pub fn transport(packet: &Packet, network: &Network) -> Result<Transport, DropReason> {
    if network.is_ipv4 || !parse::is_extension(network.next) {
        return parse::transport(packet, network);
    }
    let found = levee_transport(packet.context(), network.l3 as u32);
    let reason = (found >> 32) as u32;
    if reason != 0 {
        return Err(DropReason::from_index(reason - 1).unwrap_or(DropReason::ExtensionHeaders));
    }
    let [protocol, is_fragment, ..] = found.to_le_bytes();
    let l4 = (found >> 16) as usize & MAX_L4;
    let end = network.l3 + network.length as usize;
    Ok(Transport { protocol, l4, end, is_fragment: is_fragment == 1 })
}

/// Mask that bounds the offset of a transport header for the verifier; none is that large.
pub const MAX_L4: usize = 0x3fff;
/// The same for that of a network header.
pub const MAX_L3: usize = 0xff;

/// The transport of the IPv6 packet at `l3`. Bytes of the result, the lowest first: protocol, whether it is a fragment,
/// two of the transport header's offset (native order); in the upper half, if there is none, one plus the reason.
#[unsafe(no_mangle)]
#[inline(never)]
#[expect(unsafe_code, reason = "the verifier knows global functions by the names that the linker sees")]
pub extern "C" fn levee_transport(ctx: *mut xdp_md, l3: u32) -> u64 {
    let packet = Packet::linear(ctx);
    let reason = |reason: DropReason| (reason as u64 + 1) << 32;
    let Some(network) = parse::network(&packet, l3 as usize & MAX_L3, false) else {
        return reason(DropReason::Truncated);
    };
    match parse::transport(&packet, &network) {
        Ok(found) => u64::from(found.protocol) | u64::from(found.is_fragment) << 8 | (found.l4 as u64 & 0xffff) << 16,
        Err(error) => reason(error),
    }
}
