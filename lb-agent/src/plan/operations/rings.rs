//! Steps on rings.

use lb_common::{
    addr::BackendId,
    maglev::{self, Member},
    maps::published::RingWord,
};

use super::{Plan, PlanError};
use crate::plan::state::{MapOp, RingOrigin, ServiceState, TargetService};

impl Plan {
    /// Builds the ring if its owners changed, and publishes what changed.
    pub(super) fn ring(
        &mut self,
        service: &mut ServiceState,
        target: &TargetService,
        is_new: bool,
    ) -> Result<(), PlanError> {
        let (members, ids) = takers(service);
        let log2 = if members.is_empty() { 0 } else { target.log2 };
        let slots = if members.is_empty() { 0 } else { 1u32 << log2 };
        let keeps_ring = !is_new && self.is_in_force(service, &members, &ids, log2);
        service.ring = RingOrigin::Members(members.clone());
        let has_ranges = !target.source_ranges.is_empty();
        if keeps_ring && service.word.is_held() == target.held && service.word.has_source_ranges() == has_ranges {
            return Ok(());
        }
        let offset =
            if keeps_ring { service.word.offset() } else { self.place_ring(service, members, &ids, log2, slots)? };
        let generation = service.word.generation().wrapping_add(1);
        service.word = RingWord::new(offset, log2, target.held, generation).with_source_ranges(has_ranges);
        self.before.push(MapOp::Publish { service: service.index, word: service.word });
        Ok(())
    }

    /// Whether the service's ring is the one that these members make.
    fn is_in_force(&mut self, service: &ServiceState, members: &[Member], ids: &[BackendId], log2: u8) -> bool {
        if service.word.is_empty() || members.is_empty() {
            return service.word.is_empty() == members.is_empty();
        }
        if service.word.log2() != u32::from(log2) {
            return false;
        }
        match &service.ring {
            RingOrigin::Members(built_from) => built_from == members,
            RingOrigin::Adopted(owners) => {
                let wanted = self.build(members.to_vec(), log2);
                owners.iter().copied().eq(wanted.iter().map(|owner| ids[*owner as usize]))
            }
        }
    }

    /// The ring of these members, each slot the index of its owner.
    fn build(&mut self, members: Vec<Member>, log2: u8) -> &[u32] {
        self.rings.entry((members, log2)).or_insert_with_key(|(members, log2)| maglev::build(members, *log2))
    }

    /// Writes a ring beside the one in force and gives that one's slots back. Returns the offset of the new one.
    fn place_ring(
        &mut self,
        service: &ServiceState,
        members: Vec<Member>,
        ids: &[BackendId],
        log2: u8,
        slots: u32,
    ) -> Result<u32, PlanError> {
        self.give_ring(service);
        if slots == 0 {
            return Ok(0);
        }
        let offset = self.take_region(slots)?;
        let slots = self.build(members, log2).iter().map(|owner| ids[*owner as usize]).collect();
        self.before.push(MapOp::Ring { offset, slots });
        Ok(offset)
    }

    pub(super) fn give_ring(&mut self, service: &ServiceState) {
        if !service.word.is_empty() {
            self.grace = true;
            self.given.push((service.word.offset(), 1 << service.word.log2()));
        }
    }

    fn take_region(&mut self, slots: u32) -> Result<u32, PlanError> {
        let arena = &mut self.state.arena;
        arena.take(slots).ok_or(PlanError::ArenaFull { slots, free: arena.free_slots(), longest: arena.longest() })
    }
}

/// The backends that take new flows: as the ring sees them, and their ids.
fn takers(service: &ServiceState) -> (Vec<Member>, Vec<BackendId>) {
    let takers = service.backends.iter().filter(|(_, state)| state.in_ring && state.weight > 0);
    takers
        .map(|((address, port), state)| (Member { address: *address, port: *port, weight: state.weight }, state.id))
        .unzip()
}
