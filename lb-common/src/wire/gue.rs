//! Generic UDP encapsulation, variant 0 (draft-ietf-intarea-gue section 3).

use crate::addr::{WireWord, wire_word};

/// UDP port assigned to GUE by IANA.
pub const PORT: u16 = 6080;
/// Length of the header without extension fields, bytes.
pub const LEN: usize = 4;

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
