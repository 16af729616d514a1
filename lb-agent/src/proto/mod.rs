//! Protocols without I/O: bytes and time come in, bytes and values go out.

pub mod peers;
