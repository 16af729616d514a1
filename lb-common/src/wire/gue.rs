//! Generic UDP encapsulation, variant 0 (draft-ietf-intarea-gue section 3).

use crate::addr::{WireWord, wire_word};

/// UDP port assigned to GUE by IANA.
pub const PORT: u16 = 6080;
/// Length of the header without extension fields, bytes.
pub const LEN: usize = 4;

/// Length of the header of a second chance: with one word of private data.
pub const MARKED_LEN: usize = 8;
/// The private data (section 3.4 of the draft) of a second chance: the packet is delivered where it arrives, whatever that
/// node knows of its flow, so that two nodes with different views do not send it to and fro.
pub const MARK: WireWord = wire_word(*b"LV2c");

/// The two words of a header with the mark of a second chance, in front of a packet of IANA protocol `payload`.
#[must_use]
#[inline(always)]
pub const fn marked(payload: u8) -> [WireWord; 2] {
    [wire_word([1, payload, 0, 0]), MARK]
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
