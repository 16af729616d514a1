//! IPv6 headers (RFC 8200 section 3).

use crate::addr::{WireWord, wire_word};

/// Length of the fixed header, bytes.
pub const LEN: usize = 40;
/// Its length in words.
pub const WORDS: usize = LEN / 4;
/// Largest number of extension headers that are followed.
pub const MAX_EXTENSIONS: usize = 6;
/// Length of a fragment header, bytes (RFC 8200 section 4.5).
pub const FRAGMENT_LEN: usize = 8;

/// The fixed header.
#[derive(Clone, Copy, Debug)]
pub struct Header(pub [WireWord; WORDS]);

impl Header {
    /// Traffic class: DSCP and ECN.
    #[must_use]
    #[inline(always)]
    pub const fn traffic_class(&self) -> u8 {
        (u32::from_be(self.0[0]) >> 20) as u8
    }

    /// Length of everything after the fixed header, bytes.
    #[must_use]
    #[inline(always)]
    pub const fn payload_length(&self) -> u16 {
        (u32::from_be(self.0[1]) >> 16) as u16
    }

    /// IANA protocol number of the next header.
    #[must_use]
    #[inline(always)]
    pub const fn next_header(&self) -> u8 {
        self.0[1].to_ne_bytes()[2]
    }

    /// Hop limit.
    #[must_use]
    #[inline(always)]
    pub const fn hop_limit(&self) -> u8 {
        self.0[1].to_ne_bytes()[3]
    }

    /// Source address.
    #[must_use]
    #[inline(always)]
    pub const fn source(&self) -> [WireWord; 4] {
        [self.0[2], self.0[3], self.0[4], self.0[5]]
    }

    /// Destination address.
    #[must_use]
    #[inline(always)]
    pub const fn destination(&self) -> [WireWord; 4] {
        [self.0[6], self.0[7], self.0[8], self.0[9]]
    }
}

/// The outer header of a tunnel, hop limit 64.
#[must_use]
#[inline(always)]
pub const fn outer(
    source: [WireWord; 4],
    destination: [WireWord; 4],
    next_header: u8,
    traffic_class: u8,
    flow_label: u32,
    payload_length: u16,
) -> [WireWord; WORDS] {
    let (s, d, length) = (source, destination, payload_length.to_be_bytes());
    let first = (6u32 << 28 | (traffic_class as u32) << 20 | flow_label & 0xf_ffff).to_be();
    [first, wire_word([length[0], length[1], next_header, 64]), s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]]
}
