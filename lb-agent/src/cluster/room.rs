//! What is left of the maps' capacities. A Service that does not fit is refused by itself: a plan that does not fit
//! would be refused whole.

use std::{collections::HashSet, net::IpAddr};

use crate::model::{DesiredState, RingSize, Service};

/// Entries that are left, by the capacity that bounds them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Room {
    /// (VIP, protocol, port) entries.
    pub services: u64,
    /// Entries per (VIP, protocol, port) and backend.
    pub backends: u64,
    /// Slots of rings.
    pub ring_slots: u64,
    /// VIPs.
    pub addresses: u64,
    /// Source ranges per (VIP, protocol, port).
    pub source_ranges: u64,
    /// Addresses of peers.
    pub peers: u64,
}

impl Room {
    /// What the services and peers of a configuration leave, with the room that a ring needs to be swapped.
    pub(super) fn beside(mut self, desired: &DesiredState) -> Self {
        let largest = desired.services.iter().map(|service| service.ring_size).max().unwrap_or_default();
        let largest = largest.max(RingSize::DEFAULT);
        self.ring_slots = self.ring_slots.saturating_sub(u64::from(largest.slots()));
        let mut vips = HashSet::new();
        for service in &desired.services {
            let needed = Needs::of(service, &vips);
            vips.extend(&service.vips);
            self.subtract(&needed);
        }
        let peers: usize = desired.peers.iter().map(|peer| peer.addresses.len()).sum();
        self.peers = self.peers.saturating_sub(peers as u64);
        self
    }

    /// Takes what a service needs beside VIPs that are there already.
    ///
    /// # Errors
    /// The key of the capacity that does not suffice; nothing is taken then.
    pub(super) fn take(&mut self, service: &Service, vips: &HashSet<IpAddr>) -> Result<(), &'static str> {
        let needs = Needs::of(service, vips);
        let short = [
            (needs.services > self.services, "services"),
            (needs.backends > self.backends, "backends"),
            (needs.ring_slots > self.ring_slots, "ringSlots"),
            (needs.addresses > self.addresses, "addresses"),
            (needs.source_ranges > self.source_ranges, "sourceRanges"),
        ];
        match short.into_iter().find(|(is_short, _)| *is_short) {
            Some((_, key)) => Err(key),
            None => {
                self.subtract(&needs);
                Ok(())
            }
        }
    }

    /// Takes the room for the backends of `after`, which is `before` but for them.
    pub(super) fn exchange(&mut self, before: &Service, after: &Service) -> Option<()> {
        let entries = (after.vips.len() * after.ports.len()) as u64;
        let of = |service: &Service| entries * service.backends.len() as u64;
        self.backends = (self.backends + of(before)).checked_sub(of(after))?;
        Some(())
    }

    const fn subtract(&mut self, needs: &Needs) {
        self.services = self.services.saturating_sub(needs.services);
        self.backends = self.backends.saturating_sub(needs.backends);
        self.ring_slots = self.ring_slots.saturating_sub(needs.ring_slots);
        self.addresses = self.addresses.saturating_sub(needs.addresses);
        self.source_ranges = self.source_ranges.saturating_sub(needs.source_ranges);
    }
}

/// What one service needs.
struct Needs {
    services: u64,
    backends: u64,
    ring_slots: u64,
    addresses: u64,
    source_ranges: u64,
}

impl Needs {
    fn of(service: &Service, vips: &HashSet<IpAddr>) -> Self {
        let entries = (service.vips.len() * service.ports.len()) as u64;
        Self {
            services: entries,
            backends: entries * service.backends.len() as u64,
            ring_slots: entries * u64::from(service.ring_size.slots()),
            addresses: service.vips.iter().filter(|vip| !vips.contains(*vip)).count() as u64,
            source_ranges: entries * service.source_ranges.len() as u64,
        }
    }
}
