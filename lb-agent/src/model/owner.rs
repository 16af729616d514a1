//! Who owns what only one node may have: the same answer on every node that sees the same members.

use std::{collections::BTreeMap, hash::Hasher};

use siphasher::sip::SipHasher24;

/// How fit a node is to own something; a greater one is better.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Fitness {
    /// Not heard of.
    Silent,
    /// Alive, but nothing of what it would own is served there.
    Alive,
    /// Alive, and serves it.
    Serving,
}

/// The owner of `what` among `nodes`. It is `current` as long as no node is fitter than that one; else, of the fittest,
/// the one with the highest hash of its name and `what`, so that things spread and only those of a lost owner move. `None`
/// if there is no node.
///
/// Who asks knows the current owner from a record that all share, or leaves it out.
#[must_use]
pub fn owner<'n>(what: &str, nodes: &'n BTreeMap<String, Fitness>, current: Option<&str>) -> Option<&'n str> {
    let fittest = *nodes.values().max()?;
    let candidates = || nodes.iter().filter(|(_, fitness)| **fitness == fittest).map(|(name, _)| name.as_str());
    let stays = current.and_then(|current| candidates().find(|name| *name == current));
    stays.or_else(|| candidates().max_by_key(|name| (score(what, name), *name)))
}

/// The rendezvous hash: SipHash-2-4 without a key, since everybody may know the answer.
fn score(what: &str, node: &str) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(what.as_bytes());
    hasher.write_u8(0xff); // no name contains it
    hasher.write(node.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(serving: &[&str]) -> BTreeMap<String, Fitness> {
        serving.iter().map(|name| ((*name).to_owned(), Fitness::Serving)).collect()
    }

    const THINGS: u32 = 900;

    fn owners(nodes: &BTreeMap<String, Fitness>) -> Vec<String> {
        (0..THINGS).map(|thing| owner(&format!("192.0.2.{thing}"), nodes, None).unwrap().to_owned()).collect()
    }

    #[test]
    fn things_spread_and_only_those_of_a_lost_owner_move() {
        let (three, two) = (owners(&nodes(&["a", "b", "c"])), owners(&nodes(&["a", "c"])));
        for name in ["a", "b", "c"] {
            let share = three.iter().filter(|owner| *owner == name).count();
            assert!((240..=360).contains(&share), "{name} owns {share} of {THINGS}");
        }
        for (before, after) in three.iter().zip(&two) {
            assert!(before == "b" || before == after, "{before} lost to {after} for nothing");
        }
        assert!(!two.contains(&"b".to_owned()));
    }

    #[test]
    fn the_owner_changes_only_for_a_fitter_one() {
        let mut nodes = nodes(&["a", "b", "c"]);
        for current in ["a", "b", "c"] {
            assert_eq!(owner("vip", &nodes, Some(current)), Some(current));
        }
        nodes.insert("a".to_owned(), Fitness::Alive);
        assert_ne!(owner("vip", &nodes, Some("a")), Some("a"));
        // All are equally bad: nobody better is there.
        nodes.values_mut().for_each(|fitness| *fitness = Fitness::Silent);
        assert_eq!(owner("vip", &nodes, Some("a")), Some("a"));
        nodes.insert("c".to_owned(), Fitness::Alive);
        assert_eq!(owner("vip", &nodes, Some("a")), Some("c"));
        assert_eq!(owner("vip", &BTreeMap::new(), Some("a")), None);
        assert!(owner("vip", &nodes, Some("gone")).is_some());
    }
}
