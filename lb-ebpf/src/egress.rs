//! What leaves from a VIP: the service's port in place of the server's, then the bound for the segment size.

use aya_ebpf::{bindings::BPF_F_MARK_MANGLED_0, programs::TcContext};
use lb_common::{
    addr::Be16,
    maps::{addresses::AddressEntry, services::VipKey},
    parse::{self, Bytes, Network},
    wire::{eth, ipv6, protocol, tcp, udp},
};

use crate::{clamp, maps, packet::Outgoing, vip};

/// Rewrites a packet that leaves from a VIP. `None` where there is nothing to do.
#[inline(always)]
pub fn run(ctx: &TcContext) -> Option<()> {
    let skb = Outgoing(ctx);
    let link = parse::link(&skb)?;
    let is_ipv4 = match link.ethertype {
        eth::IPV4 => true,
        eth::IPV6 => false,
        _ => return None,
    };
    let network = parse::network(&skb, link.l3, is_ipv4)?;
    if !vip::may_be_vip(&network.source) {
        return None;
    }
    let address = maps::address(&network.source);
    let port = match address.has(AddressEntry::REWRITTEN) {
        true => rename(ctx, &network),
        false => None,
    };
    clamp::run(ctx, &network, address.mss()).or(port)
}

/// Gives a packet the port of its service as its source. The kernel leaves checksums alone that the device is to
/// complete: no port counts in what stands there until then.
#[inline(always)]
fn rename(ctx: &TcContext, network: &Network) -> Option<()> {
    let skb = Outgoing(ctx);
    let (number, l4) = transport(&skb, network)?;
    let (sum, flags) = match number {
        protocol::TCP => (l4 + tcp::CHECKSUM, PORT),
        protocol::UDP => (l4 + udp::CHECKSUM, PORT | u64::from(BPF_F_MARK_MANGLED_0)),
        _ => return None,
    };
    let old: [u8; 2] = skb.read(l4)?;
    let new = maps::rewritten(&VipKey::new(network.source, Be16::from_wire(old), number))?.wire();
    let word = |bytes| u64::from(u16::from_ne_bytes(bytes));
    ctx.l4_csum_replace(sum, word(old), word(new), flags).ok()?;
    ctx.store(l4, &new, 0).ok()
}

/// Length of what is exchanged: a port.
const PORT: u64 = size_of::<u16>() as u64;

/// Protocol and offset of a packet's transport header, if it has one: later fragments have none, and no server sends
/// other extension headers.
#[inline(always)]
fn transport(skb: &Outgoing<'_>, network: &Network) -> Option<(u8, usize)> {
    let l4 = network.l3 + network.header_length;
    if network.is_ipv4 {
        let is_first = !network.is_fragment || parse::fragment(skb, network.l3 + 4, true)?.is_first;
        return is_first.then_some((network.next, l4));
    }
    if network.next != protocol::FRAGMENT {
        return Some((network.next, l4));
    }
    let [next, ..]: [u8; 4] = skb.read(l4)?;
    let is_first = parse::fragment(skb, l4, false)?.is_first;
    is_first.then_some((next, l4 + ipv6::FRAGMENT_LEN))
}
