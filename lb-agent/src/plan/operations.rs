//! The steps from what the maps hold to what they should hold.
//!
//! Order: what rings will refer to, then rings, then the words that put them in force, then services; removals the
//! other way round and only behind a grace period, so that a packet that read an old word still finds all it names.
//! After any prefix of the steps no packet meets a service without its ring or a ring without its backends.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    addr::{BackendId, Be16, IpAddr16},
    hash::filter_bit,
    maglev::{self, Member},
    maps::{
        addresses::AddressEntry,
        backends::Head,
        names::{BackendInfo, NAME_LEN, ServiceInfo},
        published::RingWord,
        services::VipKey,
    },
};

use super::state::{
    BackendState, MapOp, MapState, RingOrigin, ServiceState, TargetBackend, TargetService, TargetState,
};

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

/// Lists the steps that turn `state` into `target`, and the state after them.
///
/// # Errors
/// [`PlanError`] if a map is too small; then nothing is to be done.
pub fn operations(state: &MapState, target: &TargetState) -> Result<(Vec<MapOp>, MapState), PlanError> {
    check_sizes(state, target)?;
    let mut plan = Plan {
        state: state.clone(),
        before: Vec::new(),
        after: Vec::new(),
        given: Vec::new(),
        grace: false,
        rings: BTreeMap::new(),
    };
    plan.addresses(target);
    plan.devices_and_peers(target);
    for (key, service) in &target.services {
        plan.service(*key, service)?;
    }
    let gone: Vec<VipKey> = state
        .services
        .keys()
        .filter(|key| !target.services.contains_key(*key))
        .copied()
        .collect();
    for key in gone {
        plan.remove_service(key);
    }
    Ok(plan.finish())
}

fn check_sizes(state: &MapState, target: &TargetState) -> Result<(), PlanError> {
    let fits = |map, needed: usize, size: u32, key| {
        if needed > size as usize {
            Err(PlanError::MapFull { map, needed, size, key })
        } else {
            Ok(())
        }
    };
    let union = |old: &BTreeMap<IpAddr16, u32>, new: &BTreeMap<IpAddr16, u32>| {
        old.keys().chain(new.keys()).collect::<BTreeSet<_>>().len()
    };
    let services = state
        .services
        .keys()
        .chain(target.services.keys())
        .collect::<BTreeSet<_>>()
        .len();
    fits("SERVICES", services, state.sizes.services, "services")?;
    fits(
        "ADDRESSES",
        union(&state.addresses, &target.addresses),
        state.sizes.addresses,
        "addresses",
    )?;
    fits("PEERS", union(&state.peers, &target.peers), state.sizes.peers, "peers")?;
    let macs = state
        .peer_macs
        .keys()
        .chain(target.peer_macs.keys())
        .collect::<BTreeSet<_>>()
        .len();
    fits("PEER_MACS", macs, state.sizes.peers, "peers")?;
    fits("BACKENDS", backends(state, target), state.sizes.backends, "backends")
}

/// Entries of `BACKENDS` that are in use until the old ones are forgotten.
fn backends(state: &MapState, target: &TargetState) -> usize {
    let old = state
        .services
        .iter()
        .flat_map(|(key, service)| service.backends.keys().map(move |backend| (key, backend)));
    let new = target
        .services
        .iter()
        .flat_map(|(key, service)| service.backends.keys().map(move |backend| (key, backend)));
    old.chain(new).collect::<BTreeSet<_>>().len()
}

struct Plan {
    /// The state as it will be.
    state: MapState,
    /// Steps in front of the grace period.
    before: Vec<MapOp>,
    /// Steps behind it.
    after: Vec<MapOp>,
    /// Regions of the arena that are free behind the grace period: offset and slots.
    given: Vec<(u32, u32)>,
    /// Whether a packet under way may still refer to what `before` took out of force.
    grace: bool,
    /// Rings built in this plan, so that services with the same backends share the work.
    rings: BTreeMap<(Vec<Member>, u8), Vec<u32>>,
}

impl Plan {
    fn finish(mut self) -> (Vec<MapOp>, MapState) {
        if self.grace || !self.after.is_empty() {
            self.before.push(MapOp::Grace);
        }
        self.before.append(&mut self.after);
        for (offset, slots) in self.given {
            self.state.arena.give(offset, slots);
        }
        (self.before, self.state)
    }

    fn addresses(&mut self, target: &TargetState) {
        for (address, flags) in &target.addresses {
            if self.state.addresses.get(address) != Some(flags) {
                self.before
                    .push(MapOp::Address(*address, AddressEntry { flags: *flags }));
            }
        }
        let (old, new) = (filter_bits(&self.state.addresses), filter_bits(&target.addresses));
        self.before
            .extend(new.difference(&old).map(|bit| MapOp::FilterAdd(*bit)));
        self.after
            .extend(old.difference(&new).map(|bit| MapOp::FilterRemove(*bit)));
        for address in self
            .state
            .addresses
            .keys()
            .filter(|address| !target.addresses.contains_key(*address))
        {
            self.after.push(MapOp::RemoveAddress(*address));
        }
        self.state.addresses.clone_from(&target.addresses);
    }

    fn devices_and_peers(&mut self, target: &TargetState) {
        let state = &mut self.state;
        self.before.extend(
            target
                .devices
                .difference(&state.devices)
                .map(|device| MapOp::Device(*device)),
        );
        self.after.extend(
            state
                .devices
                .difference(&target.devices)
                .map(|device| MapOp::RemoveDevice(*device)),
        );
        for (address, id) in &target.peers {
            if state.peers.get(address) != Some(id) {
                self.before.push(MapOp::Peer(*address, *id));
            }
        }
        for (mac, id) in &target.peer_macs {
            if state.peer_macs.get(mac) != Some(id) {
                self.before.push(MapOp::PeerMac(*mac, *id));
            }
        }
        if state.settings != target.settings {
            self.before.push(MapOp::Settings(target.settings));
        }
        let gone = |keep: bool, op| if keep { None } else { Some(op) };
        self.after.extend(
            state
                .peers
                .keys()
                .filter_map(|a| gone(target.peers.contains_key(a), MapOp::RemovePeer(*a))),
        );
        let macs = state.peer_macs.keys();
        self.after
            .extend(macs.filter_map(|mac| gone(target.peer_macs.contains_key(mac), MapOp::RemovePeerMac(*mac))));
        state.settings = target.settings;
        state.devices.clone_from(&target.devices);
        state.peers.clone_from(&target.peers);
        state.peer_macs.clone_from(&target.peer_macs);
    }

    fn service(&mut self, key: VipKey, target: &TargetService) -> Result<(), PlanError> {
        let known = self.state.services.remove(&key);
        let is_new = known.is_none();
        let mut service = match known {
            Some(service) => service,
            None => self.new_service()?,
        };
        if is_new || service.name != target.name {
            service.name.clone_from(&target.name);
            self.before.push(MapOp::ServiceInfo {
                index: service.index,
                info: Box::new(info(key, &target.name)),
            });
        }
        self.backends(&mut service, target)?;
        self.ring(&mut service, target, is_new)?;
        if is_new {
            self.before.push(MapOp::Service {
                key,
                index: service.index,
            });
        }
        self.state.services.insert(key, service);
        Ok(())
    }

    fn new_service(&mut self) -> Result<ServiceState, PlanError> {
        let size = self.state.sizes.services;
        let full = PlanError::MapFull {
            map: "SERVICES",
            needed: size as usize + 1,
            size,
            key: "services",
        };
        let index = self.state.free_services.pop_first().ok_or(full)?;
        self.before.push(MapOp::ResetService { index });
        Ok(ServiceState {
            index,
            name: String::new(),
            word: RingWord::default(),
            ring: RingOrigin::Members(Vec::new()),
            backends: BTreeMap::new(),
        })
    }

    /// Enters new backends, moves known ones to their new hop, and lets go of the rest behind the grace period.
    fn backends(&mut self, service: &mut ServiceState, target: &TargetService) -> Result<(), PlanError> {
        for (identity, wanted) in &target.backends {
            let known = service.backends.get(identity).copied();
            let state = match known {
                Some(known) => self.change_backend(service.index, *identity, known, wanted),
                None => self.new_backend(service.index, *identity, wanted)?,
            };
            service.backends.insert(*identity, state);
        }
        let gone: Vec<_> = service
            .backends
            .keys()
            .filter(|id| !target.backends.contains_key(*id))
            .copied()
            .collect();
        for identity in gone {
            if let Some(state) = service.backends.remove(&identity) {
                self.forget_backend(state.id);
            }
        }
        Ok(())
    }

    fn new_backend(
        &mut self,
        service: u32,
        identity: (IpAddr16, Be16),
        wanted: &TargetBackend,
    ) -> Result<BackendState, PlanError> {
        let size = self.state.sizes.backends;
        let full = PlanError::MapFull {
            map: "BACKENDS",
            needed: size as usize + 1,
            size,
            key: "backends",
        };
        let (index, last) = self.state.free_backends.pop_front().ok_or(full)?;
        let generation = if last >= BackendId::LAST_GENERATION {
            1
        } else {
            last + 1
        };
        let id = BackendId::new(index, generation);
        let info = backend_info(service, identity, wanted, id);
        self.before.push(MapOp::Backend {
            id,
            info,
            hop: wanted.hop,
        });
        let head = Head::new(generation, 0);
        Ok(BackendState {
            id,
            weight: wanted.weight,
            in_ring: wanted.in_ring,
            head,
            hop: wanted.hop,
        })
    }

    fn change_backend(
        &mut self,
        service: u32,
        identity: (IpAddr16, Be16),
        mut state: BackendState,
        wanted: &TargetBackend,
    ) -> BackendState {
        if state.hop != wanted.hop {
            state.head = Head::new(state.head.generation(), 1 - state.head.active());
            state.hop = wanted.hop;
            self.before.push(MapOp::Hop {
                index: state.id.index(),
                head: state.head,
                hop: state.hop,
            });
            self.grace = true; // the hop that is at rest now is written again by the next plan
        }
        if (state.weight, state.in_ring) != (wanted.weight, wanted.in_ring) {
            let info = backend_info(service, identity, wanted, state.id);
            self.before.push(MapOp::BackendInfo {
                index: state.id.index(),
                info,
            });
            (state.weight, state.in_ring) = (wanted.weight, wanted.in_ring);
        }
        state
    }

    fn forget_backend(&mut self, id: BackendId) {
        self.after.push(MapOp::ForgetBackend {
            index: id.index(),
            generation: id.generation(),
        });
        self.state.free_backends.push_back((id.index(), id.generation()));
    }

    /// Builds the ring if its owners changed, and publishes what changed.
    fn ring(&mut self, service: &mut ServiceState, target: &TargetService, is_new: bool) -> Result<(), PlanError> {
        let (members, ids) = takers(service);
        let log2 = if members.is_empty() { 0 } else { target.log2 };
        let slots = if members.is_empty() { 0 } else { 1u32 << log2 };
        let keeps_ring = !is_new && self.is_in_force(service, &members, &ids, log2);
        service.ring = RingOrigin::Members(members.clone());
        if keeps_ring && service.word.is_held() == target.held {
            return Ok(());
        }
        let offset = if keeps_ring {
            service.word.offset()
        } else {
            self.place_ring(service, members, &ids, log2, slots)?
        };
        let generation = service.word.generation().wrapping_add(1);
        service.word = RingWord::new(offset, log2, target.held, generation);
        self.before.push(MapOp::Publish {
            service: service.index,
            word: service.word,
        });
        Ok(())
    }

    /// Whether the service's ring is the one that these members make.
    fn is_in_force(&mut self, service: &ServiceState, members: &[Member], ids: &[BackendId], log2: u8) -> bool {
        if service.word.is_empty() || members.is_empty() {
            return service.word.is_empty() == members.is_empty();
        }
        if service.word.log2() != u32::from(log2) {
            return false;
        }
        match &service.ring {
            RingOrigin::Members(built_from) => built_from == members,
            RingOrigin::Adopted(owners) => {
                let wanted = self.build(members.to_vec(), log2);
                owners
                    .iter()
                    .copied()
                    .eq(wanted.iter().map(|owner| ids[*owner as usize]))
            }
        }
    }

    /// The ring of these members, each slot the index of its owner.
    fn build(&mut self, members: Vec<Member>, log2: u8) -> &[u32] {
        self.rings
            .entry((members, log2))
            .or_insert_with_key(|(members, log2)| maglev::build(members, *log2))
    }

    /// Writes a ring beside the one in force and gives that one's slots back. Returns the offset of the new one.
    fn place_ring(
        &mut self,
        service: &ServiceState,
        members: Vec<Member>,
        ids: &[BackendId],
        log2: u8,
        slots: u32,
    ) -> Result<u32, PlanError> {
        self.give_ring(service);
        if slots == 0 {
            return Ok(0);
        }
        let offset = self.take_region(slots)?;
        let slots = self
            .build(members, log2)
            .iter()
            .map(|owner| ids[*owner as usize])
            .collect();
        self.before.push(MapOp::Ring { offset, slots });
        Ok(offset)
    }

    fn give_ring(&mut self, service: &ServiceState) {
        if !service.word.is_empty() {
            self.grace = true;
            self.given.push((service.word.offset(), 1 << service.word.log2()));
        }
    }

    fn take_region(&mut self, slots: u32) -> Result<u32, PlanError> {
        let arena = &mut self.state.arena;
        arena.take(slots).ok_or(PlanError::ArenaFull {
            slots,
            free: arena.free_slots(),
            longest: arena.longest(),
        })
    }

    fn remove_service(&mut self, key: VipKey) {
        let Some(service) = self.state.services.remove(&key) else {
            return;
        };
        self.before.push(MapOp::RemoveService { key });
        self.grace = true;
        self.give_ring(&service);
        for state in service.backends.values() {
            self.forget_backend(state.id);
        }
        let word = RingWord::new(0, 0, false, service.word.generation().wrapping_add(1));
        self.after.push(MapOp::Publish {
            service: service.index,
            word,
        });
        self.after.push(MapOp::ServiceInfo {
            index: service.index,
            info: Box::new(ServiceInfo::UNUSED),
        });
        self.state.free_services.insert(service.index);
    }
}

/// The backends that take new flows: as the ring sees them, and their ids.
fn takers(service: &ServiceState) -> (Vec<Member>, Vec<BackendId>) {
    let takers = service
        .backends
        .iter()
        .filter(|(_, state)| state.in_ring && state.weight > 0);
    takers
        .map(|((address, port), state)| {
            (
                Member {
                    address: *address,
                    port: *port,
                    weight: state.weight,
                },
                state.id,
            )
        })
        .unzip()
}

/// Bits of the filter that the VIPs among these addresses need.
fn filter_bits(addresses: &BTreeMap<IpAddr16, u32>) -> BTreeSet<u32> {
    let vips = addresses
        .iter()
        .filter(|(_, flags)| AddressEntry { flags: **flags }.has(AddressEntry::VIP));
    vips.map(|(address, _)| filter_bit(address)).collect()
}

fn info(key: VipKey, name: &str) -> ServiceInfo {
    let mut bytes = [0; NAME_LEN];
    let length = name.len().min(NAME_LEN);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    ServiceInfo {
        key,
        used: 1,
        name: bytes,
    }
}

fn backend_info(service: u32, identity: (IpAddr16, Be16), wanted: &TargetBackend, id: BackendId) -> BackendInfo {
    BackendInfo {
        address: identity.0,
        service,
        port: identity.1,
        weight: wanted.weight,
        used: 1,
        in_ring: u16::from(wanted.in_ring),
        generation: id.generation(),
    }
}

#[cfg(test)]
#[path = "operations_tests.rs"]
mod tests;
