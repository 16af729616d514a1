//! IPv4 headers (RFC 791 section 3.1).

use crate::{
    addr::{WireWord, wire_word},
    checksum,
};

/// Length of a header without options, bytes.
pub const LEN: usize = 20;
/// Its length in words.
pub const WORDS: usize = LEN / 4;
/// The smallest MTU of a link, bytes (RFC 791 section 3.2).
pub const MIN_MTU: u16 = 68;

/// A header without its options.
#[derive(Clone, Copy, Debug)]
pub struct Header(pub [WireWord; WORDS]);

impl Header {
    /// Header length in bytes, 0..=60.
    #[must_use]
    #[inline(always)]
    pub const fn length(&self) -> usize {
        (self.0[0].to_ne_bytes()[0] & 0x0f) as usize * 4
    }

    /// DSCP and ECN.
    #[must_use]
    #[inline(always)]
    pub const fn traffic_class(&self) -> u8 {
        self.0[0].to_ne_bytes()[1]
    }

    /// Length of header and payload in bytes.
    #[must_use]
    #[inline(always)]
    pub const fn total_length(&self) -> u16 {
        u32::from_be(self.0[0]) as u16
    }

    /// Whether it is a fragment: more follow, or the offset is not zero.
    #[must_use]
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        u32::from_be(self.0[1]) & 0x3fff != 0
    }

    /// Offset of a fragment in units of eight bytes.
    #[must_use]
    #[inline(always)]
    pub const fn fragment_offset(&self) -> u16 {
        u32::from_be(self.0[1]) as u16 & 0x1fff
    }

    /// Time to live, hops.
    #[must_use]
    #[inline(always)]
    pub const fn ttl(&self) -> u8 {
        self.0[2].to_ne_bytes()[0]
    }

    /// IANA protocol number of the payload.
    #[must_use]
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        self.0[2].to_ne_bytes()[1]
    }

    /// Source address.
    #[must_use]
    #[inline(always)]
    pub const fn source(&self) -> WireWord {
        self.0[3]
    }

    /// Destination address.
    #[must_use]
    #[inline(always)]
    pub const fn destination(&self) -> WireWord {
        self.0[4]
    }
}

/// The word of TTL, protocol and checksum (bytes 8..12) with the TTL one lower and the checksum right (RFC 1624).
#[must_use]
#[inline(always)]
pub const fn decremented(word: WireWord) -> WireWord {
    let word = u32::from_be(word);
    let (old, check) = ((word >> 16) as u16, word as u16);
    let new = old.wrapping_sub(0x0100);
    ((new as u32) << 16 | checksum::updated(check, old, new) as u32).to_be()
}

/// The outer header of a tunnel: identification 0 with "don't fragment" (an atomic datagram, RFC 6864 section 4.1), TTL 64.
#[must_use]
#[inline(always)]
pub const fn outer(
    source: WireWord,
    destination: WireWord,
    protocol: u8,
    traffic_class: u8,
    total_length: u16,
) -> [WireWord; WORDS] {
    let length = total_length.to_be_bytes();
    let first = wire_word([0x45, traffic_class, length[0], length[1]]);
    let header = [first, wire_word([0, 0, 0x40, 0]), wire_word([64, protocol, 0, 0]), source, destination];
    let check = checksum::ipv4_header(&header).to_be_bytes();
    [first, header[1], wire_word([64, protocol, check[0], check[1]]), source, destination]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_decremented_ttl_keeps_the_checksum_right(source in any::<u32>(), destination in any::<u32>(), class in any::<u8>(), length in 20u16..) {
            let mut header = outer(source, destination, 6, class, length);
            for ttl in (0..64).rev() {
                header[2] = decremented(header[2]);
                prop_assert_eq!(Header(header).ttl(), ttl);
                let check = (u32::from_be(header[2]) & 0xffff) as u16;
                prop_assert_eq!(check, checksum::ipv4_header(&header));
            }
        }
    }
}
