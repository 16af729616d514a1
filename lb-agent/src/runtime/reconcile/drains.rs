//! Drains: what operators ask for over the local socket, and what the agent says of it.

use std::{collections::BTreeSet, time::Instant};

use anyhow::Result;

use super::{
    super::{drains, report},
    Reconciler,
};
use crate::{
    api::{DrainAction, DrainCommand},
    dataplane::{DataplaneError, monotonic},
    model::DrainAnswer,
    plan,
};

impl Reconciler {
    /// Drains or undrains what an operator asked for, and answers when that is in force. True if the plan has to be
    /// tried again.
    pub(super) async fn command(&mut self, command: DrainCommand) -> Result<bool> {
        let DrainCommand { action, request, answer } = command;
        let (desired, book) = (&self.config.desired, &mut self.drains.drains);
        let outcome = match action {
            DrainAction::Drain => book.drain(desired, &request, report::unix_now(), monotonic()),
            DrainAction::Undrain => book.undrain(desired, &request),
        };
        let mut failed = false;
        let outcome = match outcome {
            Ok(mut done) => {
                let (target, backends) = (&request.target, done.backends.len());
                tracing::info!(?action, target, backends, "an operator asked for it");
                failed = self.is_attached && self.reconcile().await?;
                if failed {
                    done.warnings.push("not in force yet: the plan failed and is tried again".to_owned());
                } else {
                    done.warnings.extend(self.without_takers(&done));
                }
                if self.is_attached
                    && let Err(error) = self.sign()
                {
                    done.warnings.push(format!("a restart of the agent would forget the node's drain: {error}"));
                }
                Ok(done)
            }
            Err(error) => Err(error),
        };
        let _ = answer.send(outcome); // whoever asked may have gone
        Ok(failed)
    }

    /// Notes who keeps the maps, and how this node is drained.
    pub(super) fn sign(&mut self) -> Result<(), DataplaneError> {
        let name = &self.config.desired.node.name;
        self.kernel.sign(name, self.drains.drains.nodes.get(name).copied())
    }

    /// Says which of the services that were changed nobody serves now.
    fn without_takers(&self, done: &DrainAnswer) -> Vec<String> {
        let status = self.status();
        let services: BTreeSet<_> = done.backends.iter().map(|backend| &backend.service).collect();
        let idle = services.into_iter().filter(|name| !status.is_served(name));
        idle.map(|name| format!("no backend of {name} takes new flows now: they are dropped")).collect()
    }

    /// Enters what drained backends may still have, and which slots are not settled.
    pub(super) fn report_drains(&mut self) {
        let begun = Instant::now();
        let now = drains::Moment { unix: report::unix_now(), monotonic: monotonic() };
        let left = plan::flows_left(&self.state, self.kernel.rings(), self.drains.recorded());
        let statuses = self.drains.statuses(&self.config.desired, &left, now);
        let changes = drains::changes(&self.state, self.kernel.rings(), now);
        let nodes = self.drains.drains.nodes.keys().cloned().collect();
        self.drains.looked(begun.elapsed());
        let mut status = self.status();
        status.drained(statuses);
        status.changes = changes;
        status.drained_nodes = nodes;
    }
}
