//! The program alone: what one packet costs, in nanoseconds, by `BPF_PROG_TEST_RUN`.
//!
//! A harness program restores the frame before each run and hands it to the program under test by a tail call; what it
//! costs itself is the floor, measured as the same harness with a program that only returns. Cases take turns within a
//! process, and a second process loads the programs in the opposite order, since where a program happens to be placed
//! moves its figure by some nanoseconds.

mod cases;
mod counters;
mod frames;
mod harness;
mod processes;
mod programs;
mod results;
mod session;
#[expect(clippy::cast_possible_truncation, reason = "flows are cut out of products by casts")]
mod template;

pub use cases::{CASES, Spec};
pub use processes::{measure, measure_in_this_process};
pub use programs::Order;
pub use session::{Plan, Session};
