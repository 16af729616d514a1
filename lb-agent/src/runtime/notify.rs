//! What systemd is told: ready, stopping, and that the agent is alive.

use std::time::Duration;

use sd_notify::NotifyState;

/// The first complete plan is applied.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// The agent is about to end.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

/// The reconcile loop turns.
pub fn alive() {
    tell(NotifyState::Watchdog);
}

/// How often systemd wants a sign of life: half of `WatchdogSec=`, if that is set.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|interval| interval / 2)
}

/// Not running under systemd is no failure.
fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd was not notified");
    }
}
