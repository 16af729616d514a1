//! `targetPort` and `connectTranslation`: servers on another port than the service's, and connections of this node's own
//! processes.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Config,
    draft::Draft,
    draft_service::DraftService,
    error::{ConfigErrors, Problems},
    read::{Fields, Located, choice, integer},
};
use crate::model::Protocol;

/// Reads `targetPort`.
pub(super) fn read(fields: &Fields<'_>, problems: &mut Problems) -> Option<Located<u16>> {
    fields.optional("targetPort").and_then(|value| integer(value, "targetPort", &(1..=u16::MAX), problems))
}

/// Reads `connectTranslation`.
pub(super) fn translation(fields: &Fields<'_>, problems: &mut Problems) -> Located<bool> {
    let read = fields.optional("connectTranslation");
    let read = read.and_then(|value| choice(value, "connectTranslation", &[("off", false), ("on", true)], problems));
    read.unwrap_or(Located::new(fields.place, false))
}

/// Reports ports that cannot be rewritten, or whose replies could not be told apart, and connections that cannot be
/// translated.
pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    for service in &draft.services {
        if service.connect_translation.value && service.protocol == Protocol::Sctp {
            problems.refuse(
                service.connect_translation.place,
                "`connectTranslation` is for TCP and connected UDP; the kernel asks no program about SCTP associations",
            );
        }
        if let Some(target) = service.target_port {
            alone(service, target, problems);
        }
    }
    ambiguous(draft, problems);
}

/// What one service cannot have beside a target port.
fn alone(service: &DraftService, target: Located<u16>, problems: &mut Problems) {
    if service.single_port().is_none() {
        let reason = "`targetPort` needs a service with one port that is not 0; make a service for each port";
        problems.refuse(target.place, reason);
    } else if service.protocol == Protocol::Sctp && service.other_port().is_some() {
        let reason = "`targetPort` is for TCP and UDP; the checksum of SCTP covers the whole packet: let servers listen on \
                      the service's port";
        problems.refuse(target.place, reason);
    } else if !service.drop_unmatched.value && service.other_port().is_some() {
        let reason = format!(
            "`targetPort` does not go together with `dropUnmatched: false`: what comes to port {} of the VIP itself would be \
             answered from the service's port; set `dropUnmatched: true`",
            target.value
        );
        problems.refuse(target.place, reason);
    }
}

/// Servers of two services on the same VIP, protocol and port: nothing in a reply tells which service it belongs to.
fn ambiguous(draft: &Draft, problems: &mut Problems) {
    let mut listening: BTreeMap<(IpAddr, Protocol), Vec<&DraftService>> = BTreeMap::new();
    for service in &draft.services {
        for vip in &service.vips {
            listening.entry((vip.value, service.protocol)).or_default().push(service);
        }
    }
    for service in &draft.services {
        let Some(target) = service.other_port() else { continue };
        let answers = |other: &DraftService| {
            other.other_port().is_some_and(|other| other.value == target.value)
                || other.ports.iter().any(|port| port.value == 0 || port.value == target.value)
        };
        let found = service.vips.iter().find_map(|vip| {
            let others = listening.get(&(vip.value, service.protocol))?;
            let is_other = |other: &&&DraftService| !std::ptr::eq(**other, service) && answers(other);
            others.iter().find(is_other).map(|other| (vip.value, *other))
        });
        if let Some((vip, other)) = found {
            let reason = format!(
                "`targetPort` {} of VIP {vip} {} is a port of service `{}` (line {}) too: a reply from there does not tell \
                 which service it is of; choose another port or VIP",
                target.value, service.protocol, other.name.value, other.place.line
            );
            problems.refuse(target.place, reason);
        }
    }
}

/// Refuses servers on another port on this node if its kernel (`kernel`, in words) cannot rewrite their replies.
///
/// # Errors
/// Every service that needs it, with its place in the file.
pub fn check_rewrites(config: &Config, can_rewrite: bool, kernel: &str) -> Result<(), ConfigErrors> {
    let mut problems = Problems::of(&config.places.file);
    for service in config.desired.services.iter().filter(|_| !can_rewrite) {
        if service.target_port(&config.desired.node).is_some()
            && let Some(place) = config.places.target_ports.get(&service.name)
        {
            let reason = format!(
                "`targetPort` needs Linux 6.6 on nodes with servers, to rewrite their replies; this is {kernel}: let the \
                 server listen on the service's port"
            );
            problems.refuse(*place, reason);
        }
    }
    if let (Some(settings), false) = (&config.control_plane, can_rewrite)
        && settings.server_port != settings.port
    {
        let reason = format!(
            "`serverPort` needs Linux 6.6 on nodes with servers, to rewrite their replies; this is {kernel}: let them listen \
             on port {} of the VIP",
            settings.port
        );
        problems.refuse(config.places.server_port, reason);
    }
    problems.finish(()).map(|_| ())
}
