//! Addresses of Services in the network: agents follow a stand-in for the API, FRR and BIRD carry what they announce to a
//! router, and a client beyond it connects.

#![expect(clippy::print_stderr, reason = "a run tells what it measured")]
#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

mod addresses;
mod bed;
mod daemons;
mod nodes;
mod outage;
mod places;
mod plug;
mod proxy;
