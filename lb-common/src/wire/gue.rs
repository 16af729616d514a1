//! Generic UDP encapsulation, variant 0 (draft-ietf-intarea-gue section 3).

use crate::addr::{WireWord, wire_word};

/// UDP port assigned to GUE by IANA.
pub const PORT: u16 = 6080;
/// Length of the header without extension fields, bytes.
pub const LEN: usize = 4;

/// Length of the header of a second chance: with one word of private data.
pub const MARKED_LEN: usize = 8;
/// The most terminators that send a packet on, one after the other: whatever they believe of each other, a packet goes to
/// and fro no longer than that.
pub const MAX_CHANCES: u8 = 8;
/// The private data (section 3.4 of the draft) of a packet that terminators have sent on is three letters of ours and one
/// that counts them: `c` after the first.
const MARK: [u8; 4] = *b"LV2b";

/// The two words of a header with the mark of the given second chance (1 the first), in front of a packet of IANA protocol
/// `payload`.
#[must_use]
#[inline(always)]
pub const fn marked(payload: u8, chance: u8) -> [WireWord; 2] {
    [wire_word([1, payload, 0, 0]), wire_word([MARK[0], MARK[1], MARK[2], MARK[3].wrapping_add(chance)])]
}

/// Which second chance a word of private data stands for, from 1 to [`MAX_CHANCES`]; `None` if it is another word.
#[must_use]
#[inline(always)]
pub const fn chance(private: WireWord) -> Option<u8> {
    let private = private.to_ne_bytes();
    let chance = private[3].wrapping_sub(MARK[3]);
    let is_ours = private[0] == MARK[0] && private[1] == MARK[1] && private[2] == MARK[2];
    if is_ours && chance >= 1 && chance <= MAX_CHANCES { Some(chance) } else { None }
}

/// The payload's IANA protocol number, if this is the first word of a header with one word of private data.
#[must_use]
#[inline(always)]
pub const fn private_payload(header: WireWord) -> Option<u8> {
    let header = header.to_ne_bytes();
    if header[0] == 1 && header[2] == 0 && header[3] == 0 { Some(header[1]) } else { None }
}

/// A header without extension fields in front of a packet of IANA protocol `payload` (4 or 41).
#[must_use]
#[inline(always)]
pub const fn header(payload: u8) -> WireWord {
    wire_word([0, payload, 0, 0])
}

/// The payload's IANA protocol number, if this is a data header of variant 0 without extension fields or flags.
#[must_use]
#[inline(always)]
pub const fn payload(header: WireWord) -> Option<u8> {
    let header = header.to_ne_bytes();
    if header[0] == 0 && header[2] == 0 && header[3] == 0 { Some(header[1]) } else { None }
}
