//! TCP headers (RFC 9293 section 3.1).

use crate::{addr::WireWord, tracking::Kind};

/// Length of a header without options, bytes.
pub const LEN: usize = 20;
/// Its length in words.
pub const WORDS: usize = LEN / 4;
/// Offset of the destination port in the header, bytes.
pub const DESTINATION: usize = 2;
/// Offset of the checksum in the header, bytes.
pub const CHECKSUM: usize = 16;

/// The kind of segment that a header's fourth word says: its bytes are data offset, flags and window.
#[must_use]
#[inline(always)]
pub const fn kind(word: WireWord) -> Kind {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    let [_, flags, _, _] = word.to_ne_bytes();
    if flags & RST != 0 {
        Kind::Reset
    } else if flags & (SYN | ACK) == SYN {
        Kind::Syn
    } else if flags & FIN != 0 {
        Kind::Fin
    } else {
        Kind::Segment
    }
}
/// Largest number of options that are walked, each byte of padding counted.
pub const MAX_OPTIONS: usize = 8;
/// Bit of SYN in the byte of flags.
pub const SYN: u8 = 0x02;
/// Length of the maximum segment size option: kind 2, length and value (RFC 9293 section 3.2).
pub const MSS_LEN: usize = 4;
