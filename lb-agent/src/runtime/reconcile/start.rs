//! What the maps tell of the time before this agent.

use std::collections::BTreeSet;

use crate::{
    model::{BackendAddress, DesiredState, Service, Shared},
    plan::{self, MapState},
};

/// Backends that the maps' last agent kept out of the ring though they have a weight.
pub(super) fn failed_before(state: &MapState) -> BTreeSet<(String, BackendAddress)> {
    let of_service = |service: &Shared<plan::ServiceState>| {
        let failed = service
            .backends
            .iter()
            .filter(|(_, backend)| !backend.in_ring && backend.weight > 0 && backend.drain.is_none());
        let named = failed.map(|((address, port), _)| BackendAddress { address: (*address).into(), port: port.get() });
        named.map(|backend| (service.name.clone(), backend)).collect::<Vec<_>>()
    };
    state.services.values().flat_map(of_service).collect()
}

/// Backends on this node, if the maps are new: nothing says what became of their slots before.
pub(super) fn unproven(state: &MapState, desired: &DesiredState) -> BTreeSet<(String, BackendAddress)> {
    if !state.services.is_empty() {
        return BTreeSet::new();
    }
    let of_service = |service: &Shared<Service>| {
        let own = service.backends.iter().filter(|backend| desired.node.addresses.contains(&backend.address));
        let named = own.map(|backend| BackendAddress { address: backend.address, port: backend.port });
        named.map(|backend| (service.name.clone(), backend)).collect::<Vec<_>>()
    };
    desired.services.iter().flat_map(of_service).collect()
}
