//! Constructed values that the golden tests of metrics and `lbctl` show.

use std::net::IpAddr;

use lb_common::verdict::{DropReason, Verdict};

use crate::{
    dataplane::PinOwner,
    inspect::{
        AddressView, BackendView, Count, HopView, Inspection, MapUse, Presence, RingView, ServiceView, ShareView,
        TrackingView,
    },
    model::{Judgement, MacAddr, ObjectName, Reason, Severity},
    status::{
        AgentStatus, AnnouncementStatus, BackendStatus, ChangeStatus, ClusterStatus, ConfigStatus, DataplaneStatus,
        FollowStatus, InterfaceStatus, MembershipStatus, NodeLeaseStatus, PeerStatus, SavedStatus, ScanStatus,
        ServiceStatus, WatchStatus, WithheldStatus,
    },
};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What the agent of `node-1` says of itself.
pub fn status() -> AgentStatus {
    AgentStatus {
        node: "node-1".to_owned(),
        version: "0.1.0".to_owned(),
        pid: 4711,
        started: 1_795_000_000,
        ready: true,
        config: ConfigStatus {
            path: "/etc/levee/levee.yaml".to_owned(),
            generation: 3,
            loaded: 1_795_000_100,
            refused: None,
            pending_restart: Vec::new(),
            secret_fingerprint: "0a1b2c3d".to_owned(),
        },
        dataplane: DataplaneStatus {
            pin_path: "/sys/fs/bpf/levee".to_owned(),
            adopted: true,
            plans_applied: 7,
            plans_failed: 1,
            error: None,
            plan_seconds: 0.5,
            apply_seconds: 0.25,
            last_plan_seconds: 0.002,
            last_apply_seconds: 0.001,
        },
        interfaces: vec![
            interface("eth0", "native", None),
            interface("eth1", "generic", Some("the driver has no XDP")),
        ],
        held: vec![address("192.0.2.10")],
        announcements: vec![
            announcement("192.0.2.10", true, "backend 10.0.1.2 is on this node and healthy"),
            announcement("2001:db8::10", false, "no backend on this node is healthy"),
        ],
        announce_errors: Vec::new(),
        services: vec![service_status("kubernetes")],
        backends: vec![
            backend_status("10.0.1.2", true, "healthy", "takes flows"),
            backend_status("10.0.2.2", false, "failed", "connection refused"),
        ],
        drained_nodes: Vec::new(),
        changes: vec![ChangeStatus {
            service: "kubernetes".to_owned(),
            vip: address("192.0.2.10"),
            port: 6443,
            protocol: "tcp".to_owned(),
            unsettled: 1_000,
            settling: 24,
            pairs: Vec::new(),
        }],
        scans: ScanStatus { count: 12, seconds: 0.75, last_seconds: 0.0625, expired: 34 },
        membership: MembershipStatus {
            enabled: true,
            peers: vec![peer("node-2", "10.0.2.2", "heard"), peer("node-3", "10.0.3.2", "unknown")],
            ..MembershipStatus::default()
        },
        cluster: None,
    }
}

fn service_status(name: &str) -> ServiceStatus {
    ServiceStatus { service: name.to_owned().into(), probes_believed: true, local_first: false }
}

fn peer(node: &str, of: &str, state: &str) -> PeerStatus {
    let knows_us = (state == "heard").then_some(true);
    PeerStatus {
        node: node.to_owned(),
        addresses: vec![address(of)],
        state: state.to_owned(),
        knows_us,
        ..PeerStatus::default()
    }
}

/// What the agent of `node-1` says of a cluster.
pub fn cluster() -> ClusterStatus {
    let judgement = |name: &str, severity, reason, message: &str| {
        Judgement::on(&ObjectName::new("shop", name), severity, reason, message).into()
    };
    ClusterStatus {
        origin: "saved".to_owned(),
        saved: Some(1_795_000_000),
        nodes: 3,
        services: 12,
        pools: 1,
        served: 2,
        judgements: vec![
            judgement("cart", Severity::Refused, Reason::AddressRefused, "spec.externalIPs: 10.0.0.1 is in no VipPool"),
            judgement("web", Severity::Note, Reason::ClientAddressHidden, "externalTrafficPolicy is Cluster"),
        ],
        withheld: vec![WithheldStatus { vip: address("192.0.2.20"), reason: "this node is excluded".to_owned() }],
        compositions: 5,
        compose_seconds: 0.015_625,
        source: Some(source()),
    }
}

/// How the agent of `node-1` follows a cluster.
pub fn source() -> FollowStatus {
    let kind = |resource: &str, objects| WatchStatus {
        resource: resource.to_owned(),
        objects,
        complete: true,
        streaming: true,
        listed: Some(1_795_000_000),
        heard: Some(1_795_003_690),
        lists: 1,
        ..WatchStatus::default()
    };
    FollowStatus {
        server: Some("10.0.1.2:6443".to_owned()),
        error: None,
        publications: 4,
        kinds: vec![kind("nodes", 3), kind("services", 12), kind("endpointslices", 14), kind("vippools", 1)],
        saved: Some(SavedStatus { writes: 2, bytes: 4_096, error: None }),
        lease: NodeLeaseStatus {
            name: "levee-system/levee-node-node-1".to_owned(),
            renewed: Some(1_795_003_695),
            error: None,
        },
    }
}

fn interface(name: &str, mode: &str, reason: Option<&str>) -> InterfaceStatus {
    InterfaceStatus { name: name.to_owned(), mode: mode.to_owned(), reason: reason.map(str::to_owned) }
}

fn announcement(vip: &str, announced: bool, reason: &str) -> AnnouncementStatus {
    AnnouncementStatus { vip: address(vip), announced, reason: reason.to_owned().into() }
}

fn backend_status(of: &str, takes_flows: bool, health: &str, reason: &str) -> BackendStatus {
    BackendStatus {
        service: "kubernetes".to_owned().into(),
        address: address(of),
        port: 6443,
        weight: 1,
        probe: Some("https :6443/readyz".to_owned().into()),
        health: health.to_owned().into(),
        takes_flows,
        mode: "local".into(),
        reason: reason.to_owned().into(),
        drain: None,
    }
}

/// What the maps of `node-1` hold.
pub fn inspection() -> Inspection {
    Inspection {
        pin_path: "/sys/fs/bpf/levee".to_owned(),
        agent: presence(true),
        secret_fingerprint: "0a1b2c3d".to_owned(),
        interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
        addresses: vec![
            AddressView { address: address("10.0.1.2"), vip: false, pass_unmatched: false, node: true },
            AddressView { address: address("192.0.2.10"), vip: true, pass_unmatched: false, node: false },
        ],
        peers: vec![address("10.0.2.2"), address("10.0.3.2")],
        services: vec![service()],
        verdicts: Verdict::ALL
            .iter()
            .map(|verdict| count(verdict.label(), verdict.text(), if *verdict == Verdict::L2 { 1_200 } else { 0 }))
            .collect(),
        drops: DropReason::ALL
            .iter()
            .map(|reason| count(reason.label(), reason.text(), if *reason == DropReason::TooBig { 5 } else { 0 }))
            .collect(),
        maps: vec![
            map("SETTINGS", None, 1, 4_096),
            map("SERVICES", Some(1), 1_024, 81_920),
            map("RINGS", Some(4_096), 4_194_304, 33_554_432),
            map("PEERS", Some(900), 1_024, 81_920),
        ],
    }
}

/// The agent of `node-1`, running or not.
pub fn presence(running: bool) -> Presence {
    Presence {
        running,
        owner: Some(PinOwner {
            pid: 4711,
            node: "node-1".to_owned(),
            version: "0.1.0".to_owned(),
            started: 1_795_000_000,
        }),
    }
}

fn count(name: &'static str, text: &'static str, packets: u64) -> Count {
    Count { name, packets, text }
}

fn map(name: &'static str, entries: Option<u32>, capacity: u32, memory_bytes: u64) -> MapUse {
    let fact = lb_common::maps::ALL.iter().find(|fact| fact.name == name).unwrap();
    MapUse { name, purpose: fact.purpose, entries, capacity, memory_bytes }
}

/// A service with a backend on this node, one on the link and one behind a tunnel, which takes no flows.
pub fn service() -> ServiceView {
    let l2 = HopView {
        interface: Some(2),
        interface_name: Some("eth0".to_owned()),
        next_hop_mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        source_mac: Some(MacAddr([2, 0, 0, 0, 0, 2])),
        mtu: Some(1500),
        ..HopView::none("l2")
    };
    let gue = HopView {
        mode: "gue over IPv6",
        vlan: Some(7),
        tunnel_destination: Some(address("2001:db8:3::2")),
        tunnel_source: Some(address("2001:db8:1::2")),
        ..l2.clone()
    };
    ServiceView {
        index: 0,
        name: "kubernetes".to_owned(),
        vip: address("192.0.2.10"),
        port: 6443,
        protocol: "tcp".to_owned(),
        ring_slots: 4096,
        generation: 12,
        held: true,
        target_port: None,
        connects_to: Vec::new(),
        packets: 1_234,
        bytes: 567_890,
        tracking: TrackingView {
            window_ms: 7_500_000,
            limit: 65_536,
            new: 21,
            old: 12,
            new_refused: 3,
            old_refused: 0,
        },
        backends: vec![
            backend(0, "10.0.1.2", true, HopView::none("local"), 34),
            backend(1, "10.0.2.2", true, l2, 1_200),
            backend(2, "2001:db8:3::2", false, gue, 0),
        ],
        ring: Some(RingView {
            slots: 4096,
            fingerprint: "0123456789abcdef".to_owned(),
            largest_deviation_percent: 0.024,
            stale_slots: 0,
            shares: vec![
                share("10.0.1.2", 2_047, 49.976, 50.0),
                share("10.0.2.2", 2_049, 50.024, 50.0),
                share("2001:db8:3::2", 0, 0.0, 0.0),
            ],
            changes: Vec::new(),
        }),
    }
}

fn backend(index: u32, of: &str, in_ring: bool, hop: HopView, packets: u64) -> BackendView {
    BackendView {
        index,
        generation: 1,
        address: address(of),
        port: 6443,
        weight: 1,
        in_ring,
        hop,
        packets,
        bytes: packets * 100,
    }
}

fn share(of: &str, slots: u32, percent: f64, ideal_percent: f64) -> ShareView {
    ShareView { address: address(of), port: 6443, weight: 1, slots, percent, ideal_percent }
}
