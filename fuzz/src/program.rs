//! The loaded program: a frame goes through the live entry and the dry one, and both have to end as the model says.

use std::collections::BTreeSet;

use lb_common::{
    addr::BackendId,
    maps::rings::SlotState,
    report::{End as Reported, LEN, Report},
    verdict::{Action, DropReason, Verdict},
};
use packets_tests::{Counts, IN, Outcome, World};

use crate::{
    model::{End, Expected, Model},
    packet, world,
};

/// Shortest frame that the kernel runs a program on, bytes.
const SHORTEST: usize = 14;
/// Longest frame that is fed, bytes: the kernel takes one that fits a page with its headroom.
const LONGEST: usize = 2048;

/// The loaded program and its model.
pub struct Bed {
    loaded: packets_tests::Bed,
    world: World,
    model: Model,
    counts: Counts,
    /// Frames that were fed.
    pub fed: u64,
    /// Those that the model did not decide on.
    pub unknown: u64,
    /// Those that were for a VIP.
    pub ours: u64,
    /// Labels of the ends that frames came to.
    pub ends: BTreeSet<&'static str>,
}

impl Bed {
    /// Loads the program.
    ///
    /// # Panics
    /// Without root, without a BPF filesystem or without a BPF object, saying what to do.
    #[must_use]
    pub fn new() -> Self {
        let world = world::serving();
        let mut loaded = packets_tests::Bed::with_sizes(world::ROOM);
        loaded.apply(&world);
        let (model, counts) = (Model::new(world.target()), loaded.counts());
        Self { loaded, world, model, counts, fed: 0, unknown: 0, ours: 0, ends: BTreeSet::new() }
    }

    /// The backend's id in the maps.
    fn id(&self, expected: &Expected) -> BackendId {
        let Some((key, Some(backend))) = &expected.chosen else { return BackendId::NONE };
        self.loaded.state().services[key].backends[backend].id
    }
}

impl Default for Bed {
    fn default() -> Self {
        Self::new()
    }
}

/// Feeds a frame to the program, to its dry entry and to the model, and compares.
///
/// # Panics
/// If they do not agree, or if the frame that comes out is not what the end says.
pub fn program(frame: &[u8], bed: &mut Bed) {
    if frame.len() < SHORTEST {
        return;
    }
    let frame = &frame[..frame.len().min(LONGEST)];
    let expected = bed.model.expect(frame);
    // The dry entry records nothing, so it comes first: both meet the same maps.
    let report = (frame.len() >= LEN).then(|| bed.loaded.lookup(frame));
    let outcome = bed.loaded.send(frame, IN);
    let counts = bed.loaded.counts();
    let counted = counts.since(&bed.counts);
    bed.counts = counts;
    bed.fed += 1;
    bed.ours += u64::from(expected.end != End::Verdict(Verdict::NotOurs));
    match expected.end {
        End::Verdict(verdict) | End::Refused { told: verdict, can_tell: true, .. } => bed.ends.insert(verdict.label()),
        End::Drop(reason) | End::Refused { untold: reason, .. } => bed.ends.insert(reason.label()),
        End::Unknown => {
            bed.unknown += 1;
            return;
        }
    };
    if let Some(report) = report {
        dry_agrees(bed, &expected, &report);
    }
    let ended = live_agrees(bed, &expected, &counted);
    frame_agrees(frame, &expected, &ended, &outcome);
}

/// The dry entry tells how the packet would end, and what was chosen. It asks no limit, and tells every sender.
fn dry_agrees(bed: &Bed, expected: &Expected, report: &Report) {
    let end = match expected.end {
        End::Verdict(verdict) | End::Refused { told: verdict, .. } => Reported::Verdict(verdict as u32),
        End::Drop(reason) => Reported::Drop(reason as u32),
        End::Unknown => return,
    };
    assert_eq!(report.end, end, "the dry entry, of {expected:?}: {report:?}");
    let service = expected.chosen.map_or(0, |(key, _)| bed.loaded.state().services[&key].index + 1);
    assert_eq!((report.service, report.backend), (service, bed.id(expected).bits()), "{expected:?}: {report:?}");
    assert_eq!(report.state, SlotState::Settled as u8, "a slot is not settled: {report:?}");
}

/// The counters tell how the packet ended; returns that.
fn live_agrees(bed: &Bed, expected: &Expected, counted: &Counts) -> Counts {
    let ends = match expected.end {
        End::Verdict(verdict) => vec![served(bed, expected, verdict)],
        End::Drop(reason) => vec![Counts::of_drop(reason)],
        End::Refused { told, untold, can_tell } => {
            let end = if can_tell { Counts::of_verdict(told) } else { Counts::of_drop(untold) };
            vec![end, Counts::of_drop(DropReason::AnswerLimit)]
        }
        End::Unknown => Vec::new(),
    };
    assert!(ends.contains(counted), "counted {counted}, expected {} ({expected:?})", ends[0]);
    counted.clone()
}

/// What is counted for a packet that is sent on or ends in this verdict.
fn served(bed: &Bed, expected: &Expected, verdict: Verdict) -> Counts {
    let counts = Counts::of_verdict(verdict);
    match (verdict, expected.chosen) {
        (Verdict::Local | Verdict::L2 | Verdict::Ipip | Verdict::Gue, Some((_, Some((address, _))))) => {
            counts.and_served(&bed.world, address.into(), expected.length as u64)
        }
        _ => counts,
    }
}

/// What the driver is told, and what became of the frame.
fn frame_agrees(frame: &[u8], expected: &Expected, counted: &Counts, outcome: &Outcome) {
    let what = format!("{expected:?}, counted {counted}");
    let (l3, behind) = (expected.l3, outcome.frame.len().saturating_sub(frame.len() - expected.l3));
    match expected.end {
        End::Verdict(Verdict::Terminated) => {
            assert!(outcome.is_passed(), "{what}: {outcome:?}");
            let (_, outer) = packet::link(frame).expect("a tunnel packet");
            assert_eq!(outcome.frame[..outer - 2], frame[..outer - 2], "{what}: the link-layer header stays");
            assert_eq!((behind, &outcome.frame[outer..]), (outer, &frame[l3..]), "{what}: the inner packet stays");
        }
        End::Verdict(Verdict::L2 | Verdict::Ipip | Verdict::Gue) => {
            let sent = [Action::Transmit, Action::Redirect].map(|action| action as u32);
            assert!(sent.contains(&outcome.action), "{what}: {outcome:?}");
            let mut packet = outcome.frame[behind..].to_vec();
            // One hop less, and the checksum of IPv4 right: other tests compare that.
            let (ttl, checksum) = if expected.is_ipv4 { (8, 10..12) } else { (7, 0..0) };
            assert_eq!(packet[ttl].wrapping_add(1), frame[l3 + ttl], "{what}: one hop less");
            packet[ttl] = frame[l3 + ttl];
            packet[checksum.clone()].copy_from_slice(&frame[l3..][checksum]);
            assert_eq!(packet, frame[l3..], "{what}: the packet stays");
        }
        End::Refused { .. } if counted.drops() == 0 => {
            assert_eq!(outcome.action, Action::Transmit as u32, "{what}");
            assert_eq!((&outcome.frame[..6], &outcome.frame[6..12]), (&frame[6..12], &frame[..6]), "{what}: back");
            assert!(outcome.frame.len() <= l3 + 48 + 128, "{what}: {} bytes", outcome.frame.len());
        }
        End::Verdict(_) => {
            assert!(outcome.is_passed() && outcome.frame == frame, "{what}: {outcome:?}");
        }
        _ => assert!(outcome.is_dropped() && outcome.frame == frame, "{what}: {outcome:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use lb_agent::plan::TargetState;
    use lb_common::maps::{addresses::AddressEntry, backends::Mode};

    use super::*;
    use crate::{Target, corpus::seeds};

    type Falsify = fn(&mut TargetState);

    /// Names of the frames on which the program and a model of a false target disagree.
    fn disagreements(falsify: Falsify) -> Vec<String> {
        let mut bed = Bed::new();
        let mut target = bed.world.target();
        falsify(&mut target);
        bed.model = Model::new(target);
        let disagrees = |bytes: &[u8], bed: &mut Bed| catch_unwind(AssertUnwindSafe(|| program(bytes, bed))).is_err();
        let frames = seeds(Target::Program);
        frames.into_iter().filter(|frame| disagrees(&frame.bytes, &mut bed)).map(|frame| frame.name).collect()
    }

    #[test]
    fn a_model_of_something_else_is_found_out() {
        let falsified: [(Falsify, &str); 7] = [
            (|target| target.settings.hash_key.k0 ^= 1, "ipv4-tcp"),
            (|target| target.peers.clear(), "ipv6-ipip-of-ipv4"),
            (|target| target.peer_macs.clear(), "ipv4-from-peer"),
            (|target| target.services.values_mut().for_each(|service| service.held ^= true), "ipv4-gue-of-ipv6"),
            (
                |target| target.services.values_mut().for_each(|service| service.source_ranges.clear()),
                "ipv6-ranged-denied",
            ),
            (
                |target| target.addresses.values_mut().for_each(|flags| *flags &= !AddressEntry::PASS_UNMATCHED),
                "ipv4-passed",
            ),
            (hide_modes, "ipv4-ttl-1"),
        ];
        assert_eq!(disagreements(|_| {}), [""; 0]);
        for (falsify, frame) in falsified {
            let found = disagreements(falsify);
            assert!(found.iter().any(|name| name == frame), "{frame} shows it, too: {found:?}");
        }
    }

    /// No way to any backend is known.
    fn hide_modes(target: &mut TargetState) {
        let backends = target.services.values_mut().flat_map(|service| service.backends.values_mut());
        backends.for_each(|backend| backend.hop.mode = Mode::Unknown as u8);
    }
}
