//! Values of which very many are equal: each is kept once.

use std::{collections::HashSet, hash::Hash};

use super::shared::Shared;

/// Fewest values between two looks at which of them are still held.
const LEAST: usize = 1024;

/// Gives equal values the same place. What nobody holds any more is forgotten, though not at once.
#[derive(Debug)]
pub struct Interned<T> {
    known: HashSet<Shared<T>>,
    /// How many values may be known before those are forgotten that nobody holds.
    bound: usize,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), bound: LEAST }
    }
}

impl<T: Eq + Hash> Interned<T> {
    /// The value in the place of all that equal it.
    pub fn share(&mut self, value: T) -> Shared<T> {
        if let Some(known) = self.known.get(&value) {
            return known.clone();
        }
        if self.known.len() >= self.bound {
            self.known.retain(|known| !known.is_alone());
            self.bound = LEAST.max(self.known.len() * 2);
        }
        let value = Shared::new(value);
        self.known.insert(value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_one_place_and_others_have_others() {
        let mut interned = Interned::default();
        let [first, again, other] = [1, 1, 2].map(|value| interned.share(value));
        assert!(first.is(&again) && !first.is(&other));
        assert_eq!((*first, *other), (1, 2));
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let mut interned = Interned::default();
        let held = interned.share(0);
        for value in 1..10 * LEAST {
            interned.share(value);
        }
        assert!(interned.known.len() <= LEAST, "{} are known", interned.known.len());
        assert!(interned.share(0).is(&held));
    }
}
