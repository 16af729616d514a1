//! What becomes of a slot when its owner changes.

use crate::{
    addr::BackendId,
    maps::rings::{Slot, SlotState},
};

/// The slot after `new` has become its owner ([`BackendId::NONE`]: nobody takes new flows). `serves` tells of a backend
/// whether flows that it has may stay.
///
/// | | new = current | current serves | current is gone |
/// |---|---|---|---|
/// | settled | settled | unsettled, old = current | settled |
/// | settling | settling | unsettled, old = current | unsettled, old = new |
/// | unsettled | unsettled | unsettled, old stays | unsettled, old stays |
///
/// An old owner that gets its slot back has all flows but those that began in between, which are recorded: the slot
/// settles from then on, old = the owner in between. An old owner that is gone is replaced by the new one. The window begins anew when the owner of an unsettled slot has
/// changed.
#[must_use]
pub fn transition(slot: Slot, new: BackendId, serves: impl Fn(BackendId) -> bool) -> Slot {
    let (current, state) = (slot.current(), slot.state());
    let stays = |id: BackendId| id != BackendId::NONE && serves(id);
    match state {
        // Flows of the owner in between are recorded, but at this director only: its name is kept for those of others.
        SlotState::Unsettled if new != current && new == slot.old() && stays(current) => {
            Slot::unsettled(new, current).settling()
        }
        SlotState::Unsettled => Slot::unsettled(new, if stays(slot.old()) { slot.old() } else { new }),
        _ if new == current => slot,
        _ if stays(current) => Slot::unsettled(new, current),
        SlotState::Settled => Slot::settled(new),
        SlotState::Settling => Slot::unsettled(new, new),
    }
}
