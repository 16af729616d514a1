//! Which servers are next hops: those that answer; the last ones while none does.
//!
//! Invariants: once there are next hops there are always some; nothing is said before every server that was known first has
//! a verdict, so that a new leader takes nobody's next hop away for want of an answer.

use std::{collections::BTreeSet, net::IpAddr};

use crate::model::ProbeState;

/// The next hops until now.
#[derive(Debug, Default)]
pub(super) struct Hops {
    last: BTreeSet<IpAddr>,
    /// Every server had a verdict once.
    is_settled: bool,
}

impl Hops {
    /// The next hops with these servers, whose state is `None` if they are not probed; `None` while nothing can be said.
    pub(super) fn next(
        &mut self,
        servers: &BTreeSet<IpAddr>,
        state: impl Fn(IpAddr) -> Option<ProbeState>,
    ) -> Option<BTreeSet<IpAddr>> {
        let is_unknown = |server: &IpAddr| state(*server) == Some(ProbeState::Unknown);
        if !self.is_settled && servers.iter().any(is_unknown) {
            return None;
        }
        self.is_settled |= !servers.is_empty();
        let answers = |server: &IpAddr| state(*server).is_none_or(|state| state.takes_flows());
        let good = servers.iter().filter(|server| answers(server) && !is_unknown(server));
        let good: BTreeSet<_> = good.copied().collect();
        if !good.is_empty() {
            self.last = good;
        }
        Some(self.last.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: ProbeState = ProbeState::Healthy;
    const NEW: ProbeState = ProbeState::Unknown;

    fn bad() -> ProbeState {
        ProbeState::Failed { reason: "refused".to_owned(), port_open: false }
    }

    fn address(last: usize) -> IpAddr {
        IpAddr::from([10, 0, 0, u8::try_from(last).unwrap()])
    }

    /// The next hops with servers 1, 2, .. in these states, by their numbers.
    fn next(hops: &mut Hops, states: &[ProbeState]) -> Option<Vec<usize>> {
        let servers = (1..=states.len()).map(address).collect();
        let state =
            |server| (1..).zip(states).find(|(last, _)| address(*last) == server).map(|(_, state)| state.clone());
        let next = hops.next(&servers, state)?;
        Some((1..=9).filter(|last| next.contains(&address(*last))).collect())
    }

    #[test]
    fn the_first_next_hops_wait_for_every_verdict() {
        let mut hops = Hops::default();
        assert_eq!(next(&mut hops, &[NEW, GOOD, NEW]), None);
        assert_eq!(next(&mut hops, &[bad(), GOOD, NEW]), None);
        assert_eq!(next(&mut hops, &[bad(), GOOD, GOOD]), Some(vec![2, 3]));
    }

    #[test]
    fn a_server_is_a_next_hop_while_it_answers() {
        let mut hops = Hops::default();
        let refuses = ProbeState::WantsCredentials { reason: "401".to_owned() };
        assert_eq!(next(&mut hops, &[GOOD, refuses]), Some(vec![1, 2]));
        assert_eq!(next(&mut hops, &[GOOD, GOOD, NEW]), Some(vec![1, 2]), "a new one has to answer first");
        assert_eq!(next(&mut hops, &[GOOD, bad(), GOOD]), Some(vec![1, 3]));
        assert_eq!(next(&mut hops, &[GOOD]), Some(vec![1]));
    }

    #[test]
    fn the_last_stay_while_none_answers() {
        let mut hops = Hops::default();
        assert_eq!(next(&mut hops, &[bad(), bad()]), Some(vec![]), "there were none ever");
        assert_eq!(next(&mut hops, &[bad(), GOOD]), Some(vec![2]));
        assert_eq!(next(&mut hops, &[bad(), bad()]), Some(vec![2]));
        assert_eq!(next(&mut hops, &[NEW]), Some(vec![2]));
        assert_eq!(next(&mut hops, &[]), Some(vec![2]));
        assert_eq!(next(&mut hops, &[GOOD, bad()]), Some(vec![1]));
    }

    #[test]
    fn without_a_probe_every_server_is_one() {
        let servers = BTreeSet::from([address(1), address(2)]);
        assert_eq!(Hops::default().next(&servers, |_| None), Some(servers));
    }
}
