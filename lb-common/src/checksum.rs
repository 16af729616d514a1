//! Internet checksums: RFC 1071 sums and RFC 1624 updates.

use crate::addr::WireWord;

/// Returns the checksum after one 16-bit word under it changed from `old` to `new` (RFC 1624 section 3, eqn. 3).
#[must_use]
#[inline(always)]
pub const fn updated(check: u16, old: u16, new: u16) -> u16 {
    fold(!check as u32 + !old as u32 + new as u32)
}

/// The complement of the ones' complement sum whose partial sum is `sum`, at most 0xffff_ffff.
#[must_use]
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// The sum of the 16-bit halves of some words, to be folded.
#[must_use]
#[inline(always)]
pub const fn sum<const N: usize>(words: &[WireWord; N]) -> u64 {
    let (mut sum, mut at) = (0, 0);
    while at < N {
        let word = u32::from_be(words[at]);
        sum += (word >> 16) as u64 + (word & 0xffff) as u64;
        at += 1;
    }
    sum
}

/// As [`fold`], for a sum of less than 2^32 such halves.
#[must_use]
#[inline(always)]
pub const fn fold_long(sum: u64) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    fold(sum as u32)
}

/// The checksum of an IPv4 header without options whose checksum field counts as zero (RFC 791 section 3.1).
#[must_use]
#[inline(always)]
pub const fn ipv4_header(header: &[WireWord; 5]) -> u16 {
    let mut sum = 0u64;
    let mut at = 0;
    while at < 5 {
        let word = u32::from_be(header[at]);
        let counted = if at == 2 { word & 0xffff_0000 } else { word };
        sum += (counted >> 16) as u64 + (counted & 0xffff) as u64;
        at += 1;
    }
    fold(sum as u32)
}

const _: () = assert!(updated(0xdd2f, 0x5555, 0x3285) == 0x0000); // RFC 1624 section 4

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 1, written the plain way.
    fn plain(words: &[u16]) -> u16 {
        let mut sum: u64 = words.iter().map(|word| u64::from(*word)).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    proptest! {
        #[test]
        fn an_update_equals_a_sum_from_scratch(mut words in prop::collection::vec(any::<u16>(), 2..30), at in any::<prop::sample::Index>(), new in any::<u16>()) {
            words[0] |= 1; // an all-zero header has two checksums, 0 and 0xffff
            let before = plain(&words);
            let at = at.index(words.len() - 1) + 1;
            let old = core::mem::replace(&mut words[at], new);
            prop_assert_eq!(updated(before, old, new), plain(&words));
        }

        #[test]
        fn a_header_sum_equals_the_plain_sum(mut bytes in any::<[u8; 20]>()) {
            let header = core::array::from_fn(|word| u32::from_ne_bytes(core::array::from_fn(|i| bytes[word * 4 + i])));
            let check = ipv4_header(&header);
            bytes[10] = 0;
            bytes[11] = 0;
            let words: Vec<u16> = bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            prop_assert_eq!(check, plain(&words));
        }
    }

    proptest! {
        #[test]
        fn a_sum_of_many_words_equals_the_plain_sum(bytes in any::<[[u8; 4]; 32]>()) {
            let words = bytes.map(u32::from_ne_bytes);
            let halves: Vec<u16> = bytes.iter().flat_map(|b| [u16::from_be_bytes([b[0], b[1]]), u16::from_be_bytes([b[2], b[3]])]).collect();
            prop_assert_eq!(fold_long(sum(&words)), plain(&halves));
        }
    }

    #[test]
    fn a_long_sum_keeps_every_carry() {
        assert_eq!(fold_long(0xffff_ffff_ffff), plain(&[0xffff; 3]));
        assert_eq!(fold_long(0x0001_0000_0000), plain(&[1]));
    }

    #[test]
    fn the_worked_example_of_rfc_1071_holds() {
        // Section 3: bytes 00 01 f2 03 f4 f5 f6 f7 sum to ddf2.
        assert_eq!(fold(0x0001 + 0xf203 + 0xf4f5 + 0xf6f7), !0xddf2);
    }
}
