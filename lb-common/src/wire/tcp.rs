//! TCP headers (RFC 9293 section 3.1).

/// Length of a header without options, bytes.
pub const LEN: usize = 20;
/// Its length in words.
pub const WORDS: usize = LEN / 4;
/// Largest number of options that are walked, each byte of padding counted.
pub const MAX_OPTIONS: usize = 8;
/// Bit of SYN in the byte of flags.
pub const SYN: u8 = 0x02;
/// Length of the maximum segment size option: kind 2, length and value (RFC 9293 section 3.2).
pub const MSS_LEN: usize = 4;
