//! Connections of this node's own processes to a VIP: where the VIP cannot be reached over the wire, they go to a backend
//! from the start. Bound to `connect`, so it costs nothing per packet, and established connections are left alone.
#![expect(unsafe_code, reason = "the context of a socket's address is reached through a raw pointer")]

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_prandom_u32, generated::bpf_get_socket_cookie},
    programs::SockAddrContext,
};
use lb_common::{
    addr::{Be16, IpAddr16, WireWord},
    maps::{
        services::VipKey,
        translations::{Endpoint, MAX_BACKENDS, TranslatedEntry},
    },
};

use crate::maps::{self, TRANSLATED};

/// What the program returns: the kernel goes on, with the address as it stands in the context then.
pub const GO_ON: i32 = 1;

/// How often a value is read again that another key's took the place of.
const TRIES: usize = 3;

const _: () = assert!(MAX_BACKENDS.is_power_of_two());

/// For an IPv4 socket.
#[inline(always)]
pub fn connect4(ctx: &SockAddrContext) {
    let asked = Endpoint { address: ipv4(ctx), port: port(ctx), pad: 0 };
    if let Some(backend) = translate(ctx, asked) {
        set_ipv4(ctx, backend.address.last());
        set_port(ctx, backend.port);
    }
}

/// For an IPv6 socket, which may ask for a mapped IPv4 address.
#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) {
    let asked = Endpoint { address: ipv6(ctx), port: port(ctx), pad: 0 };
    if let Some(backend) = translate(ctx, asked) {
        set_ipv6(ctx, backend.address);
        set_port(ctx, backend.port);
    }
}

/// The peer of an IPv4 socket.
#[inline(always)]
pub fn peer4(ctx: &SockAddrContext) {
    let peer = Endpoint { address: ipv4(ctx), port: port(ctx), pad: 0 };
    if let Some(vip) = vip_of(ctx, peer) {
        set_ipv4(ctx, vip.address.last());
        set_port(ctx, vip.port);
    }
}

/// The peer of an IPv6 socket.
#[inline(always)]
pub fn peer6(ctx: &SockAddrContext) {
    let peer = Endpoint { address: ipv6(ctx), port: port(ctx), pad: 0 };
    if let Some(vip) = vip_of(ctx, peer) {
        set_ipv6(ctx, vip.address);
        set_port(ctx, vip.port);
    }
}

/// Where a connection goes instead, if it is to a VIP whose service asks for that.
#[inline(always)]
fn translate(ctx: &SockAddrContext, asked: Endpoint) -> Option<Endpoint> {
    let protocol = protocol(ctx);
    let exact = VipKey::new(asked.address, asked.port, protocol);
    let chosen = choose(&exact).or_else(|| choose(&VipKey::new(asked.address, Be16::new(0), protocol)))?;
    let port = if chosen.port.is_zero() { asked.port } else { chosen.port };
    let backend = Endpoint { port, ..chosen };
    // SAFETY: the helper takes the context of this program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // Without room the program sees the backend as its peer, and no more.
    let _ = TRANSLATED.insert(cookie, TranslatedEntry { vip: asked, backend }, 0);
    Some(backend)
}

/// One of the backends of a service.
#[inline(always)]
fn choose(key: &VipKey) -> Option<Endpoint> {
    for _ in 0..TRIES {
        let entry = maps::translation(key)?;
        // SAFETY: the helper has no preconditions.
        let random = unsafe { bpf_get_prandom_u32() };
        if let Some(backend) = entry.backend(random, key) {
            return Some(backend);
        }
    }
    None
}

/// The VIP that a socket asked for whose connection went to `peer`.
#[inline(always)]
fn vip_of(ctx: &SockAddrContext, peer: Endpoint) -> Option<Endpoint> {
    // SAFETY: the helper takes the context of this program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // A datagram socket may have been connected to somebody else since.
    maps::translated(cookie).filter(|entry| entry.backend == peer).map(|entry| entry.vip)
}

/// Reads a field of the context by itself: the kernel refuses one that is read together with its neighbour.
macro_rules! field {
    ($ctx:expr, $($name:tt)+) => {
        // SAFETY: the kernel hands a valid context to the program, for as long as the program runs.
        unsafe { (&raw const (*$ctx.sock_addr).$($name)+).read_volatile() }
    };
}

/// Writes a field of the context by itself.
macro_rules! set_field {
    ($ctx:expr, $value:expr, $($name:tt)+) => {
        // SAFETY: as above.
        unsafe { (&raw mut (*$ctx.sock_addr).$($name)+).write_volatile($value) }
    };
}

#[inline(always)]
fn protocol(ctx: &SockAddrContext) -> u8 {
    field!(ctx, protocol) as u8
}

#[inline(always)]
fn port(ctx: &SockAddrContext) -> Be16 {
    let [high, low, ..] = field!(ctx, user_port).to_ne_bytes();
    Be16::from_wire([high, low])
}

#[inline(always)]
fn set_port(ctx: &SockAddrContext, port: Be16) {
    set_field!(ctx, u32::from(u16::from_ne_bytes(port.wire())), user_port);
}

#[inline(always)]
fn ipv4(ctx: &SockAddrContext) -> IpAddr16 {
    IpAddr16::v4(field!(ctx, user_ip4))
}

#[inline(always)]
fn set_ipv4(ctx: &SockAddrContext, address: WireWord) {
    set_field!(ctx, address, user_ip4);
}

#[inline(always)]
fn ipv6(ctx: &SockAddrContext) -> IpAddr16 {
    IpAddr16::v6([
        field!(ctx, user_ip6[0]),
        field!(ctx, user_ip6[1]),
        field!(ctx, user_ip6[2]),
        field!(ctx, user_ip6[3]),
    ])
}

#[inline(always)]
fn set_ipv6(ctx: &SockAddrContext, address: IpAddr16) {
    let [a, b, c, d] = address.words();
    set_field!(ctx, a, user_ip6[0]);
    set_field!(ctx, b, user_ip6[1]);
    set_field!(ctx, c, user_ip6[2]);
    set_field!(ctx, d, user_ip6[3]);
}
