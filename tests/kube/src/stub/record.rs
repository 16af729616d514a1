//! What was asked, for tests that count.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::faults::Verb;

/// One request.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it came.
    pub at: Instant,
    /// What it was.
    pub verb: Verb,
    /// Its path.
    pub path: String,
    /// What stood behind the question mark.
    pub query: String,
    /// The resource's name in paths, empty if it was about none.
    pub resource: String,
    /// The object's name, empty if it was about none or many.
    pub name: String,
    /// Who asked.
    pub user: String,
    /// Bytes of its body.
    pub received: u64,
    /// Code of the answer; 0 while there is none.
    pub code: Arc<AtomicU64>,
    /// Bytes of bodies that were sent as the answer until now.
    pub sent: Arc<AtomicU64>,
}

impl Record {
    /// Code of the answer, if there was one.
    #[must_use]
    pub fn answered(&self) -> Option<u64> {
        Some(self.code.load(Ordering::Relaxed)).filter(|&code| code != 0)
    }

    /// Bytes of the answer's body until now.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}
