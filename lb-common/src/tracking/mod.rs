//! Just enough tracking: a slot of a ring remembers its former owner until the flows of that owner have ended, and only
//! flows on such slots are recorded. The academic reference is JET (CoNEXT 2021, DOI 10.1145/3485983.3494851).
//!
//! [`transition`] says what becomes of a slot whose owner changes: the agent's side. [`hit`] and [`miss`] say where a
//! packet on a slot goes and what is recorded, and [`resolve`] does so with the tables of flows: the packet path's side. [`Known`] says who
//! else may have a flow that has no socket where its packet came.
//! The [`model`] puts both together in memory, for property tests and to compare the loaded program with.

mod next;
mod packets;
mod resolve;
mod slots;

#[cfg(feature = "user")]
pub mod history;
#[cfg(feature = "user")]
pub mod model;

#[cfg(test)]
mod directors_tests;
#[cfg(test)]
mod tests;

pub use next::Known;
pub use packets::{Choice, Kind, Record, hit, lifetime, miss, stage};
pub use resolve::{FlowTables, NoRoom, OnSlot, resolve};
pub use slots::transition;
