//! Which server to ask first: the order that was given, but those that failed lately come last.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// How long a server comes last behind its first failure; doubled with each further one.
const PENALTY: Duration = Duration::from_secs(1);
/// The longest such time.
const MAX_PENALTY: Duration = Duration::from_secs(16);
/// A failure is forgotten this long behind its penalty.
const MEMORY: Duration = Duration::from_secs(60);

/// What is known of the servers.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    failures: BTreeMap<String, Failures>,
    /// When the last server that asked for patience may be asked again.
    busy_until: Option<Instant>,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    until: Instant,
}

impl Ranking {
    /// The servers, each once: first those that may be asked, in their order, then the others, the earliest first.
    pub(super) fn order(&self, servers: Vec<String>, now: Instant) -> Vec<String> {
        let mut good: Vec<String> = Vec::new();
        let mut bad: Vec<(Instant, String)> = Vec::new();
        for server in servers {
            if good.contains(&server) || bad.iter().any(|(_, other)| *other == server) {
                continue;
            }
            match self.failures.get(&server) {
                Some(failures) if failures.until > now => bad.push((failures.until, server)),
                _ => good.push(server),
            }
        }
        bad.sort_by_key(|(until, _)| *until);
        good.extend(bad.into_iter().map(|(_, server)| server));
        good
    }

    /// A server gave no answer, or one that says that it is broken.
    pub(super) fn failed(&mut self, server: &str, now: Instant) {
        self.failures.retain(|_, failures| failures.until + MEMORY > now);
        let failures = self.failures.entry(server.to_owned()).or_insert(Failures { count: 0, until: now });
        let penalty = PENALTY.saturating_mul(1 << failures.count.min(10)).min(MAX_PENALTY);
        // Streams that end together are one failure.
        if failures.count == 0 || failures.until <= now {
            failures.count += 1;
            failures.until = now + penalty;
        }
    }

    /// A server wants to be left alone for a while.
    pub(super) fn busy(&mut self, server: &str, wait: Duration, now: Instant) {
        let until = now + wait;
        self.failures.insert(server.to_owned(), Failures { count: 1, until });
        self.busy_until = Some(self.busy_until.map_or(until, |before| before.max(until)));
    }

    /// A server answered as it should.
    pub(super) fn answered(&mut self, server: &str) {
        self.failures.remove(server);
    }

    /// How long all should wait because servers asked for it.
    pub(super) fn hold_off(&self, now: Instant) -> Duration {
        self.busy_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_server_that_failed_comes_last_until_its_penalty_ends() {
        let now = Instant::now();
        let mut ranking = Ranking::default();
        let servers = names(&["own", "other", "vip", "own"]);
        assert_eq!(ranking.order(servers.clone(), now), names(&["own", "other", "vip"]));
        ranking.failed("own", now);
        assert_eq!(ranking.order(servers.clone(), now), names(&["other", "vip", "own"]));
        assert_eq!(ranking.order(servers.clone(), now + PENALTY), names(&["own", "other", "vip"]));
        ranking.failed("own", now + PENALTY);
        assert_eq!(ranking.order(servers.clone(), now + PENALTY * 2), names(&["other", "vip", "own"]), "doubled");
        ranking.answered("own");
        assert_eq!(ranking.order(servers, now + PENALTY * 2), names(&["own", "other", "vip"]));
    }

    #[test]
    fn streams_that_end_together_are_one_failure() {
        let now = Instant::now();
        let mut ranking = Ranking::default();
        for _ in 0..5 {
            ranking.failed("own", now);
        }
        let servers = names(&["own", "other"]);
        assert_eq!(ranking.order(servers.clone(), now + PENALTY), servers);
    }

    #[test]
    fn when_all_failed_the_one_that_failed_first_is_asked_first() {
        let now = Instant::now();
        let mut ranking = Ranking::default();
        ranking.failed("other", now);
        ranking.failed("own", now + PENALTY / 2);
        assert_eq!(ranking.order(names(&["own", "other"]), now + PENALTY / 2), names(&["other", "own"]));
    }

    #[test]
    fn patience_is_the_longest_that_was_asked_for() {
        let now = Instant::now();
        let mut ranking = Ranking::default();
        assert_eq!(ranking.hold_off(now), Duration::ZERO);
        ranking.busy("own", Duration::from_secs(5), now);
        ranking.busy("other", Duration::from_secs(2), now);
        assert_eq!(ranking.hold_off(now + Duration::from_secs(1)), Duration::from_secs(4));
        assert_eq!(ranking.order(names(&["own", "other", "vip"]), now), names(&["vip", "other", "own"]));
    }
}
