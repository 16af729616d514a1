//! Membership: whom this node speaks to, and what it hears of them.

use std::time::Duration;

use super::{super::report, Reconciler};
use crate::membership::Speaking;

/// How long the membership may take to begin.
const BEGINNING: Duration = Duration::from_secs(1);

impl Reconciler {
    /// Tells the membership whom the maps accept as directors by now.
    pub(super) fn speak(&self) {
        let speaking = Speaking {
            node: self.config.desired.node.clone(),
            peers: self.config.desired.peers.clone(),
            secret: self.config.agent.secret,
            config: self.config.agent.membership,
            is_admitted: self.is_adopted,
        };
        self.outputs.speaking.send_if_modified(|now| {
            let differs = now.as_ref() != Some(&speaking);
            *now = Some(speaking);
            differs
        });
    }

    /// Waits until the membership has begun, so that nothing is announced or withdrawn before it was asked.
    pub(super) async fn await_membership(&mut self) {
        if tokio::time::timeout(BEGINNING, self.streams.members.changed()).await.is_err() {
            tracing::warn!("the membership did not begin in time");
        }
    }

    /// Enters what is heard of the peers.
    pub(super) fn report_members(&self) {
        let is_on = self.config.agent.membership.is_some();
        let membership = report::membership(&self.streams.members.borrow(), is_on);
        self.status().membership = membership;
    }
}
