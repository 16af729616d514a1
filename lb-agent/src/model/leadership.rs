//! Who leads, where exactly one may write.

use std::time::Instant;

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
