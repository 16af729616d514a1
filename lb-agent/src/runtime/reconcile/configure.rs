//! A changed configuration: checked against the host, and in force when the ways to its backends are known.

use std::{collections::BTreeSet, net::IpAddr};

use tokio::sync::watch;

use super::{Reconciler, WAYS, checked, pending_restart, report, wanted_hops, wanted_probes};
use crate::{
    config::{Config, ConfigErrors, OnTerminate},
    model::Network,
};

impl Reconciler {
    /// Puts a configuration in force, or keeps the last good one and says why.
    pub(super) async fn configure(
        &mut self,
        outcome: Result<Config, ConfigErrors>,
        on_terminate: &watch::Sender<OnTerminate>,
    ) {
        let outcome = outcome.and_then(|config| checked(config, &self.streams.network.borrow()));
        match outcome {
            Ok(config) => {
                let pending = pending_restart(&self.running, &config.agent);
                if !pending.is_empty() {
                    tracing::warn!(keys = pending.join(", "), "changed keys take effect at the next start");
                }
                self.outputs.wanted_hops.send_replace(wanted_hops(&config.desired));
                self.outputs.wanted_probes.send_replace(wanted_probes(&config.desired));
                self.await_ways(&wanted_hops(&config.desired)).await;
                on_terminate.send_replace(config.agent.on_terminate);
                report::configured(&mut self.status(), &config.desired.node.name, &config.agent, pending);
                self.drains.drains.retain(&config.desired);
                self.config = config;
            }
            Err(errors) => {
                tracing::error!(%errors, "configuration refused; the last good one stays in force");
                self.status().config.refused = Some(errors.to_string());
            }
        }
    }

    /// Waits until the way to every wanted address is known, for a while at most: a backend that took flows before its
    /// neighbour answered would lose the first of them.
    pub(super) async fn await_ways(&mut self, wanted: &BTreeSet<IpAddr>) {
        let is_known = |network: &Network, address| network.next_hops.get(address).is_some_and(|way| way.mac.is_some());
        let all_known =
            self.streams.network.wait_for(|network| wanted.iter().all(|address| is_known(network, address)));
        if tokio::time::timeout(WAYS, all_known).await.is_err() {
            let network = self.streams.network.borrow();
            for address in wanted.iter().filter(|address| !is_known(&network, address)) {
                tracing::warn!(%address, "no way to this backend or peer is known yet");
            }
        }
    }
}
