//! What the maps hold while the program is fed: services of both families, every mode, every flag.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_agent::plan::Sizes;
use packets_tests::{OUT, SIZES, Way, World, addresses::*, service, world};

/// A VIP that this node does not hold, and that passes what matches none of its services.
pub const OPEN4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 11));
/// Another of the other family, with source ranges.
pub const RANGED6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0x11));
/// A VIP with source ranges.
pub const RANGED4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 12));

/// Sizes of the maps.
pub const ROOM: Sizes = Sizes { services: 16, backends: 64, ..SIZES };

/// A backend's address: no two services share one, so that counters tell them apart.
fn host(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100 + number))
}

/// All of it.
pub fn serving() -> World {
    world()
        .with(
            service(VIP4, 80)
                .held()
                .backend(host(0), Way::l2())
                .backend(host(1), Way::ipip(B4).tagged(7))
                .backend(host(2), Way::gue(B4).out_of(OUT))
                .backend(host(3), Way::ipip(B6))
                .backend(host(4), Way::gue(B6).mtu(1400))
                .backend(host(5), Way::local())
                .backend(host(6), Way::unknown())
                .idle_backend(host(7), Way::l2()),
        )
        .with(service(VIP4, 53).udp().held().backend(host(10), Way::l2().mtu(100)).backend(host(11), Way::gue(B4)))
        .with(service(VIP6, 80).backend(host(20), Way::ipip(B6)).backend(host(21), Way::local()))
        .with(service(VIP6, 53).udp().with_affinity().backend(host(25), Way::l2()).backend(host(26), Way::gue(A6)))
        .with(service(OPEN4, 0).udp().passing_unmatched().backend(host(30), Way::l2()).backend(host(31), Way::ipip(A4)))
        .with(service(OPEN4, 443).passing_unmatched())
        .with(service(OPEN4, 38412).sctp().backend(host(35), Way::gue(A4)))
        .with(service(RANGED4, 80).from(CLIENT4, 32).from(NODE4, 24).held().backend(host(40), Way::l2()))
        .with(
            service(RANGED6, 80).from(CLIENT6, 64).held().backend(host(45), Way::l2()).backend(host(46), Way::gue(A4)),
        )
}
