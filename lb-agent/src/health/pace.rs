//! When a target is asked: spread at the start, and a little irregular from then on, so that neither the targets of a
//! node nor the nodes of a cluster move together.

use std::{
    hash::{BuildHasher, Hash, Hasher, RandomState},
    time::Duration,
};

use siphasher::sip::SipHasher24;
use tokio::time::Instant;

use crate::model::ProbeTarget;

/// First probes are spread over this long (the interval, if that is shorter): no burst, and still a verdict soon.
const START_SPREAD: Duration = Duration::from_secs(1);
/// The part of an interval that can be left out: a tenth. Never more than the interval, so that a failure is found in
/// the time that the configuration promises.
const JITTER: u32 = 10;

/// Where the irregularity comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed(pub(super) u64);

impl Seed {
    /// Another one in every process.
    pub(super) fn random() -> Self {
        Self(RandomState::new().hash_one("levee probe"))
    }
}

/// The times at which one target is asked.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    state: u64,
    next: Instant,
}

impl Pace {
    /// The times for a target, from `now` on.
    pub(super) fn new(target: &ProbeTarget, seed: Seed, now: Instant) -> Self {
        let mut hasher = SipHasher24::new_with_keys(seed.0, 0);
        target.hash(&mut hasher);
        let state = hasher.finish();
        let interval = target.probe.interval;
        Self { interval, state, next: now + share(interval.min(START_SPREAD), state) }
    }

    /// When to ask next. Times that have passed are not made up for: a process that slept asks once.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        let at = self.next.max(now);
        // An odd multiplier and increment make the upper bits run through all values (Knuth, TAOCP 2, section 3.2.1).
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.next = at + self.interval - share(self.interval / JITTER, self.state);
        at
    }
}

/// The part of `whole` that the upper half of `state` says.
fn share(whole: Duration, state: u64) -> Duration {
    let nanoseconds = (whole.as_nanos() * u128::from(state >> 32)) >> 32;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

    use super::*;
    use crate::model::{Probe, ProbeKind};

    const INTERVAL: Duration = Duration::from_secs(2);

    fn target(last: u8) -> ProbeTarget {
        let timeout = Duration::from_secs(1);
        let probe = Probe { kind: ProbeKind::Tcp, port: 80, interval: INTERVAL, timeout, rise: 2, fall: 3 };
        ProbeTarget { address: IpAddr::from([127, 0, 0, last]), probe: Arc::new(probe) }
    }

    #[test]
    fn first_probes_are_spread() {
        let now = Instant::now();
        let delay = |last| Pace::new(&target(last), Seed(7), now).next(now) - now;
        let delays: Vec<Duration> = (0..=255).map(delay).collect();
        assert!(delays.iter().all(|delay| *delay < START_SPREAD));
        for tenth in 0..10 {
            let begin = START_SPREAD * tenth / 10;
            let here = delays.iter().filter(|delay| (begin..begin + START_SPREAD / 10).contains(*delay)).count();
            assert!((10..=45).contains(&here), "{here} of 256 first probes in tenth {tenth}");
        }
    }

    #[test]
    fn nodes_ask_the_same_target_at_different_times() {
        let now = Instant::now();
        let firsts: BTreeSet<_> = (0..20).map(|seed| Pace::new(&target(1), Seed(seed), now).next(now)).collect();
        assert_eq!(firsts.len(), 20);
    }

    #[test]
    fn intervals_vary_by_a_tenth_and_never_exceed_what_is_configured() {
        let now = Instant::now();
        let mut pace = Pace::new(&target(1), Seed(7), now);
        let times: Vec<Instant> = (0..1000)
            .scan(now, |at, _| {
                *at = pace.next(*at);
                Some(*at)
            })
            .collect();
        let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let (shortest, longest) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(*longest <= INTERVAL && *longest > INTERVAL * 99 / 100, "{longest:?}");
        assert!(*shortest >= INTERVAL * 9 / 10 && *shortest < INTERVAL * 91 / 100, "{shortest:?}");
    }

    #[test]
    fn missed_times_are_not_made_up_for() {
        let now = Instant::now();
        let mut pace = Pace::new(&target(1), Seed(7), now);
        pace.next(now);
        let late = now + INTERVAL * 20;
        assert_eq!(pace.next(late), late);
        assert!(pace.next(late) >= late + INTERVAL * 9 / 10);
    }
}
