//! One row of a table: what the maps hold, what comes in, how it ends.

use std::net::IpAddr;

use lb_common::verdict::{Action, DropReason, Verdict};

use crate::{
    bed::{Bed, Outcome},
    counts::Counts,
    diff,
    frame::Frame,
    link::IN,
    world::{World, world},
};

/// One row of a table.
pub struct Case {
    name: String,
    world: World,
    interface: u32,
    frame: Option<Frame>,
    expected: Option<Expected>,
}

struct Expected {
    action: Action,
    frame: Vec<u8>,
    counts: Counts,
}

impl Case {
    /// A case with a sentence that says what holds.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), world: world(), interface: IN, frame: None, expected: None }
    }

    /// What the maps hold.
    #[must_use]
    pub fn given(mut self, world: &World) -> Self {
        self.world = world.clone();
        self
    }

    /// By which interface it comes in; another than [`crate::IN`] needs [`crate::Ability::Context`].
    #[must_use]
    pub fn by(mut self, interface: u32) -> Self {
        self.interface = interface;
        self
    }

    /// What comes in.
    #[must_use]
    pub fn send(mut self, frame: impl Into<Frame>) -> Self {
        self.frame = Some(frame.into());
        self
    }

    /// Passed as it came, and nothing counted: not for a VIP.
    #[must_use]
    pub fn expect_untouched(self) -> Self {
        self.expect_passed(Verdict::NotOurs)
    }

    /// Passed as it came, with this verdict.
    #[must_use]
    pub fn expect_passed(self, verdict: Verdict) -> Self {
        let frame = self.sent().bytes();
        self.expect(Action::Pass, frame, Counts::of_verdict(verdict))
    }

    /// Passed as it came and counted for a backend that is this node.
    #[must_use]
    pub fn expect_local(self, backend: IpAddr) -> Self {
        let frame = self.sent().bytes();
        let counts = self.served(Verdict::Local, backend);
        self.expect(Action::Pass, frame, counts)
    }

    /// Rewritten to this frame, passed, and counted for a backend that is this node.
    #[must_use]
    pub fn expect_local_as(self, backend: IpAddr, frame: &Frame) -> Self {
        let counts = self.served(Verdict::Local, backend);
        self.expect(Action::Pass, frame.bytes(), counts)
    }

    /// Rewritten to this frame and passed, with this verdict.
    #[must_use]
    pub fn expect_passed_as(self, verdict: Verdict, frame: &Frame) -> Self {
        self.expect(Action::Pass, frame.bytes(), Counts::of_verdict(verdict))
    }

    /// Stripped of its tunnel header to this frame and passed.
    #[must_use]
    pub fn expect_stripped(self, frame: &Frame) -> Self {
        self.expect(Action::Pass, frame.bytes(), Counts::of_verdict(Verdict::Terminated))
    }

    /// Sent to a backend by the interface it came in by.
    #[must_use]
    pub fn expect_tx(self, verdict: Verdict, backend: IpAddr, frame: &Frame) -> Self {
        let counts = self.served(verdict, backend);
        self.expect(Action::Transmit, frame.bytes(), counts)
    }

    /// Sent to a backend by another interface.
    #[must_use]
    pub fn expect_redirect(self, verdict: Verdict, backend: IpAddr, frame: &Frame) -> Self {
        let counts = self.served(verdict, backend);
        self.expect(Action::Redirect, frame.bytes(), counts)
    }

    /// Not sent on; instead this frame leaves by the interface it came in by.
    #[must_use]
    pub fn expect_answer(self, verdict: Verdict, frame: &Frame) -> Self {
        self.expect(Action::Transmit, frame.bytes(), Counts::of_verdict(verdict))
    }

    /// Dropped as it came.
    #[must_use]
    pub fn expect_drop(self, reason: DropReason) -> Self {
        let frame = self.sent().bytes();
        self.expect(Action::Drop, frame, Counts::of_drop(reason))
    }

    /// Dropped after it had been rewritten to this frame.
    #[must_use]
    pub fn expect_late_drop(self, reason: DropReason, frame: &Frame) -> Self {
        self.expect(Action::Drop, frame.bytes(), Counts::of_drop(reason))
    }

    fn served(&self, verdict: Verdict, backend: IpAddr) -> Counts {
        Counts::of_verdict(verdict).and_served(&self.world, backend, self.sent().packet_length())
    }

    fn sent(&self) -> &Frame {
        self.frame.as_ref().expect("a case sends before it expects")
    }

    fn expect(mut self, action: Action, frame: Vec<u8>, counts: Counts) -> Self {
        self.expected = Some(Expected { action, frame, counts });
        self
    }

    /// Runs the case; the text says what is wrong.
    fn run(&self, bed: &mut Bed) -> Result<(), String> {
        let expected = self.expected.as_ref().expect("a case expects something");
        bed.apply(&self.world);
        let before = bed.counts();
        let outcome = bed.send(&self.sent().bytes(), self.interface);
        let counts = bed.counts().since(&before);
        let differences = expected.compare(&outcome, &counts);
        if differences.is_empty() { Ok(()) } else { Err(format!("{}\n{differences}", self.name)) }
    }
}

impl Expected {
    fn compare(&self, outcome: &Outcome, counts: &Counts) -> String {
        let mut text = String::new();
        if outcome.action != self.action as u32 {
            text += &format!("  action: expected {:?}, found {}\n", self.action, action(outcome.action));
        }
        if *counts != self.counts {
            text += &format!("  counters: expected {}\n               found {counts}\n", self.counts);
        }
        if outcome.frame != self.frame {
            text += &diff::frames(&self.frame, &outcome.frame);
        }
        text
    }
}

fn action(value: u32) -> String {
    let known = [Action::Drop, Action::Pass, Action::Transmit, Action::Redirect];
    known
        .into_iter()
        .find(|action| *action as u32 == value)
        .map_or_else(|| format!("xdp_action {value}"), |action| format!("{action:?}"))
}

/// Runs every case of a table on one loaded program.
///
/// # Panics
/// If cases fail, with their names and what differs.
pub fn check(cases: impl IntoIterator<Item = Case>) {
    let mut bed = Bed::new();
    let (mut count, mut failures) = (0, Vec::new());
    for case in cases {
        count += 1;
        failures.extend(case.run(&mut bed).err());
    }
    assert!(count > 0, "a table without cases proves nothing");
    assert!(failures.is_empty(), "{} of {count} cases failed\n\n{}", failures.len(), failures.join("\n"));
}
