//! How long a lead lasts without renewal, and how often it is renewed.

use std::time::Duration;

use thiserror::Error;

/// Times of an election, which fit together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

impl Timing {
    /// The most that a retry period is lengthened by, as a part of it: a fifth.
    pub(super) const JITTER: u32 = 5;

    /// Times that fit together: `retry_period`, lengthened by a fifth, is less than half of `renew_deadline`, so that two
    /// renewals can fail; that is less than `lease_duration`, and the difference has to cover what two clocks can go apart
    /// in that time.
    ///
    /// # Errors
    /// If they do not, or if `lease_duration` is not 1 s..=1 h in whole seconds, which is how the API counts it.
    pub fn new(
        lease_duration: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
    ) -> Result<Self, TimingError> {
        let whole = lease_duration.subsec_nanos() == 0;
        if !whole || lease_duration.is_zero() || lease_duration > Duration::from_secs(3600) {
            return Err(TimingError::LeaseDuration { lease_duration });
        }
        // A fiftieth: clocks that go apart by more are broken.
        if renew_deadline > lease_duration - lease_duration / 50 {
            return Err(TimingError::RenewDeadline { renew_deadline, lease_duration });
        }
        let longest = retry_period + retry_period / Self::JITTER;
        if retry_period.is_zero() || longest * 2 >= renew_deadline {
            return Err(TimingError::RetryPeriod { retry_period, renew_deadline });
        }
        Ok(Self { lease_duration, renew_deadline, retry_period })
    }

    /// How long others wait, from the moment at which they saw the record change, before they take the lead.
    #[must_use]
    pub const fn lease_duration(&self) -> Duration {
        self.lease_duration
    }

    /// How long a leader goes on after the beginning of its last successful renewal.
    #[must_use]
    pub const fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }

    /// Time between two attempts, before it is lengthened by up to a fifth.
    #[must_use]
    pub const fn retry_period(&self) -> Duration {
        self.retry_period
    }

    /// How long an answer is waited for.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.renew_deadline / 2
    }
}

impl Default for Timing {
    /// 3 s, 2 s and 500 ms: who leads when the leader dies is settled within 4 s.
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(3),
            renew_deadline: Duration::from_secs(2),
            retry_period: Duration::from_millis(500),
        }
    }
}

/// Times of an election that do not fit together.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum TimingError {
    /// The lease's duration cannot be written down.
    #[error("the lease duration is {lease_duration:?}; choose whole seconds in 1s..=1h")]
    LeaseDuration {
        /// What was asked for.
        lease_duration: Duration,
    },
    /// The leader would stop too late.
    #[error(
        "the renew deadline is {renew_deadline:?}; choose less than the lease duration of {lease_duration:?} by 2 % or more"
    )]
    RenewDeadline {
        /// What was asked for.
        renew_deadline: Duration,
        /// What it has to be less than.
        lease_duration: Duration,
    },
    /// One lost answer would cost the lead.
    #[error(
        "the retry period is {retry_period:?}; choose more than 0 and less than 5/12 of the renew deadline of {renew_deadline:?}"
    )]
    RetryPeriod {
        /// What was asked for.
        retry_period: Duration,
        /// What two of it, lengthened by a fifth, have to fit into.
        renew_deadline: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(lease: u64, renew: u64, retry: u64) -> Result<Timing, TimingError> {
        Timing::new(Duration::from_millis(lease), Duration::from_millis(renew), Duration::from_millis(retry))
    }

    #[test]
    fn times_have_to_fit_together() {
        assert_eq!(timing(3_000, 2_000, 500), Ok(Timing::default()));
        for (lease, renew, retry, part) in [
            (2_500, 2_000, 500, "whole seconds"),
            (0, 0, 0, "whole seconds"),
            (3_601_000, 2_000, 500, "whole seconds"),
            (3_000, 3_000, 500, "renew deadline is 3s"),
            (3_000, 2_941, 500, "renew deadline is 2.941s"),
            (3_000, 2_000, 0, "retry period is 0ns"),
            (15_000, 10_000, 4_200, "retry period is 4.2s"),
        ] {
            let error = timing(lease, renew, retry).unwrap_err().to_string();
            assert!(error.contains(part), "{lease} {renew} {retry}: {error}");
        }
        assert!(timing(3_000, 2_940, 500).is_ok() && timing(15_000, 10_000, 4_000).is_ok());
    }
}
