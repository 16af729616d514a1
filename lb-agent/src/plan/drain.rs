//! What a drain means for a decision, and which flows a drained backend may still have.

use std::{collections::BTreeMap, time::Duration};

use lb_common::{addr::BackendId, maps::rings::SlotState};
use serde::Serialize;

use super::{
    decide::Inputs,
    settle::FlowScan,
    state::{MapState, Rings},
};
use crate::model::{BackendAddress, Drain, moment::utc};

/// Flows that tables name each backend for, by index of the service.
pub type Recorded = BTreeMap<(u32, BackendId), u64>;

/// What a drained backend may still have.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowsLeft {
    /// Flows that the tables name it for.
    pub recorded: u64,
    /// Slots that were its own and are not settled: flows that have been silent since may be there, not recorded.
    pub slots: u64,
    /// When the last of the windows of these slots ends, nanoseconds of `CLOCK_MONOTONIC`; `None` if all have.
    pub windows_end: Option<u64>,
}

/// Why a drained backend is as it is.
pub(super) fn reason(drain: &Drain, node: Option<&str>, is_over: bool) -> String {
    let with = node.map(|node| format!(" with its node {node}")).unwrap_or_default();
    let over = if is_over { ", deadline over" } else { "" };
    format!("drained by lbctl{with} since {}{over}", utc(drain.since))
}

/// Why this node announces nothing, if it is drained.
pub(super) fn withdraws(inputs: &Inputs<'_>) -> Option<String> {
    let drain = inputs.drains.nodes.get(&inputs.desired.node.name)?;
    Some(format!("this node is drained by lbctl since {}", utc(drain.since)))
}

/// Time until the next deadline of a drain is over.
pub(super) fn next_end(inputs: &Inputs<'_>) -> Option<Duration> {
    let drains = inputs.drains.nodes.values().chain(inputs.drains.backends.values());
    let left = drains.filter_map(|drain| drain.deadline?.checked_sub(inputs.monotonic)).filter(|left| *left > 0);
    left.min().map(Duration::from_nanos)
}

impl FlowScan {
    /// How many flows each backend is recorded for.
    #[must_use]
    pub fn recorded(&self) -> Recorded {
        let mut recorded = Recorded::new();
        for (service, flows) in &self.live {
            for (_, backend) in flows {
                *recorded.entry((*service, *backend)).or_default() += 1;
            }
        }
        recorded
    }
}

/// What every drained backend may still have, by its service's name: over all VIPs and ports of it.
#[must_use]
pub fn flows_left(
    state: &MapState,
    rings: &dyn Rings,
    recorded: &Recorded,
) -> BTreeMap<(String, BackendAddress), FlowsLeft> {
    let mut all: BTreeMap<(String, BackendAddress), FlowsLeft> = BTreeMap::new();
    for service in state.services.values() {
        let drained = service.backends.iter().filter(|(_, backend)| backend.drain.is_some());
        let drained: BTreeMap<BackendId, BackendAddress> = drained
            .map(|((address, port), backend)| {
                (backend.id, BackendAddress { address: (*address).into(), port: port.get() })
            })
            .collect();
        if drained.is_empty() {
            continue;
        }
        for (id, backend) in &drained {
            let left = all.entry((service.name.clone(), *backend)).or_default();
            left.recorded += recorded.get(&(service.index, *id)).copied().unwrap_or(0);
        }
        for mark in &service.marks {
            let slot = rings.slot(service.word.offset() + mark.slot);
            let of_drained = drained.get(&slot.old()).filter(|_| slot.state() != SlotState::Settled);
            if let Some(left) = of_drained.and_then(|backend| all.get_mut(&(service.name.clone(), *backend))) {
                left.slots += 1;
                left.windows_end = left.windows_end.max((!mark.is_settling).then_some(mark.at));
            }
        }
    }
    all
}

#[cfg(test)]
#[path = "drain_tests.rs"]
mod tests;
