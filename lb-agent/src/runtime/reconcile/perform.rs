//! From a target to the maps: plans portion by portion and performs each.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Reconciler, heap, notify, report};
use crate::{
    dataplane::{Dataplane, DataplaneError, monotonic},
    plan::{self, MapOp, Portion, TargetState},
};

/// Slots of rings that are planned at a time: 8 MB.
const PORTION: usize = 1 << 20;

impl Reconciler {
    /// Plans and performs portion by portion. `began`: when the planning of the first did. After an error the maps have to
    /// be read again.
    pub(super) fn fulfil(&mut self, target: &TargetState, mut began: Instant) -> Result<(), String> {
        let mut is_whole = true;
        loop {
            let planned = plan::portion(&mut self.state, target, self.kernel.rings(), monotonic(), PORTION);
            let Portion { steps, is_last } = planned.map_err(|error| error.to_string())?;
            let planning = began.elapsed();
            tokio::task::block_in_place(|| self.perform(&steps, planning)).map_err(|error| error.to_string())?;
            if is_last {
                if !is_whole {
                    heap::trim();
                }
                return Ok(());
            }
            is_whole = false;
            notify::alive();
            began = Instant::now();
        }
    }

    /// Performs the steps. The time of grace periods is not counted: what they wait for is in force already.
    pub(super) fn perform(&mut self, steps: &[MapOp], planning: Duration) -> Result<(), DataplaneError> {
        let started = Instant::now();
        let mut waited = Duration::ZERO;
        for step in steps {
            let before = Instant::now();
            self.kernel.perform(step)?;
            if matches!(step, MapOp::Grace) {
                waited += before.elapsed();
            }
        }
        if !steps.is_empty() {
            report::applied(&mut self.status(), planning, started.elapsed().saturating_sub(waited));
            tracing::debug!(steps = steps.len(), "plan applied");
        }
        Ok(())
    }

    /// Notes a failed plan. The maps are read again: a step may have failed half-way.
    pub(super) fn plan_failed(&mut self, error: &str) -> Result<bool> {
        tracing::error!(error, "plan failed; what was in force stays so");
        {
            let mut status = self.status();
            status.dataplane.plans_failed += 1;
            status.dataplane.error = Some(error.to_owned());
        }
        self.state = self.kernel.state()?;
        Ok(true)
    }
}
