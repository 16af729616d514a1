//! What the controller says of itself, as plain values.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::kubernetes::crds::AddressCounts;

/// The state of the controller.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// This process leads.
    pub leading: bool,
    /// While it leads: why nothing is written yet; `None` once complete lists were seen.
    pub waiting_for: Option<String>,
    /// Why the state is not renewed; `None` while all watches are well.
    pub stale: Option<String>,
    /// Pools by name.
    pub pools: BTreeMap<String, PoolReport>,
    /// Services of ours that have all that they ask for.
    pub services_served: u64,
    /// Services of ours that have not.
    pub services_refused: u64,
    /// Writes by kind of object and result.
    pub writes: BTreeMap<(&'static str, &'static str), u64>,
    /// Events that the server took.
    pub events_told: u64,
    /// Events that it did not take, or that were too many.
    pub events_dropped: u64,
}

/// The state of a pool.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PoolReport {
    /// Addresses that Services have.
    pub used: AddressCounts,
    /// Addresses that are left.
    pub free: AddressCounts,
    /// The spec, as it is, is not in force.
    pub refused: bool,
}

impl Report {
    /// Why the controller is not ready; `None` if it is. One that does not lead is.
    #[must_use]
    pub fn not_ready(&self) -> Option<&str> {
        self.waiting_for.as_deref().filter(|_| self.leading)
    }

    /// Forgets what only a leader knows.
    pub(super) fn stop_leading(&mut self) {
        *self = Self {
            writes: std::mem::take(&mut self.writes),
            events_told: self.events_told,
            events_dropped: self.events_dropped,
            ..Self::default()
        };
    }
}

/// A report that one side changes and the other reads.
#[derive(Clone, Debug, Default)]
pub struct SharedReport(Arc<Mutex<Report>>);

impl SharedReport {
    /// The report as it is now.
    #[must_use]
    pub fn read(&self) -> Report {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
