//! What the probes say of each backend.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use serde::Serialize;

use super::probe::Probe;

/// Address and probed port of a backend: one probe runs per distinct pair of target and probe settings.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ProbeTarget {
    /// Address of the backend.
    pub address: IpAddr,
    /// How it is probed, its port included.
    pub probe: Arc<Probe>,
}

/// A backend as a service names it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct BackendAddress {
    /// Address of the node or host.
    pub address: IpAddr,
    /// Port, 0 for every port.
    pub port: u16,
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.address) {
            (0, address) => address.fmt(f),
            (port, address) => SocketAddr::new(address, port).fmt(f),
        }
    }
}

/// What the probes of one target say.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum ProbeState {
    /// No verdict yet: treated as healthy, so that a restart empties no ring.
    Unknown,
    /// Answers.
    Healthy,
    /// `fall` probes in a row failed.
    #[serde(rename_all = "camelCase")]
    Failed {
        /// What the last probe met, as text for people ("connection refused").
        reason: String,
        /// Whether the last probe could connect: a server with its port open still serves the flows that it has, even if
        /// it says that it is not ready.
        port_open: bool,
    },
    /// Answers, but tells only who has credentials (HTTP 401, 403): a mistake of the configuration, so it is taken for
    /// healthy, and reported.
    WantsCredentials {
        /// What the last probe met and what to do, as text for people.
        reason: String,
    },
}

impl ProbeState {
    /// Whether new flows may go to a backend in this state.
    #[must_use]
    pub const fn takes_flows(&self) -> bool {
        !matches!(self, Self::Failed { .. })
    }

    /// Whether a server is there for the flows that the backend has.
    #[must_use]
    pub const fn serves(&self) -> bool {
        !matches!(self, Self::Failed { port_open: false, .. })
    }
}

/// The latest failures in a row of a target, whether they were enough for a verdict or not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failing {
    /// When the first of them was noticed.
    pub since: Instant,
    /// When the target had answered before; `None` if it never did.
    pub answered: Option<Instant>,
    /// How they ended, if they have: it answers now, though that may not be enough for a verdict yet.
    pub ended: Option<Ended>,
}

/// The end of failures in a row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended {
    /// When the last of them was noticed.
    pub failed: Instant,
    /// When the target answered again.
    pub answered: Instant,
}

/// The latest verdict on every target that is probed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HealthReport {
    /// Verdict per target.
    pub targets: BTreeMap<ProbeTarget, ProbeState>,
    /// The latest failures of each target that has failed at all.
    pub failing: BTreeMap<ProbeTarget, Failing>,
}

impl HealthReport {
    /// The verdict on one target; unknown if it is not probed (yet).
    #[must_use]
    pub fn state(&self, target: &ProbeTarget) -> ProbeState {
        self.targets.get(target).cloned().unwrap_or(ProbeState::Unknown)
    }

    /// Whether `other` is known to have answered while `target` failed. Who never failed has, as far as is known. Two that
    /// failed together and answer again have not, whichever is found first.
    #[must_use]
    pub fn has_answered_meanwhile(&self, other: &ProbeTarget, target: &ProbeTarget) -> bool {
        let (Some(other), Some(target)) = (self.failing.get(other), self.failing.get(target)) else { return true };
        if other.answered.is_some_and(|answered| answered >= target.since) {
            return true;
        }
        match (other.ended, target.ended) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(other), Some(target)) => target.failed >= other.answered,
        }
    }
}
