//! Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4) with rings of a power of two.
//!
//! Every backend walks the ring in an order of its own, given by two hashes of its identity: it starts at an offset and
//! goes on by an odd step, which visits every slot of a power-of-two ring once. Backends take turns in claiming their
//! next free slot; weights decide how many turns one gets. The result depends on the set of backends alone, not on the
//! order in which they came, so all directors build the same ring.

/// The slot of a flow in a ring of `1 << log2` slots (1..=31).
#[must_use]
#[inline(always)]
pub const fn slot(slot_bits: u32, log2: u32) -> u32 {
    slot_bits >> ((32 - log2) & 31)
}

#[cfg(feature = "user")]
pub use build::{Member, build};

#[cfg(feature = "user")]
mod build {
    use alloc::{vec, vec::Vec};

    use crate::{
        addr::{Be16, IpAddr16},
        hash::{self, HashKey},
    };

    /// Keys of the two hashes that give a backend its walk: fixed, since the flow hash is what has to be secret.
    const OFFSET_KEY: HashKey = HashKey { k0: 0x6c65_7665_6520_6f66, k1: 0x6673_6574_0000_0001 };
    const STEP_KEY: HashKey = HashKey { k0: 0x6c65_7665_6520_7374, k1: 0x6570_0000_0000_0001 };

    /// A backend as the ring sees it.
    #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
    pub struct Member {
        /// Its address, first part of its identity.
        pub address: IpAddr16,
        /// Its port, second part of its identity.
        pub port: Be16,
        /// Its share relative to the others'. 0 takes no slot.
        pub weight: u16,
    }

    /// Builds the ring of `1 << log2` slots (at most 24): per slot, the index in `members` of its owner. Empty if
    /// nobody has a weight above 0. Members have distinct identities; their order does not matter.
    #[must_use]
    pub fn build(members: &[Member], log2: u8) -> Vec<u32> {
        let mut walkers: Vec<Walker> =
            (0u32..).zip(members).filter(|(_, member)| member.weight > 0).map(Walker::new).collect();
        walkers.sort_unstable_by_key(|walker| walker.identity);
        let Some(heaviest) = walkers.iter().map(|walker| walker.weight).max() else {
            return Vec::new();
        };
        const FREE: u32 = u32::MAX;
        let mut ring = vec![FREE; 1 << log2];
        let mut free = ring.len();
        loop {
            for walker in &mut walkers {
                walker.credit += walker.weight;
                if walker.credit < heaviest {
                    continue;
                }
                walker.credit -= heaviest;
                *walker.next_free(&mut ring, FREE) = walker.index;
                free -= 1;
                if free == 0 {
                    return ring;
                }
            }
        }
    }

    struct Walker {
        identity: (IpAddr16, Be16),
        index: u32,
        weight: u32,
        credit: u32,
        at: u32,
        step: u32,
    }

    impl Walker {
        fn new((index, member): (u32, &Member)) -> Self {
            let mut identity = [0; 18];
            identity[..16].copy_from_slice(&member.address.bytes());
            identity[16..].copy_from_slice(&member.port.wire());
            let word = |key| (hash::bytes(key, &identity) >> 32) as u32;
            Self {
                identity: (member.address, member.port),
                index,
                weight: u32::from(member.weight),
                credit: 0,
                at: word(&OFFSET_KEY),
                step: word(&STEP_KEY) | 1,
            }
        }

        /// The next slot on its walk that nobody has claimed. There is one: the caller counts them.
        fn next_free<'a>(&mut self, ring: &'a mut [u32], free: u32) -> &'a mut u32 {
            let mask = ring.len() - 1;
            loop {
                let slot = self.at as usize & mask;
                self.at = self.at.wrapping_add(self.step);
                if ring[slot] == free {
                    return &mut ring[slot];
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "maglev_tests.rs"]
mod tests;
