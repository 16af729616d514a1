//! When an object may be written next: at once, unless the last write failed.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::Instant;

/// First wait after a failure; it doubles with each more.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// Times by object.
#[derive(Debug)]
pub(super) struct Pace<K> {
    waits: BTreeMap<K, Wait>,
    state: u64,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    until: Instant,
    failures: u32,
}

impl<K: Clone + Ord> Pace<K> {
    /// Nothing has to wait. Every process waits a little differently.
    pub(super) fn new() -> Self {
        Self { waits: BTreeMap::new(), state: RandomState::new().hash_one("levee controller") }
    }

    /// Whether the object may be written.
    pub(super) fn is_due(&self, key: &K, now: Instant) -> bool {
        self.waits.get(key).is_none_or(|wait| wait.until <= now)
    }

    /// The next time at which something that waits is due.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.waits.values().map(|wait| wait.until).filter(|until| *until > now).min()
    }

    /// A write failed: the object waits, at least as long as the server asked for.
    pub(super) fn failed(&mut self, key: &K, now: Instant, at_least: Option<Duration>) {
        let failures = self.waits.get(key).map_or(0, |wait| wait.failures);
        let wait = FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST);
        // An odd multiplier and increment make the upper bits run through all values (Knuth, TAOCP 2, section 3.2.1).
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = f64::from(u32::try_from(self.state >> 32).unwrap_or(0)) / f64::from(u32::MAX);
        let wait = wait.mul_f64(0.5 + share / 2.0).max(at_least.unwrap_or_default());
        self.waits.insert(key.clone(), Wait { until: now + wait, failures: failures.saturating_add(1) });
    }

    /// A write succeeded: the object waits this long for the next.
    pub(super) fn succeeded(&mut self, key: &K, now: Instant, pause: Duration) {
        if pause.is_zero() {
            self.waits.remove(key);
        } else {
            self.waits.insert(key.clone(), Wait { until: now + pause, failures: 0 });
        }
    }

    /// Forgets objects that are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(&K) -> bool) {
        self.waits.retain(|key, _| is_there(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_end_with_a_success() {
        let (now, mut pace) = (Instant::now(), Pace::new());
        assert!(pace.is_due(&1, now));
        let mut last = Duration::ZERO;
        for failures in 0..20u32 {
            pace.failed(&1, now, None);
            let wait = pace.next(now).unwrap() - now;
            let whole = FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST);
            assert!(wait >= whole / 2 && wait <= whole, "{failures}: {wait:?}");
            assert!(!pace.is_due(&1, now) && pace.is_due(&1, now + wait));
            last = wait;
        }
        assert!(last >= LONGEST / 2);
        pace.succeeded(&1, now, Duration::ZERO);
        assert!(pace.is_due(&1, now) && pace.next(now).is_none());
    }

    #[test]
    fn the_servers_wish_counts() {
        let (now, mut pace) = (Instant::now(), Pace::new());
        pace.failed(&"a", now, Some(Duration::from_secs(7)));
        assert_eq!(pace.next(now), Some(now + Duration::from_secs(7)));
        pace.retain(|_| false);
        assert!(pace.is_due(&"a", now));
    }
}
