//! The steps that make another set of maps hold what one in force holds: other sizes, another layout.
//!
//! Indices and ids are given out anew, since the old ones may lie beyond the new sizes; the [`Translation`] tells what
//! became of them. Rings are taken over slot by slot, not built: what differs from the wish of the moment is left to
//! the ordinary plan, which remembers the owners that it finds.

use std::collections::BTreeMap;

use lb_common::{
    addr::BackendId,
    maps::{
        flows::FlowEntry,
        published::RingWord,
        rings::{Slot, SlotState},
        services::VipKey,
    },
};

use super::{Plan, PlanError, busy, check_sizes, services::info};
use crate::plan::state::{MapOp, MapState, RingOrigin, Rings, ServiceState, Sizes, TargetService, TargetState};

/// What became of the indices of services and the ids of backends.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Translation {
    /// New index by old index.
    pub services: BTreeMap<u32, u32>,
    /// New id by old id.
    pub backends: BTreeMap<BackendId, BackendId>,
}

impl Translation {
    /// The slot in the new set. Whoever is not known there is nobody.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> Slot {
        let new = |id| self.backends.get(&id).copied().unwrap_or(BackendId::NONE);
        match slot.state() {
            SlotState::Settled => Slot::settled(new(slot.current())),
            SlotState::Unsettled => Slot::unsettled(new(slot.current()), new(slot.old())),
            SlotState::Settling => Slot::unsettled(new(slot.current()), new(slot.old())).settling(),
        }
    }

    /// The recorded flow in the new set; `None` if its service or its backend is not there.
    #[must_use]
    pub fn flow(&self, entry: &FlowEntry) -> Option<FlowEntry> {
        let backend = self.backends.get(&entry.backend())?.bits();
        Some(FlowEntry { backend, service: *self.services.get(&entry.service)?, ..*entry })
    }
}

/// What [`carry_over`] plans.
#[derive(Clone, Debug, PartialEq)]
pub struct CarriedOver {
    /// The steps, to be performed on maps that were just created.
    pub steps: Vec<MapOp>,
    /// The state of those maps behind the steps.
    pub state: MapState,
    /// What became of indices and ids.
    pub translation: Translation,
}

/// Lists the steps that make maps of `sizes`, just created, hold what maps in the state `old` hold. `rings` are the old
/// ones.
///
/// # Errors
/// [`PlanError`] if a map is too small; then nothing is to be done.
pub fn carry_over(old: &MapState, rings: &dyn Rings, sizes: Sizes) -> Result<CarriedOver, PlanError> {
    let (mut state, target) = (MapState::empty(sizes), target_of(old));
    check_sizes(&state, &target, &busy(&state, &target))?;
    let mut plan = Plan::new(&mut state, rings, 0);
    plan.addresses(&target);
    plan.devices_and_peers(&target);
    plan.redirects(&target);
    let mut translation = Translation::default();
    for (key, service) in &old.services {
        plan.carry_service(*key, service, &target.services[key], &mut translation)?;
    }
    let steps = plan.finish();
    Ok(CarriedOver { steps, state, translation })
}

impl Plan<'_> {
    /// Enters a service as it was in the old set.
    fn carry_service(
        &mut self,
        key: VipKey,
        old: &ServiceState,
        target: &TargetService,
        translation: &mut Translation,
    ) -> Result<(), PlanError> {
        let mut service = self.new_service()?;
        service.name.clone_from(&old.name);
        self.before.push(MapOp::ServiceInfo { index: service.index, info: Box::new(info(key, &old.name)) });
        self.backends(&mut service, target)?;
        translation.services.insert(old.index, service.index);
        let pairs =
            old.backends.iter().filter_map(|(identity, old)| Some((old.id, service.backends.get(identity)?.id)));
        translation.backends.extend(pairs);

        let mut offset = 0;
        if !old.word.is_empty() {
            let length = 1u32 << old.word.log2();
            offset = self.take_region(length)?;
            let slots = (0..length).map(|at| translation.slot(self.arena.slot(old.word.offset() + at))).collect();
            self.before.push(MapOp::Ring { offset, slots });
        }
        service.ring = RingOrigin::Adopted;
        service.marks.clone_from(&old.marks);
        self.source_ranges(service.index, true, &target.source_ranges);
        self.target_port(&mut service, target);
        let word = RingWord::new(offset, target.log2, target.held, 0);
        let word = word.with_second_chance(old.word.has_second_chance());
        self.publish(&mut service, target, word);
        self.tracking(&mut service, target);
        self.before.push(MapOp::Service { key, index: service.index });
        self.state.services.insert(key, service.into());
        Ok(())
    }
}

/// The target that the old set is in itself.
fn target_of(old: &MapState) -> TargetState {
    let service = |service: &ServiceState| TargetService {
        name: service.name.clone(),
        log2: u8::try_from(service.word.log2()).unwrap_or_default(), // five bits
        held: service.word.is_held(),
        rejoins: false,
        second_chance: service.word.has_second_chance(),
        has_affinity: service.word.has_affinity(),
        window: service.tracking.0,
        target_port: service.target_port,
        source_ranges: old.source_ranges.get(&service.index).cloned().unwrap_or_default(),
        backends: service.backends.iter().map(|(identity, state)| (*identity, state.entered.clone())).collect(),
    };
    TargetState {
        settings: old.settings,
        addresses: old.addresses.clone(),
        peers: old.peers.clone(),
        peer_macs: old.peer_macs.clone(),
        devices: old.devices.clone(),
        rewrites: old.rewrites.clone(),
        translations: old.translations.clone(),
        services: old.services.iter().map(|(key, state)| (*key, service(state).into())).collect(),
    }
}
