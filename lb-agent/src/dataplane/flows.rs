//! Scans the tables of flows: removes what has expired, and tells which slots old flows are on.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, MapData, MapError};
use lb_common::{
    hash::Tuple,
    maps::{
        flows::FlowEntry,
        tracking::{NEW, OLD, WORDS},
    },
};

use super::{
    arena::MappedWords,
    clock::monotonic,
    error::DataplaneError,
    pins::PinDirectory,
    tables::{self, Tables},
};
use crate::plan::{FlowScan, Sizes};

/// An entry is removed this long after it has expired, nanoseconds: a packet that takes the expired entry over between
/// the scan's look at it and its removal would be forgotten.
const SLACK: u64 = 1_000_000_000;

/// The tables, open for a scan. It takes two system calls per flow, so it belongs on a thread of its own.
pub struct FlowTables {
    new: HashMap<MapData, Tuple, FlowEntry>,
    old: HashMap<MapData, Tuple, FlowEntry>,
    tracking: MappedWords,
    services: usize,
    /// Whether the counts of an earlier agent were corrected: it may have ended between a removal and its count.
    is_counted: bool,
}

/// What a scan found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Scanned {
    /// Live flows.
    pub flows: FlowScan,
    /// Flows in either table.
    pub recorded: usize,
    /// Flows that had expired and were removed.
    pub expired: usize,
    /// How long it took.
    pub took: Duration,
}

impl FlowTables {
    /// Opens the tables that are in force.
    pub(super) fn open(pins: &PinDirectory, sizes: Sizes) -> Result<Self, DataplaneError> {
        let services = sizes.services as usize;
        let tracking = MapData::from_pin(pins.map("TRACKING"))
            .map_err(|error| DataplaneError::map("TRACKING", "opening", &error))?;
        let Tables { new_flows, old_flows, .. } = Tables::open(|name| pins.map(name))?;
        let tracking = MappedWords::new("TRACKING", tracking, services * WORDS)?;
        Ok(Self { new: new_flows, old: old_flows, tracking, services, is_counted: false })
    }

    /// Scans both tables once.
    ///
    /// # Errors
    /// [`DataplaneError::Map`] if one cannot be read.
    pub fn scan(&mut self) -> Result<Scanned, DataplaneError> {
        let started = Instant::now();
        let mut scanned =
            Scanned { flows: FlowScan { begun: monotonic(), ..FlowScan::default() }, ..Scanned::default() };
        for (name, word) in [("NEW_FLOWS", NEW), ("OLD_FLOWS", OLD)] {
            let table = if word == NEW { &mut self.new } else { &mut self.old };
            let (expired, counts) = look(name, table, &mut scanned)?;
            if !self.is_counted {
                for (service, index) in (0u32..).zip(0..self.services) {
                    let count = counts.get(&service).copied().unwrap_or(0);
                    self.tracking.store(index * WORDS + word, count)?;
                }
            }
            for (key, service) in expired {
                let is_expired = |entry: FlowEntry| has_expired(&entry, monotonic());
                // It may have been taken over since.
                if table.get(&key, 0).is_ok_and(is_expired) && tables::removed(name, table.remove(&key)).is_ok() {
                    scanned.expired += 1;
                    if (service as usize) < self.services {
                        self.tracking.subtract_one(service as usize * WORDS + word)?;
                    }
                }
            }
        }
        self.is_counted = true;
        scanned.took = started.elapsed();
        Ok(scanned)
    }
}

/// Flows that have expired with their service, and the number of flows per service.
type Looked = (Vec<(Tuple, u32)>, BTreeMap<u32, u64>);

fn look(
    name: &'static str,
    table: &HashMap<MapData, Tuple, FlowEntry>,
    scanned: &mut Scanned,
) -> Result<Looked, DataplaneError> {
    let (mut expired, mut counts) = (Vec::new(), BTreeMap::new());
    for entry in table.iter() {
        let (key, entry) = match entry {
            Ok(entry) => entry,
            Err(MapError::KeyNotFound | MapError::ElementNotFound) => continue,
            Err(error) => return Err(DataplaneError::map(name, "reading", &error)),
        };
        *counts.entry(entry.service).or_default() += 1;
        if has_expired(&entry, scanned.flows.begun) {
            expired.push((key, entry.service));
        } else {
            scanned.recorded += 1;
            scanned.flows.live.entry(entry.service).or_default().push((entry.slot_bits, entry.backend()));
        }
    }
    Ok((expired, counts))
}

fn has_expired(entry: &FlowEntry, now: u64) -> bool {
    entry.deadline.saturating_add(SLACK) < now
}
