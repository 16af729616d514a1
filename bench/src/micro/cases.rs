//! The table of cases: which program gets which packets, how they end, and what that may cost.

use lb_common::verdict::{Action, Verdict};
use packets_tests::{Packet, addresses::*, tcp, udp};

use super::programs::{self, CLIENT_PORT, Program, Way};

/// One case: who is measured, with what.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its name in the report.
    pub name: &'static str,
    /// Cases of one group share a plot.
    pub group: &'static str,
    /// The program under test.
    pub program: Program,
    /// The packets.
    pub traffic: Traffic,
    /// What becomes of each.
    pub end: End,
    /// What it may cost net of the floor, in nanoseconds.
    pub budget: Option<f64>,
    /// What the reader has to know.
    pub note: Option<&'static str>,
}

/// Which packets come in.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// The first of them.
    pub packet: fn() -> Packet,
    /// Over how many flows they vary; [`EVER_NEW`] for one each.
    pub flows: u64,
    /// Over how many VIPs they vary.
    pub vips: u64,
}

/// So many flows that none comes twice.
pub const EVER_NEW: u64 = 1 << 32;
/// As many as a busy site has; a table of 1,048,576 entries holds them all.
pub const MANY_FLOWS: u64 = 1_000_000;
/// Services of the larger configuration.
pub const MANY_SERVICES: u64 = 10_000;

/// How packets end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The program under test is the floor: sent back as it came, its beginning moved by so many bytes.
    Floor(usize),
    /// Passed as it came, nothing counted.
    NotOurs,
    /// Passed as it came, counted for the service.
    Local,
    /// Sent on, the frame rewritten for this delivery.
    Sent(Delivery, Action),
}

/// How a packet is sent on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Delivery {
    /// By rewriting the MAC addresses.
    L2,
    /// IP in IP, outer header IPv4.
    Ipip4,
    /// IP in IP, outer header IPv6.
    Ipip6,
    /// GUE, outer header IPv4.
    Gue4,
    /// GUE, outer header IPv6.
    Gue6,
}

impl Delivery {
    /// The verdict that counts it.
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::L2 => Verdict::L2,
            Self::Ipip4 | Self::Ipip6 => Verdict::Ipip,
            Self::Gue4 | Self::Gue6 => Verdict::Gue,
        }
    }
}

/// Names that ratios and the text of the report refer to.
pub mod names {
    pub const FLOOR_IPV4: &str = "floor, IPv4";
    pub const FLOOR_IPV6: &str = "floor, IPv6";
    pub const NODE_PORT: &str = "not for a VIP: TCP to a port of this node";
    pub const ONE_FLOW: &str = "settled TCP, one flow";
    pub const MANY_FLOWS: &str = "settled TCP, 1,000,000 flows";
    pub const NEW_FLOWS: &str = "settled TCP, ever new SYNs";
    pub const IPIP: &str = "ipip over IPv4";
    pub const LRU_ONE_FLOW: &str = "LRU: TCP, one flow";
    pub const LRU_MANY_FLOWS: &str = "LRU: TCP, 1,000,000 flows";
    pub const LRU_NEW_FLOWS: &str = "LRU: TCP, ever new SYNs";
    pub const LRU_IPIP: &str = "LRU: TCP, one flow, ipip over IPv4";
}

const FLOOR: &str = "floor";
const OTHERS: &str = "packets that are for no VIP";
const SETTLED: &str = "settled service, l2";
const UNSETTLED: &str = "service whose backends have just changed, l2";
const DELIVERIES: &str = "deliveries, TCP of one flow";
const SERVICES: &str = "10,000 services";
const YARDSTICK: &str = "yardstick: the same program with an LRU table of flows";

const L2: End = End::Sent(Delivery::L2, Action::Transmit);

fn tcp_l2() -> Packet {
    tcp(CLIENT4, CLIENT_PORT, programs::vip4(Way::L2), 80)
}

const fn spec(name: &'static str, group: &'static str, program: Program, packet: fn() -> Packet, end: End) -> Spec {
    let traffic = Traffic { packet, flows: 1, vips: 1 };
    Spec { name, group, program, traffic, end, budget: None, note: None }
}

impl Spec {
    const fn flows(mut self, flows: u64) -> Self {
        self.traffic.flows = flows;
        self
    }

    const fn vips(mut self, vips: u64) -> Self {
        self.traffic.vips = vips;
        self
    }

    const fn within(mut self, nanoseconds: f64) -> Self {
        self.budget = Some(nanoseconds);
        self
    }

    const fn note(mut self, text: &'static str) -> Self {
        self.note = Some(text);
        self
    }
}

/// Every case, in the order of the report. A case is a line here; what its program's maps hold is in `programs`.
pub const CASES: &[Spec] = &[
    spec(names::FLOOR_IPV4, FLOOR, Program::Floor, tcp_l2, End::Floor(0)),
    spec(names::FLOOR_IPV6, FLOOR, Program::Floor, || tcp(CLIENT6, CLIENT_PORT, programs::vip6(), 80), End::Floor(0)),
    spec("floor, frame grown by 20 bytes", FLOOR, Program::FloorGrown, tcp_l2, End::Floor(20))
        .note("makes room as a tunnel does; the harness takes it back. Not taken off the deliveries' figures"),
    spec(names::NODE_PORT, OTHERS, Program::Levee, || tcp(CLIENT4, CLIENT_PORT, NODE4, 30_080), End::NotOurs)
        .within(10.0),
    spec("not for a VIP: UDP", OTHERS, Program::Levee, || udp(CLIENT4, CLIENT_PORT, NODE4, 8_472), End::NotOurs),
    spec("not for a VIP: IPv6 TCP", OTHERS, Program::Levee, || tcp(CLIENT6, CLIENT_PORT, NODE6, 30_080), End::NotOurs),
    spec(
        "not for a VIP: TCP, address shares a VIP's bit in the filter",
        OTHERS,
        Program::Levee,
        || tcp(CLIENT4, CLIENT_PORT, programs::shares_filter_bit(), 30_080),
        End::NotOurs,
    )
    .note("one address in 65,536 per VIP"),
    spec(names::ONE_FLOW, SETTLED, Program::Levee, tcp_l2, L2).within(50.0),
    spec(names::MANY_FLOWS, SETTLED, Program::Levee, tcp_l2, L2).flows(MANY_FLOWS).within(80.0),
    spec(names::NEW_FLOWS, SETTLED, Program::Levee, || tcp_l2().syn(), L2).flows(EVER_NEW).within(80.0),
    spec(
        "settled UDP, one flow",
        SETTLED,
        Program::Levee,
        || udp(CLIENT4, CLIENT_PORT, programs::vip4(Way::L2), 80),
        L2,
    ),
    spec(
        "settled UDP, ever new flows",
        SETTLED,
        Program::Levee,
        || udp(CLIENT4, CLIENT_PORT, programs::vip4(Way::L2), 80),
        L2,
    )
    .flows(EVER_NEW),
    spec("settled IPv6 TCP, one flow", SETTLED, Program::Levee, || tcp(CLIENT6, CLIENT_PORT, programs::vip6(), 80), L2),
    spec(
        "settled IPv6 TCP, 1,000,000 flows",
        SETTLED,
        Program::Levee,
        || tcp(CLIENT6, CLIENT_PORT, programs::vip6(), 80),
        L2,
    )
    .flows(MANY_FLOWS),
    spec("unsettled TCP, one flow", UNSETTLED, Program::Unsettled, tcp_l2, L2),
    spec("unsettled TCP, 1,000,000 flows", UNSETTLED, Program::Unsettled, tcp_l2, L2)
        .flows(MANY_FLOWS)
        .note("each finds its entry: one window after a change of backends at most"),
    spec("unsettled TCP, ever new flows, no room to record them", UNSETTLED, Program::UnsettledFull, tcp_l2, L2)
        .flows(EVER_NEW)
        .note("looked up in both tables, recorded in none: what a flood of segments costs"),
    spec("local", DELIVERIES, Program::Levee, || tcp_by(Way::Local), End::Local),
    spec(
        "l2, out of another interface",
        DELIVERIES,
        Program::Levee,
        || tcp_by(Way::Redirect),
        End::Sent(Delivery::L2, Action::Redirect),
    ),
    spec(names::IPIP, DELIVERIES, Program::Levee, || tcp_by(Way::Ipip4), End::Sent(Delivery::Ipip4, Action::Transmit)),
    spec(
        "ipip over IPv6",
        DELIVERIES,
        Program::Levee,
        || tcp_by(Way::Ipip6),
        End::Sent(Delivery::Ipip6, Action::Transmit),
    ),
    spec(
        "gue over IPv4",
        DELIVERIES,
        Program::Levee,
        || tcp_by(Way::Gue4),
        End::Sent(Delivery::Gue4, Action::Transmit),
    ),
    spec(
        "gue over IPv6",
        DELIVERIES,
        Program::Levee,
        || tcp_by(Way::Gue6),
        End::Sent(Delivery::Gue6, Action::Transmit),
    ),
    spec("10,000 services: TCP, one flow", SERVICES, Program::ManyServices, tcp_l2, L2),
    spec("10,000 services: TCP, 1,000,000 flows over all of them", SERVICES, Program::ManyServices, tcp_l2, L2)
        .flows(MANY_FLOWS)
        .vips(MANY_SERVICES)
        .note("every service equally busy: 328 MB of rings, which no cache holds"),
    spec(
        "10,000 services: not for a VIP",
        SERVICES,
        Program::ManyServices,
        || tcp(CLIENT4, CLIENT_PORT, NODE4, 30_080),
        End::NotOurs,
    ),
    spec(names::LRU_ONE_FLOW, YARDSTICK, Program::LruOneFlow, tcp_l2, L2),
    spec(names::LRU_MANY_FLOWS, YARDSTICK, Program::LruManyFlows, tcp_l2, L2).flows(MANY_FLOWS),
    spec(names::LRU_NEW_FLOWS, YARDSTICK, Program::LruNewFlows, || tcp_l2().syn(), L2).flows(EVER_NEW),
    spec(
        names::LRU_IPIP,
        YARDSTICK,
        Program::LruOneFlow,
        || tcp_by(Way::Ipip4),
        End::Sent(Delivery::Ipip4, Action::Transmit),
    ),
];

fn tcp_by(way: Way) -> Packet {
    tcp(CLIENT4, CLIENT_PORT, programs::vip4(way), 80)
}

impl Spec {
    /// Whether its program is loaded over maps of hundreds of megabytes.
    #[must_use]
    pub const fn needs_large_maps(&self) -> bool {
        !matches!(
            self.program,
            Program::Floor | Program::FloorGrown | Program::Levee | Program::UnsettledFull | Program::LruOneFlow
        )
    }
}
