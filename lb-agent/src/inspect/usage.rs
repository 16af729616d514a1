//! How large the maps are and what they cost.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
};

use aya::maps::{MapData, MapInfo, MapType};
use lb_common::maps::MapFact;

use super::view::MapUse;
use crate::dataplane::{DataplaneError, PinDirectory};

/// Bookkeeping of the kernel per entry of a hash map (`struct htab_elem`, 48 bytes) and per bucket (16 bytes, and at
/// least as many buckets as entries).
const HASH_OVERHEAD: u64 = 48 + 16;

/// Size and use of one map, of whose entries `entries` are in use.
pub(super) fn of_map(pins: &PinDirectory, fact: &MapFact, entries: Option<u32>) -> Result<MapUse, DataplaneError> {
    let failed = |error: &dyn std::error::Error| DataplaneError::map(fact.name, "examining", error);
    let data = MapData::from_pin(pins.map(fact.name)).map_err(|error| failed(&error))?;
    let info = data.info().map_err(|error| failed(&error))?;
    let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd()));
    let charged = fdinfo.ok().and_then(|text| memlock(&text)).filter(|bytes| *bytes > 0);
    let cpus = aya::util::nr_cpus().unwrap_or(1) as u64;
    Ok(MapUse {
        name: fact.name,
        purpose: fact.purpose,
        entries,
        capacity: info.max_entries(),
        memory_bytes: charged.unwrap_or_else(|| estimate(shape(&info), cpus)),
    })
}

/// What the kernel says that a map takes, bytes.
fn memlock(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

#[derive(Clone, Copy)]
struct Shape {
    entries: u64,
    key: u64,
    value: u64,
    is_per_cpu: bool,
    is_array: bool,
}

fn shape(info: &MapInfo) -> Shape {
    let kind = info.map_type().ok();
    Shape {
        entries: u64::from(info.max_entries()),
        key: u64::from(info.key_size()),
        value: u64::from(info.value_size()),
        is_per_cpu: matches!(kind, Some(MapType::PerCpuArray | MapType::PerCpuHash)),
        is_array: matches!(kind, Some(MapType::Array | MapType::PerCpuArray)),
    }
}

/// For a kernel that does not say: entries times the value, rounded up to 8 bytes, on every CPU where it is per CPU;
/// hash maps add key and bookkeeping.
fn estimate(shape: Shape, cpus: u64) -> u64 {
    let value = shape.value.next_multiple_of(8) * if shape.is_per_cpu { cpus } else { 1 };
    let overhead = if shape.is_array { 0 } else { shape.key.next_multiple_of(8) + HASH_OVERHEAD };
    shape.entries * (value + overhead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_figure_is_found() {
        let text = "pos:\t0\nmap_type:\t2\nmax_entries:\t1\nmemlock:\t4096\nmap_id:\t7\n";
        assert_eq!(memlock(text), Some(4096));
        assert_eq!(memlock("pos:\t0\n"), None);
    }

    #[test]
    fn the_estimate_counts_what_each_kind_of_map_needs() {
        let array = Shape { entries: 100, key: 4, value: 20, is_per_cpu: false, is_array: true };
        assert_eq!(estimate(array, 4), 2_400);
        assert_eq!(estimate(Shape { is_per_cpu: true, ..array }, 4), 9_600);
        assert_eq!(estimate(Shape { is_array: false, ..array }, 4), 100 * (24 + 8 + 64));
    }
}
