//! How fast a manager may be asked: a bucket of tokens far below what it allows, and pauses it asks for.
//!
//! NSX-T refuses more than 100 requests per second of one user name, which every replica and every other tool shares.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::Instant;

/// Requests that may follow each other at once.
const BURST: f64 = 5.0;
/// First pause after a refusal that names none.
const FIRST: Duration = Duration::from_millis(500);
/// Longest pause, whatever was asked for.
pub const LONGEST: Duration = Duration::from_secs(60);

/// The bucket.
#[derive(Debug)]
pub struct Pace {
    per_second: f64,
    tokens: f64,
    filled: Instant,
    not_before: Instant,
    refusals: u32,
}

impl Pace {
    /// A full bucket.
    #[must_use]
    pub fn new(per_second: u8, now: Instant) -> Self {
        Self { per_second: f64::from(per_second), tokens: BURST, filled: now, not_before: now, refusals: 0 }
    }

    /// Takes a token; how long to wait before it may be used.
    pub fn take(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(BURST) - 1.0;
        self.filled = now;
        let owed = Duration::from_secs_f64((-self.tokens / self.per_second).max(0.0));
        owed.max(self.not_before.saturating_duration_since(now))
    }

    /// Notes that the manager asked for less; returns the pause: what it asked for, else twice the last one.
    pub fn refused(&mut self, now: Instant, asked: Option<Duration>) -> Duration {
        let doubled = jittered(FIRST.saturating_mul(1 << self.refusals.min(8)));
        let pause = asked.unwrap_or(doubled).min(LONGEST);
        self.refusals = self.refusals.saturating_add(1);
        self.not_before = self.not_before.max(now + pause);
        pause
    }

    /// Notes that it did not.
    pub const fn accepted(&mut self) {
        self.refusals = 0;
    }
}

/// Between a half and the whole of a time, so that replicas do not come back together.
#[must_use]
pub fn jittered(time: Duration) -> Duration {
    let share = u32::try_from(RandomState::new().hash_one("levee nsxt") & 0xff).unwrap_or(0);
    time / 2 + time / 2 * share / 255
}

/// The time that `Retry-After` names (RFC 9110 section 10.2.3): seconds, or a date to compare with `now`.
#[must_use]
pub fn retry_after(text: &str, now: jiff::Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_burst_is_free_and_then_tokens_come_at_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(5, start);
        for _ in 0..5 {
            assert_eq!(pace.take(start), Duration::ZERO);
        }
        assert_eq!(pace.take(start), seconds(0.2));
        assert_eq!(pace.take(start), seconds(0.4));
        assert_eq!(pace.take(start + seconds(10.0)), Duration::ZERO, "the bucket is full again");
    }

    #[test]
    fn a_refusal_stops_everything_for_the_time_it_names() {
        let start = Instant::now();
        let mut pace = Pace::new(5, start);
        assert_eq!(pace.refused(start, Some(seconds(3.0))), seconds(3.0));
        assert_eq!(pace.take(start + seconds(1.0)), seconds(2.0));
        assert_eq!(pace.refused(start, Some(seconds(9_999.0))), LONGEST);
    }

    #[test]
    fn pauses_double_until_something_was_accepted() {
        let start = Instant::now();
        let mut pace = Pace::new(5, start);
        let mut within = |least, most| {
            let pause = pace.refused(start, None);
            assert!((seconds(least)..=seconds(most)).contains(&pause), "{pause:?}");
        };
        within(0.25, 0.5);
        within(0.5, 1.0);
        within(1.0, 2.0);
        pace.accepted();
        let pause = pace.refused(start, None);
        assert!((seconds(0.25)..=seconds(0.5)).contains(&pause), "{pause:?}");
    }

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let now: jiff::Timestamp = "2015-10-21T07:27:30Z".parse().unwrap();
        assert_eq!(retry_after("120", now), Some(seconds(120.0)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now), Some(seconds(30.0)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:27:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
