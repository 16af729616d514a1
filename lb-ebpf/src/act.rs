//! Performs a decision: rewrites, counts, and says what the driver is to do.

use lb_common::{
    report::{End, Report},
    verdict::{Action, DropReason, Verdict},
};

use crate::{
    decide::{self, Decision},
    encap,
    maps::DEVICES,
    packet::Packet,
    stats,
};

/// The whole way of a packet. Returns an `xdp_action`.
#[inline(always)]
pub fn run(packet: &mut Packet) -> u32 {
    let mut report = Report::START;
    match decide::decide(packet, &mut report).and_then(|decision| perform(packet, decision)) {
        Ok(action) => action as u32,
        Err(reason) => {
            stats::drop(reason);
            reason.action() as u32
        }
    }
}

/// The way of a packet as far as the decision, which is written over the frame.
#[inline(always)]
pub fn report(packet: &mut Packet) -> u32 {
    let mut report = Report::START;
    report.end = match decide::decide(packet, &mut report) {
        Ok(decision) => End::Verdict(expected(&decision) as u32),
        Err(reason) => End::Drop(reason as u32),
    };
    for (at, word) in report.to_words().iter().enumerate() {
        if packet
            .write_words(at * 8, [(*word & 0xffff_ffff) as u32, (*word >> 32) as u32])
            .is_err()
        {
            return Action::Drop as u32;
        }
    }
    Action::Pass as u32
}

#[inline(always)]
fn perform(packet: &mut Packet, decision: Decision) -> Result<Action, DropReason> {
    match decision {
        Decision::Pass(verdict) => {
            stats::verdict(verdict);
            Ok(Action::Pass)
        }
        Decision::Local(served) => {
            stats::served(served.service, served.backend, served.bytes);
            stats::verdict(Verdict::Local);
            Ok(Action::Pass)
        }
        Decision::Strip { outer_l3, payload } => {
            encap::strip(packet, outer_l3, &payload)?;
            stats::verdict(Verdict::Terminated);
            Ok(Action::Pass)
        }
        Decision::Forward {
            served,
            network,
            hop,
            hash,
        } => {
            let interface = hop.interface;
            let verdict = encap::forward(packet, &network, hop, hash)?;
            let action = if interface == packet.interface() {
                Action::Transmit
            } else {
                DEVICES.redirect(interface, 0).map_err(|_| DropReason::NoDevice)?;
                Action::Redirect
            };
            stats::served(served.service, served.backend, served.bytes);
            stats::verdict(verdict);
            Ok(action)
        }
    }
}

/// The verdict that performing a decision will end in, unless the frame cannot be rewritten.
#[inline(always)]
fn expected(decision: &Decision) -> Verdict {
    match decision {
        Decision::Pass(verdict) => *verdict,
        Decision::Local(_) => Verdict::Local,
        Decision::Strip { .. } => Verdict::Terminated,
        Decision::Forward { hop, .. } => encap::verdict(hop.mode),
    }
}
