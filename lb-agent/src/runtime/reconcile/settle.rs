//! The end of changes: windows end by the clock, slots settle when a scan found no old flow on them.

use std::time::Duration;

use anyhow::Result;

use super::{super::report, Reconciler};
use crate::{
    dataplane::{DataplaneError, Scanned, monotonic},
    plan::{self, FlowScan},
};

impl Reconciler {
    /// Whether any slot is not settled.
    pub(super) fn slots_wait(&self) -> bool {
        self.state.services.values().any(|service| !service.marks.is_empty())
    }

    /// How long until the next window of a slot ends.
    pub(super) fn window_ends(&self) -> Option<Duration> {
        plan::next_window(&self.state).map(|at| Duration::from_nanos(at.saturating_sub(monotonic())))
    }

    /// Lets windows end, and slots settle that `scan` found free of old flows. True if the plan has to be tried again.
    pub(super) async fn settle(&mut self, scan: Option<&FlowScan>) -> Result<bool> {
        let steps = plan::settle(&mut self.state, self.kernel.rings(), monotonic(), scan);
        if let Err(error) = tokio::task::block_in_place(|| self.perform(&steps, Duration::ZERO)) {
            return self.plan_failed(&error.to_string());
        }
        if steps.is_empty() { Ok(false) } else { self.reconcile().await } // a ring that settled may shrink
    }

    /// Takes the result of a scan. True if the plan has to be tried again.
    pub(super) async fn scanned(&mut self, scanned: Result<Scanned, DataplaneError>) -> Result<bool> {
        let failed = match scanned {
            Ok(scanned) => {
                self.drains.scanned(&scanned);
                let failed = self.settle(Some(&scanned.flows)).await?;
                report::scanned(&mut self.status(), &scanned);
                self.report_drains();
                tracing::debug!(flows = scanned.recorded, expired = scanned.expired, took = ?scanned.took, "flows scanned");
                self.flows_recorded = scanned.recorded > 0;
                failed
            }
            Err(error) => {
                tracing::error!(%error, "scanning the flows failed; slots that wait for it stay as they are");
                false
            }
        };
        Ok(failed)
    }
}
