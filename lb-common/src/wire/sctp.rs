//! SCTP headers (RFC 9260 section 3.1).

/// Length of the common header, bytes; the ports stand where UDP has them.
pub const LEN: usize = 12;
