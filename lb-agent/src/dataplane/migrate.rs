//! Carries over what a set of maps remembers into the one that takes its place, while packets go on by the old one.
//!
//! 1. [`Migration::begin`]: the new set is made to hold what the old one holds; the ordinary plans run on top of that.
//! 2. [`Migration::hand_over`], in front of the first interface that gets the new program: *freezes* the old set and
//!    copies the recorded flows.
//! 3. [`Migration::finish`], behind the last one: copies what was recorded meanwhile.
//!
//! Without a freeze, a connection that began on an unsettled slot between 2 and 3 would be known to the old set alone:
//! to the new program its next packet would be one of an old flow, and go to the former owner. So the frozen slot names
//! that owner for new flows, too, for the moments of the switch: both programs send the connection there, recorded or
//! not. If that owner only keeps its flows because it fails, the client's next SYN leads to another.
//!
//! What can still be lost between 2 and 3:
//! - the later of two deadlines counts, so a flow that is just closed stays recorded for its whole lifetime, which costs
//!   an entry;
//! - an entry that a SYN took over (the same client port, and a backend that takes no new flows) may name the former
//!   backend, which resets the attempt as it would any stray packet;
//! - later fragments of a datagram whose first one came before are dropped, and the datagram is sent again.
//!
//! Counters begin at 0.

use aya::maps::MapError;
use lb_common::{
    addr::BackendId,
    hash::Tuple,
    maps::{
        flows::FlowEntry,
        rings::{Slot, SlotState},
        tracking::{LIMIT, NEW, OLD},
    },
};

use super::{
    clock::monotonic,
    error::DataplaneError,
    maps::{Maps, tracking_word},
    old_set::OldSet,
    pins::MapSet,
};
use crate::plan::{MapOp, Rings, Sizes, Translation, carry_over};

/// One set of maps on its way into another.
pub struct Migration {
    old: OldSet,
    translation: Translation,
    /// Slots of the old set that were frozen, as they were before; they are restored if the switch does not take place.
    frozen: Vec<(u32, Slot)>,
    is_handed_over: bool,
    copied: Copied,
}

/// What became of the recorded flows.
#[derive(Clone, Copy, Debug, Default)]
struct Copied {
    flows: u64,
    expired: u64,
    dangling: u64,
    no_room: u64,
}

impl Migration {
    /// Makes `maps`, just created with `sizes`, hold what the set `old` does; `None`, with a warning, if it cannot be
    /// read.
    pub fn begin(maps: &mut Maps, layout: u32, old: &MapSet, sizes: Sizes) -> Result<Option<Self>, DataplaneError> {
        let old = match OldSet::open(layout, old, sizes) {
            Ok(Some(old)) => old,
            Ok(None) => {
                tracing::warn!(
                    layout,
                    "maps of a layout that this version cannot read: connections on slots that changed may break"
                );
                return Ok(None);
            }
            Err(error) => {
                tracing::warn!(layout, %error, "the maps in force cannot be read: connections on slots that changed may break");
                return Ok(None);
            }
        };
        let carried = carry_over(&old.state, &old, sizes).map_err(DataplaneError::DoesNotFit)?;
        for step in &carried.steps {
            maps.perform(step)?;
        }
        tracing::info!(
            layout,
            services = carried.state.services.len(),
            "maps carried over into a set of other sizes or layout"
        );
        Ok(Some(Self {
            old,
            translation: carried.translation,
            frozen: Vec::new(),
            is_handed_over: false,
            copied: Copied::default(),
        }))
    }

    /// Freezes the old set and copies the recorded flows. The first call does so, others do nothing.
    pub fn hand_over(&mut self, maps: &mut Maps) -> Result<(), DataplaneError> {
        if std::mem::replace(&mut self.is_handed_over, true) || self.old.flows.is_none() {
            return Ok(());
        }
        self.freeze()?;
        maps.perform(&MapOp::Grace)?; // no packet is under way that met a slot before it was frozen
        self.copy(maps)
    }

    /// Copies what was recorded since [`Self::hand_over`]. To be called when no packet meets the old set any more.
    pub fn finish(mut self, maps: &mut Maps) -> Result<(), DataplaneError> {
        self.hand_over(maps)?;
        self.frozen.clear();
        if self.old.flows.is_none() {
            return Ok(());
        }
        self.copied = Copied { flows: self.copied.flows, ..Copied::default() };
        self.copy(maps)?;
        let Copied { flows, expired, dangling, no_room } = self.copied;
        tracing::info!(flows, expired, dangling, no_room, "recorded flows carried over");
        if no_room > 0 {
            tracing::warn!(
                no_room,
                "recorded flows found no room and may break; raise `capacities.flows` and `flowsPerService`"
            );
        }
        Ok(())
    }

    fn freeze(&mut self) -> Result<(), DataplaneError> {
        for service in self.old.state.services.values().filter(|service| !service.word.is_empty()) {
            let offset = service.word.offset();
            for index in offset..offset + (1 << service.word.log2()) {
                let slot = self.old.slot(index);
                let is_known = self.translation.backends.contains_key(&slot.old());
                let differs = slot.current() != slot.old() && slot.current() != BackendId::NONE;
                if slot.state() == SlotState::Unsettled && is_known && differs {
                    self.frozen.push((index, slot));
                    self.old.store(index, Slot::unsettled(slot.old(), slot.old()))?;
                }
            }
        }
        Ok(())
    }

    fn copy(&mut self, maps: &mut Maps) -> Result<(), DataplaneError> {
        let now = monotonic();
        for (table, is_new) in self.old.flows.iter().flatten().zip([true, false]) {
            for entry in table.iter() {
                let (key, entry) = match entry {
                    Ok(entry) => entry,
                    Err(MapError::KeyNotFound | MapError::ElementNotFound) => continue,
                    Err(error) => return Err(DataplaneError::map("NEW_FLOWS", "reading", &error)),
                };
                if entry.deadline < now {
                    self.copied.expired += 1;
                    continue;
                }
                let Some(entry) = self.translation.flow(&entry) else {
                    self.copied.dangling += 1;
                    continue;
                };
                match record(maps, is_new, &key, &entry)? {
                    Recorded::Added => self.copied.flows += 1,
                    Recorded::Known => {}
                    Recorded::NoRoom => self.copied.no_room += 1,
                }
            }
        }
        Ok(())
    }
}

impl Drop for Migration {
    fn drop(&mut self) {
        for (index, slot) in self.frozen.drain(..) {
            // The next agent finds a slot that stays frozen, and gives it its owner.
            let _ = self.old.store(index, slot);
        }
    }
}

enum Recorded {
    Added,
    Known,
    NoRoom,
}

/// Records a flow in the new set as the packet path would, unless a later packet has.
fn record(maps: &mut Maps, is_new: bool, key: &Tuple, entry: &FlowEntry) -> Result<Recorded, DataplaneError> {
    let tables = &mut maps.tables;
    for table in [&mut tables.new_flows, &mut tables.old_flows] {
        if let Ok(known) = table.get(key, 0) {
            if known.deadline < entry.deadline {
                table.insert(key, entry, 0).map_err(|error| DataplaneError::map("NEW_FLOWS", "writing", &error))?;
            }
            return Ok(Recorded::Known);
        }
    }
    let (table, word) = if is_new { (&mut tables.new_flows, NEW) } else { (&mut tables.old_flows, OLD) };
    let count = tracking_word(entry.service, word);
    let has_room = maps.tracking.load(count)? < maps.tracking.load(tracking_word(entry.service, LIMIT))?;
    if !has_room || table.insert(key, entry, 0).is_err() {
        return Ok(Recorded::NoRoom);
    }
    maps.tracking.add_one(count)?;
    Ok(Recorded::Added)
}
