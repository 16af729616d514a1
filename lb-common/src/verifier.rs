//! What keeps the kernel's verifier from following the same code more often than needed.
//!
//! It follows each path with what it knows of every value there, and stops where an earlier path came by that knew no
//! more. So a value that many paths set to different constants multiplies all that follows, unless its origin is forgotten.

use core::hint::black_box;

/// The same `value`, of which the verifier knows only that it has no bits but those of `MASK`; nor shall it have any.
///
/// Costs a store and a load. The value is read back from an odd part of a word: the verifier follows values through
/// memory where they begin at a word (as of Linux 6.9 those of every size), and takes anything else for any value.
#[must_use]
#[inline(always)]
pub fn forget<const MASK: usize>(value: usize) -> usize {
    #[repr(C, align(8))]
    struct Word {
        unused: [u16; 3],
        value: u16,
    }
    const { assert!(MASK <= u16::MAX as usize, "what is kept is of 16 bits") };
    let value = (value & MASK).to_le_bytes();
    let word = Word { unused: [0; 3], value: u16::from_le_bytes([value[0], value[1]]) };
    usize::from(black_box(word).value) & MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_within_the_mask_is_kept() {
        for value in [0, 14, 18, 22, 31] {
            assert_eq!(forget::<0x1f>(value), value);
        }
        assert_eq!(forget::<0xffff>(0xabcd), 0xabcd);
    }
}
