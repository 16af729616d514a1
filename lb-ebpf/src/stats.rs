//! Per-CPU counters.
#![expect(unsafe_code, reason = "per-CPU map values are reached through raw pointers")]

use aya_ebpf::btf_maps::PerCpuArray;
use lb_common::{
    maps::counters::Counters,
    verdict::{DropReason, Verdict},
};

use crate::maps::{BACKEND_COUNTERS, DROPS, SERVICE_COUNTERS, VERDICTS};

/// Counts a packet that was not dropped. What is not ours is not counted: every other packet of the node pays for it.
#[inline(always)]
pub fn verdict(verdict: Verdict) {
    if !matches!(verdict, Verdict::NotOurs) {
        increment(&VERDICTS, verdict as u32);
    }
}

/// Counts a drop.
#[inline(always)]
pub fn drop(reason: DropReason) {
    increment(&DROPS, reason as u32);
}

/// Counts a packet of `bytes` bytes for its service and its backend.
#[inline(always)]
pub fn served(service: u32, backend: u32, bytes: u32) {
    add(SERVICE_COUNTERS.get_ptr_mut(service), bytes);
    add(BACKEND_COUNTERS.get_ptr_mut(backend), bytes);
}

#[inline(always)]
fn increment<const N: usize>(counters: &PerCpuArray<u64, N>, slot: u32) {
    if let Some(counter) = counters.get_ptr_mut(slot) {
        // SAFETY: the value of this CPU, valid while the program runs; nobody else writes it.
        unsafe { *counter += 1 };
    }
}

#[inline(always)]
fn add(counters: Option<*mut Counters>, bytes: u32) {
    if let Some(counters) = counters {
        // SAFETY: as in `increment`.
        unsafe {
            (*counters).packets += 1;
            (*counters).bytes += u64::from(bytes);
        }
    }
}
