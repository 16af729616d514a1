//! Steps on services and backends.

use std::collections::BTreeMap;

use lb_common::{
    addr::{BackendId, Be16, IpAddr16},
    maps::{
        backends::Head,
        names::{BackendInfo, NAME_LEN, ServiceInfo},
        published::RingWord,
        services::VipKey,
    },
};

use super::{Plan, PlanError};
use crate::{
    model::Shared,
    plan::{
        met::Met,
        state::{BackendState, MapOp, RingOrigin, ServiceState, TargetBackend, TargetService},
    },
};

impl Plan<'_> {
    /// Enters a service, or changes one that is there.
    pub(super) fn service(&mut self, key: VipKey, target: &Shared<TargetService>) -> Result<(), PlanError> {
        let known = self.state.services.get(&key);
        let is_new = known.is_none();
        let mut service = match known {
            Some(service) => (**service).clone(),
            None => self.new_service()?,
        };
        if is_new || service.name != target.name {
            service.name.clone_from(&target.name);
            self.before.push(MapOp::ServiceInfo { index: service.index, info: Box::new(info(key, &target.name)) });
        }
        let lost_any = self.backends(&mut service, target)?;
        self.source_ranges(service.index, is_new, &target.source_ranges);
        self.target_port(&mut service, target);
        self.ring(&mut service, target, lost_any)?;
        self.tracking(&mut service, target);
        if is_new {
            self.before.push(MapOp::Service { key, index: service.index });
        }
        service.meet(target);
        self.state.services.insert(key, service.into());
        Ok(())
    }

    pub(super) fn new_service(&mut self) -> Result<ServiceState, PlanError> {
        let size = self.state.sizes.services;
        let full = PlanError::MapFull { map: "SERVICES", needed: size as usize + 1, size, key: "services" };
        let index = self.state.free_services.pop_first().ok_or(full)?;
        self.before.push(MapOp::ResetService { index });
        Ok(ServiceState {
            index,
            name: String::new(),
            word: RingWord::default(),
            ring: RingOrigin::Members(Vec::new(), 0),
            marks: Vec::new(),
            tracking: (0, 0),
            target_port: 0,
            backends: BTreeMap::new(),
            met: Met::default(),
        })
    }

    pub(super) fn tracking(&mut self, service: &mut ServiceState, target: &TargetService) {
        let wanted = (target.window, u64::from(self.state.sizes.flows_per_service));
        if service.tracking != wanted {
            service.tracking = wanted;
            self.before.push(MapOp::Tracking { service: service.index, lifetime: wanted.0, limit: wanted.1 });
        }
    }

    /// Enters new backends, moves known ones to their new hop, and lets go of the rest behind the grace period. Returns
    /// whether one that served does so no longer.
    pub(super) fn backends(&mut self, service: &mut ServiceState, target: &TargetService) -> Result<bool, PlanError> {
        let mut lost_any = false;
        for (identity, wanted) in &*target.backends {
            let known = service.backends.get(identity).cloned();
            lost_any |= known.as_ref().is_some_and(|known| known.keeps_flows) && !wanted.keeps_flows;
            let state = match known {
                Some(known) if self.is_cut(&known, wanted) => {
                    self.forget_backend(known.id);
                    self.new_backend(service.index, *identity, wanted)?
                }
                Some(known) => self.change_backend(service.index, *identity, known, wanted),
                None => self.new_backend(service.index, *identity, wanted)?,
            };
            service.backends.insert(*identity, state);
        }
        let gone: Vec<_> = service.backends.keys().filter(|id| !target.backends.contains_key(*id)).copied().collect();
        for identity in gone {
            if let Some(state) = service.backends.remove(&identity) {
                self.forget_backend(state.id);
                lost_any = true;
            }
        }
        Ok(lost_any)
    }

    /// Whether flows of a drained backend end now: it gets a new id, so that what was recorded of them names nobody.
    fn is_cut(&self, known: &BackendState, wanted: &TargetBackend) -> bool {
        let ends = known.keeps_flows && !wanted.keeps_flows && wanted.drain.is_some();
        ends && !self.state.free_backends.is_empty()
    }

    fn new_backend(
        &mut self,
        service: u32,
        identity: (IpAddr16, Be16),
        wanted: &Shared<TargetBackend>,
    ) -> Result<BackendState, PlanError> {
        let size = self.state.sizes.backends;
        let full = PlanError::MapFull { map: "BACKENDS", needed: size as usize + 1, size, key: "backends" };
        let (index, last) = self.state.free_backends.pop_front().ok_or(full)?;
        let generation = if last >= BackendId::LAST_GENERATION { 1 } else { last + 1 };
        let id = BackendId::new(index, generation);
        let info = backend_info(service, identity, wanted, id);
        let takes = wanted.takes();
        self.before.push(MapOp::Backend { id, info, hop: wanted.hop, takes });
        Ok(BackendState { id, head: Head::new(generation, 0).taking(takes), entered: wanted.clone() })
    }

    fn change_backend(
        &mut self,
        service: u32,
        identity: (IpAddr16, Be16),
        mut state: BackendState,
        wanted: &Shared<TargetBackend>,
    ) -> BackendState {
        let known = std::mem::replace(&mut state.entered, wanted.clone());
        let head = state.head.taking(wanted.takes());
        if known.hop != wanted.hop {
            state.head = Head::new(head.generation(), 1 - head.active()).taking(wanted.takes());
            self.before.push(MapOp::Hop { index: state.id.index(), head: state.head, hop: wanted.hop });
            self.grace = true; // the hop that is at rest now is written again by the next plan
        } else if state.head != head {
            state.head = head;
            self.before.push(MapOp::Head { index: state.id.index(), head });
        }
        if (known.weight, known.in_ring, known.drain) != (wanted.weight, wanted.in_ring, wanted.drain) {
            let info = backend_info(service, identity, wanted, state.id);
            self.before.push(MapOp::BackendInfo { index: state.id.index(), info });
        }
        state
    }

    fn forget_backend(&mut self, id: BackendId) {
        self.after.push(MapOp::ForgetBackend { index: id.index(), generation: id.generation() });
        self.state.free_backends.push_back((id.index(), id.generation()));
    }

    /// Takes a service away; its entries are free behind the grace period.
    pub(super) fn remove_service(&mut self, key: VipKey) {
        let Some(service) = self.state.services.remove(&key) else {
            return;
        };
        self.before.push(MapOp::RemoveService { key });
        self.grace = true;
        self.give_ring(&service);
        for state in service.backends.values() {
            self.forget_backend(state.id);
        }
        let word = RingWord::new(0, 0, false, service.word.generation().wrapping_add(1));
        self.after.push(MapOp::Publish { service: service.index, word });
        self.after.push(MapOp::ServiceInfo { index: service.index, info: Box::new(ServiceInfo::UNUSED) });
        self.state.free_services.insert(service.index);
    }
}

pub(super) fn info(key: VipKey, name: &str) -> ServiceInfo {
    let mut bytes = [0; NAME_LEN];
    let length = name.len().min(NAME_LEN);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    ServiceInfo { key, used: 1, name: bytes }
}

fn backend_info(service: u32, identity: (IpAddr16, Be16), wanted: &TargetBackend, id: BackendId) -> BackendInfo {
    BackendInfo {
        address: identity.0,
        service,
        port: identity.1,
        weight: wanted.weight,
        used: 1,
        in_ring: u16::from(wanted.in_ring),
        generation: id.generation(),
        drained_since: wanted.drain.map_or(0, |drain| drain.since),
        drain_deadline: wanted.drain.and_then(|drain| drain.deadline).unwrap_or(0),
        drained_with_node: wanted.drain.map_or(0, |drain| u32::from(drain.with_node)),
        pad: 0,
    }
}
