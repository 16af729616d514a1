//! How often the packet path may answer: a token bucket in one word.
//!
//! The word is the time at which the bucket would be full again. An answer moves it on by the time that a token takes;
//! while it lies further ahead than all tokens together take, there is none left.

/// Time that one token takes to come back, nanoseconds: 1000 a second, as Linux limits its own (`icmp_msgs_per_sec`).
pub const INTERVAL: u64 = 1_000_000;
/// Tokens of a full bucket (Linux: `icmp_msgs_burst`).
pub const BURST: u64 = 50;

/// The word after one more answer at `now` (nanoseconds of a clock that never goes back); `None` if there may be none.
#[must_use]
#[inline(always)]
pub const fn take(full_at: u64, now: u64) -> Option<u64> {
    let from = if full_at > now { full_at } else { now };
    let next = from + INTERVAL;
    if next > now + BURST * INTERVAL { None } else { Some(next) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers out of `tries` at one moment, and the word behind them.
    fn answered(mut word: u64, now: u64, tries: u64) -> (u64, u64) {
        let mut count = 0;
        for _ in 0..tries {
            if let Some(next) = take(word, now) {
                (word, count) = (next, count + 1);
            }
        }
        (count, word)
    }

    #[test]
    fn a_burst_is_answered_and_then_one_per_interval() {
        let start = 1_000_000_000_000;
        let (count, word) = answered(0, start, 1_000);
        assert_eq!(count, BURST);
        assert_eq!(answered(word, start + INTERVAL - 1, 1_000).0, 0);
        let (count, word) = answered(word, start + INTERVAL, 1_000);
        assert_eq!(count, 1);
        assert_eq!(answered(word, start + 11 * INTERVAL, 1_000).0, 10);
        assert_eq!(answered(word, start + 1_000 * INTERVAL, 1_000).0, BURST, "rest fills it, and no more");
    }
}
