//! Probes backends and says which of them answer.
//!
//! `tcp` connects, `http` asks over such a connection, inside TLS if told (`tls`); `ask` chooses between them;
//! `hysteresis` (pure) turns answers into verdicts; `prober` runs one task per target, at intervals that `pace` gives.
//! Whether the verdicts are believed, say when all backends fail at once, is the plan's decision.

mod ask;
mod http;
mod hysteresis;
mod pace;
mod prober;
mod tcp;
mod tls;

#[cfg(test)]
mod servers;

pub use prober::spawn;

/// What one probe met.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Answer {
    /// The backend answered as it should.
    Yes,
    /// It did not.
    No {
        /// Why, as a few words for people.
        reason: String,
        /// Whether it let the probe connect.
        port_open: bool,
    },
    /// The backend serves, and does not tell strangers how it is: a mistake of the configuration, not of the backend.
    WantsCredentials(String),
    /// The probe could not be made for want of something here, which says nothing of the backend.
    Unknown(String),
}

impl Answer {
    /// No connection came about.
    fn closed(reason: impl Into<String>) -> Self {
        Self::No { reason: reason.into(), port_open: false }
    }

    /// Connected, and then something was wrong.
    fn open(reason: impl Into<String>) -> Self {
        Self::No { reason: reason.into(), port_open: true }
    }
}
