//! How long to wait behind a failure: longer each time, and irregular, so that the nodes of a cluster do not come back
//! to a server together.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Waits of one loop that can fail.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits from about `min` to at most `max`.
    pub(super) const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    /// How long to wait behind a failure: between half and all of what is twice the time before. `chance` decides where in
    /// between.
    pub(super) fn failed(&mut self, chance: u32) -> Duration {
        let whole = self.min.saturating_mul(1 << self.failures.min(16)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        whole / 2 + (whole / 2).mul_f64(f64::from(chance) / f64::from(u32::MAX))
    }

    /// All went well for so long. Longer than the longest wait, and failures are forgotten: a server that works for a
    /// moment only is not asked more often for it.
    pub(super) fn went_well(&mut self, time: Duration) {
        if time > self.max {
            self.failures = 0;
        }
    }
}

/// A number that nobody foresees.
pub(super) fn chance() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().hash_one("levee backoff").to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(500);
    const MAX: Duration = Duration::from_secs(10);

    #[test]
    fn waits_double_up_to_the_longest_and_are_between_half_and_all_of_it() {
        let (mut short, mut long) = (Backoff::new(MIN, MAX), Backoff::new(MIN, MAX));
        for whole in [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
            let whole = Duration::from_millis(whole);
            assert_eq!(short.failed(0), whole / 2);
            assert_eq!(long.failed(u32::MAX), whole);
        }
    }

    #[test]
    fn failures_are_forgotten_when_all_went_well_for_long_enough() {
        let mut backoff = Backoff::new(MIN, MAX);
        backoff.failed(0);
        backoff.went_well(MAX);
        assert_eq!(backoff.failed(u32::MAX), MIN * 2, "not long enough");
        backoff.went_well(MAX * 2);
        assert_eq!(backoff.failed(u32::MAX), MIN);
    }
}
