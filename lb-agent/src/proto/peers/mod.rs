//! How agents tell one another that they live, without the API: small authenticated datagrams, a few each second.
//!
//! [`wire`] has their form, [`fsm`] what follows from them.

pub mod fsm;
mod gate;
pub mod wire;

pub use fsm::{Peers, Settings, Transmit};
pub use wire::Key;
