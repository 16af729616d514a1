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
    let of_service = |service: &crate::model::Service| {
        let targets = service.backends.iter().filter_map(|backend| {
            let probe = Arc::clone(service.probe.as_ref()?);
            Some(ProbeTarget { address: backend.address, probe })
        });
        targets.collect::<Vec<_>>()
    };
    desired.services.iter().flat_map(of_service).collect()
}
