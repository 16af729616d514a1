//! From what is wanted and known to what the maps and the announcers have to hold: pure, and the whole reason why.
//!
//! [`decide`] turns a desired state, the network and the probes' verdicts into a [`Decision`]: the target of the maps,
//! what this node holds and announces, and a line per backend that says why it does or does not take flows.
//! [`operations`] compares that target with the maps' state and lists what has to be done, in an order in which every
//! prefix is safe; [`settle`] does the same as time goes by, and [`carry_over`] for another set of maps. None does any I/O.

mod clamp;
mod decide;
mod directors;
mod doubt;
mod drain;
mod hop;
mod judge;
mod met;
mod operations;
mod outcome;
mod redirect;
mod ring_arena;
mod settle;
mod silence;
mod slow_start;
mod state;
mod target_backends;

pub use decide::{AnnounceDecision, BackendDecision, Decider, Decision, Inputs, ServiceDecision, decide};
pub use drain::{FlowsLeft, Recorded, flows_left};
pub use met::Met;
pub use operations::{CarriedOver, PlanError, Portion, Translation, carry_over, operations, portion};
pub use ring_arena::RingArena;
pub use settle::{FlowScan, next_window, settle};
pub use slow_start::Takers;
pub use state::{
    BackendState, MapOp, MapState, Mark, Redirect, RingOrigin, Rings, ServiceState, Sizes, TargetBackend,
    TargetService, TargetState,
};
pub use target_backends::TargetBackends;
