//! Probes backends and says which of them answer.
//!
//! `tcp` asks once, `hysteresis` (pure) turns answers into verdicts, `prober` runs one task per target. Whether the
//! verdicts are believed, say when all backends fail at once, is the plan's decision.

mod hysteresis;
mod prober;
mod tcp;

pub use prober::spawn;

/// What one probe met.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Answer {
    /// The backend answered.
    Yes,
    /// It did not; why, as a few words for people.
    No(String),
    /// The probe could not be made for want of something here, which says nothing of the backend.
    Unknown(String),
}
