//! Performs a decision: rewrites, counts, and says what the driver is to do. Or, for the dry entry, only notes it.

use lb_common::{
    hash::FlowHash,
    maps::backends::Hop,
    parse::{Network, Payload},
    report::{End as ReportedEnd, Report},
    verdict::{Action, DropReason, Verdict},
};

use crate::{
    decide::{self, Actor, End, Served},
    encap,
    maps::DEVICES,
    packet::Packet,
    stats,
};

/// The whole way of a packet. Returns an `xdp_action`.
#[inline(always)]
pub fn run(packet: &mut Packet) -> u32 {
    match decide::decide(packet, &mut { Report::START }, &Live) {
        Ok(action) => action,
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
    report.end = match decide::decide(packet, &mut report, &Dry) {
        Ok(verdict) => ReportedEnd::Verdict(verdict),
        Err(reason) => ReportedEnd::Drop(reason as u32),
    };
    for (at, word) in report.to_words().iter().enumerate() {
        if packet.write_words(at * 8, [(*word & 0xffff_ffff) as u32, (*word >> 32) as u32]).is_err() {
            return Action::Drop as u32;
        }
    }
    Action::Pass as u32
}

/// Does what was decided; its ends are `xdp_action`s.
pub struct Live;

impl Actor for Live {
    #[inline(always)]
    fn pass(&self, verdict: Verdict) -> End {
        stats::verdict(verdict);
        Ok(Action::Pass as u32)
    }

    #[inline(always)]
    fn local(&self, served: Served) -> End {
        stats::served(served.service, served.backend, served.bytes);
        stats::verdict(Verdict::Local);
        Ok(Action::Pass as u32)
    }

    #[inline(always)]
    fn strip(&self, packet: &mut Packet, outer_l3: usize, payload: &Payload) -> End {
        encap::strip(packet, outer_l3, payload)?;
        stats::verdict(Verdict::Terminated);
        Ok(Action::Pass as u32)
    }

    #[inline(always)]
    fn forward(&self, packet: &mut Packet, served: Served, network: &Network, hop: &Hop, hash: FlowHash) -> End {
        let verdict = encap::forward(packet, network, hop, hash)?;
        let action = if hop.interface == packet.interface() {
            Action::Transmit
        } else {
            DEVICES.redirect(hop.interface, 0).map_err(|_| DropReason::NoDevice)?;
            Action::Redirect
        };
        stats::served(served.service, served.backend, served.bytes);
        stats::verdict(verdict);
        Ok(action as u32)
    }
}

/// Changes and counts nothing; its ends are the verdicts that [`Live`] would count, if the frame can be rewritten.
struct Dry;

impl Actor for Dry {
    #[inline(always)]
    fn pass(&self, verdict: Verdict) -> End {
        Ok(verdict as u32)
    }

    #[inline(always)]
    fn local(&self, _served: Served) -> End {
        Ok(Verdict::Local as u32)
    }

    #[inline(always)]
    fn strip(&self, _packet: &mut Packet, _outer_l3: usize, _payload: &Payload) -> End {
        Ok(Verdict::Terminated as u32)
    }

    #[inline(always)]
    fn forward(&self, _packet: &mut Packet, _served: Served, _network: &Network, hop: &Hop, _hash: FlowHash) -> End {
        Ok(encap::verdict(hop.mode) as u32)
    }
}
