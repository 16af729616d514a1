//! The steps from what the maps hold to what they should hold.
//!
//! Order: what rings will refer to, then rings, then the words that put them in force, then services; removals the
//! other way round and only behind a grace period, so that a packet that read an old word still finds all it names.
//! After any prefix of the steps no packet meets a service without its ring or a ring without its backends.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    addr::IpAddr16,
    hash::filter_bit,
    maglev::Member,
    maps::{addresses::AddressEntry, services::VipKey},
};

mod carry_over;
mod redirects;
mod rings;
mod services;
mod sources;

pub use carry_over::{CarriedOver, Translation, carry_over};

use super::state::{MapOp, MapState, Rings, TargetService, TargetState};
use crate::model::Shared;

/// A target that the maps have no room for. Nothing of it is performed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A map is too small.
    #[error(
        "map {map} is full: {needed} entries are needed, it has {size}; raise `capacities.{key}` and restart the agent"
    )]
    MapFull {
        /// Name of the map.
        map: &'static str,
        /// Entries that would be needed.
        needed: usize,
        /// Entries it has.
        size: u32,
        /// The configuration key that sets its size.
        key: &'static str,
    },
    /// The arena has no region that is long enough.
    #[error(
        "the ring arena has no room for a ring of {slots} slots beside those in force ({free} slots free, longest region \
         {longest}); raise `capacities.ringSlots` and restart the agent"
    )]
    ArenaFull {
        /// Slots of the ring.
        slots: u32,
        /// Slots that are free.
        free: u32,
        /// The longest free region.
        longest: u32,
    },
}

/// Steps towards a target.
#[derive(Debug, PartialEq)]
pub struct Portion {
    /// The steps.
    pub steps: Vec<MapOp>,
    /// Whether they lead to the target.
    pub is_last: bool,
}

/// Services that have something to do, with their targets.
type Busy<'t> = [(&'t VipKey, &'t Shared<TargetService>)];

/// Lists the steps that turn `state` into `target`, and the state after them. `rings` are those in force, `now` is in
/// nanoseconds of `CLOCK_MONOTONIC`.
///
/// # Errors
/// [`PlanError`] if a map is too small; then nothing is to be done.
pub fn operations(
    state: &MapState,
    target: &TargetState,
    rings: &dyn Rings,
    now: u64,
) -> Result<(Vec<MapOp>, MapState), PlanError> {
    let mut after = state.clone();
    some_of(&mut after, target, rings, now, |_, _, _| false).map(|portion| (portion.steps, after))
}

/// As [`operations`], with `state` turned into that after the steps, but ends with the service whose ring makes the steps
/// write `slots` slots: rings of thousands of services at once would take gigabytes. It ends as well where a ring has no
/// room but in the place of those that this portion replaces. The rest is for the next portion.
///
/// # Errors
/// [`PlanError`] if a map is too small; then nothing is to be done, and `state` may not be that of the maps any more.
pub fn portion(
    state: &mut MapState,
    target: &TargetState,
    rings: &dyn Rings,
    now: u64,
    slots: usize,
) -> Result<Portion, PlanError> {
    some_of(state, target, rings, now, |plan, key, service| {
        plan.slots_written >= slots || plan.is_in_its_own_way(key, service)
    })
}

/// The steps up to the service before which the plan ends.
fn some_of(
    state: &mut MapState,
    target: &TargetState,
    rings: &dyn Rings,
    now: u64,
    ends_before: impl Fn(&Plan<'_>, &VipKey, &TargetService) -> bool,
) -> Result<Portion, PlanError> {
    let busy = busy(state, target);
    check_sizes(state, target, &busy)?;
    let mut plan = Plan::new(state, rings, now);
    plan.addresses(target);
    plan.devices_and_peers(target);
    plan.redirects(target);
    for (key, service) in busy {
        if ends_before(&plan, key, service) {
            return Ok(Portion { steps: plan.finish(), is_last: false });
        }
        plan.service(*key, service)?;
    }
    for key in gone(plan.state, target) {
        plan.remove_service(key);
    }
    plan.forget_source_ranges();
    plan.forget_rewrites(target);
    plan.forget_addresses(target);
    plan.forget_devices_and_peers(target);
    Ok(Portion { steps: plan.finish(), is_last: true })
}

/// The services of a target that do not rest, in their order.
fn busy<'t>(state: &MapState, target: &'t TargetState) -> Vec<(&'t VipKey, &'t Shared<TargetService>)> {
    let mut known = state.services.iter().peekable();
    let mut rests = |key: &VipKey, wanted: &Shared<TargetService>| {
        while known.next_if(|(known, _)| *known < key).is_some() {}
        known.next_if(|(known, _)| *known == key).is_some_and(|(_, known)| known.rests(wanted))
    };
    target.services.iter().filter(|(key, wanted)| !rests(key, wanted)).collect()
}

fn check_sizes(state: &MapState, target: &TargetState, busy: &Busy<'_>) -> Result<(), PlanError> {
    let fits = |map, needed: usize, size: u32, key| {
        if needed > size as usize { Err(PlanError::MapFull { map, needed, size, key }) } else { Ok(()) }
    };
    fits("SERVICES", union(&state.services, &target.services), state.sizes.services, "services")?;
    fits("ADDRESSES", union(&state.addresses, &target.addresses), state.sizes.addresses, "addresses")?;
    fits("PEERS", union(&state.peers, &target.peers), state.sizes.peers, "peers")?;
    fits("PEER_MACS", union(&state.peer_macs, &target.peer_macs), state.sizes.peers, "peers")?;
    fits("REWRITES", union(&state.rewrites, &target.rewrites), state.sizes.services, "services")?;
    fits("TRANSLATIONS", union(&state.translations, &target.translations), state.sizes.services, "services")?;
    sources::check(state, busy)?;
    fits("BACKENDS", backends(state, busy), state.sizes.backends, "backends")
}

/// How many keys are in either map.
fn union<K: Ord, A, B>(old: &BTreeMap<K, A>, new: &BTreeMap<K, B>) -> usize {
    let (mut old, mut all) = (old.keys().peekable(), new.len());
    for key in new.keys() {
        while old.next_if(|old| *old < key).is_some() {
            all += 1;
        }
        old.next_if(|old| *old == key);
    }
    all + old.count()
}

/// Entries of `BACKENDS` that are in use until the old ones are forgotten.
fn backends(state: &MapState, busy: &Busy<'_>) -> usize {
    let new = |(key, wanted): &(&VipKey, &Shared<TargetService>)| match state.services.get(*key) {
        Some(known) => union(&known.backends, &wanted.backends) - known.backends.len(),
        None => wanted.backends.len(),
    };
    state.sizes.backends as usize - state.free_backends.len() + busy.iter().map(new).sum::<usize>()
}

/// Services that have no target, once all that have one are entered.
fn gone(state: &MapState, target: &TargetState) -> Vec<VipKey> {
    if state.services.len() == target.services.len() {
        return Vec::new();
    }
    state.services.keys().filter(|key| !target.services.contains_key(*key)).copied().collect()
}

struct Plan<'a> {
    /// The state as it will be.
    state: &'a mut MapState,
    /// The rings in force.
    arena: &'a dyn Rings,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    now: u64,
    /// Steps in front of the grace period.
    before: Vec<MapOp>,
    /// Steps behind it.
    after: Vec<MapOp>,
    /// Regions of the arena that are free behind the grace period: offset and slots.
    given: Vec<(u32, u32)>,
    /// Whether a packet under way may still refer to what `before` took out of force.
    grace: bool,
    /// Slots of rings that `before` writes.
    slots_written: usize,
    /// Rings built in this plan, so that services with the same backends share the work.
    rings: BTreeMap<(Vec<Member>, u8), Vec<u32>>,
}

impl<'a> Plan<'a> {
    fn new(state: &'a mut MapState, arena: &'a dyn Rings, now: u64) -> Self {
        Self {
            state,
            arena,
            now,
            before: Vec::new(),
            after: Vec::new(),
            given: Vec::new(),
            grace: false,
            slots_written: 0,
            rings: BTreeMap::new(),
        }
    }

    fn finish(mut self) -> Vec<MapOp> {
        if self.grace || !self.after.is_empty() {
            self.before.push(MapOp::Grace);
        }
        self.before.append(&mut self.after);
        for (offset, slots) in self.given {
            self.state.arena.give(offset, slots);
        }
        self.before
    }

    /// Enters addresses; what is a VIP stays one until [`Self::forget_addresses`].
    fn addresses(&mut self, target: &TargetState) {
        if self.state.addresses == target.addresses {
            return;
        }
        let is_vip = |flags: u32| AddressEntry { flags }.has(AddressEntry::VIP);
        let bits = filter_bits(&self.state.addresses);
        for (address, flags) in &target.addresses {
            let known = self.state.addresses.get(address);
            if known != Some(flags) && !known.is_some_and(|known| is_vip(*known) && !is_vip(*flags)) {
                self.enter_address(*address, *flags);
            }
        }
        self.before.extend(filter_bits(&target.addresses).difference(&bits).map(|bit| MapOp::FilterAdd(*bit)));
    }

    fn enter_address(&mut self, address: IpAddr16, flags: u32) {
        self.before.push(MapOp::Address(address, AddressEntry { flags }));
        self.state.addresses.insert(address, flags);
    }

    /// Lets go of addresses that no service needs any more.
    fn forget_addresses(&mut self, target: &TargetState) {
        if self.state.addresses == target.addresses {
            return;
        }
        let bits = filter_bits(&self.state.addresses);
        for (address, flags) in &target.addresses {
            if self.state.addresses.get(address) != Some(flags) {
                self.enter_address(*address, *flags);
            }
        }
        self.after.extend(bits.difference(&filter_bits(&target.addresses)).map(|bit| MapOp::FilterRemove(*bit)));
        for address in self.state.addresses.keys().filter(|address| !target.addresses.contains_key(*address)) {
            self.after.push(MapOp::RemoveAddress(*address));
        }
        self.state.addresses.clone_from(&target.addresses);
    }

    /// Enters settings, devices and peers.
    fn devices_and_peers(&mut self, target: &TargetState) {
        let state = &mut self.state;
        self.before.extend(target.devices.difference(&state.devices).map(|device| MapOp::Device(*device)));
        for (address, id) in &target.peers {
            if state.peers.insert(*address, *id) != Some(*id) {
                self.before.push(MapOp::Peer(*address, *id));
            }
        }
        for (mac, id) in &target.peer_macs {
            if state.peer_macs.insert(*mac, *id) != Some(*id) {
                self.before.push(MapOp::PeerMac(*mac, *id));
            }
        }
        if state.settings != target.settings {
            self.before.push(MapOp::Settings(target.settings));
        }
        state.settings = target.settings;
        state.devices.extend(&target.devices);
    }

    /// Lets go of devices and peers that are not needed any more.
    fn forget_devices_and_peers(&mut self, target: &TargetState) {
        let state = &mut self.state;
        self.after.extend(state.devices.difference(&target.devices).map(|device| MapOp::RemoveDevice(*device)));
        let gone = |keep: bool, op| if keep { None } else { Some(op) };
        self.after.extend(state.peers.keys().filter_map(|a| gone(target.peers.contains_key(a), MapOp::RemovePeer(*a))));
        let macs = state.peer_macs.keys();
        self.after.extend(macs.filter_map(|mac| gone(target.peer_macs.contains_key(mac), MapOp::RemovePeerMac(*mac))));
        state.devices.clone_from(&target.devices);
        state.peers.clone_from(&target.peers);
        state.peer_macs.clone_from(&target.peer_macs);
    }
}

/// Bits of the filter that the VIPs among these addresses need.
fn filter_bits(addresses: &BTreeMap<IpAddr16, u32>) -> BTreeSet<u32> {
    let vips = addresses.iter().filter(|(_, flags)| AddressEntry { flags: **flags }.has(AddressEntry::VIP));
    vips.map(|(address, _)| filter_bit(address)).collect()
}
