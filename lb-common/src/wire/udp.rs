//! UDP headers (RFC 768).

use crate::addr::{WireWord, wire_word};

/// Length, bytes.
pub const LEN: usize = 8;
/// Length in words.
pub const WORDS: usize = LEN / 4;
/// Offset of the destination port in the header, bytes.
pub const DESTINATION: usize = 2;
/// Offset of the checksum in the header, bytes.
pub const CHECKSUM: usize = 6;

/// A header without checksum: allowed over IPv4, and over IPv6 for tunnels whose payload has checksums of its own
/// (RFC 6935 section 5).
#[must_use]
#[inline(always)]
pub const fn header(source_port: u16, destination_port: u16, length: u16) -> [WireWord; WORDS] {
    let (s, d, l) = (source_port.to_be_bytes(), destination_port.to_be_bytes(), length.to_be_bytes());
    [wire_word([s[0], s[1], d[0], d[1]]), wire_word([l[0], l[1], 0, 0])]
}
