//! TCP headers (RFC 9293 section 3.1).

/// Length of a header without options, bytes.
pub const LEN: usize = 20;
/// Its length in words.
pub const WORDS: usize = LEN / 4;
