//! What is drained, and what the drained backends may still have.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::sockets;
use crate::{
    dataplane::Scanned,
    model::{BackendAddress, DesiredState, Drain, Drains, Protocol, Shared},
    plan::{Decision, FlowsLeft, MapState, Mark, Recorded, Rings, ServiceDecision},
    status::{ChangeStatus, DrainStatus, PairStatus},
};

/// How often it is looked what is left while something is drained.
const LOOK: Duration = Duration::from_secs(1);
/// Looking takes at most one part of so many of the time.
const SHARE: u32 = 20;

/// Drains, and what is known of them besides the maps.
#[derive(Debug)]
pub struct DrainBook {
    /// What is drained.
    pub drains: Drains,
    decided: BTreeMap<(String, BackendAddress), Drain>,
    recorded: Recorded,
    next_look: Instant,
}

/// A moment in both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Seconds of Unix time.
    pub unix: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub monotonic: u64,
}

impl Moment {
    /// Seconds of Unix time of another moment, given in nanoseconds of `CLOCK_MONOTONIC`.
    pub fn unix_of(self, monotonic: u64) -> u64 {
        let ahead = monotonic.saturating_sub(self.monotonic).div_ceil(1_000_000_000);
        let ago = self.monotonic.saturating_sub(monotonic) / 1_000_000_000;
        (self.unix + ahead).saturating_sub(ago)
    }
}

impl DrainBook {
    /// What an earlier agent's drains left in the maps.
    pub fn adopted(desired: &DesiredState, state: &MapState, this_node: Option<Drain>) -> Self {
        let of_service = |service: &Shared<crate::plan::ServiceState>| {
            let backends = service.backends.iter().map(|((address, port), backend)| {
                let address = BackendAddress { address: (*address).into(), port: port.get() };
                (service.name.clone(), address, backend.drain)
            });
            backends.collect::<Vec<_>>()
        };
        let backends: Vec<_> = state.services.values().flat_map(of_service).collect();
        let drains = Drains::adopted(desired, &backends, this_node);
        if !drains.is_empty() {
            let (nodes, backends) = (drains.nodes.len(), drains.backends.len());
            tracing::info!(nodes, backends, "drains of an earlier agent go on");
        }
        Self { drains, decided: BTreeMap::new(), recorded: Recorded::new(), next_look: Instant::now() }
    }

    /// Takes note of a decision that is in force.
    pub fn decided(&mut self, decision: &Decision) {
        let of_service = |of: &Shared<ServiceDecision>| {
            let drained = of.backends.iter().filter_map(|one| {
                let address = BackendAddress { address: one.address, port: one.port };
                Some((((*of.service).clone(), address), one.drain?))
            });
            drained.collect::<Vec<_>>()
        };
        self.decided = decision.services.iter().flat_map(of_service).collect();
    }

    /// Takes note of a scan.
    pub fn scanned(&mut self, scanned: &Scanned) {
        self.recorded = scanned.flows.recorded();
    }

    /// What the tables name each backend for.
    pub const fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// Waits until it is time to look at the sockets again.
    pub async fn due(&self) {
        tokio::time::sleep_until(self.next_look.into()).await;
    }

    /// Takes note that everything was looked at, and how long that took.
    pub fn looked(&mut self, took: Duration) {
        self.next_look = Instant::now() + LOOK.max(took * SHARE);
    }

    /// Every drained backend with what it may still have.
    pub fn statuses(
        &mut self,
        desired: &DesiredState,
        left: &BTreeMap<(String, BackendAddress), FlowsLeft>,
        now: Moment,
    ) -> BTreeMap<(String, BackendAddress), DrainStatus> {
        let sockets = self.sockets(desired);
        let status = |((service, backend), drain): (&(String, BackendAddress), &Drain)| {
            let key = (service.clone(), *backend);
            let left = left.get(&key).copied().unwrap_or_default();
            let status = DrainStatus {
                since: drain.since,
                with_node: drain.with_node,
                deadline: drain.deadline.map(|deadline| now.unix_of(deadline)),
                over: drain.is_over(now.monotonic),
                recorded: left.recorded,
                slots: left.slots,
                windows_end: left.windows_end.map(|end| now.unix_of(end)),
                sockets: sockets.as_deref().and_then(|sockets| open_connections(desired, service, *backend, sockets)),
            };
            (key, status)
        };
        self.decided.iter().map(status).collect()
    }

    /// Local ends of the node's connections, if one of its backends is drained.
    fn sockets(&mut self, desired: &DesiredState) -> Option<Vec<(IpAddr, u16)>> {
        if !self.decided.keys().any(|(_, backend)| desired.node.addresses.contains(&backend.address)) {
            return None;
        }
        let sockets = tokio::task::block_in_place(sockets::open);
        sockets.inspect_err(|error| tracing::warn!(%error, "open connections cannot be counted")).ok()
    }
}

/// Connections of a local backend of a TCP service; `None` for others.
fn open_connections(
    desired: &DesiredState,
    service: &str,
    backend: BackendAddress,
    sockets: &[(IpAddr, u16)],
) -> Option<u64> {
    let service = desired.services.iter().find(|one| one.name == service)?;
    if service.protocol != Protocol::Tcp || !desired.node.addresses.contains(&backend.address) {
        return None;
    }
    let servers = service.target_port(&desired.node);
    let is_ours = |(address, port): &&(IpAddr, u16)| {
        let is_port = servers.map_or_else(|| service.ports.contains(port), |servers| *port == servers);
        service.vips.contains(address) && (service.ports == [0] || is_port)
    };
    Some(sockets.iter().filter(is_ours).count() as u64)
}

/// Slots that are not settled, by service, present and former owner.
pub fn changes(state: &MapState, rings: &dyn Rings, now: Moment) -> Vec<ChangeStatus> {
    let services = state.services.iter().filter(|(_, service)| !service.marks.is_empty());
    let mut changes: Vec<_> = services
        .map(|(key, service)| {
            let pairs = pairs(&service.marks, |slot| rings.slot(service.word.offset() + slot), now);
            let of = |settling| pairs.iter().filter(|pair| pair.settling == settling).map(|pair| pair.slots).sum();
            ChangeStatus {
                service: service.name.clone(),
                vip: key.address.into(),
                port: key.port.get(),
                protocol: protocol_name(key.protocol),
                unsettled: of(false),
                settling: of(true),
                pairs,
            }
        })
        .collect();
    changes.sort_by(|a, b| (&a.service, a.vip, &a.protocol, a.port).cmp(&(&b.service, b.vip, &b.protocol, b.port)));
    changes
}

fn protocol_name(number: u8) -> String {
    let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|protocol| protocol.number() == number);
    known.map_or_else(|| number.to_string(), |protocol| protocol.to_string())
}

fn pairs(marks: &[Mark], slot: impl Fn(u32) -> lb_common::maps::rings::Slot, now: Moment) -> Vec<PairStatus> {
    let mut pairs: BTreeMap<(u32, u32, bool), (u64, u64, u64)> = BTreeMap::new();
    for mark in marks {
        let slot = slot(mark.slot);
        let pair =
            pairs.entry((slot.current().bits(), slot.old().bits(), mark.is_settling)).or_insert((0, u64::MAX, 0));
        *pair = (pair.0 + 1, pair.1.min(mark.at), pair.2.max(mark.at));
    }
    let status = |((current, old, settling), (slots, first, last))| PairStatus {
        current,
        old,
        settling,
        slots,
        first: now.unix_of(first),
        last: now.unix_of(last),
    };
    pairs.into_iter().map(status).collect()
}
