//! Tunnel headers: what they carry, and whether they say that it was sent on before.

use super::Bytes;
use crate::{
    addr::WireWord,
    wire::{gue, protocol, udp},
};

/// What a tunnel packet carries, and where.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Payload {
    /// Offset of the inner network header.
    pub l3: usize,
    /// IPv4 or IPv6.
    pub is_ipv4: bool,
    /// Whether the tunnel header between is one that this version understands.
    pub is_understood: bool,
    /// How many terminators have sent the packet on already, as it says.
    pub chances: u8,
}

impl Payload {
    /// What a tunnel header without marks carries.
    #[must_use]
    #[inline(always)]
    pub const fn new(l3: usize, is_ipv4: bool) -> Self {
        Self { l3, is_ipv4, is_understood: true, chances: 0 }
    }
}

/// The inner packet of a packet whose transport is an IP-in-IP or GUE tunnel; `None` if it is no tunnel.
///
/// A UDP packet to the GUE port whose header is not understood is taken for one that carries what its first nibble
/// says, so that its reason to drop can be counted if that is for a VIP.
#[inline(always)]
pub fn tunnel<B: Bytes + ?Sized>(frame: &B, transport: u8, l4: usize) -> Option<Payload> {
    match transport {
        protocol::IPV4 => Some(Payload::new(l4, true)),
        protocol::IPV6 => Some(Payload::new(l4, false)),
        protocol::UDP => {
            if u16::from_be_bytes(frame.read(l4 + 2)?) != gue::PORT {
                return None;
            }
            let l3 = l4 + udp::LEN + gue::LEN;
            let [header] = frame.words(l4 + udp::LEN)?;
            match gue::payload(header) {
                Some(protocol::IPV4) => Some(Payload::new(l3, true)),
                Some(protocol::IPV6) => Some(Payload::new(l3, false)),
                _ => marked(frame, header, l3),
            }
        }
        _ => None,
    }
}

/// What lies behind a GUE header that is not the plain one, whose first word ends at `at`.
#[inline(always)]
fn marked<B: Bytes + ?Sized>(frame: &B, header: WireWord, at: usize) -> Option<Payload> {
    if let Some(payload) = gue::private_payload(header)
        && let Some([private]) = frame.words(at)
        && let Some(chances) = gue::chance(private)
    {
        let is_ipv4 = match payload {
            protocol::IPV4 => true,
            protocol::IPV6 => false,
            _ => return None,
        };
        return Some(Payload { chances, ..Payload::new(at + gue::MARKED_LEN - gue::LEN, is_ipv4) });
    }
    let [first] = frame.read(at)?;
    match first >> 4 {
        4 => Some(Payload { is_understood: false, ..Payload::new(at, true) }),
        6 => Some(Payload { is_understood: false, ..Payload::new(at, false) }),
        _ => None,
    }
}
