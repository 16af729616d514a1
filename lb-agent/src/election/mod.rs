//! Who of several processes may write: one at a time.
//!
//! [`fsm`] decides and does no I/O; [`lease`] drives it over a Lease of the Kubernetes API. Others can follow behind
//! [`Election`].
//!
//! Invariant: whoever leads stops by its own clock before anybody else may begin, whatever became of its messages.

pub mod fsm;
pub mod lease;
pub mod sightings;
pub mod timing;

use tokio::sync::watch;

pub use timing::{Timing, TimingError};

pub use crate::model::Leadership;

/// Takes part in an election.
pub trait Election: Send {
    /// Who leads, from now on.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// Stops leading at once, hands the lead over if that can be done quickly, and takes no part any more.
    fn resign(self) -> impl Future<Output = ()> + Send;
}
