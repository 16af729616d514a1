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

use std::time::Instant;

use tokio::sync::watch;

pub use timing::{Timing, TimingError};

/// Takes part in an election.
pub trait Election: Send {
    /// Who leads, from now on.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// Stops leading at once, hands the lead over if that can be done quickly, and takes no part any more.
    fn resign(self) -> impl Future<Output = ()> + Send;
}

/// Who leads, as far as this process knows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Leadership {
    /// Identity of who led last, if anybody is known to have; it may be gone.
    pub leader: Option<String>,
    /// If this process leads: until when, unless it renews that. Whoever writes asks for it again before each write.
    pub ours_until: Option<Instant>,
    /// How often the lead has changed hands, as the shared record counts.
    pub transitions: u32,
}

impl Leadership {
    /// Whether this process leads at this moment.
    #[must_use]
    pub fn is_ours(&self, now: Instant) -> bool {
        self.ours_until.is_some_and(|until| now < until)
    }
}
