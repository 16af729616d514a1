//! Whether the kernel has a socket for a connection.
#![expect(unsafe_code, reason = "sockets are looked up through a helper and read through a raw pointer")]

use aya_ebpf::{
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock_tuple, xdp_md},
    helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp},
};
use lb_common::{
    addr::{Be16, WireWord},
    hash::Tuple,
};

/// State of a socket that only waits for connections (`enum` of include/net/tcp_states.h).
const LISTEN: u32 = 10;

/// Whether the kernel knows the connection of `tuple` to a server on `port`. One that listens is not enough: it would answer with a reset.
#[inline(always)]
pub fn is_known(ctx: *mut xdp_md, tuple: &Tuple, port: Be16, is_ipv4: bool) -> bool {
    let (source, destination) = (tuple.source.words(), tuple.to.address.words());
    let ([s0, s1], [d0, d1]) = (tuple.source_port.wire(), port.wire());
    let ports = WireWord::from_ne_bytes([s0, s1, d0, d1]);
    let (words, length): ([WireWord; 9], u32) = if is_ipv4 {
        ([source[3], destination[3], ports, 0, 0, 0, 0, 0, 0], 12)
    } else {
        let ([a, b, c, d], [e, f, g, h]) = (source, destination);
        ([a, b, c, d, e, f, g, h, ports], 36)
    };
    // SAFETY: `struct bpf_sock_tuple` begins with addresses and ports of either family as they are on the wire; the helper
    // reads `length` bytes of it. What it returns is read while it is held, and released.
    unsafe {
        let tuple = (&raw const words).cast::<bpf_sock_tuple>().cast_mut();
        let socket = bpf_skc_lookup_tcp(ctx.cast(), tuple, length, BPF_F_CURRENT_NETNS as u64, 0);
        if socket.is_null() {
            return false;
        }
        let state = (*socket).state;
        bpf_sk_release(socket.cast());
        state != LISTEN
    }
}
