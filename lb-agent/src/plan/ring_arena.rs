//! Which slots of the ring arena are free: first fit, neighbours joined again.

use std::collections::BTreeMap;

/// Free regions of `RINGS`. Slot 0 is never given away: a published offset of 0 says "no ring".
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RingArena {
    /// Length of each free region by its offset, in slots.
    free: BTreeMap<u32, u32>,
}

impl RingArena {
    /// An arena of `slots` slots, all free but the first.
    #[must_use]
    pub fn new(slots: u32) -> Self {
        let mut free = BTreeMap::new();
        if slots > 1 {
            free.insert(1, slots - 1);
        }
        Self { free }
    }

    /// Takes a region of `slots` slots; `None` if no free region is as long.
    pub fn take(&mut self, slots: u32) -> Option<u32> {
        let (offset, length) = self.free.iter().find(|(_, length)| **length >= slots).map(|(at, len)| (*at, *len))?;
        self.free.remove(&offset);
        if length > slots {
            self.free.insert(offset + slots, length - slots);
        }
        Some(offset)
    }

    /// Takes just this region; false if any slot of it is taken already.
    pub fn take_at(&mut self, offset: u32, slots: u32) -> bool {
        let Some((start, length)) = self.free.range(..=offset).next_back().map(|(at, len)| (*at, *len)) else {
            return false;
        };
        let Some(end) = offset.checked_add(slots).filter(|end| *end <= start + length) else {
            return false;
        };
        self.free.remove(&start);
        if offset > start {
            self.free.insert(start, offset - start);
        }
        if start + length > end {
            self.free.insert(end, start + length - end);
        }
        true
    }

    /// Gives a region back.
    pub fn give(&mut self, offset: u32, slots: u32) {
        let (mut offset, mut slots) = (offset, slots);
        if let Some(next) = self.free.remove(&(offset + slots)) {
            slots += next;
        }
        if let Some((before, length)) = self.free.range(..offset).next_back().map(|(at, len)| (*at, *len))
            && before + length == offset
        {
            self.free.remove(&before);
            offset = before;
            slots += length;
        }
        self.free.insert(offset, slots);
    }

    /// Number of free slots.
    #[must_use]
    pub fn free_slots(&self) -> u32 {
        self.free.values().sum()
    }

    /// Length of the longest free region, in slots.
    #[must_use]
    pub fn longest(&self) -> u32 {
        self.free.values().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn regions_do_not_overlap_and_come_back_whole() {
        let mut arena = RingArena::new(257);
        let (a, b) = (arena.take(128).unwrap(), arena.take(64).unwrap());
        assert_eq!((a, b, arena.take(128), arena.longest()), (1, 129, None, 64));
        arena.give(a, 128);
        arena.give(b, 64);
        assert_eq!(arena, RingArena::new(257));
    }

    #[test]
    fn a_named_region_can_be_taken_once() {
        let mut arena = RingArena::new(257);
        assert!(arena.take_at(65, 64));
        assert!(!arena.take_at(65, 64) && !arena.take_at(1, 65) && !arena.take_at(200, 64) && !arena.take_at(0, 1));
        assert_eq!((arena.take(64), arena.take(128)), (Some(1), Some(129)));
    }

    proptest! {
        #[test]
        fn any_order_of_giving_back_restores_the_arena(sizes in prop::collection::vec(1u32..50, 1..20), seed in any::<u64>()) {
            let mut arena = RingArena::new(1024);
            let mut taken: Vec<(u32, u32)> = sizes.iter().filter_map(|size| arena.take(*size).map(|at| (at, *size))).collect();
            for pair in taken.windows(2) {
                prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0);
            }
            let mut seed = seed;
            while !taken.is_empty() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (at, size) = taken.swap_remove((seed >> 33) as usize % taken.len());
                arena.give(at, size);
            }
            prop_assert_eq!(arena, RingArena::new(1024));
        }
    }
}
