//! What only benchmarks load: the harness, which restores the frame, makes it one of another flow and hands it to the
//! program under test, and the programs that measure the harness itself.
//!
//! All of them share a program array with the program under test, so all accept multi-buffer packets as that does.
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "flows are cut out of products by casts")]
#![expect(clippy::needless_pass_by_value, reason = "the entry points' macro hands the context over")]
#![expect(missing_docs, reason = "the entry points' macro repeats them without their documentation")]

mod harness;
#[path = "../../src/micro/template.rs"]
mod template;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

/// Hands IPv4 frames without tags and options to the program under test.
#[xdp(frags)]
pub fn harness_ipv4(ctx: XdpContext) -> u32 {
    harness::run::<harness::Ipv4>(&ctx)
}

/// Hands IPv6 frames without tags and extension headers to the program under test.
#[xdp(frags)]
pub fn harness_ipv6(ctx: XdpContext) -> u32 {
    harness::run::<harness::Ipv6>(&ctx)
}

/// The floor: does nothing.
#[xdp(frags)]
pub fn floor(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// The floor of a program that makes room for an outer header: does that alone.
#[xdp(frags)]
pub fn floor_grown(ctx: XdpContext) -> u32 {
    harness::grow(&ctx)
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
