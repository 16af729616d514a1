//! What a program under test counted, as totals.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::maps::{Map, MapData, MapInfo, PerCpuArray};
use lb_common::{
    maps::counters::Counters,
    verdict::{DropReason, Verdict},
};
use packets_tests::Bed;

use super::cases::End;

/// Totals by name, without those that are zero.
pub type Totals = BTreeMap<String, u64>;

/// Reads all counters of a program.
///
/// # Errors
/// If a map cannot be read.
pub fn read(bed: &Bed) -> Result<Totals> {
    let mut totals = Totals::new();
    let tables = bed.tables();
    for verdict in Verdict::ALL {
        add(&mut totals, format!("verdict {}", verdict.label()), sum(&tables.verdicts, *verdict as u32)?);
    }
    for reason in DropReason::ALL {
        add(&mut totals, format!("drop {}", reason.label()), sum(&tables.drops, *reason as u32)?);
    }
    for service in bed.state().services.values() {
        add_counters(&mut totals, "service", &tables.service_counters, service.index)?;
        for backend in service.backends.values() {
            add_counters(&mut totals, "backend", &tables.backend_counters, backend.id.index())?;
        }
    }
    Ok(totals)
}

/// What so many packets of `length` bytes have to add.
#[must_use]
pub fn expected(end: End, packets: u64, length: u64) -> Totals {
    let verdict = match end {
        End::Floor(_) | End::NotOurs => return Totals::new(),
        End::Local => Verdict::Local,
        End::Sent(delivery, _) => delivery.verdict(),
    };
    let mut totals = Totals::from([(format!("verdict {}", verdict.label()), packets)]);
    for who in ["service", "backend"] {
        totals.insert(format!("{who} packets"), packets);
        totals.insert(format!("{who} bytes"), packets * length);
    }
    totals
}

/// What was counted between two readings.
#[must_use]
pub fn since(before: &Totals, after: &Totals) -> Totals {
    let mut difference = Totals::new();
    for (name, value) in after {
        add(&mut difference, name.clone(), value - before.get(name).unwrap_or(&0));
    }
    difference
}

/// Counters of the yardstick's table: misses and inserts.
pub struct LruCounters(PerCpuArray<MapData, u64>);

impl LruCounters {
    /// Opens the counters of a program with the yardstick in it.
    ///
    /// # Errors
    /// If the program has none.
    pub fn open(bed: &mut Bed) -> Result<Self> {
        let info = bed.program().info().context("asking for the program's maps")?;
        let ids = info.map_ids().context("asking for the program's maps")?.unwrap_or_default();
        for id in ids {
            let map = MapInfo::from_id(id).with_context(|| format!("asking for the map {id}"))?;
            if map.name_as_str() == Some("LRU_COUNTS") {
                let data = MapData::from_id(id).with_context(|| format!("opening the map {id}"))?;
                return Ok(Self(Map::PerCpuArray(data).try_into().context("opening LRU_COUNTS")?));
            }
        }
        anyhow::bail!("the program has no map LRU_COUNTS: is it the object with the feature yardstick-lru?")
    }

    /// Reads them.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn read(&self) -> Result<Totals> {
        let mut totals = Totals::new();
        for (index, name) in [(0, "LRU misses"), (1, "LRU inserts")] {
            add(&mut totals, name.to_owned(), sum(&self.0, index)?);
        }
        Ok(totals)
    }
}

fn add(totals: &mut Totals, name: String, value: u64) {
    if value > 0 {
        *totals.entry(name).or_default() += value;
    }
}

fn add_counters(totals: &mut Totals, who: &str, map: &PerCpuArray<MapData, Counters>, index: u32) -> Result<()> {
    let values = map.get(&index, 0).with_context(|| format!("reading the counters of {who} {index}"))?;
    for value in values.iter() {
        add(totals, format!("{who} packets"), value.packets);
        add(totals, format!("{who} bytes"), value.bytes);
    }
    Ok(())
}

fn sum(map: &PerCpuArray<MapData, u64>, index: u32) -> Result<u64> {
    let values = map.get(&index, 0).with_context(|| format!("reading the counter {index}"))?;
    Ok(values.iter().sum())
}
