//! The maximum segment size that a server behind a VIP announces: the client's segments come through a tunnel, so its
//! SYN or SYN-ACK, on its way out of this node, must not ask for more than the tunnel takes.

use aya_ebpf::programs::TcContext;
use lb_common::{
    parse::{Bytes, Network},
    wire::{protocol, tcp},
};

use crate::packet::Outgoing;

/// Lowers the MSS of a SYN segment that leaves from a VIP to `bound`, unless that is 0. `None` where there is nothing to
/// do.
#[inline(always)]
pub fn run(ctx: &TcContext, network: &Network, bound: u16) -> Option<()> {
    let skb = Outgoing(ctx);
    if bound == 0 || network.next != protocol::TCP || network.is_fragment {
        return None;
    }
    let l4 = network.l3 + network.header_length;
    let [offset, flags] = skb.read(l4 + 12)?;
    if flags & tcp::SYN == 0 {
        return None;
    }
    let at = option(&skb, l4, usize::from(offset >> 4) * 4)?;
    let old: [u8; 2] = skb.read(l4 + at)?;
    if u16::from_be_bytes(old) <= bound {
        return None;
    }
    let new = bound.to_be_bytes();
    // A word that lies across the checksum's words counts with its bytes swapped.
    let (from, to) = if at & 1 == 0 { (old, new) } else { ([old[1], old[0]], [new[1], new[0]]) };
    let word = |bytes| u64::from(u16::from_ne_bytes(bytes));
    ctx.l4_csum_replace(l4 + 16, word(from), word(to), size_of::<u16>() as u64).ok()?;
    ctx.store(l4 + at, &new, 0).ok()
}

/// Offset within the TCP header at `l4`, of `length` bytes, of the value of its MSS option (RFC 9293 section 3.2).
#[inline(always)]
fn option(skb: &Outgoing<'_>, l4: usize, length: usize) -> Option<usize> {
    let mut at = tcp::LEN;
    for _ in 0..tcp::MAX_OPTIONS {
        if at + tcp::MSS_LEN > length {
            return None;
        }
        let [kind, size] = skb.read(l4 + at)?;
        match kind {
            0 => return None,
            1 => at += 1,
            2 if usize::from(size) == tcp::MSS_LEN => return Some(at + 2),
            _ if size < 2 => return None,
            _ => at += usize::from(size),
        }
    }
    None
}
