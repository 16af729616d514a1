//! Steps on rings.
#![expect(clippy::cast_possible_truncation, reason = "a ring has at most 2^20 slots")]

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    addr::{BackendId, Be16, IpAddr16},
    maglev::{self, Member},
    maps::{
        backends::Mode,
        published::RingWord,
        rings::{Slot, SlotState},
        services::VipKey,
    },
    tracking,
};

use super::{Plan, PlanError};
use crate::plan::state::{BackendState, MapOp, Mark, RingOrigin, ServiceState, TargetService};

/// A ring, and which of its slots are not settled.
struct Ring {
    log2: u8,
    slots: Vec<Slot>,
    marks: Vec<Mark>,
}

impl Plan<'_> {
    /// Builds the ring if its owners changed, and publishes what changed. `lost_any`: a backend serves no longer.
    pub(super) fn ring(
        &mut self,
        service: &mut ServiceState,
        target: &TargetService,
        lost_any: bool,
    ) -> Result<(), PlanError> {
        let (mut members, ids) = takers(service);
        members.shrink_to_fit(); // they are kept
        let shrinks = service.shrinks(target);
        let origin = RingOrigin::Members(members, target.log2);
        let mut offset = service.word.offset();
        let mut log2 = service.word.log2() as u8;
        if service.ring != origin || shrinks || (lost_any && !service.marks.is_empty()) {
            let before = self.ring_in_force(service);
            let after = self.next_ring(service, target, &origin, &ids, &before);
            let is_nobodys = after.slots.iter().all(|slot| *slot == Slot::default());
            if is_nobodys {
                self.give_ring(service);
                (offset, log2) = (0, 0);
            } else if (after.log2, &after.slots) != (before.log2, &before.slots) {
                (offset, log2) = self.place_ring(service, &after)?;
            }
            service.marks = after.marks;
            service.ring = origin;
        }
        let word = RingWord::new(offset, log2, target.held, 0);
        let word = word.with_second_chance(target.second_chance && !service.marks.is_empty());
        self.publish(service, target, word);
        Ok(())
    }

    /// Publishes the word of a service, its generation apart, if it is another than the one in force.
    pub(super) fn publish(&mut self, service: &mut ServiceState, target: &TargetService, word: RingWord) {
        let word = word.with_source_ranges(!target.source_ranges.is_empty());
        let word = word.with_target_port(target.target_port != 0);
        let word = if target.has_affinity { word.with_affinity() } else { word };
        let generation = service.word.generation();
        if service.word != word.with_generation(generation) {
            service.word = word.with_generation(generation.wrapping_add(1));
            self.before.push(MapOp::Publish { service: service.index, word: service.word });
        }
    }

    /// The ring that packets meet now; one slot of nobody if there is none.
    fn ring_in_force(&self, service: &ServiceState) -> Ring {
        let word = service.word;
        if word.is_empty() {
            return Ring { log2: 0, slots: vec![Slot::default()], marks: Vec::new() };
        }
        let slots = (0..1u32 << word.log2()).map(|at| self.arena.slot(word.offset() + at)).collect();
        Ring { log2: word.log2() as u8, slots, marks: service.marks.clone() }
    }

    /// The ring after the takers have become the owners. It has as many slots as the larger of the ring before and the
    /// ring wanted, until the larger one has no flows to remember any more.
    fn next_ring(
        &mut self,
        service: &ServiceState,
        target: &TargetService,
        origin: &RingOrigin,
        ids: &[BackendId],
        before: &Ring,
    ) -> Ring {
        let log2 = if before.repeats(target.log2) { target.log2 } else { before.log2.max(target.log2) };
        let serving: BTreeSet<_> =
            service.backends.values().filter(|state| state.keeps_flows).map(|state| state.id).collect();
        let owners = match origin {
            RingOrigin::Members(members, log2) => self.build(members.clone(), *log2),
            RingOrigin::Adopted => &[],
        };
        let was = |at: usize| {
            if log2 >= before.log2 { at >> (log2 - before.log2) } else { at << (before.log2 - log2) }
        };
        let mut slots: Vec<_> = (0..1usize << log2)
            .map(|at| {
                let owner = owners.get(at >> (log2 - target.log2));
                let new = owner.map_or(BackendId::NONE, |owner| ids[*owner as usize]);
                tracking::transition(before.slots[was(at)], new, |id| serving.contains(&id))
            })
            .collect();
        if target.rejoins && before.slots.iter().all(|slot| *slot == Slot::default()) {
            self.name_those_in_between(service, target.second_chance, log2, &mut slots);
        }
        let known: BTreeMap<u32, Mark> = before.marks.iter().map(|mark| (mark.slot, *mark)).collect();
        let marks = (0u32..).zip(&slots).filter_map(|(at, slot)| {
            let was = was(at as usize);
            let known = known.get(&(was as u32)).copied();
            mark(at, before.slots[was], *slot, known, self.now, target.window)
        });
        Ring { log2, marks: marks.collect(), slots }
    }

    /// Names, on the slots of this node's backends, who had them while the node was away. No flow of theirs is recorded
    /// here. Where a second chance finds them, its own backends come first: a slot that settles sends there what it does
    /// not know. Where none does, flows that began before are believed to be theirs, as for any owner that comes.
    fn name_those_in_between(&mut self, service: &ServiceState, second_chance: bool, log2: u8, slots: &mut [Slot]) {
        let own: BTreeSet<_> =
            service.backends.values().filter(|state| is_local(state)).map(|state| state.id).collect();
        let (members, ids) = takers(service);
        let (members, ids): (Vec<_>, Vec<_>) = members.into_iter().zip(ids).filter(|(_, id)| !own.contains(id)).unzip();
        let owners = self.build(members, log2);
        for (slot, owner) in slots.iter_mut().zip(owners).filter(|(slot, _)| own.contains(&slot.current())) {
            let unsettled = Slot::unsettled(slot.current(), ids[*owner as usize]);
            *slot = if second_chance { unsettled.settling() } else { unsettled };
        }
    }

    /// The ring of these members, each slot the index of its owner.
    fn build(&mut self, members: Vec<Member>, log2: u8) -> &[u32] {
        self.rings.entry((members, log2)).or_insert_with_key(|(members, log2)| maglev::build(members, *log2))
    }

    /// Writes a ring beside the one in force and gives that one's slots back. Returns offset and size of the new one.
    fn place_ring(&mut self, service: &ServiceState, ring: &Ring) -> Result<(u32, u8), PlanError> {
        self.give_ring(service);
        let offset = self.take_region(1 << ring.log2)?;
        self.slots_written += ring.slots.len();
        self.before.push(MapOp::Ring { offset, slots: ring.slots.clone() });
        Ok((offset, ring.log2))
    }

    /// Whether a service may find no room for its ring until what this plan takes out of force
    /// is free.
    pub(super) fn is_in_its_own_way(&self, key: &VipKey, target: &TargetService) -> bool {
        let known = self.state.services.get(key);
        let log2 = known.map_or(0, |known| known.word.log2()).max(target.log2.into());
        !self.given.is_empty() && self.state.arena.longest() < 1 << log2
    }

    pub(super) fn give_ring(&mut self, service: &ServiceState) {
        if !service.word.is_empty() {
            self.grace = true;
            self.given.push((service.word.offset(), 1 << service.word.log2()));
        }
    }

    pub(super) fn take_region(&mut self, slots: u32) -> Result<u32, PlanError> {
        let arena = &mut self.state.arena;
        arena.take(slots).ok_or(PlanError::ArenaFull { slots, free: arena.free_slots(), longest: arena.longest() })
    }
}

impl Ring {
    /// Whether this is a ring of `1 << log2` slots, settled, with each of them repeated.
    fn repeats(&self, log2: u8) -> bool {
        let times = 1usize << self.log2.saturating_sub(log2);
        let is_settled = self.slots.iter().all(|slot| slot.state() == SlotState::Settled);
        is_settled && self.slots.chunks(times).all(|chunk| chunk.iter().all(|slot| *slot == chunk[0]))
    }
}

fn is_local(state: &BackendState) -> bool {
    state.hop.mode == Mode::Local as u8
}

/// What is to be remembered of a slot that was `before` and is `after`, and of which `known` was remembered so far.
fn mark(slot: u32, before: Slot, after: Slot, known: Option<Mark>, now: u64, window: u64) -> Option<Mark> {
    let goes_on = before.state() == after.state() && before.current() == after.current();
    let known = known.filter(|_| goes_on);
    match after.state() {
        SlotState::Settled => None,
        SlotState::Unsettled => {
            Some(Mark { slot, is_settling: false, at: known.map_or(now.saturating_add(window), |mark| mark.at) })
        }
        // The owner is back: flows of the one in between that only others recorded can be silent for a window.
        SlotState::Settling => {
            Some(Mark { slot, is_settling: true, at: known.map_or(now.saturating_add(window), |mark| mark.at) })
        }
    }
}

/// The backends that take new flows: as the ring sees them, and their ids.
fn takers(service: &ServiceState) -> (Vec<Member>, Vec<BackendId>) {
    let takers = service.backends.iter().filter(|(_, state)| state.takes());
    let member = |(address, port): &(IpAddr16, Be16), weight| Member { address: *address, port: *port, weight };
    takers.map(|(identity, state)| (member(identity, state.weight), state.id)).unzip()
}
