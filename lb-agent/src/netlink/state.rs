//! What is known of the network, and which neighbours have to be asked for. No sockets, no clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    neighbours::{Key, Neighbour, Trust},
    routes::Hop,
};
use crate::model::{Interface, InterfaceKind, MacAddr, Network, NextHop, network::InterfaceAddress};

/// How soon a neighbour that does not answer is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How soon a stale neighbour is asked to confirm. A stale MAC works until the neighbour changed it without telling,
/// which is found this way.
const CONFIRM: Duration = Duration::from_secs(5);

/// The network as last read.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Links by index.
    pub interfaces: BTreeMap<u32, Interface>,
    /// Addresses, without the announced.
    pub addresses: Vec<InterfaceAddress>,
    neighbours: BTreeMap<Key, Neighbour>,
    /// The way to each wanted address that was looked up; `None` while there is none.
    hops: BTreeMap<IpAddr, Option<Hop>>,
    /// The neighbours on the way, with the last MAC that each had while it was on the way.
    targets: BTreeMap<Key, Target>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Target {
    mac: Option<MacAddr>,
    asked_at: Option<Instant>,
}

impl State {
    /// The snapshot.
    pub fn network(&self) -> Network {
        let next_hops = self.hops.iter().filter_map(|(address, hop)| {
            let hop = (*hop)?;
            let target = self.targets.get(&key(*address, hop))?;
            // The route of a link that has just gone is found missing at the next lookup.
            self.interfaces
                .contains_key(&hop.interface)
                .then_some((*address, NextHop { interface: hop.interface, gateway: hop.gateway, mac: target.mac }))
        });
        Network {
            next_hops: next_hops.collect(),
            interfaces: self.interfaces.clone(),
            addresses: self.addresses.clone(),
        }
    }

    /// Takes one neighbour's entry. Returns whether the snapshot is another one now.
    pub fn set_neighbour(&mut self, key: Key, neighbour: Neighbour) -> bool {
        self.neighbours.insert(key, neighbour);
        let Some(target) = self.targets.get_mut(&key) else {
            return false;
        };
        // An entry without MAC keeps the last one: better a frame to where the neighbour was than none.
        let changed = neighbour.mac.is_some() && neighbour.mac != target.mac;
        if changed {
            target.mac = neighbour.mac;
        }
        changed
    }

    /// Forgets one neighbour's entry.
    pub fn remove_neighbour(&mut self, key: &Key) {
        self.neighbours.remove(key);
    }

    /// Takes all neighbours' entries.
    pub fn set_neighbours(&mut self, neighbours: Vec<(Key, Neighbour)>) {
        self.neighbours.clear();
        for (key, neighbour) in neighbours {
            self.set_neighbour(key, neighbour);
        }
    }

    /// Whether the way to `address` was looked up.
    pub fn knows(&self, address: IpAddr) -> bool {
        self.hops.contains_key(&address)
    }

    /// Takes the results of lookups, and forgets what is no more wanted.
    pub fn set_hops(&mut self, looked_up: Vec<(IpAddr, Option<Hop>)>, wanted: &BTreeSet<IpAddr>) {
        self.hops.extend(looked_up);
        self.hops.retain(|address, _| wanted.contains(address));
        let ways = self.hops.iter().filter_map(|(address, hop)| Some(key(*address, (*hop)?)));
        let target = |key: Key| {
            let known =
                || Target { mac: self.neighbours.get(&key).and_then(|neighbour| neighbour.mac), asked_at: None };
            (key, self.targets.get(&key).copied().unwrap_or_else(known))
        };
        self.targets = ways.map(target).collect();
    }

    /// The neighbours to ask for now, at most `limit`, those first that were asked for the longest ago. They count as
    /// asked from now on.
    pub fn due(&mut self, now: Instant, limit: usize) -> Vec<Key> {
        let mut due: Vec<_> = self
            .targets
            .iter()
            .filter(|(key, target)| self.is_due(key, target, now))
            .map(|(key, target)| (target.asked_at, *key))
            .collect();
        due.sort_unstable();
        due.truncate(limit);
        for (_, key) in &due {
            self.targets.entry(*key).or_default().asked_at = Some(now);
        }
        due.into_iter().map(|(_, key)| key).collect()
    }

    fn is_due(&self, key: &Key, target: &Target, now: Instant) -> bool {
        let resolvable = self.interfaces.get(&key.0).is_some_and(|interface| {
            interface.up && matches!(interface.kind, InterfaceKind::Ethernet | InterfaceKind::Vlan { .. })
        });
        let pause = match self.neighbours.get(key).map_or(Trust::None, |neighbour| neighbour.trust) {
            Trust::Fresh => return false,
            Trust::Stale => CONFIRM,
            Trust::None => ASK_AGAIN,
        };
        resolvable && target.asked_at.is_none_or(|asked_at| now.saturating_duration_since(asked_at) >= pause)
    }
}

/// The neighbour on the way: the router, or the address itself.
fn key(address: IpAddr, hop: Hop) -> Key {
    (hop.interface, hop.gateway.unwrap_or(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn interface(index: u32, kind: InterfaceKind) -> Interface {
        Interface { index, name: format!("eth{index}"), mac: MacAddr::default(), mtu: 1500, up: true, kind }
    }

    fn on_link(interface: u32) -> Option<Hop> {
        Some(Hop { interface, gateway: None })
    }

    fn fresh(mac: MacAddr) -> Neighbour {
        Neighbour { trust: Trust::Fresh, mac: Some(mac) }
    }

    const FAILED: Neighbour = Neighbour { trust: Trust::None, mac: None };

    /// A node with two interfaces that wants one address, on the link of the first.
    fn state() -> State {
        let interfaces = [1, 2].map(|index| (index, interface(index, InterfaceKind::Ethernet))).into();
        let mut state = State { interfaces, ..State::default() };
        state.set_hops(vec![(ADDRESS, on_link(1))], &[ADDRESS].into());
        state
    }

    fn way(state: &State) -> Option<NextHop> {
        state.network().next_hops.get(&ADDRESS).copied()
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_way_appears_before_its_mac_and_changes_with_it() {
        let mut state = state();
        assert_eq!(way(&state), Some(NextHop { interface: 1, gateway: None, mac: None }));
        assert!(state.set_neighbour((1, ADDRESS), fresh(MAC)));
        assert_eq!(way(&state).unwrap().mac, Some(MAC));
        assert!(!state.set_neighbour((1, ADDRESS), fresh(MAC)), "the same again is no change");
        assert!(state.set_neighbour((1, ADDRESS), fresh(OTHER_MAC)));
        assert_eq!(way(&state).unwrap().mac, Some(OTHER_MAC));
    }

    #[test]
    fn a_neighbour_that_falls_silent_keeps_its_mac_while_the_way_stands() {
        let mut state = state();
        state.set_neighbour((1, ADDRESS), fresh(MAC));
        assert!(!state.set_neighbour((1, ADDRESS), FAILED));
        state.remove_neighbour(&(1, ADDRESS));
        state.set_neighbours(vec![]);
        assert_eq!(way(&state).unwrap().mac, Some(MAC));

        state.set_hops(vec![(ADDRESS, on_link(2))], &[ADDRESS].into());
        assert_eq!(way(&state), Some(NextHop { interface: 2, gateway: None, mac: None }));
        state.set_hops(vec![(ADDRESS, on_link(1))], &[ADDRESS].into());
        assert_eq!(way(&state).unwrap().mac, None, "the way had not stood all the time");
    }

    #[test]
    fn behind_a_router_the_routers_mac_counts() {
        let mut state = state();
        state.set_neighbour((1, ROUTER), fresh(MAC));
        state.set_hops(vec![(ADDRESS, Some(Hop { interface: 1, gateway: Some(ROUTER) }))], &[ADDRESS].into());
        assert_eq!(way(&state), Some(NextHop { interface: 1, gateway: Some(ROUTER), mac: Some(MAC) }));
    }

    #[test]
    fn no_way_without_route_interface_or_wish() {
        let mut state = state();
        state.set_hops(vec![(ADDRESS, None)], &[ADDRESS].into());
        assert_eq!(way(&state), None);
        assert!(state.knows(ADDRESS));

        state.set_hops(vec![(ADDRESS, on_link(3))], &[ADDRESS].into());
        assert_eq!(way(&state), None, "there is no such interface");

        state.set_hops(vec![], &BTreeSet::new());
        assert!(!state.knows(ADDRESS));
    }

    #[test]
    fn a_neighbour_is_asked_for_at_once_then_every_second_until_it_answers() {
        let (mut state, t0) = (state(), Instant::now());
        assert_eq!(state.due(t0, 10), [(1, ADDRESS)]);
        assert_eq!(state.due(t0 + Duration::from_millis(999), 10), []);
        assert_eq!(state.due(t0 + secs(1), 10), [(1, ADDRESS)]);
        state.set_neighbour((1, ADDRESS), FAILED);
        assert_eq!(state.due(t0 + secs(2), 10), [(1, ADDRESS)]);
        state.set_neighbour((1, ADDRESS), fresh(MAC));
        assert_eq!(state.due(t0 + secs(60), 10), []);
    }

    #[test]
    fn a_stale_neighbour_is_asked_every_five_seconds() {
        let (mut state, t0) = (state(), Instant::now());
        state.set_neighbour((1, ADDRESS), Neighbour { trust: Trust::Stale, mac: Some(MAC) });
        assert_eq!(state.due(t0, 10), [(1, ADDRESS)]);
        assert_eq!(state.due(t0 + secs(4), 10), []);
        assert_eq!(state.due(t0 + secs(5), 10), [(1, ADDRESS)]);
    }

    #[test]
    fn nobody_is_asked_for_where_nobody_can_answer() {
        for (kind, up) in
            [(InterfaceKind::Loopback, true), (InterfaceKind::Other, true), (InterfaceKind::Ethernet, false)]
        {
            let mut state = state();
            state.interfaces.insert(1, Interface { up, ..interface(1, kind) });
            assert_eq!(state.due(Instant::now(), 10), [], "{kind:?}, up: {up}");
        }
    }

    #[test]
    fn the_longest_waiting_are_asked_first() {
        let (mut state, t0) = (state(), Instant::now());
        assert_eq!(state.due(t0, 10), [(1, ADDRESS)]);
        state.set_hops(vec![(ROUTER, on_link(1))], &[ADDRESS, ROUTER].into());
        assert_eq!(state.due(t0 + secs(1), 1), [(1, ROUTER)]);
        assert_eq!(state.due(t0 + secs(1), 1), [(1, ADDRESS)]);
    }
}
