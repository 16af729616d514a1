//! Reads the maps into an [`Inspection`].

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use aya::maps::{Array, MapData, MapError, PerCpuArray};
use lb_common::{
    addr::{IpAddr16, WireWord},
    hash::HashKey,
    maps::{
        self,
        addresses::AddressEntry,
        backends::{BACKEND_WORDS, HOP_WORDS, Head, Hop, Mode},
        counters::Counters,
        names::BackendInfo,
        published::RingWord,
        rings::Slot,
        services::VipKey,
    },
    verdict::{DropReason, Verdict},
    wire::protocol,
};

use super::{
    presence_of, ring, usage,
    view::{AddressView, BackendView, Count, HopView, Inspection, MapUse, RingView, ServiceView},
};
use crate::{
    config::Secret,
    dataplane::{DataplaneError, MappedWords, PinDirectory, Tables, text},
    model::MacAddr,
};

/// How often a ring is read again that was replaced while it was read.
const RING_TRIES: usize = 8;

/// Whether to read the slots of the rings, which are most of what there is to read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rings {
    /// Of no service.
    Skip,
    /// Of every service.
    Read,
}

/// The pinned maps, open for reading. The large arrays are mapped: a system call for each of a million slots would take
/// seconds.
pub struct Inspector {
    pub(super) pins: PinDirectory,
    pub(super) tables: Tables,
    published: MappedWords,
    rings: MappedWords,
    backends: MappedWords,
}

impl Inspector {
    /// Opens the maps that are pinned under `pin_path`.
    ///
    /// # Errors
    /// [`DataplaneError::NothingPinned`], or what the kernel says.
    pub fn open(pin_path: &Path) -> Result<Self, DataplaneError> {
        let pins = PinDirectory::new(pin_path);
        let first = pins.map("SERVICES");
        match first.try_exists() {
            Ok(true) => {}
            Ok(false) => {
                return Err(DataplaneError::NothingPinned { path: pin_path.to_owned() });
            }
            Err(source) => return Err(DataplaneError::io("examining", &first, source)),
        }
        let tables = Tables::open(|name| pins.map(name))?;
        let mapped = |name, words| {
            let data =
                MapData::from_pin(pins.map(name)).map_err(|error| DataplaneError::map(name, "opening", &error))?;
            MappedWords::new(name, data, words)
        };
        Ok(Self {
            published: mapped("PUBLISHED", tables.published.len() as usize)?,
            rings: mapped("RINGS", tables.rings.len() as usize)?,
            backends: mapped("BACKENDS", tables.backends.len() as usize * BACKEND_WORDS)?,
            tables,
            pins,
        })
    }

    /// Reads the services with their backends, and nothing else.
    ///
    /// # Errors
    /// [`DataplaneError`] if a map cannot be read.
    pub fn read_services(&self) -> Result<Vec<ServiceView>, DataplaneError> {
        self.services()
    }

    /// Reads everything.
    ///
    /// # Errors
    /// [`DataplaneError`] if a map cannot be read.
    pub fn read(&self, rings: Rings) -> Result<Inspection, DataplaneError> {
        let key = self.hash_key()?;
        let mut services = self.services()?;
        if rings == Rings::Read {
            for service in &mut services {
                let slots = self.ring(service)?;
                let owners: Vec<_> = slots.iter().map(|slot| slot.current()).collect();
                let changes = ring::changes(&slots, &service.backends);
                service.ring = Some(RingView { changes, ..ring::describe(&owners, &service.backends, &key) });
            }
        }
        Ok(Inspection {
            pin_path: self.pins.root().display().to_string(),
            agent: presence_of(&self.pins),
            secret_fingerprint: fingerprint(&key),
            interfaces: self.interfaces(),
            addresses: self.addresses()?,
            peers: sorted("PEERS", self.tables.peers.iter())?.into_keys().map(IpAddr::from).collect(),
            verdicts: self.verdicts()?,
            drops: self.drops()?,
            maps: self.maps(&services)?,
            services,
        })
    }

    /// Every service that a packet can find, with its backends, in the order of name, VIP, protocol and port.
    pub(super) fn services(&self) -> Result<Vec<ServiceView>, DataplaneError> {
        let mut backends = self.backends()?;
        let mut services = Vec::new();
        for (key, entry) in sorted("SERVICES", self.tables.services.iter())? {
            let info = read("SERVICE_INFO", &self.tables.service_info, entry.index)?;
            let word = self.published(entry.index)?;
            let counters = sum_counters("SERVICE_COUNTERS", &self.tables.service_counters, entry.index)?;
            services.push(ServiceView {
                index: entry.index,
                name: text(&info.name),
                vip: key.address.into(),
                port: key.port.get(),
                protocol: protocol_name(&key),
                ring_slots: slots(word),
                generation: word.generation(),
                held: word.is_held(),
                target_port: self.target_port(entry.index, word)?,
                connects_to: self.connects_to(&key)?,
                packets: counters.packets,
                bytes: counters.bytes,
                tracking: self.tracking(entry.index)?,
                backends: backends.remove(&entry.index).unwrap_or_default(),
                ring: None,
            });
        }
        services.sort_by(|a, b| (&a.name, a.vip, &a.protocol, a.port).cmp(&(&b.name, b.vip, &b.protocol, b.port)));
        Ok(services)
    }

    /// Backends in use by the index of their service.
    fn backends(&self) -> Result<BTreeMap<u32, Vec<BackendView>>, DataplaneError> {
        let mut by_service: BTreeMap<u32, Vec<BackendView>> = BTreeMap::new();
        for index in self.backends_in_use()? {
            let info = read("BACKEND_INFO", &self.tables.backend_info, index)?;
            if info.used != 0 {
                by_service.entry(info.service).or_default().push(self.backend(index, &info)?);
            }
        }
        for backends in by_service.values_mut() {
            backends.sort_by_key(|backend| (IpAddr16::from(backend.address), backend.port));
        }
        Ok(by_service)
    }

    /// Indices of the entries that packets can find.
    pub(super) fn backends_in_use(&self) -> Result<Vec<u32>, DataplaneError> {
        let mut indices = Vec::new();
        for index in 0..self.tables.backends.len() {
            if self.head(index)?.generation() != 0 {
                indices.push(index);
            }
        }
        Ok(indices)
    }

    pub(super) fn head(&self, index: u32) -> Result<Head, DataplaneError> {
        self.backends.load(index as usize * BACKEND_WORDS).map(Head::from_bits)
    }

    /// The hop of an entry that its head puts in force.
    pub(super) fn hop(&self, index: u32, head: Head) -> Result<Hop, DataplaneError> {
        let first = index as usize * BACKEND_WORDS + 1 + head.active() * HOP_WORDS;
        let mut words = [0; HOP_WORDS];
        for (at, word) in words.iter_mut().enumerate() {
            *word = self.backends.load(first + at)?;
        }
        Ok(Hop::from_words(&words))
    }

    pub(super) fn published(&self, service: u32) -> Result<RingWord, DataplaneError> {
        self.published.load(service as usize).map(RingWord::from_bits)
    }

    pub(super) fn slot(&self, index: u32) -> Result<Slot, DataplaneError> {
        self.rings.load(index as usize).map(Slot::from_bits)
    }

    fn backend(&self, index: u32, info: &BackendInfo) -> Result<BackendView, DataplaneError> {
        let head = self.head(index)?;
        let counters = sum_counters("BACKEND_COUNTERS", &self.tables.backend_counters, index)?;
        Ok(BackendView {
            index,
            generation: head.generation(),
            address: info.address.into(),
            port: info.port.get(),
            weight: info.weight,
            in_ring: info.in_ring != 0,
            hop: HopView::of(&self.hop(index, head)?),
            packets: counters.packets,
            bytes: counters.bytes,
        })
    }

    /// The slots of a service's ring: of one and the same ring, unless it was replaced `RING_TRIES` times.
    pub(super) fn ring(&self, service: &ServiceView) -> Result<Vec<Slot>, DataplaneError> {
        let mut word = self.published(service.index)?;
        for _ in 1..RING_TRIES {
            let slots = self.slots(word)?;
            let now = self.published(service.index)?;
            if now == word {
                return Ok(slots);
            }
            word = now;
        }
        self.slots(word)
    }

    fn slots(&self, word: RingWord) -> Result<Vec<Slot>, DataplaneError> {
        (0..slots(word)).map(|slot| self.slot(word.offset().saturating_add(slot))).collect()
    }

    pub(super) fn hash_key(&self) -> Result<HashKey, DataplaneError> {
        read("SETTINGS", &self.tables.settings, 0).map(|settings| settings.hash_key)
    }

    pub(super) fn verdicts(&self) -> Result<Vec<Count>, DataplaneError> {
        let count = |verdict: &Verdict| {
            let packets = sum("VERDICTS", &self.tables.verdicts, *verdict as u32)?;
            Ok(Count { name: verdict.label(), packets, text: verdict.text() })
        };
        Verdict::ALL.iter().map(count).collect()
    }

    pub(super) fn drops(&self) -> Result<Vec<Count>, DataplaneError> {
        let count = |reason: &DropReason| {
            let packets = sum("DROPS", &self.tables.drops, *reason as u32)?;
            Ok(Count { name: reason.label(), packets, text: reason.text() })
        };
        DropReason::ALL.iter().map(count).collect()
    }

    fn addresses(&self) -> Result<Vec<AddressView>, DataplaneError> {
        let view = |(address, entry): (IpAddr16, AddressEntry)| AddressView {
            address: address.into(),
            vip: entry.has(AddressEntry::VIP),
            pass_unmatched: entry.has(AddressEntry::PASS_UNMATCHED),
            node: entry.has(AddressEntry::NODE),
        };
        Ok(sorted("ADDRESSES", self.tables.addresses.iter())?.into_iter().map(view).collect())
    }

    fn interfaces(&self) -> Vec<String> {
        let names = self.pins.linked_interfaces();
        names.iter().map(|name| name.replace("%2e", ".")).collect()
    }

    fn maps(&self, services: &[ServiceView]) -> Result<Vec<MapUse>, DataplaneError> {
        maps::ALL.iter().map(|fact| usage::of_map(&self.pins, fact, self.entries(fact.name, services))).collect()
    }

    /// Entries of a map that are in use; `None` for maps that are always full.
    fn entries(&self, name: &str, services: &[ServiceView]) -> Option<u32> {
        let backends = services.iter().map(|service| service.backends.len()).sum();
        let used = match name {
            "SERVICES" | "PUBLISHED" | "SERVICE_COUNTERS" | "SERVICE_INFO" => services.len(),
            "BACKENDS" | "BACKEND_COUNTERS" | "BACKEND_INFO" => backends,
            "RINGS" => services.iter().map(|service| service.ring_slots as usize).sum(),
            "NEW_FLOWS" => return u32::try_from(services.iter().map(|service| service.tracking.new).sum::<u64>()).ok(),
            "OLD_FLOWS" => return u32::try_from(services.iter().map(|service| service.tracking.old).sum::<u64>()).ok(),
            "ADDRESSES" => self.tables.addresses.keys().count(),
            "PEERS" => self.tables.peers.keys().count(),
            "PEER_MACS" => self.tables.peer_macs.keys().count(),
            "DEVICES" => self.tables.devices.keys().count(),
            "FRAGMENTS" => self.tables.fragments.keys().count(),
            "REWRITES" | "TRANSLATIONS" | "TRANSLATED" => self.redirects(name),
            "SOURCE_RANGES" => self.tables.source_ranges.keys().count(),
            _ => return None,
        };
        u32::try_from(used).ok()
    }
}

impl HopView {
    /// A hop that needs nothing but its mode.
    pub(crate) const fn none(mode: &'static str) -> Self {
        Self {
            mode,
            interface: None,
            interface_name: None,
            next_hop_mac: None,
            source_mac: None,
            vlan: None,
            mtu: None,
            tunnel_destination: None,
            tunnel_source: None,
        }
    }

    pub(super) fn of(hop: &Hop) -> Self {
        let mode = Mode::from_value(hop.mode);
        if matches!(mode, Mode::Unknown | Mode::Local) {
            return Self::none(mode.label());
        }
        let (next_hop, source) = macs(&hop.macs);
        let is_tunnel = mode != Mode::L2;
        let end = |address: IpAddr16| is_tunnel.then(|| IpAddr::from(address));
        Self {
            mode: mode.label(),
            interface: Some(hop.interface),
            interface_name: interface_name(hop.interface),
            next_hop_mac: Some(next_hop),
            source_mac: Some(source),
            vlan: (hop.vlan != 0).then_some(hop.vlan),
            mtu: Some(hop.mtu),
            tunnel_destination: end(hop.tunnel_destination),
            tunnel_source: end(hop.tunnel_source),
        }
    }
}

/// Name of an interface, if this network namespace has it.
#[must_use]
pub fn interface_name(index: u32) -> Option<String> {
    let name = nix::net::if_::if_indextoname(index).ok()?.into_string().ok()?;
    (!name.is_empty()).then_some(name)
}

/// Destination and source as they begin a frame.
fn macs(words: &[WireWord; 3]) -> (MacAddr, MacAddr) {
    let byte = |at: usize| words[at / 4].to_ne_bytes()[at % 4];
    let mac = |from: usize| MacAddr(std::array::from_fn(|at| byte(from + at)));
    (mac(0), mac(6))
}

/// Slots of a published ring, 0 if there is none.
pub(super) const fn slots(word: RingWord) -> u32 {
    if word.is_empty() { 0 } else { 1 << word.log2() }
}

/// Name of a service's protocol.
pub(super) fn protocol_name(key: &VipKey) -> String {
    match key.protocol {
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        protocol::SCTP => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// The secret's fingerprint, which may be shown; the secret may not.
pub(super) fn fingerprint(key: &HashKey) -> String {
    let mut secret = [0; 16];
    secret[..8].copy_from_slice(&key.k0.to_le_bytes());
    secret[8..].copy_from_slice(&key.k1.to_le_bytes());
    Secret::new(secret).fingerprint()
}

pub(super) fn read<V: aya::Pod>(name: &'static str, map: &Array<MapData, V>, index: u32) -> Result<V, DataplaneError> {
    map.get(&index, 0).map_err(|error| DataplaneError::map(name, "reading", &error))
}

/// The entries of a hash map in the order of their keys.
pub(super) fn sorted<K: Ord, V>(
    name: &'static str,
    entries: impl Iterator<Item = Result<(K, V), MapError>>,
) -> Result<BTreeMap<K, V>, DataplaneError> {
    entries.collect::<Result<_, _>>().map_err(|error| DataplaneError::map(name, "reading", &error))
}

/// What all CPUs counted.
pub(super) fn sum(name: &'static str, map: &PerCpuArray<MapData, u64>, index: u32) -> Result<u64, DataplaneError> {
    let values = map.get(&index, 0).map_err(|error| DataplaneError::map(name, "reading", &error))?;
    Ok(values.iter().sum())
}

pub(super) fn sum_counters(
    name: &'static str,
    map: &PerCpuArray<MapData, Counters>,
    index: u32,
) -> Result<Counters, DataplaneError> {
    let values = map.get(&index, 0).map_err(|error| DataplaneError::map(name, "reading", &error))?;
    Ok(Counters {
        packets: values.iter().map(|value| value.packets).sum(),
        bytes: values.iter().map(|value| value.bytes).sum(),
    })
}

#[cfg(test)]
mod tests {
    use lb_common::{addr::wire_word, wire::eth};

    use super::*;

    #[test]
    fn a_hop_shows_what_its_mode_needs() {
        let hop = Hop {
            tunnel_destination: IpAddr16::v4(wire_word([10, 0, 2, 2])),
            tunnel_source: IpAddr16::v4(wire_word([10, 0, 1, 2])),
            macs: eth::addresses([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]),
            interface: u32::MAX,
            vlan: 0,
            mtu: 1500,
            mode: Mode::Gue4 as u8,
            pad: [0; 3],
        };
        let view = HopView::of(&hop);
        assert_eq!(view.next_hop_mac, Some(MacAddr([2, 0, 0, 0, 0, 1])));
        assert_eq!(view.source_mac, Some(MacAddr([2, 0, 0, 0, 0, 2])));
        assert_eq!(view.tunnel_destination, Some([10, 0, 2, 2].into()));
        assert_eq!((view.vlan, view.mtu, view.interface_name), (None, Some(1500), None));

        let l2 = HopView::of(&Hop { mode: Mode::L2 as u8, vlan: 7, ..hop });
        assert_eq!((l2.tunnel_destination, l2.vlan), (None, Some(7)));
        assert_eq!(HopView::of(&Hop { mode: Mode::Local as u8, ..hop }), HopView::none("local"));
    }

    #[test]
    fn the_fingerprint_is_that_of_the_secret() {
        let secret = [7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        assert_eq!(fingerprint(&HashKey::new(secret)), Secret::new(secret).fingerprint());
    }
}
