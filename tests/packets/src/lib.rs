//! Packets through the loaded program: frames go in by `BPF_PROG_TEST_RUN`, and what comes out is compared whole,
//! together with the verdict and every counter.
//!
//! A test is a table of [`Case`]s. Each says what the maps hold ([`World`]), which frame comes in and how it has to end;
//! a counter that a case does not name has to stay as it was. Frames are built by `etherparse`, whose headers and
//! checksums owe nothing to the code under test.
//!
//! The tests need root and a BPF filesystem; `cargo xtask packets` runs them.

mod ability;
mod bed;
pub mod budget;
mod case;
mod counts;
mod diff;
mod dump;
mod frame;
mod icmp;
mod link;
mod oracle;
mod packet;
mod random;
pub mod sockets;
mod thin;
mod world;

pub use ability::Ability;
pub use bed::{Bed, Outcome, SIZES, run_program};
pub use case::{Case, check};
pub use counts::Counts;
pub use dump::dump;
pub use frame::{Frame, MacBytes, arp};
pub use icmp::{IcmpError, answer, icmp_error};
pub use link::{BESIDE, IN, OUT, enter as enter_link};
pub use oracle::flow_hash;
pub use packet::{Packet, echo_request, gue, gue_with_header, ipip, marked_gue, raw, tcp, udp};
pub use random::Random;
pub use thin::every;
pub use world::{Service, Way, World, addresses, service, world};
