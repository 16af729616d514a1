//! Restores the frame and hands it on.
#![expect(unsafe_code, reason = "frame and map values are reached through raw pointers, each checked first")]

use core::hint::black_box;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, ProgramArray},
    helpers::bpf_xdp_adjust_head,
    macros::btf_map,
    programs::XdpContext,
};

use crate::template::Template;

#[btf_map]
static TEMPLATE: Array<Template, 1> = Array::new();
/// Runs so far: the number of the next flow.
#[btf_map]
static RUNS: Array<u64, 1> = Array::new();
/// The program under test, at a constant index, so that the kernel makes the call a direct jump.
#[btf_map]
static UNDER_TEST: ProgramArray<1> = ProgramArray::new();

/// Where the bytes are that the program under test destroys or that tell flows apart.
pub trait Layout {
    /// Of eight bytes that hold the TTL.
    const HOP: usize;
    /// Of the last four bytes of the source address.
    const SOURCE: usize;
    /// Of the last four bytes of the destination address.
    const DESTINATION: usize;
    /// Of the ports.
    const PORTS: usize;
}

/// IPv4 right behind the Ethernet header, without options.
pub struct Ipv4;
/// IPv6 right behind the Ethernet header, without extension headers.
pub struct Ipv6;

impl Layout for Ipv4 {
    const HOP: usize = 22;
    const SOURCE: usize = 26;
    const DESTINATION: usize = 30;
    const PORTS: usize = 34;
}

impl Layout for Ipv6 {
    const HOP: usize = 14;
    const SOURCE: usize = 34;
    const DESTINATION: usize = 50;
    const PORTS: usize = 54;
}

/// One run: undoes the move of the frame's beginning, restores what was destroyed, makes it the next flow's, and jumps.
/// Returns `XDP_ABORTED` if there is nowhere to jump to or the frame is not the template's.
#[inline(always)]
pub fn run<L: Layout>(ctx: &XdpContext) -> u32 {
    let (Some(template), Some(runs)) = (TEMPLATE.get(0), RUNS.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    // Opaque, or the compiler would compare pointers that the verifier wants left alone.
    let length = black_box(ctx.data_end() - ctx.data());
    let moved = length as i32 - template.length as i32;
    // SAFETY: the context is valid while the program runs; pointers into the frame are made anew below.
    if moved != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, moved) } != 0 {
        return xdp_action::XDP_ABORTED;
    }
    let start = ctx.data();
    if start + L::PORTS + 4 > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: one CPU runs the benchmark, so nobody else counts; the value lives as long as the program is loaded.
    let flow = unsafe {
        let number = *runs;
        *runs = number.wrapping_add(1);
        template.flow(number)
    };
    // SAFETY: every store ends before the ports do, which are inside the frame (checked above).
    unsafe {
        store(start, template.link);
        store(start + 6, template.link_end);
        store(start + L::HOP, template.hop);
        store(start + L::SOURCE, flow.source);
        store(start + L::DESTINATION, flow.destination);
        store(start + L::PORTS, flow.ports);
        UNDER_TEST.tail_call(ctx, 0);
    }
    xdp_action::XDP_ABORTED
}

/// Makes room for an outer IPv4 header.
#[inline(always)]
pub fn grow(ctx: &XdpContext) -> u32 {
    // SAFETY: the context is valid while the program runs.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -20) } == 0 { xdp_action::XDP_TX } else { xdp_action::XDP_ABORTED }
}

/// # Safety
/// The bytes from `at` on have to be inside the frame.
#[inline(always)]
unsafe fn store<T>(at: usize, value: T) {
    // SAFETY: the caller says so; the write makes no claim on alignment.
    unsafe { (at as *mut T).write_unaligned(value) };
}
