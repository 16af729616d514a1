//! Ethernet II frames and 802.1Q tags.

use crate::addr::{Mac, WireWord, wire_word};

/// Length of an Ethernet header without tags, bytes.
pub const LEN: usize = 14;
/// Length of one VLAN tag, bytes.
pub const VLAN_LEN: usize = 4;
/// Length of an Ethernet header with both tags, bytes.
pub const MAX_LEN: usize = LEN + 2 * VLAN_LEN;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad service tag.
pub const SERVICE_VLAN: u16 = 0x88a8;

/// Whether an EtherType announces a VLAN tag.
#[must_use]
#[inline(always)]
pub const fn is_tag(ethertype: u16) -> bool {
    ethertype == VLAN || ethertype == SERVICE_VLAN
}

/// A VLAN tag as it stands after the first EtherType: tag control information and the next EtherType.
#[must_use]
#[inline(always)]
pub const fn tag(control: u16, ethertype: u16) -> WireWord {
    let (c, t) = (control.to_be_bytes(), ethertype.to_be_bytes());
    wire_word([c[0], c[1], t[0], t[1]])
}

/// The same two addresses in the other order: back to where the frame came from.
#[must_use]
#[inline(always)]
pub const fn swapped(addresses: [WireWord; 3]) -> [WireWord; 3] {
    let [a, b, c] = [u32::from_be(addresses[0]), u32::from_be(addresses[1]), u32::from_be(addresses[2])];
    [(b << 16 | c >> 16).to_be(), (c << 16 | a >> 16).to_be(), (a << 16 | b >> 16).to_be()]
}

/// Destination and source address as they begin a frame.
#[must_use]
pub const fn addresses(destination: Mac, source: Mac) -> [WireWord; 3] {
    let (d, s) = (destination, source);
    [wire_word([d[0], d[1], d[2], d[3]]), wire_word([d[4], d[5], s[0], s[1]]), wire_word([s[2], s[3], s[4], s[5]])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_addresses_are_the_same_in_the_other_order() {
        let (a, b) = ([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]);
        assert_eq!(swapped(addresses(a, b)), addresses(b, a));
    }
}
