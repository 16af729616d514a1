//! Answers in, verdicts out: a backend changes its state only after several answers in a row say so.
//!
//! It has no clock: how far apart the answers lie is the caller's business.

use super::Answer;
use crate::model::{Probe, ProbeState};

/// The verdict on one target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Hysteresis {
    rise: u8,
    fall: u8,
    state: ProbeState,
    /// Answers in a row that speak against `state`.
    against: u8,
}

impl Hysteresis {
    /// Begins with what is known already.
    pub(super) const fn new(probe: &Probe, state: ProbeState) -> Self {
        Self { rise: probe.rise, fall: probe.fall, state, against: 0 }
    }

    /// The verdict so far.
    pub(super) const fn state(&self) -> &ProbeState {
        &self.state
    }

    /// Takes the next answer; true if the verdict is another now, what a failure says of itself included.
    pub(super) fn take(&mut self, answer: Answer) -> bool {
        let next = match (answer, &self.state) {
            (Answer::Unknown(_), _) => return false,
            (Answer::Yes, _) => return self.rise_to(ProbeState::Healthy),
            (Answer::WantsCredentials(reason), _) => return self.rise_to(ProbeState::WantsCredentials { reason }),
            (Answer::No { reason, port_open }, ProbeState::Failed { .. }) => ProbeState::Failed { reason, port_open },
            (Answer::No { reason, port_open }, _) if self.count() >= self.fall => {
                ProbeState::Failed { reason, port_open }
            }
            (Answer::No { .. }, _) => {
                self.against = self.count();
                return false;
            }
        };
        self.against = 0;
        self.turn(next)
    }

    /// Takes an answer by which the backend serves. The first one counts at once: a restarted agent has no reason to
    /// doubt a backend that answers.
    fn rise_to(&mut self, next: ProbeState) -> bool {
        if let ProbeState::Failed { reason, .. } = &self.state
            && self.count() < self.rise
        {
            let reason = reason.clone();
            self.against = self.count();
            return self.turn(ProbeState::Failed { reason, port_open: true });
        }
        self.against = 0;
        self.turn(next)
    }

    fn turn(&mut self, next: ProbeState) -> bool {
        let changed = next != self.state;
        self.state = next;
        changed
    }

    /// Answers against the verdict, the present one included.
    const fn count(&self) -> u8 {
        self.against.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::ProbeKind;

    fn hysteresis(rise: u8, fall: u8) -> Hysteresis {
        let (interval, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
        let probe = Probe { kind: ProbeKind::Tcp, port: 80, interval, timeout, rise, fall };
        Hysteresis::new(&probe, ProbeState::Unknown)
    }

    /// The states after each answer: `+` success, `-` failure, `?` no probe; `h`ealthy, `f`ailed, `u`nknown.
    fn states(mut hysteresis: Hysteresis, answers: &str) -> String {
        let step = |answer| {
            hysteresis.take(match answer {
                '+' => Answer::Yes,
                '-' => Answer::closed("refused"),
                '4' => Answer::WantsCredentials("401".to_owned()),
                _ => Answer::Unknown("no sockets".to_owned()),
            });
            match hysteresis.state() {
                ProbeState::Unknown => 'u',
                ProbeState::Healthy => 'h',
                ProbeState::Failed { .. } => 'f',
                ProbeState::WantsCredentials { .. } => 'c',
            }
        };
        answers.chars().map(step).collect()
    }

    #[test]
    fn verdicts_follow_rise_and_fall() {
        for (rise, fall, answers, expected) in [
            (2, 3, "+", "h"),
            (2, 3, "---", "uuf"),
            (2, 3, "--+---", "uuhhhf"),
            (2, 3, "+--+---+-++", "hhhhhhffffh"),
            (1, 1, "-+-+", "fhfh"),
            (2, 2, "+-?-+?+", "hhhfffh"),
            (100, 1, "-++", "fff"),
            (2, 2, "4-4+4--4+4", "ccchccffhc"),
        ] {
            assert_eq!(states(hysteresis(rise, fall), answers), expected, "rise {rise}, fall {fall}: {answers}");
        }
    }

    #[test]
    fn a_failure_carries_its_latest_reason() {
        let mut hysteresis = hysteresis(2, 1);
        let failed = |reason: &str, port_open| ProbeState::Failed { reason: reason.to_owned(), port_open };
        assert!(hysteresis.take(Answer::closed("a")));
        assert!(!hysteresis.take(Answer::closed("a")));
        assert!(hysteresis.take(Answer::closed("b")));
        assert_eq!(hysteresis.state(), &failed("b", false));
        assert!(hysteresis.take(Answer::open("b")));
        assert_eq!(hysteresis.state(), &failed("b", true));
    }

    #[test]
    fn a_success_that_is_not_enough_still_shows_an_open_port() {
        let mut hysteresis = hysteresis(2, 1);
        hysteresis.take(Answer::closed("refused"));
        assert!(hysteresis.take(Answer::Yes));
        assert_eq!(hysteresis.state(), &ProbeState::Failed { reason: "refused".to_owned(), port_open: true });
        assert!(hysteresis.take(Answer::Yes));
        assert_eq!(hysteresis.state(), &ProbeState::Healthy);
    }

    proptest! {
        #[test]
        fn a_verdict_turns_only_after_enough_answers_in_a_row(rise in 1u8..6, fall in 1u8..6, answers in "[-+]{1,60}") {
            let states: Vec<char> = states(hysteresis(rise, fall), &answers).chars().collect();
            let answers: Vec<char> = answers.chars().collect();
            for at in 1..states.len() {
                let (needed, sign) = match (states[at - 1], states[at]) {
                    ('f', 'h') => (rise, '+'),
                    ('h' | 'u', 'f') => (fall, '-'),
                    _ => continue,
                };
                let run = answers[..=at].iter().rev().take_while(|answer| **answer == sign).count();
                prop_assert!(run >= usize::from(needed), "{answers:?} at {at}");
            }
        }
    }
}
