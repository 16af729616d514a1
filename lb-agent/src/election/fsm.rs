//! One candidate of an election by a shared record that is replaced only in the version that was read: no I/O, no clock.
//!
//! Drain [`Candidate::poll_request`] after every `handle_*`, bring the answer back, and call
//! [`Candidate::handle_timeout`] when [`Candidate::poll_timeout`] is due. There is one request at a time.
//!
//! The rules, each of which the next one needs:
//! - A record of another holder is fresh for its duration from the moment at which *this* candidate saw it change. Times
//!   in it are another clock's and are not read. A candidate that has just begun has seen nothing yet, and waits.
//! - A write names the version that it replaces. Of two writers one fails.
//! - A leader's time is counted from the *beginning* of its last write that succeeded: no one can have seen the record
//!   change before that. It ends by the leader's own clock before the others' wait does, answer or no answer.
//! - After a write without an answer nothing is known: the record is read before anything else is written.
//!
//! Identities belong to one process each, also after a restart: a record in one's own name is taken for one's own.

use std::time::{Duration, Instant};

use super::{Leadership, timing::Timing};

/// The shared record, as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Who leads; empty if the last one handed the lead over.
    pub holder: String,
    /// How long it says to be fresh; zero if it does not say.
    pub duration: Duration,
    /// How often the holder has changed.
    pub transitions: u32,
    /// Anything that is another text after each renewal.
    pub stamp: String,
    /// Version by which it can be replaced.
    pub version: String,
}

impl Record {
    fn is_renewed(&self, before: &Self) -> bool {
        (&self.holder, self.duration, self.transitions, &self.stamp)
            != (&before.holder, before.duration, before.transitions, &before.stamp)
    }
}

/// What a candidate wants to be written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// Who leads; empty to hand the lead over.
    pub holder: String,
    /// How long others have to wait.
    pub duration: Duration,
    /// How often the holder has changed.
    pub transitions: u32,
    /// Whether the holder is another than before.
    pub is_change: bool,
}

/// What a candidate asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// Read the record.
    Read,
    /// Create the record; a conflict if there is one.
    Create(Claim),
    /// Replace the record of this version; a conflict if it has another by now.
    Replace(Claim, String),
}

/// What came of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The record, as read or as written.
    Record(Record),
    /// There is no record.
    Missing,
    /// Somebody else has written meanwhile.
    Conflict,
    /// Anything else, silence included: it may have been written or not.
    Failed,
}

/// One candidate. See the module.
#[derive(Debug)]
pub struct Candidate {
    identity: String,
    timing: Timing,
    jitter: u64,
    /// The latest record and since when it stands unchanged, as far as was seen.
    seen: Option<(Record, Instant)>,
    /// What the next write has to name.
    base: Base,
    /// Since when it is seen to be gone.
    gone_at: Option<Instant>,
    ours_until: Option<Instant>,
    /// The request under way.
    attempt: Option<Attempt>,
    step: Step,
    next: Instant,
    resigning: bool,
    is_finished: bool,
}

#[derive(Debug)]
enum Base {
    Unknown,
    Absent,
    Version(String),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Read,
    Write,
}

#[derive(Debug)]
struct Attempt {
    begun: Instant,
    is_write: bool,
}

impl Candidate {
    /// A candidate that begins now. `identity` is this process's alone; `seed` spreads its retries.
    #[must_use]
    pub fn new(identity: String, timing: Timing, seed: u64, now: Instant) -> Self {
        Self {
            identity,
            timing,
            jitter: seed,
            seen: None,
            base: Base::Unknown,
            gone_at: None,
            ours_until: None,
            attempt: None,
            step: Step::Read,
            next: now,
            resigning: false,
            is_finished: false,
        }
    }

    /// Who leads.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        let record = self.seen.as_ref().map(|(record, _)| record);
        Leadership {
            leader: record.map(|record| record.holder.clone()).filter(|holder| !holder.is_empty()),
            ours_until: self.ours_until,
            transitions: record.map_or(0, |record| record.transitions),
        }
    }

    /// Whether it has resigned and has nothing more to write.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// When to call [`Self::handle_timeout`] and [`Self::poll_request`] again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = (self.attempt.is_none() && !self.is_finished).then_some(self.next);
        next.into_iter().chain(self.ours_until).min()
    }

    /// Ends the lead if its time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.ours_until.is_some_and(|until| now >= until) {
            self.ours_until = None;
        }
    }

    /// The request that is due, and until when an answer is of use. It is under way from now on.
    pub fn poll_request(&mut self, now: Instant) -> Option<(Request, Instant)> {
        self.handle_timeout(now);
        if self.attempt.is_some() || self.is_finished || now < self.next {
            return None;
        }
        let request = match (self.step, &self.base) {
            (Step::Read, _) | (Step::Write, Base::Unknown) => Request::Read,
            (Step::Write, Base::Absent) => Request::Create(self.claim()),
            (Step::Write, Base::Version(version)) => Request::Replace(self.claim(), version.clone()),
        };
        self.attempt = Some(Attempt { begun: now, is_write: request != Request::Read });
        let patience = now + self.timing.patience();
        Some((request, self.ours_until.map_or(patience, |until| patience.min(until))))
    }

    /// Takes the answer to the request under way.
    pub fn handle_answer(&mut self, answer: Answer, now: Instant) {
        self.handle_timeout(now);
        let Some(attempt) = self.attempt.take() else { return };
        match (attempt.is_write, answer) {
            (true, Answer::Record(record)) => self.written(record, attempt.begun, now),
            (false, Answer::Record(record)) => self.read(record, now),
            // Where nothing can be created, the namespace is missing: that is no reason to hurry.
            (true, Answer::Missing) if matches!(self.base, Base::Absent) => self.retry(Step::Read, now, now),
            (_, Answer::Missing) => self.missing(now),
            // Who was faster is read at once if the lead is at stake.
            (_, Answer::Conflict) if self.ours_until.is_some() || self.resigning => self.schedule(Step::Read, now),
            (_, Answer::Conflict | Answer::Failed) if self.resigning => self.is_finished = true,
            (_, Answer::Conflict | Answer::Failed) => {
                self.base = Base::Unknown;
                self.retry(Step::Read, now, now);
            }
        }
    }

    /// Stops leading, and hands the lead over by the next write, if that succeeds.
    pub fn resign(&mut self, now: Instant) {
        if self.resigning {
            return;
        }
        self.resigning = true;
        let led = self.ours_until.take().is_some();
        let is_idle = self.attempt.is_none();
        self.is_finished = is_idle && !led && !self.holds();
        self.schedule(if matches!(self.base, Base::Unknown) { Step::Read } else { Step::Write }, now);
    }

    fn holds(&self) -> bool {
        self.seen.as_ref().is_some_and(|(record, _)| record.holder == self.identity)
    }

    fn claim(&self) -> Claim {
        let record = self.seen.as_ref().map(|(record, _)| record).filter(|_| !matches!(self.base, Base::Absent));
        let holder = if self.resigning { String::new() } else { self.identity.clone() };
        let is_change = record.is_none_or(|record| record.holder != holder);
        let before = record.map(|record| record.transitions);
        Claim {
            // Whoever comes next need not wait for one who has handed over.
            duration: if self.resigning { Duration::from_secs(1) } else { self.timing.lease_duration() },
            transitions: before.map_or(0, |before| before.saturating_add(u32::from(is_change && !self.resigning))),
            is_change,
            holder,
        }
    }

    fn written(&mut self, record: Record, begun: Instant, now: Instant) {
        self.note(record, now);
        if self.resigning {
            // The write may have been a renewal under way when the end came.
            self.is_finished = !self.holds();
            self.schedule(Step::Write, now);
            return;
        }
        let until = begun + self.timing.renew_deadline();
        self.ours_until = (now < until).then_some(until);
        self.retry(Step::Write, begun, now);
    }

    fn read(&mut self, record: Record, now: Instant) {
        self.note(record, now);
        let Some((record, since)) = &self.seen else { return };
        let duration = if record.duration.is_zero() { self.timing.lease_duration() } else { record.duration };
        let fresh_until = *since + duration;
        if record.holder == self.identity {
            self.schedule(Step::Write, now);
            return;
        }
        let is_free = record.holder.is_empty() || now >= fresh_until;
        self.ours_until = None;
        if self.resigning {
            self.is_finished = true;
        } else if is_free {
            self.schedule(Step::Write, now);
        } else {
            self.retry(Step::Read, now, now);
            self.next = self.next.min(fresh_until);
        }
    }

    /// There is no record. If there was one, whoever had it can have renewed it until just now, seen from here or not.
    fn missing(&mut self, now: Instant) {
        self.base = Base::Absent;
        let free_at = *self.gone_at.get_or_insert(now) + self.timing.lease_duration();
        if self.resigning {
            self.is_finished = true;
        } else if self.ours_until.is_some() || now >= free_at {
            self.schedule(Step::Write, now);
        } else {
            self.retry(Step::Read, now, now);
            self.next = self.next.min(free_at);
        }
    }

    fn note(&mut self, record: Record, now: Instant) {
        self.base = Base::Version(record.version.clone());
        self.gone_at = None;
        let since = match &self.seen {
            Some((before, since)) if !record.is_renewed(before) => *since,
            _ => now,
        };
        self.seen = Some((record, since));
    }

    const fn schedule(&mut self, step: Step, at: Instant) {
        self.step = step;
        self.next = at;
    }

    /// The next step a retry period after `from`, lengthened at random, but not before now.
    fn retry(&mut self, step: Step, from: Instant, now: Instant) {
        // Knuth's MMIX generator: only the spread matters.
        self.jitter = self.jitter.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let period = self.timing.retry_period();
        let part = u32::try_from(self.jitter >> 48).unwrap_or(0); // of 65536
        let longer = period / Timing::JITTER * part / (1 << 16);
        self.schedule(step, (from + period + longer).max(now));
    }
}

#[cfg(test)]
mod tests;
