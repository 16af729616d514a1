//! Steps on source ranges. A change never opens a service: new ranges are there before a word says that the service has
//! any, and old ones go behind the grace period, when no word that is read asks for them.

use std::collections::BTreeSet;

use lb_common::maps::sources::SourceRange;

use super::{Busy, Plan, PlanError};
use crate::plan::state::{MapOp, MapState};

/// Refuses ranges that do not fit beside those they replace.
pub(super) fn check(state: &MapState, busy: &Busy<'_>) -> Result<(), PlanError> {
    let mut needed = 0;
    for (key, service) in busy.iter().filter(|(_, service)| !service.source_ranges.is_empty()) {
        let known = state.services.get(*key).and_then(|service| state.source_ranges.get(&service.index));
        needed += service.source_ranges.iter().filter(|range| known.is_none_or(|known| !known.contains(range))).count();
    }
    needed += state.source_ranges.values().map(BTreeSet::len).sum::<usize>();
    let size = state.sizes.source_ranges;
    if needed > size as usize {
        return Err(PlanError::MapFull { map: "SOURCE_RANGES", needed, size, key: "sourceRanges" });
    }
    Ok(())
}

impl Plan<'_> {
    /// Gives a service its ranges, in front of the word that tells of them.
    pub(super) fn source_ranges(&mut self, service: u32, is_new: bool, wanted: &BTreeSet<SourceRange>) {
        let known = self.state.source_ranges.remove(&service).unwrap_or_default();
        // A new service may find what was left behind under its index; it must not begin with that.
        let steps = if is_new { &mut self.before } else { &mut self.after };
        steps.extend(known.difference(wanted).map(|range| MapOp::RemoveSourceRange { service, range: *range }));
        self.before.extend(wanted.difference(&known).map(|range| MapOp::SourceRange { service, range: *range }));
        if !wanted.is_empty() {
            self.state.source_ranges.insert(service, wanted.clone());
        }
    }

    /// Removes the ranges of indices that no service has any more.
    pub(super) fn forget_source_ranges(&mut self) {
        if self.state.source_ranges.is_empty() {
            return;
        }
        let used: BTreeSet<u32> = self.state.services.values().map(|service| service.index).collect();
        let after = &mut self.after;
        self.state.source_ranges.retain(|service, ranges| {
            let is_used = used.contains(service);
            if !is_used {
                let remove = |range: &SourceRange| MapOp::RemoveSourceRange { service: *service, range: *range };
                after.extend(ranges.iter().map(remove));
            }
            is_used
        });
    }
}
