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
use lb_common::{
    addr::{BackendId, Be16, IpAddr16},
    hash::Tuple,
    maps::services::VipKey,
    parse::{Bytes, Network},
    wire::protocol,
};

use crate::packet::Packet;

/// Flows that the table holds: 1,048,576.
const ENTRIES: usize = 1 << 20;

#[btf_map]
static LRU_FLOWS: LruPerCpuHashMap<FlowKey, u64, ENTRIES> = LruPerCpuHashMap::new();
/// Flows that were looked up and not found; entries written.
#[btf_map]
static LRU_COUNTS: PerCpuArray<u64, 2> = PerCpuArray::new();
const MISSES: u32 = 0;
const INSERTS: u32 = 1;

/// A flow as the key of a map: 40 bytes without a gap. Aligned, since the stack is written in words of eight bytes.
#[repr(C, align(8))]
struct FlowKey {
    to: VipKey,
    source: IpAddr16,
    source_port: Be16,
    pad: [u8; 2],
}
const _: () = assert!(size_of::<FlowKey>() == 40);

/// The backend of a flow: the one that it has in the table, or the one that `choose` says, which is recorded.
#[inline(always)]
pub fn backend(packet: &Packet, network: &Network, tuple: &Tuple, choose: impl FnOnce() -> BackendId) -> BackendId {
    let key = FlowKey { to: tuple.to, source: tuple.source, source_port: tuple.source_port, pad: [0; 2] };
    if !is_syn(packet, network) {
        // SAFETY: the value of this CPU, which nobody else writes while the program runs.
        if let Some(bits) = unsafe { LRU_FLOWS.get(&key) } {
            return BackendId::from_bits(*bits as u32);
        }
        count(MISSES);
    }
    let id = choose();
    if LRU_FLOWS.insert(&key, u64::from(id.bits()), 0).is_ok() {
        count(INSERTS);
    }
    id
}

/// Whether a packet opens a TCP connection; not seen behind IPv6 extension headers.
#[inline(always)]
fn is_syn(packet: &Packet, network: &Network) -> bool {
    const FLAGS: usize = 13;
    const SYN: u8 = 2;
    network.next == protocol::TCP
        && packet.read::<1>(network.l3 + network.header_length + FLAGS).is_some_and(|[flags]| flags & SYN != 0)
}

#[inline(always)]
fn count(what: u32) {
    if let Some(counter) = LRU_COUNTS.get_ptr_mut(what) {
        // SAFETY: the value of this CPU, valid while the program runs; nobody else writes it.
        unsafe { *counter += 1 };
    }
}
