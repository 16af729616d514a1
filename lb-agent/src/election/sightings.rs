//! What nodes show by their Leases, judged by the moments at which it was *seen* to change: other nodes' clocks are no
//! evidence. No I/O, no clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// A node's Lease, as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sighting {
    /// Name of the node.
    pub node: String,
    /// Another text after each renewal.
    pub stamp: String,
    /// How long it stands for a living node.
    pub duration: Duration,
    /// Fingerprint of the node's secret.
    pub fingerprint: Option<String>,
}

/// The Leases of all nodes, and since when each stands unchanged.
#[derive(Clone, Debug, Default)]
pub struct Sightings(BTreeMap<String, (Sighting, Instant)>);

impl Sightings {
    /// Takes note of all Leases, as they were read at `now`. Those that are not among them are gone.
    pub fn observe(&mut self, seen: Vec<Sighting>, now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        self.0 = seen
            .into_iter()
            .map(|sighting| {
                let known = before.remove(&sighting.node).filter(|(known, _)| known.stamp == sighting.stamp);
                let since = known.map_or(now, |(_, since)| since);
                (sighting.node.clone(), (sighting, since))
            })
            .collect();
    }

    /// Nodes whose Lease was renewed within its duration. One that was seen once only counts: it is not known better.
    #[must_use]
    pub fn alive(&self, now: Instant) -> BTreeSet<&str> {
        let is_fresh =
            |(sighting, since): &&(Sighting, Instant)| now.saturating_duration_since(*since) < sighting.duration;
        self.0.values().filter(is_fresh).map(|(sighting, _)| sighting.node.as_str()).collect()
    }

    /// Living nodes whose secret is another than the one of this fingerprint.
    #[must_use]
    pub fn strangers(&self, fingerprint: &str, now: Instant) -> BTreeSet<&str> {
        let mut alive = self.alive(now);
        alive.retain(|node| {
            let shown = self.0.get(*node).and_then(|(sighting, _)| sighting.fingerprint.as_deref());
            shown.is_some_and(|shown| shown != fingerprint)
        });
        alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(node: &str, stamp: &str) -> Sighting {
        let fingerprint = Some(if node == "c" { "ffffffff" } else { "0a1b2c3d" }.to_owned());
        Sighting { node: node.to_owned(), stamp: stamp.to_owned(), duration: Duration::from_secs(40), fingerprint }
    }

    #[test]
    fn a_node_lives_for_as_long_as_its_lease_is_seen_to_change() {
        let t0 = Instant::now();
        let at = |seconds| t0 + Duration::from_secs(seconds);
        let mut sightings = Sightings::default();
        sightings.observe(vec![sighting("a", "1"), sighting("b", "1"), sighting("c", "1")], at(0));
        sightings.observe(vec![sighting("a", "2"), sighting("b", "1"), sighting("c", "1")], at(30));
        assert_eq!(sightings.alive(at(39)), BTreeSet::from(["a", "b", "c"]));
        assert_eq!(sightings.strangers("0a1b2c3d", at(39)), BTreeSet::from(["c"]));
        assert_eq!(sightings.alive(at(40)), BTreeSet::from(["a"]));
        assert!(sightings.strangers("0a1b2c3d", at(40)).is_empty());
        assert_eq!(sightings.alive(at(70)), BTreeSet::new());
        sightings.observe(vec![sighting("b", "2")], at(71));
        assert_eq!(sightings.alive(at(72)), BTreeSet::from(["b"]));
    }
}
