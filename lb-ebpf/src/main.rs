//! The XDP program: entry points only. Each runs the pipeline and returns what the driver is to do.
//!
//! There are two variants of each: `*_frags` accepts multi-buffer packets (Linux 5.18), the plain one loads on older
//! kernels. All programs that share a device map need the same variant.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "fields are cut out of words by casts; lengths are checked against an MTU first"
)]
#![expect(clippy::needless_pass_by_value, reason = "the entry points' macro hands the context over")]
#![expect(missing_docs, reason = "the entry points' macro repeats them without their documentation")]

mod act;
mod arp;
mod clamp;
mod connect;
mod decide;
mod egress;
mod encap;
mod extensions;
mod fragments;
mod icmp;
mod maglev;
mod maps;
mod packet;
mod peers;
mod retarget;
mod second_chance;
mod socket;
mod sources;
mod stats;
mod trace;
mod tracking;
mod vip;
#[cfg(feature = "yardstick-lru")]
mod yardstick;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action},
    macros::{cgroup_sock_addr, classifier, xdp},
    programs::{SockAddrContext, TcContext, XdpContext},
};

use crate::packet::Packet;

/// The load balancer.
#[xdp]
pub fn levee(ctx: XdpContext) -> u32 {
    act::run(&mut Packet::new(&ctx))
}

/// The load balancer, for multi-buffer packets.
#[xdp(frags)]
pub fn levee_frags(ctx: XdpContext) -> u32 {
    act::run(&mut Packet::multi_buffer(&ctx))
}

/// The dry entry: decides as [`levee`] does, changes and counts nothing, and writes a report over the frame.
#[xdp]
pub fn levee_lookup(ctx: XdpContext) -> u32 {
    act::report(&mut Packet::new(&ctx))
}

/// The dry entry, for multi-buffer packets.
#[xdp(frags)]
pub fn levee_lookup_frags(ctx: XdpContext) -> u32 {
    act::report(&mut Packet::multi_buffer(&ctx))
}

/// For the egress of uplinks (tc): gives what servers behind VIPs send the service's port, and lowers the maximum segment
/// size that they announce.
#[classifier]
pub fn levee_egress(ctx: TcContext) -> i32 {
    let _ = egress::run(&ctx);
    TC_ACT_UNSPEC // whatever comes behind it decides
}

/// Sends connections of a cgroup's processes to a VIP to one of its backends instead.
#[cgroup_sock_addr(connect4)]
pub fn levee_connect4(ctx: SockAddrContext) -> i32 {
    connect::connect4(&ctx);
    connect::GO_ON
}

/// As [`levee_connect4`], for IPv6 sockets.
#[cgroup_sock_addr(connect6)]
pub fn levee_connect6(ctx: SockAddrContext) -> i32 {
    connect::connect6(&ctx);
    connect::GO_ON
}

/// Names the VIP to programs that ask for the peer of such a connection.
#[cgroup_sock_addr(getpeername4)]
pub fn levee_peer4(ctx: SockAddrContext) -> i32 {
    connect::peer4(&ctx);
    connect::GO_ON
}

/// As [`levee_peer4`], for IPv6 sockets.
#[cgroup_sock_addr(getpeername6)]
pub fn levee_peer6(ctx: SockAddrContext) -> i32 {
    connect::peer6(&ctx);
    connect::GO_ON
}

/// The load balancer as [`levee`], which tells of every packet for a VIP while somebody listens.
#[xdp]
pub fn levee_trace(ctx: XdpContext) -> u32 {
    trace::run::<false>(&ctx)
}

/// The load balancer that tells of every packet for a VIP, for multi-buffer packets.
#[xdp(frags)]
pub fn levee_trace_frags(ctx: XdpContext) -> u32 {
    trace::run::<true>(&ctx)
}

/// Passes everything: a veth device accepts frames from its peer's XDP program only if it carries one itself.
#[xdp]
pub fn pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The verifier proves that nothing panics; the compiler wants a handler all the same.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel lends some helpers to programs under the GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the loader finds the licence by the name of its section")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
