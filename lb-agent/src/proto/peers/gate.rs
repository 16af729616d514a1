//! Whether a node may draw traffic, by what its peers say.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::fsm::Settings;
use crate::model::{Gate, Member, MemberState};

/// How long peers have to answer at the start before none is taken for alive: one lost question and its repetition.
const ASKING: Duration = Duration::from_secs(1);

/// What the peers say.
pub(super) struct Verdict {
    /// The node may begin to announce.
    pub(super) admits: bool,
    /// Live peers that do not know it.
    pub(super) not_known_to: Vec<String>,
    /// A larger part of the cluster has another secret.
    outvoted: Option<Gate>,
}

impl Verdict {
    /// The gate of a node that has been admitted, now or before, or has not.
    pub(super) fn gate(&self, is_admitted: bool) -> Gate {
        match &self.outvoted {
            Some(outvoted) => outvoted.clone(),
            None if is_admitted => Gate::Open,
            None if self.not_known_to.is_empty() => Gate::Asking,
            None => Gate::Unknown(self.not_known_to.clone()),
        }
    }
}

/// Moments at which the verdict changes by itself.
pub(super) fn ends(begun: Instant, settings: &Settings) -> [Instant; 2] {
    [begun + ASKING, begun + settings.known_within]
}

/// Judges what is heard of the peers of node `me`, so long after its agent began.
pub(super) fn judge(peers: &BTreeMap<String, Member>, me: &str, age: Duration, settings: &Settings) -> Verdict {
    let is_heard = |member: &Member| member.state == MemberState::Heard;
    let not_known = peers.iter().filter(|(_, member)| is_heard(member) && member.knows_us == Some(false));
    let not_known_to: Vec<String> = not_known.map(|(name, _)| name.clone()).collect();
    let all_answered = peers.values().all(is_heard);
    Verdict {
        admits: age >= settings.known_within || (not_known_to.is_empty() && (all_answered || age >= ASKING)),
        outvoted: outvoted(peers, me),
        not_known_to,
    }
}

/// Whether more nodes are heard with one other secret than with this node's; of two equal parts the one with the first
/// name goes on, or all would stop.
fn outvoted(peers: &BTreeMap<String, Member>, me: &str) -> Option<Gate> {
    let mut parts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut ours = vec![me];
    for (name, member) in peers {
        match &member.state {
            MemberState::Heard => ours.push(name),
            MemberState::Stranger { fingerprint } => parts.entry(fingerprint).or_default().push(name),
            MemberState::Unknown | MemberState::Left | MemberState::Silent { .. } => {}
        }
    }
    // More is better, then the first name.
    let rank = |part: &[&str]| (part.len(), std::cmp::Reverse(part.iter().min().map(|name| (*name).to_owned())));
    let (fingerprint, by) = parts.into_iter().max_by_key(|(_, part)| rank(part))?;
    let is_outvoted = rank(&by) > rank(&ours);
    let by = by.into_iter().map(str::to_owned).collect();
    is_outvoted.then(|| Gate::Outvoted { fingerprint: fingerprint.to_owned(), by })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(state: MemberState, knows_us: Option<bool>) -> Member {
        Member { addresses: Vec::new(), state, knows_us }
    }

    fn peers(states: &[(&str, MemberState, Option<bool>)]) -> BTreeMap<String, Member> {
        let named = |(name, state, knows): &(&str, MemberState, Option<bool>)| {
            ((*name).to_owned(), member(state.clone(), *knows))
        };
        states.iter().map(named).collect()
    }

    fn stranger(fingerprint: &str) -> MemberState {
        MemberState::Stranger { fingerprint: fingerprint.to_owned() }
    }

    #[test]
    fn a_node_is_admitted_when_its_live_peers_know_it_or_time_is_over() {
        use MemberState::{Heard, Unknown};
        let known = ("b", Heard, Some(true));
        let unknown = ("c", Heard, Some(false));
        let mute = ("d", Unknown, None);
        for (name, states, age, admits) in [
            ("nobody else", vec![], 0, true),
            ("all know it", vec![known.clone()], 0, true),
            ("one has not answered", vec![known.clone(), mute.clone()], 999, false),
            ("one does not answer", vec![known.clone(), mute.clone()], 1_000, true),
            ("nobody answers", vec![mute], 1_000, true),
            ("one does not know it", vec![known.clone(), unknown.clone()], 4_999, false),
            ("one does not know it for long", vec![known, unknown], 5_000, true),
        ] {
            let verdict = judge(&peers(&states), "a", Duration::from_millis(age), &Settings::default());
            assert_eq!(verdict.admits, admits, "{name}");
        }
    }

    #[test]
    fn the_smaller_part_with_another_secret_stops_and_of_equal_ones_just_one() {
        use MemberState::{Heard, Left};
        let outvoted = |me, states: Vec<_>| outvoted(&peers(&states), me).is_some();
        assert!(!outvoted("a", part(&["b", "c"], &Heard)));
        assert!(outvoted("a", part(&["b", "c"], &stranger("x"))), "one against two");
        assert!(!outvoted("b", [part(&["c"], &Heard), part(&["a"], &stranger("x"))].concat()), "two against one");
        assert!(!outvoted("a", part(&["b"], &stranger("x"))) && outvoted("b", part(&["a"], &stranger("x"))));
        let apart = [part(&["b"], &stranger("x")), part(&["c"], &stranger("y"))].concat();
        assert!(!outvoted("a", apart), "three parts of one each");
        let apart = [part(&["a"], &stranger("x")), part(&["c"], &stranger("y"))].concat();
        assert!(outvoted("b", apart));
        assert!(outvoted("c", [part(&["a", "b"], &stranger("x")), part(&["d"], &Left)].concat()));
    }

    fn part(names: &[&'static str], state: &MemberState) -> Vec<(&'static str, MemberState, Option<bool>)> {
        names.iter().map(|name| (*name, state.clone(), Some(true))).collect()
    }
}
