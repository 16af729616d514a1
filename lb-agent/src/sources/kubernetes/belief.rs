//! Whether a complete list is believed at once.
//!
//! A server on a fresh data store answers with complete lists that hold next to nothing, and is wrong about the cluster
//! all the same: pods run on. A list that lost most of what was known is believed only when others, some time apart, say
//! the same. What watches report as deleted is believed at once.

use std::time::Duration;

/// When a list is doubted, and what settles that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Belief {
    /// A list is doubted only if at least this many objects were known. Default 1.
    pub from: usize,
    /// How many lists have to say the same, the first included; 1 believes every list. Default 3.
    pub lists: u32,
    /// Time between such lists. Default 10 s.
    pub interval: Duration,
}

impl Default for Belief {
    fn default() -> Self {
        Self { from: 1, lists: 3, interval: Duration::from_secs(10) }
    }
}

impl Belief {
    /// Whether a list of `listed` objects is doubted when `held` are known: less than half of them are left.
    pub(super) const fn doubts(&self, held: usize, listed: usize) -> bool {
        self.lists > 1 && held > 0 && held >= self.from && listed < held.div_ceil(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_lost_more_than_half_is_doubted() {
        let belief = Belief::default();
        let cases =
            [(0, 0, false), (1, 0, true), (1, 1, false), (2, 1, false), (3, 1, true), (4, 2, false), (1000, 499, true)];
        for (held, listed, doubted) in cases {
            assert_eq!(belief.doubts(held, listed), doubted, "{held} held, {listed} listed");
        }
        assert!(!Belief { from: 5, ..belief }.doubts(4, 0), "too few to tell");
        assert!(!Belief { lists: 1, ..belief }.doubts(100, 0), "every list is believed");
    }
}
