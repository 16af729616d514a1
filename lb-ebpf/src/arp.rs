//! ARP for VIPs. Linux answers requests for any address it holds, on any interface, which would draw a VIP's traffic to
//! whichever node answers first: requests for a VIP are dropped unless this node owns it on the link, which no announcer
//! does yet.

use lb_common::{
    addr::IpAddr16,
    maps::addresses::AddressEntry,
    parse::Bytes,
    verdict::{DropReason, Verdict},
};

use crate::{maps, packet::Packet, vip};

/// Length of an ARP packet for IPv4 over Ethernet, in words (RFC 826).
const WORDS: usize = 7;
/// Operation code of a request.
const REQUEST: u16 = 1;

/// Decides on an ARP packet at offset `l3`.
#[inline(always)]
pub fn decide(packet: &Packet, l3: usize) -> Result<Verdict, DropReason> {
    let Some(arp) = packet.words::<WORDS>(l3) else {
        return Ok(Verdict::NotOurs);
    };
    let is_request = u32::from_be(arp[1]) as u16 == REQUEST;
    let target = IpAddr16::v4(arp[6]);
    if is_request && vip::may_be_vip(&target) && maps::address(&target).has(AddressEntry::VIP) {
        return Err(DropReason::Arp);
    }
    Ok(Verdict::NotOurs)
}
