//! When a failed probe is not believed: nobody moves away from a backend while no other one is known to be better.
//!
//! Servers that die together are found out one after the other. Whoever is found first would lose its flows, and its node
//! the VIP, to others that are dead as well. Nor do servers that were stuck together come back at the same instant: nobody
//! lets go because another is found to answer again a moment earlier. From three failures for a verdict on (`fall`, the default), all others have
//! been asked since the first of them; with fewer there may be one that was not and is still taken for healthy.

use std::sync::Arc;

use crate::model::{Backend, HealthReport, ProbeState, ProbeTarget, Service};

/// Why a failure is not believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Doubt {
    /// Every backend fails.
    All,
    /// No other backend has answered since this one began to fail: all may be about to.
    Alone,
}

impl Doubt {
    /// In words.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::All => "every backend's does: not believed",
            Self::Alone => "no other backend has answered since: not believed yet",
        }
    }
}

/// Which failures of a service's backends are not believed.
pub(super) struct Doubts<'a, F> {
    report: &'a HealthReport,
    service: &'a Service,
    candidates: F,
    of_all: bool,
}

impl<'a, 'b, F, I> Doubts<'a, F>
where
    F: Fn() -> I,
    I: Iterator<Item = (&'b Backend, &'b ProbeState)>,
{
    /// Judges the failures of `candidates`: backends that could take flows (with weight, not drained).
    pub(super) fn judge(report: &'a HealthReport, service: &'a Service, candidates: F) -> Self {
        let of_all = candidates().count() > 0 && candidates().all(|(_, state)| !state.takes_flows());
        Self { report, service, candidates, of_all }
    }

    /// Whether every backend fails.
    pub(super) const fn of_all(&self) -> bool {
        self.of_all
    }

    /// Why the failure of a backend in this state is not believed, if it fails and is not.
    pub(super) fn of(&self, backend: &Backend, state: &ProbeState) -> Option<Doubt> {
        if state.takes_flows() {
            return None;
        }
        if self.of_all {
            return Some(Doubt::All);
        }
        let is_better = |(other, state): (&Backend, &ProbeState)| {
            state.takes_flows() && self.has_answered_meanwhile(other, backend)
        };
        (!self.others(backend).any(is_better)).then_some(Doubt::Alone)
    }

    /// Whether a node that holds the VIP goes on although its own server, this backend, is gone: no other server is there
    /// that could serve in its place, as far as is known.
    pub(super) fn keep(&self, backend: &Backend, doubt: Option<Doubt>) -> bool {
        match doubt {
            None => false,
            Some(Doubt::Alone) => true,
            Some(Doubt::All) => !self.others(backend).any(|(_, other)| other.serves()),
        }
    }

    fn others(&self, own: &Backend) -> impl Iterator<Item = (&'b Backend, &'b ProbeState)> {
        let own = (own.address, own.port);
        (self.candidates)().filter(move |(other, _)| (other.address, other.port) != own)
    }

    fn has_answered_meanwhile(&self, other: &Backend, failing: &Backend) -> bool {
        match (target(self.service, other), target(self.service, failing)) {
            (Some(other), Some(failing)) => self.report.has_answered_meanwhile(&other, &failing),
            _ => true,
        }
    }
}

/// How a backend is probed, if it is.
pub(super) fn target(service: &Service, backend: &Backend) -> Option<ProbeTarget> {
    service.probe.as_ref().map(|probe| ProbeTarget { address: backend.address, probe: Arc::clone(probe) })
}
