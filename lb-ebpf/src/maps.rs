//! The maps, with keys and values from `lb_common::maps`. Capacities are set when the object is loaded; the numbers here
//! only have to be valid.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, ArrayOfMaps, DevMapHash, HashMap, PerCpuArray},
    macros::btf_map,
};
use lb_common::{
    addr::IpAddr16,
    maps::{
        addresses::{AddressEntry, FILTER_WORDS},
        agent::AgentInfo,
        backends::Backend,
        counters::Counters,
        names::{BackendInfo, ServiceInfo},
        peers::{PeerEntry, PeerMacKey},
        services::{ServiceEntry, VipKey},
        settings::Settings,
    },
};

const MAPPED: usize = BPF_F_MMAPABLE as usize;
const VERDICT_SLOTS: usize = lb_common::verdict::Verdict::ALL.len();
const DROP_SLOTS: usize = lb_common::verdict::DropReason::ALL.len();

#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
pub static VIP_FILTER: Array<u64, { FILTER_WORDS as usize }, MAPPED> = Array::new();
#[btf_map]
pub static ADDRESSES: HashMap<IpAddr16, AddressEntry, 1> = HashMap::new();
#[btf_map]
pub static SERVICES: HashMap<VipKey, ServiceEntry, 1> = HashMap::new();
#[btf_map]
pub static PUBLISHED: Array<u64, 1, MAPPED> = Array::new();
#[btf_map]
pub static RINGS: Array<u64, 1, MAPPED> = Array::new();
#[btf_map]
pub static BACKENDS: Array<Backend, 1, MAPPED> = Array::new();
#[btf_map]
pub static PEERS: HashMap<IpAddr16, PeerEntry, 1> = HashMap::new();
#[btf_map]
pub static PEER_MACS: HashMap<PeerMacKey, PeerEntry, 1> = HashMap::new();
#[btf_map]
pub static DEVICES: DevMapHash<1> = DevMapHash::new();
#[btf_map]
pub static VERDICTS: PerCpuArray<u64, VERDICT_SLOTS> = PerCpuArray::new();
#[btf_map]
pub static DROPS: PerCpuArray<u64, DROP_SLOTS> = PerCpuArray::new();
#[btf_map]
pub static SERVICE_COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();
#[btf_map]
pub static BACKEND_COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();
#[btf_map]
pub static SERVICE_INFO: Array<ServiceInfo, 1> = Array::new();
#[btf_map]
pub static BACKEND_INFO: Array<BackendInfo, 1> = Array::new();
#[btf_map]
pub static AGENT: Array<AgentInfo, 1> = Array::new();
/// Not read: an update of a map of maps waits for a grace period on kernels where `membarrier` refuses to.
#[btf_map]
pub static GRACE: ArrayOfMaps<Array<u32, 1>, 1> = ArrayOfMaps::new();
