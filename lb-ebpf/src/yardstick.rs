//! The yardstick of the benchmark: the same program with an LRU table of flows in front of the ring, the way others
//! work. In no shipped object: only the feature `yardstick-lru` compiles it.
//!
//! Everything else is the same, the flow hash included, which tunnels need for their entropy. A SYN is not looked up, and
//! hits are not counted, so that the table costs no more than it has to.
#![expect(unsafe_code, reason = "map values are reached through raw pointers")]

use aya_ebpf::{
    btf_maps::{LruPerCpuHashMap, PerCpuArray},
    macros::btf_map,
};
use lb_common::{addr::BackendId, hash::Tuple, tracking::Kind, verdict::DropReason};

use crate::decide::Flow;

/// Flows that the table holds: 1,048,576. The key takes 40 bytes.
const ENTRIES: usize = 1 << 20;
const _: () = assert!(size_of::<Tuple>() == 40);

#[btf_map]
static LRU_FLOWS: LruPerCpuHashMap<Tuple, u64, ENTRIES> = LruPerCpuHashMap::new();
/// Flows that were looked up and not found; entries written.
#[btf_map]
static LRU_COUNTS: PerCpuArray<u64, 2> = PerCpuArray::new();
const MISSES: u32 = 0;
const INSERTS: u32 = 1;

/// The backend of a flow: the one that it has in the table, or the one that `choose` says, which is recorded.
#[inline(always)]
pub fn backend(flow: &Flow, choose: impl FnOnce() -> Result<BackendId, DropReason>) -> Result<BackendId, DropReason> {
    let key = &flow.tuple;
    if !matches!(flow.kind, Kind::Syn) {
        // SAFETY: the value of this CPU, which nobody else writes while the program runs.
        if let Some(bits) = unsafe { LRU_FLOWS.get(key) } {
            return Ok(BackendId::from_bits(*bits as u32));
        }
        count(MISSES);
    }
    let id = choose()?;
    if LRU_FLOWS.insert(key, u64::from(id.bits()), 0).is_ok() {
        count(INSERTS);
    }
    Ok(id)
}

#[inline(always)]
fn count(what: u32) {
    if let Some(counter) = LRU_COUNTS.get_ptr_mut(what) {
        // SAFETY: the value of this CPU, valid while the program runs; nobody else writes it.
        unsafe { *counter += 1 };
    }
}
