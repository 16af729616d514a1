//! Performs a decision: rewrites, counts, and says what the driver is to do. Or, for the dry entry, only notes it.

use lb_common::{
    hash::FlowHash,
    maps::backends::Hop,
    parse::{Network, Payload},
    report::{End as ReportedEnd, Report},
    tracking::Kind,
    verdict::{Action, DropReason, Verdict},
    wire::ipv4,
};

use crate::{
    decide::{self, Actor, End, Served},
    encap, icmp,
    maps::{self, DEVICES, SETTINGS},
    packet::Packet,
    retarget,
    second_chance::{self, Again},
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
    const RECORDS: bool = true;

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
    fn retarget(&self, packet: &Packet, service: u32, l3: usize, is_ipv4: bool) -> Result<(), DropReason> {
        retarget::to_server(packet, service, l3, is_ipv4)
    }

    #[inline(always)]
    fn strip(&self, packet: &mut Packet, outer_l3: usize, payload: &Payload) -> End {
        encap::strip(packet, outer_l3, payload)?;
        stats::verdict(Verdict::Terminated);
        Ok(Action::Pass as u32)
    }

    #[inline(always)]
    fn forward(
        &self,
        packet: &mut Packet,
        served: Served,
        network: &Network,
        kind: Kind,
        hop: &Hop,
        hash: FlowHash,
    ) -> End {
        let verdict = match encap::forward(packet, network, hop, hash) {
            Ok(verdict) => verdict,
            Err(DropReason::TooBig) if kind != Kind::Error => {
                return self.refuse(packet, network, encap::room(hop).max(ipv4::MIN_MTU));
            }
            Err(reason) => return Err(reason),
        };
        let action = leave(packet, hop)?;
        stats::served(served.service, served.backend, served.bytes);
        stats::verdict(verdict);
        Ok(action)
    }

    #[inline(always)]
    fn send_on(&self, packet: &mut Packet, again: &Again) -> End {
        second_chance::send_on(packet, again)
    }

    #[inline(always)]
    fn refuse(&self, packet: &mut Packet, network: &Network, mtu: u16) -> End {
        let (told, untold) = refusal(mtu);
        let Some(settings) = SETTINGS.get(0) else {
            return Err(untold);
        };
        if !maps::may_answer() {
            return Err(DropReason::AnswerLimit);
        }
        if !icmp::answer(packet, network, mtu, &settings.node) {
            return Err(untold);
        }
        stats::verdict(told);
        Ok(Action::Transmit as u32)
    }
}

/// Hands a frame that is ready to the interface of its hop.
#[inline(always)]
pub fn leave(packet: &Packet, hop: &Hop) -> End {
    if hop.interface == packet.interface() {
        return Ok(Action::Transmit as u32);
    }
    DEVICES.redirect(hop.interface, 0).map_err(|_| DropReason::NoDevice)?;
    Ok(Action::Redirect as u32)
}

/// How a packet ends that cannot go on: if its sender is told, and if not.
#[inline(always)]
pub const fn refusal(mtu: u16) -> (Verdict, DropReason) {
    if mtu == 0 {
        (Verdict::TimeExceededTold, DropReason::TtlExpired)
    } else {
        (Verdict::TooBigTold, DropReason::TooBig)
    }
}

/// Changes and counts nothing; its ends are the verdicts that [`Live`] would count, if the frame can be rewritten.
struct Dry;

impl Actor for Dry {
    const RECORDS: bool = false;

    #[inline(always)]
    fn pass(&self, verdict: Verdict) -> End {
        Ok(verdict as u32)
    }

    #[inline(always)]
    fn local(&self, _served: Served) -> End {
        Ok(Verdict::Local as u32)
    }

    #[inline(always)]
    fn retarget(&self, _packet: &Packet, _service: u32, _l3: usize, _is_ipv4: bool) -> Result<(), DropReason> {
        Ok(())
    }

    #[inline(always)]
    fn strip(&self, _packet: &mut Packet, _outer_l3: usize, _payload: &Payload) -> End {
        Ok(Verdict::Terminated as u32)
    }

    #[inline(always)]
    fn forward(
        &self,
        packet: &mut Packet,
        _served: Served,
        network: &Network,
        kind: Kind,
        hop: &Hop,
        _hash: FlowHash,
    ) -> End {
        let room = encap::room(hop);
        if network.length <= u32::from(room) {
            return Ok(encap::verdict(hop.mode) as u32);
        }
        match kind {
            Kind::Error => Err(DropReason::TooBig),
            _ => self.refuse(packet, network, room.max(ipv4::MIN_MTU)),
        }
    }

    #[inline(always)]
    fn send_on(&self, _packet: &mut Packet, _again: &Again) -> End {
        Ok(Verdict::SecondChance as u32)
    }

    #[inline(always)]
    fn refuse(&self, _packet: &mut Packet, _network: &Network, mtu: u16) -> End {
        Ok(refusal(mtu).0 as u32)
    }
}
