//! The maps say that a VIP is held when it is, not before: what is delivered to the kernel for a VIP that it does not hold
//! is routed away again, back and forth until its TTL is used up, and its sender is told that there is no such host.

use std::{net::IpAddr, time::Duration};

use lb_common::{addr::IpAddr16, maps::addresses::AddressEntry};
use tokio::time::timeout;

use super::Reconciler;
use crate::plan::{Decision, TargetState};

/// How long to wait for the announcers to hold a VIP. What they failed to do is told by them.
const HELD_WITHIN: Duration = Duration::from_secs(1);

impl Reconciler {
    /// Waits until the kernel holds what is held from now on. Before the announcers are told of anything, the maps go on
    /// without.
    pub(super) async fn await_held(&mut self, decision: &mut Decision) {
        let addresses = &self.state.addresses;
        let is_new = |vip: &IpAddr| addresses.get(&(*vip).into()).is_none_or(|flags| flags & AddressEntry::HELD == 0);
        let new: Vec<IpAddr> = decision.held.iter().copied().filter(is_new).collect();
        if new.is_empty() {
            return;
        }
        if !self.is_attached {
            let new = new.into_iter().map(IpAddr16::from).collect::<Vec<_>>();
            return without(&mut decision.target, &new);
        }
        let held = self
            .streams
            .announced
            .wait_for(|status| new.iter().all(|vip| status.held.contains(vip) || status.errors.contains_key(vip)));
        // An error means that the announcers have ended, which ends the agent too.
        if timeout(HELD_WITHIN, held).await.is_err() {
            tracing::warn!(vips = ?new, "the kernel does not hold these yet; going on");
        }
    }
}

/// Takes back that these are held.
fn without(target: &mut TargetState, vips: &[IpAddr16]) {
    for (_, service) in target.services.iter_mut().filter(|(key, _)| vips.contains(&key.address)) {
        service.held = false;
    }
    for (_, flags) in target.addresses.iter_mut().filter(|(address, _)| vips.contains(address)) {
        *flags &= !AddressEntry::HELD;
    }
}
