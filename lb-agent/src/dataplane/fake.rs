//! The maps in memory: performs steps as the kernel's maps would, and follows references as a packet would.

use std::collections::BTreeMap;

use lb_common::{
    addr::{BackendId, Be16, IpAddr16},
    hash::filter_bit,
    maps::{
        addresses::AddressEntry,
        backends::{Head, Hop},
        names::BackendInfo,
        published::RingWord,
        rings::{Slot, SlotState},
        services::VipKey,
        settings::Settings,
        sources::SourceRange,
        translations::Endpoint,
    },
};

use super::{Dataplane, DataplaneError};
use crate::plan::{MapOp, Redirect, Rings};

/// Maps in memory.
#[derive(Default)]
pub struct FakeDataplane {
    /// Entry of `SETTINGS`.
    pub settings: Settings,
    /// Bits that are set in `VIP_FILTER`.
    pub filter: std::collections::BTreeSet<u32>,
    /// Entries of `ADDRESSES`.
    pub addresses: BTreeMap<IpAddr16, u32>,
    /// Entries of `SERVICES`.
    pub services: BTreeMap<VipKey, u32>,
    /// Words of `PUBLISHED`.
    pub published: BTreeMap<u32, RingWord>,
    /// Slots of `RINGS`.
    pub rings: BTreeMap<u32, Slot>,
    /// Entries of `BACKENDS`: head and both hops.
    pub backends: BTreeMap<u32, (Head, [Hop; 2])>,
    /// Entries of `BACKEND_INFO`.
    pub info: BTreeMap<u32, BackendInfo>,
    /// Entries of `SOURCE_RANGES`.
    pub source_ranges: std::collections::BTreeSet<(u32, SourceRange)>,
    /// Servers' ports, by the index of the service.
    pub target_ports: BTreeMap<u32, u16>,
    /// Entries of `REWRITES`.
    pub rewrites: BTreeMap<VipKey, Be16>,
    /// Entries of `TRANSLATIONS`.
    pub translations: BTreeMap<VipKey, Vec<Endpoint>>,
    /// Regions, backends' hops and entries that packets under way may still refer to: written again, they would be seen.
    in_flight: InFlight,
}

/// What a packet that was looked at before the last grace period may still read.
#[derive(Default)]
struct InFlight {
    slots: std::collections::BTreeSet<u32>,
    hops: std::collections::BTreeSet<(u32, usize)>,
    backends: std::collections::BTreeSet<u32>,
}

impl Dataplane for FakeDataplane {
    fn perform(&mut self, step: &MapOp) -> Result<(), DataplaneError> {
        match step {
            MapOp::Settings(settings) => self.settings = *settings,
            MapOp::FilterAdd(bit) => assert!(self.filter.insert(*bit)),
            MapOp::FilterRemove(bit) => assert!(self.filter.remove(bit)),
            MapOp::Address(address, entry) => drop(self.addresses.insert(*address, entry.flags)),
            MapOp::RemoveAddress(address) => assert!(self.addresses.remove(address).is_some()),
            MapOp::Backend { id, info, hop, .. } => self.enter(*id, *info, *hop),
            MapOp::Head { index, head } => {
                self.backends.get_mut(index).expect("only backends in use take flows").0 = *head;
            }
            MapOp::Slots(changes) => self.change_slots(changes),
            MapOp::Hop { index, head, hop } => self.change_hop(*index, *head, *hop),
            MapOp::BackendInfo { index, info } => drop(self.info.insert(*index, *info)),
            MapOp::ForgetBackend { index, .. } => {
                assert!(
                    !self.in_flight.backends.contains(index),
                    "backend {index} is forgotten while packets may meet it"
                );
                assert!(self.backends.remove(index).is_some());
            }
            MapOp::Ring { offset, slots } => self.write_ring(*offset, slots),
            MapOp::Redirect(step) => self.redirect(step),
            MapOp::Publish { service, word } => self.publish(*service, *word),
            MapOp::Service { key, index } => drop(self.services.insert(*key, *index)),
            MapOp::RemoveService { key } => self.remove_service(key),
            MapOp::ResetService { index } => drop(self.published.insert(*index, RingWord::default())),
            MapOp::SourceRange { service, range } => assert!(self.source_ranges.insert((*service, *range))),
            MapOp::RemoveSourceRange { service, range } => assert!(self.source_ranges.remove(&(*service, *range))),
            MapOp::Grace => self.in_flight = InFlight::default(),
            MapOp::Peer(..)
            | MapOp::RemovePeer(_)
            | MapOp::PeerMac(..)
            | MapOp::RemovePeerMac(_)
            | MapOp::Device(_)
            | MapOp::RemoveDevice(_)
            | MapOp::Tracking { .. }
            | MapOp::ServiceInfo { .. } => {}
        }
        Ok(())
    }
}

impl FakeDataplane {
    fn redirect(&mut self, step: &Redirect) {
        match step {
            Redirect::Rewrite(key, Some(port)) => drop(self.rewrites.insert(*key, *port)),
            Redirect::Rewrite(key, None) => assert!(self.rewrites.remove(key).is_some()),
            Redirect::Translation(key, to) if to.is_empty() => assert!(self.translations.remove(key).is_some()),
            Redirect::Translation(key, to) => drop(self.translations.insert(*key, to.clone())),
            Redirect::TargetPort { service, port } => drop(self.target_ports.insert(*service, *port)),
        }
    }

    fn enter(&mut self, id: BackendId, info: BackendInfo, hop: Hop) {
        assert!(!self.backends.contains_key(&id.index()), "backend {} is in use", id.index());
        self.backends.insert(id.index(), (Head::new(id.generation(), 0), [hop, Hop::default()]));
        self.info.insert(id.index(), info);
    }

    fn change_hop(&mut self, index: u32, head: Head, hop: Hop) {
        assert!(!self.in_flight.hops.contains(&(index, head.active())), "hop of {index} is written while it is read");
        let entry = self.backends.get_mut(&index).expect("only backends in use change their hop");
        self.in_flight.hops.insert((index, entry.0.active()));
        assert_ne!(entry.0.active(), head.active(), "the hop in force is never written");
        entry.1[head.active()] = hop;
        entry.0 = head;
    }

    fn write_ring(&mut self, offset: u32, slots: &[Slot]) {
        for (slot, entry) in (offset..).zip(slots) {
            assert!(!self.in_flight.slots.contains(&slot), "slot {slot} is written while packets may read it");
            assert!(!self.is_published(slot), "slot {slot} of a ring in force is written");
            self.rings.insert(slot, *entry);
        }
    }

    fn change_slots(&mut self, changes: &[(u32, Slot)]) {
        for (slot, entry) in changes {
            assert!(self.is_published(*slot), "slot {slot} belongs to no ring in force");
            self.rings.insert(*slot, *entry);
        }
    }

    fn publish(&mut self, service: u32, word: RingWord) {
        if self.services.values().any(|index| *index == service) {
            self.retire(self.published.get(&service).copied());
        }
        self.published.insert(service, word);
    }

    fn remove_service(&mut self, key: &VipKey) {
        let index = self.services.remove(key).expect("only services that are there are removed");
        self.retire(self.published.get(&index).copied());
    }

    /// Notes what a packet that read `word` may still read.
    fn retire(&mut self, word: Option<RingWord>) {
        let Some(word) = word.filter(|word| !word.is_empty()) else {
            return;
        };
        for slot in word.offset()..word.offset() + (1 << word.log2()) {
            self.in_flight.slots.insert(slot);
            if let Some(entry) = self.rings.get(&slot) {
                self.in_flight.backends.extend([entry.current().index(), entry.old().index()]);
            }
        }
    }

    fn is_published(&self, slot: u32) -> bool {
        let of_services = self.services.values().filter_map(|index| self.published.get(index));
        of_services
            .filter(|word| !word.is_empty())
            .any(|word| (word.offset()..word.offset() + (1 << word.log2())).contains(&slot))
    }

    /// The slots of a service's ring.
    pub fn ring(&self, key: &VipKey) -> Vec<Slot> {
        let index = self.services[key];
        let word = self.published.get(&index).copied().expect("a service has a published word");
        if word.is_empty() {
            return Vec::new();
        }
        (word.offset()..word.offset() + (1 << word.log2())).map(|slot| self.rings[&slot]).collect()
    }

    /// Where every slot of a service's ring sends new flows, as a packet would find it; panics on a dangling reference.
    pub fn owners(&self, key: &VipKey) -> Vec<(IpAddr16, Hop)> {
        let index = self.services[key];
        let mut owners = Vec::new();
        for slot in self.ring(key) {
            let old = (slot.state() == SlotState::Unsettled).then_some(slot.old());
            old.filter(|id| *id != BackendId::NONE).map(|id| self.follow(index, id));
            if slot.current() != BackendId::NONE {
                owners.push(self.follow(index, slot.current()));
            }
        }
        owners
    }

    fn follow(&self, service: u32, id: BackendId) -> (IpAddr16, Hop) {
        let (head, hops) = self.backends.get(&id.index()).expect("a slot names a backend in use");
        assert_eq!(head.generation(), id.generation(), "a slot names the present generation");
        let info = self.info[&id.index()];
        assert_eq!(info.service, service, "a ring names backends of its own service");
        (info.address, hops[head.active()])
    }

    /// Whether a service admits a source, as a packet would find it.
    pub fn admits(&self, key: &VipKey, source: std::net::IpAddr) -> bool {
        let index = self.services[key];
        let has_ranges = self.published.get(&index).is_some_and(|word| word.has_source_ranges());
        !has_ranges || self.source_ranges.iter().any(|(service, range)| *service == index && range.contains(source))
    }

    /// Panics unless every service leads to backends and has its filter bit and address.
    pub fn assert_consistent(&self) {
        for key in self.services.keys() {
            self.owners(key);
            assert!(self.filter.contains(&filter_bit(&key.address)), "a service's VIP passes the filter");
            let flags = self.addresses.get(&key.address).copied().unwrap_or(0);
            assert!(AddressEntry { flags }.has(AddressEntry::VIP), "a service's VIP is known as one");
        }
    }
}

impl Rings for FakeDataplane {
    fn slot(&self, index: u32) -> Slot {
        self.rings.get(&index).copied().unwrap_or_default()
    }
}
