//! The layout of every pinned key and value, so that a change of it shows in a review and raises `LAYOUT_VERSION`.

use std::fmt::Write;

use super::{
    addresses::*, agent::*, backends::*, counters::*, flows::*, fragments::*, names::*, peers::*, rewrites::*,
    services::*, settings::*, sources::*, tracking::*, translations::*,
};
use crate::{LAYOUT_VERSION, addr::IpAddr16, hash::Tuple};

macro_rules! layout {
    ($out:ident, $($name:ident { $($field:tt),+ $(,)? })+) => {
        $(
            writeln!($out, "{}: {} bytes, alignment {}", stringify!($name), size_of::<$name>(), align_of::<$name>()).unwrap();
            $( writeln!($out, "  {:3} {}", std::mem::offset_of!($name, $field), stringify!($field)).unwrap(); )+
        )+
    };
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of every layout")]
fn pinned_layouts_are_those_of_this_version() {
    let mut out = format!("layout version {LAYOUT_VERSION}\n");
    writeln!(out, "IpAddr16: {} bytes, alignment {}", size_of::<IpAddr16>(), align_of::<IpAddr16>()).unwrap();
    layout!(out,
        VipKey { address, port, protocol }
        ServiceEntry { index }
        AddressEntry { flags }
        PeerMacKey { mac }
        PeerEntry { id }
        Settings { hash_key, peer_macs, node }
        Hop { tunnel_destination, tunnel_source, macs, interface, vlan, mtu, mode, pad }
        Backend { head, hops, pad }
        Counters { packets, bytes }
        Tuple { source, to, source_port }
        FlowEntry { backend, slot_bits, deadline, service, stage }
        Tracking { 0 }
        ServiceInfo { key, used, name }
        BackendInfo { address, service, port, weight, used, in_ring, generation, drained_since, drain_deadline, drained_with_node, pad }
        AgentInfo { started, pid, layout, drained_since, drain_deadline, node, version }
        FragmentKey { source, destination, identification, protocol }
        FragmentEntry { time, source_port, destination_port, pad }
        RewriteEntry { port, of }
        Endpoint { address, port, pad }
        TranslationEntry { key, count, backends }
        TranslatedEntry { vip, backend }
    );
    writeln!(out, "SourceKey: {} bytes, alignment {}", size_of::<SourceKey>(), align_of::<SourceKey>()).unwrap();
    insta::assert_snapshot!(out, @r"
    layout version 2
    IpAddr16: 16 bytes, alignment 4
    VipKey: 20 bytes, alignment 4
        0 address
       16 port
       18 protocol
    ServiceEntry: 4 bytes, alignment 4
        0 index
    AddressEntry: 4 bytes, alignment 4
        0 flags
    PeerMacKey: 8 bytes, alignment 1
        0 mac
    PeerEntry: 4 bytes, alignment 4
        0 id
    Settings: 112 bytes, alignment 8
        0 hash_key
       16 peer_macs
       80 node
    Hop: 56 bytes, alignment 8
        0 tunnel_destination
       16 tunnel_source
       32 macs
       44 interface
       48 vlan
       50 mtu
       52 mode
       53 pad
    Backend: 128 bytes, alignment 8
        0 head
        8 hops
      120 pad
    Counters: 16 bytes, alignment 8
        0 packets
        8 bytes
    Tuple: 40 bytes, alignment 8
        0 source
       16 to
       36 source_port
    FlowEntry: 24 bytes, alignment 8
        0 backend
        4 slot_bits
        8 deadline
       16 service
       20 stage
    Tracking: 64 bytes, alignment 64
        0 0
    ServiceInfo: 88 bytes, alignment 4
        0 key
       20 used
       24 name
    BackendInfo: 56 bytes, alignment 8
        0 address
       16 service
       20 port
       22 weight
       24 used
       28 in_ring
       30 generation
       32 drained_since
       40 drain_deadline
       48 drained_with_node
       52 pad
    AgentInfo: 128 bytes, alignment 8
        0 started
        8 pid
       12 layout
       16 drained_since
       24 drain_deadline
       32 node
       96 version
    FragmentKey: 40 bytes, alignment 4
        0 source
       16 destination
       32 identification
       36 protocol
    FragmentEntry: 16 bytes, alignment 8
        0 time
        8 source_port
       10 destination_port
       12 pad
    RewriteEntry: 4 bytes, alignment 1
        0 port
        2 of
    Endpoint: 20 bytes, alignment 4
        0 address
       16 port
       18 pad
    TranslationEntry: 184 bytes, alignment 4
        0 key
       20 count
       24 backends
    TranslatedEntry: 40 bytes, alignment 4
        0 vip
       20 backend
    SourceKey: 20 bytes, alignment 4
    ");
}
