//! A changed configuration: checked against the host, and in force when the ways to its backends are known.

use std::{collections::BTreeSet, net::IpAddr};

use tokio::sync::watch;

use super::{
    super::compose::{Update, Wanted},
    Reconciler, WAYS, pending_restart, report,
};
use crate::{config::OnTerminate, model::Network};

impl Reconciler {
    /// Puts a configuration in force, or keeps the last good one and says why.
    pub(super) async fn update(&mut self, update: Update, on_terminate: &watch::Sender<OnTerminate>) {
        match update {
            Update::Wanted(wanted) => self.configure(*wanted, on_terminate).await,
            Update::Refused(errors) => {
                tracing::error!(%errors, "configuration refused; the last good one stays in force");
                self.status().config.refused = Some(errors.to_string());
            }
        }
    }

    async fn configure(&mut self, wanted: Wanted, on_terminate: &watch::Sender<OnTerminate>) {
        let Wanted { config, is_edit, cluster } = wanted;
        self.wanted.follow(&self.config.desired.services, &config.desired.services);
        let hops = self.wanted.hops(&config.desired);
        // What was wanted before had its time: an address without a way would hold up every change.
        let new = hops.difference(&self.outputs.wanted_hops.borrow()).copied().collect();
        self.outputs.wanted_hops.send_if_modified(|before| std::mem::replace(before, hops) != *before);
        let probes = self.wanted.probes();
        self.outputs.wanted_probes.send_if_modified(|before| std::mem::replace(before, probes) != *before);
        self.await_ways(&new).await;
        if is_edit {
            let pending = pending_restart(&self.running, &config.agent);
            if !pending.is_empty() {
                tracing::warn!(keys = pending.join(", "), "changed keys take effect at the next start");
            }
            on_terminate.send_replace(config.agent.on_terminate);
            report::configured(&mut self.status(), &config.desired.node.name, &config.agent, pending);
        }
        self.status().cluster = cluster;
        self.drains.drains.retain(&config.desired);
        self.config = config;
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
