//! What a configuration asks of the other parts.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::model::{DesiredState, ProbeTarget};

/// Addresses whose way a plan depends on.
pub fn wanted_hops(desired: &DesiredState) -> BTreeSet<IpAddr> {
    let backends = desired.services.iter().flat_map(|service| service.backends.iter().map(|backend| backend.address));
    let peers = desired.peers.iter().flat_map(|peer| peer.addresses.iter().copied());
    backends.chain(peers).filter(|address| !desired.node.addresses.contains(address)).collect()
}

/// What has to be probed.
pub fn wanted_probes(desired: &DesiredState) -> BTreeSet<ProbeTarget> {
    let probed = desired.services.iter().filter_map(|service| Some((service, service.probe.as_ref()?)));
    let targets = probed.flat_map(|(service, probe)| {
        service.backends.iter().map(|backend| ProbeTarget { address: backend.address, probe: Arc::clone(probe) })
    });
    targets.collect()
}
