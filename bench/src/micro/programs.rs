//! The programs under test, loaded over maps that the agent's own plan filled.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use lb_agent::plan::Sizes;
use lb_common::{addr::IpAddr16, hash::filter_bit};
use packets_tests::{Bed, OUT, Service, World, addresses::*, service, world};

use super::cases::MANY_SERVICES;

/// A program under test, with its own maps.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Program {
    /// Only returns.
    Floor,
    /// Only makes room for an outer header.
    FloorGrown,
    /// The shipped program with a handful of services.
    Levee,
    /// The shipped program with 10,000 services.
    ManyServices,
    /// The shipped program with slots whose owners have just changed, and flows that find their entry.
    Unsettled,
    /// The same with a table of flows that is full.
    UnsettledFull,
    /// With an LRU table, which only a few flows use.
    LruOneFlow,
    /// With an LRU table, in which every flow finds its entry.
    LruManyFlows,
    /// With an LRU table, which new flows fill for ever.
    LruNewFlows,
}

/// In which order programs are loaded.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Order {
    /// As in [`Program`].
    Forward,
    /// The other way round.
    Swapped,
}

impl Program {
    /// Those that are loaded over the maps of a load balancer.
    const WITH_MAPS: [Self; 7] = [
        Self::Levee,
        Self::ManyServices,
        Self::Unsettled,
        Self::UnsettledFull,
        Self::LruOneFlow,
        Self::LruManyFlows,
        Self::LruNewFlows,
    ];

    /// Whether it has an LRU table.
    #[must_use]
    pub const fn is_yardstick(self) -> bool {
        matches!(self, Self::LruOneFlow | Self::LruManyFlows | Self::LruNewFlows)
    }
}

/// How the packets of a service of the benchmark travel; each has a VIP of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    L2,
    Local,
    Redirect,
    Ipip4,
    Ipip6,
    Gue4,
    Gue6,
}

impl Way {
    const ALL: [Self; 7] = [Self::L2, Self::Local, Self::Redirect, Self::Ipip4, Self::Ipip6, Self::Gue4, Self::Gue6];
}

/// Source port of every packet before flows are varied.
pub const CLIENT_PORT: u16 = 40_000;
/// Backends of every service but those on this node.
const BACKENDS: u8 = 40;
/// Backends of each of 10,000 services.
const BACKENDS_OF_MANY: u8 = 3;
/// The ring's default size: 4096 slots.
const RING: u8 = 12;

/// The VIP of the services that deliver by `way`, in the range of RFC 2544 for benchmarks.
#[must_use]
pub const fn vip4(way: Way) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(FIRST_VIP.to_bits() + way as u32))
}

/// The VIP of the IPv6 service.
#[must_use]
pub const fn vip6() -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x2, 0, 0, 0, 0, 0, 1)) // RFC 5180
}

/// An address that is no VIP, though the filter cannot tell.
///
/// # Panics
/// Never: among 2^24 addresses some share a bit of 2^16.
#[must_use]
pub fn shares_filter_bit() -> IpAddr {
    let bit = |address: IpAddr| filter_bit(&IpAddr16::from(address));
    let wanted = bit(vip4(Way::L2));
    let mut candidates = (1..1 << 24).map(|host| IpAddr::V4(Ipv4Addr::from_bits(10 << 24 | host)));
    candidates.find(|address| bit(*address) == wanted).expect("one address in 65,536 does")
}

const FIRST_VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Every program that cases need, loaded.
pub struct Programs(BTreeMap<Program, Bed>);

impl Programs {
    /// Loads the programs among `wanted` that have maps, in this order, and fills their maps.
    ///
    /// # Errors
    /// If the object with the yardstick is not there.
    ///
    /// # Panics
    /// As [`Bed::new`].
    pub fn load(wanted: &[Program], order: Order, objects: &Path) -> Result<Self> {
        let mut in_order: Vec<_> = Program::WITH_MAPS.into_iter().filter(|program| wanted.contains(program)).collect();
        if order == Order::Swapped {
            in_order.reverse();
        }
        let yardstick = read_object(&objects.join("yardstick.o"))?;
        let mut beds = BTreeMap::new();
        for program in in_order {
            crate::say(&format!("loading {program:?}"));
            let sizes = match program {
                Program::ManyServices => SIZES_OF_MANY,
                Program::UnsettledFull => Sizes { flows_per_service: 1, ..SIZES },
                _ => SIZES,
            };
            let mut bed =
                if program.is_yardstick() { Bed::with_object(sizes, &yardstick) } else { Bed::with_sizes(sizes) };
            for world in history_of(program) {
                bed.apply(&world);
            }
            beds.insert(program, bed);
        }
        Ok(Self(beds))
    }

    /// The maps and the program; `None` for a floor.
    pub fn bed(&mut self, program: Program) -> Option<&mut Bed> {
        self.0.get_mut(&program)
    }
}

/// Reads an object that `cargo xtask` built for the benchmark.
pub fn read_object(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}; `cargo xtask bench micro` builds it", path.display()))
}

/// Where the benchmark's BPF objects are, which `cargo xtask` tells.
///
/// # Errors
/// If it did not.
pub fn objects() -> Result<PathBuf> {
    let folder = std::env::var_os("LEVEE_BENCH_OBJECTS");
    folder.map(PathBuf::from).context("LEVEE_BENCH_OBJECTS is not set; start this with `cargo xtask bench`")
}

const SIZES: Sizes = Sizes {
    services: 16,
    backends: 512,
    ring_slots: 1 << 17,
    peers: 8,
    addresses: 32,
    flows: 1 << 20,
    flows_per_service: 1 << 20,
    source_ranges: 16,
    fragments: 1024,
};
const SIZES_OF_MANY: Sizes = Sizes {
    services: 10_000,
    backends: 40_000,
    ring_slots: 41_000_000,
    addresses: 16_384,
    flows: 1024,
    flows_per_service: 1024,
    ..SIZES
};

/// The worlds that the maps of a program hold one after the other; cases are run on the last. A program whose slots are
/// to be unsettled has two that differ.
#[must_use]
pub fn history_of(program: Program) -> Vec<World> {
    match program {
        Program::Floor | Program::FloorGrown => vec![world()],
        Program::ManyServices => vec![many_services()],
        Program::Unsettled | Program::UnsettledFull => vec![changing(BACKENDS), changing(0)],
        Program::Levee | Program::LruOneFlow | Program::LruManyFlows | Program::LruNewFlows => vec![few_services()],
    }
}

/// A service per delivery, and UDP and IPv6.
fn few_services() -> World {
    let by_way = Way::ALL.into_iter().map(|way| with_backends(service(vip4(way), 80), way, BACKENDS));
    let udp = with_backends(service(vip4(Way::L2), 80).udp(), Way::L2, BACKENDS);
    let v6 = with_backends(service(vip6(), 80), Way::L2, BACKENDS);
    by_way.chain([udp, v6]).fold(world(), World::with)
}

/// A service of which the first backends take new flows, and as many others when those take none any more.
fn changing(takers: u8) -> World {
    let address = |host: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100 + host));
    let hop = packets_tests::Way::l2();
    let service = (1..=BACKENDS).fold(service(vip4(Way::L2), 80).ring(RING), |service, host| {
        if host <= takers { service.backend(address(host), hop) } else { service.idle_backend(address(host), hop) }
    });
    let others = BACKENDS + 1..=2 * BACKENDS;
    world().with(if takers > 0 { service } else { others.fold(service, |all, host| all.backend(address(host), hop)) })
}

/// 10,000 services that differ by their VIP.
fn many_services() -> World {
    let first = FIRST_VIP.to_bits();
    let count = u32::try_from(MANY_SERVICES).expect("fewer than addresses");
    let services = (0..count).map(|number| service(IpAddr::V4(Ipv4Addr::from_bits(first + number)), 80));
    services.fold(world(), |world, service| world.with(with_backends(service, Way::L2, BACKENDS_OF_MANY)))
}

/// Backends whose packets all leave alike, so that what comes out does not depend on which is chosen.
fn with_backends(service: Service, way: Way, count: u8) -> Service {
    let service = service.ring(RING);
    if way == Way::Local {
        return service.held().backend(NODE4, packets_tests::Way::local());
    }
    let hop = match way {
        Way::Redirect => packets_tests::Way::l2().out_of(OUT),
        Way::Ipip4 => packets_tests::Way::ipip(A4),
        Way::Ipip6 => packets_tests::Way::ipip(A6),
        Way::Gue4 => packets_tests::Way::gue(A4),
        Way::Gue6 => packets_tests::Way::gue(A6),
        Way::L2 | Way::Local => packets_tests::Way::l2(),
    };
    (1..=count).fold(service, |service, host| service.backend(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100 + host)), hop))
}
