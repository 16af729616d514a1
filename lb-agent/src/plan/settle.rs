//! The end of a change: windows end, and slots on which no flow of a former owner is left settle.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    addr::BackendId,
    maglev,
    maps::rings::{Slot, SlotState},
};

use super::{
    met::Met,
    state::{MapOp, MapState, Mark, Rings, ServiceState},
};

/// What a scan over the tables of flows found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FlowScan {
    /// When it began, nanoseconds of `CLOCK_MONOTONIC`.
    pub begun: u64,
    /// Live flows per index of their service: the 32 bits of the hash that choose the slot, and the backend.
    pub live: BTreeMap<u32, Vec<(u32, BackendId)>>,
}

/// Lists the steps that let windows end and slots settle, and notes them in `state`. Slots settle only if a scan is
/// given that began after their window was over.
pub fn settle(state: &mut MapState, rings: &dyn Rings, now: u64, scan: Option<&FlowScan>) -> Vec<MapOp> {
    let mut changes = Vec::new();
    for service in state.services.values_mut().filter(|service| !service.marks.is_empty()) {
        let changed = changes.len();
        let held = match scan {
            Some(scan) => slots_with_others(service, rings, scan),
            None => BTreeSet::new(),
        };
        let marks = std::mem::take(&mut service.marks);
        let due = |mark: &Mark| match scan {
            _ if !mark.is_settling => mark.at <= now,
            Some(scan) => scan.begun > mark.at && !held.contains(&mark.slot),
            None => false,
        };
        for mark in marks {
            if !due(&mark) {
                service.marks.push(mark);
                continue;
            }
            let index = service.word.offset() + mark.slot;
            let slot = rings.slot(index);
            if slot.state() == SlotState::Unsettled {
                changes.push((index, slot.settling()));
                service.marks.push(Mark { is_settling: true, at: now, ..mark });
            } else {
                changes.push((index, Slot::settled(slot.current())));
            }
        }
        if changes.len() > changed {
            service.met = Met::default();
        }
    }
    if changes.is_empty() { Vec::new() } else { vec![MapOp::Slots(changes)] }
}

/// When the next window ends: nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn next_window(state: &MapState) -> Option<u64> {
    let marks = state.services.values().flat_map(|service| &service.marks);
    marks.filter(|mark| !mark.is_settling).map(|mark| mark.at).min()
}

/// Slots of a service that a live flow of another backend than the owner is on.
fn slots_with_others(service: &ServiceState, rings: &dyn Rings, scan: &FlowScan) -> BTreeSet<u32> {
    let serving: BTreeSet<_> =
        service.backends.values().filter(|state| state.keeps_flows).map(|state| state.id).collect();
    let flows = scan.live.get(&service.index).map_or(&[][..], Vec::as_slice);
    flows
        .iter()
        .filter(|(_, backend)| serving.contains(backend))
        .map(|(slot_bits, backend)| (maglev::slot(*slot_bits, service.word.log2()), backend))
        .filter(|(slot, backend)| rings.slot(service.word.offset() + slot).current() != **backend)
        .map(|(slot, _)| slot)
        .collect()
}
