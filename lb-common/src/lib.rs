//! Facts that the packet path and the agent share: addresses, map layouts, wire formats, hashing, ring lookup.
//!
//! Everything here is `no_std` and free of allocation; feature `user` adds what only user space needs
//! (building rings, `aya::Pod`). The kernel program and host tests run the same parser and the same hash.
#![cfg_attr(not(test), no_std)]
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of words by casts, masks and shifts")]

#[cfg(feature = "user")]
extern crate alloc;

pub mod addr;
pub mod checksum;
pub mod hash;
pub mod limit;
pub mod maglev;
pub mod maps;
pub mod parse;
pub mod quote;
pub mod report;
pub mod tracking;
pub mod verdict;
pub mod verifier;
pub mod wire;

/// Version of every pinned layout in [`maps`]. A change of any key, value or meaning raises it; the pin directory
/// carries it in its name, so that an agent never adopts maps it would misread.
pub const LAYOUT_VERSION: u32 = 2;
