//! `PUBLISHED`: per service, the one word that says which ring is in force. Mapped by the agent and stored in one
//! piece; a packet reads it once and sees either the ring before or the ring after a change, never a mixture.

/// Word of `PUBLISHED`.
///
/// Bits 0..32 offset of the ring in `RINGS`, 32..37 log2 of its slots, 37 held, 38 affinity, 39 has source
/// ranges, 40 has slots that are not settled, 41 has a target port, 42..64 generation. The offset 0 is
/// never given to a ring: it says that the service has no backend.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(transparent)]
pub struct RingWord(u64);

impl RingWord {
    const SOURCE_RANGES: u64 = 1 << 39;
    const TARGET_PORT: u64 = 1 << 41;

    /// The word of a ring of `1 << log2` slots at `offset`; `held`: this node terminates flows to the service's VIP.
    #[must_use]
    pub const fn new(offset: u32, log2: u8, held: bool, generation: u32) -> Self {
        let generation = (generation & 0x3f_ffff) as u64;
        Self(offset as u64 | ((log2 & 31) as u64) << 32 | (held as u64) << 37 | generation << 42)
    }

    /// The same word, saying that only sources within the service's ranges are admitted.
    #[must_use]
    pub const fn with_source_ranges(self, has_ranges: bool) -> Self {
        Self(self.0 & !Self::SOURCE_RANGES | if has_ranges { Self::SOURCE_RANGES } else { 0 })
    }

    /// The same word, saying that servers listen on another port than the service's: the one that stands in
    /// [`TRACKING`](super::tracking::TARGET_PORT).
    #[must_use]
    pub const fn with_target_port(self, has_port: bool) -> Self {
        Self(self.0 & !Self::TARGET_PORT | if has_port { Self::TARGET_PORT } else { 0 })
    }

    /// Whether servers listen on another port than the service's.
    #[must_use]
    #[inline(always)]
    pub const fn has_target_port(self) -> bool {
        self.0 & Self::TARGET_PORT != 0
    }

    /// The word with these bits.
    #[must_use]
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Index of the ring's first slot in `RINGS`.
    #[must_use]
    #[inline(always)]
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }

    /// Base-two logarithm of the number of slots, 0..=31.
    #[must_use]
    #[inline(always)]
    pub const fn log2(self) -> u32 {
        (self.0 >> 32) as u32 & 31
    }

    /// Whether this node terminates flows to the service's VIP.
    #[must_use]
    #[inline(always)]
    pub const fn is_held(self) -> bool {
        self.0 >> 37 & 1 == 1
    }

    /// The same word of a service whose clients stay with one backend, whatever port they come from.
    #[must_use]
    pub const fn with_affinity(self) -> Self {
        Self(self.0 | 1 << 38)
    }

    /// Whether the client's port does not choose the slot.
    #[must_use]
    #[inline(always)]
    pub const fn has_affinity(self) -> bool {
        self.0 >> 38 & 1 == 1
    }

    /// The same word in another generation, modulo 2^22.
    #[must_use]
    pub const fn with_generation(self, generation: u32) -> Self {
        Self(self.0 & ((1 << 42) - 1) | (generation as u64) << 42)
    }

    /// The same word of a service whose connections are sockets of the nodes, and that has slots which are not settled.
    #[must_use]
    pub const fn with_second_chance(self, has_second_chance: bool) -> Self {
        Self(self.0 & !(1 << 40) | (has_second_chance as u64) << 40)
    }

    /// Whether a TCP packet that is for this node and has no socket here may be another's.
    #[must_use]
    #[inline(always)]
    pub const fn has_second_chance(self) -> bool {
        self.0 >> 40 & 1 == 1
    }

    /// Whether only sources within the service's ranges are admitted.
    #[must_use]
    #[inline(always)]
    pub const fn has_source_ranges(self) -> bool {
        self.0 & Self::SOURCE_RANGES != 0
    }

    /// Whether the service has no backend at all.
    #[must_use]
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.offset() == 0
    }

    /// Counts the publications of the service, modulo 2^22.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 42) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_its_parts_apart() {
        let word = RingWord::new(u32::MAX, 20, true, 0x3f_fffe);
        assert_eq!((word.offset(), word.log2(), word.is_held(), word.generation()), (u32::MAX, 20, true, 0x3f_fffe));
        assert!(!word.is_empty());
        assert!(RingWord::new(0, 0, false, 7).is_empty());
        let ranged = word.with_source_ranges(true);
        assert_eq!((ranged.has_source_ranges(), word.has_source_ranges()), (true, false));
        assert_eq!(ranged.with_source_ranges(false), word);
        assert_eq!(
            (ranged.offset(), ranged.log2(), ranged.is_held(), ranged.generation()),
            (u32::MAX, 20, true, 0x3f_fffe)
        );
        let aimed = word.with_target_port(true);
        assert_eq!((aimed.has_target_port(), word.has_target_port()), (true, false));
        assert_eq!(
            (aimed.generation(), aimed.has_second_chance(), aimed.has_source_ranges()),
            (0x3f_fffe, false, false)
        );
        assert_eq!(aimed.with_target_port(false), word);
    }
}
