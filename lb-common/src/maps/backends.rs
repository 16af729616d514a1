//! `BACKENDS`: how the packets of a backend leave this node. Mapped by the agent.
//!
//! An entry has one [`Head`] word and two [`Hop`]s. The head says which hop is in force, so that a change (another MAC,
//! another interface) is written into the hop at rest and put in force by one store of the head; a packet never sees
//! half of a change. A hop is at rest for a grace period before it is written again.

use super::pod;
use crate::addr::{IpAddr16, WireWord};

/// Entry of `BACKENDS`: 128 bytes, two cache lines, of which a packet touches one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C, align(8))]
pub struct Backend {
    /// Bits of a [`Head`].
    pub head: u64,
    /// The hop in force and the one at rest.
    pub hops: [Hop; 2],
    /// Zero.
    pub pad: u64,
}

/// First word of an entry: bits 0..11 the generation (0: entry not in use), bit 16 which hop is in force, bit 17
/// whether it takes new flows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(transparent)]
pub struct Head(u64);

impl Head {
    /// The head of an entry in its `generation` with hop `active` (0 or 1) in force.
    #[must_use]
    pub const fn new(generation: u16, active: usize) -> Self {
        Self((generation & 0x7ff) as u64 | ((active & 1) as u64) << 16)
    }

    /// The same head of a backend that takes new flows, or of one that only keeps those it has.
    #[must_use]
    pub const fn taking(self, takes: bool) -> Self {
        Self(self.0 & !(1 << 17) | (takes as u64) << 17)
    }

    /// Whether the backend takes new flows.
    #[must_use]
    #[inline(always)]
    pub const fn takes(self) -> bool {
        self.0 >> 17 & 1 == 1
    }

    /// The head with these bits.
    #[must_use]
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Generation of the entry, 0 while it is not in use.
    #[must_use]
    #[inline(always)]
    pub const fn generation(self) -> u16 {
        self.0 as u16 & 0x7ff
    }

    /// Index of the hop in force: 0 or 1.
    #[must_use]
    #[inline(always)]
    pub const fn active(self) -> usize {
        (self.0 >> 16) as usize & 1
    }
}

/// How a packet is handed on.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Mode {
    /// The way is not known (yet): packets are dropped with their reason.
    Unknown = 0,
    /// The backend is this node.
    Local = 1,
    /// Rewrite the MAC addresses.
    L2 = 2,
    /// IP in IP, outer header IPv4.
    Ipip4 = 3,
    /// IP in IP, outer header IPv6.
    Ipip6 = 4,
    /// GUE, outer header IPv4.
    Gue4 = 5,
    /// GUE, outer header IPv6.
    Gue6 = 6,
}

impl Mode {
    /// Every mode, in the order of the values.
    pub const ALL: [Self; 7] = [Self::Unknown, Self::Local, Self::L2, Self::Ipip4, Self::Ipip6, Self::Gue4, Self::Gue6];

    /// The mode with this value; [`Mode::Unknown`] for a value that none has.
    #[must_use]
    pub const fn from_value(value: u8) -> Self {
        match value {
            1 => Self::Local,
            2 => Self::L2,
            3 => Self::Ipip4,
            4 => Self::Ipip6,
            5 => Self::Gue4,
            6 => Self::Gue6,
            _ => Self::Unknown,
        }
    }

    /// Its name for people.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Local => "local",
            Self::L2 => "l2",
            Self::Ipip4 => "ipip over IPv4",
            Self::Ipip6 => "ipip over IPv6",
            Self::Gue4 => "gue over IPv4",
            Self::Gue6 => "gue over IPv6",
        }
    }
}

/// Everything that is written into a packet on its way to a backend.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[repr(C, align(8))]
pub struct Hop {
    /// Where the outer header goes to: the backend's node.
    pub tunnel_destination: IpAddr16,
    /// Where the outer header comes from: this node.
    pub tunnel_source: IpAddr16,
    /// Link-layer addresses as they begin the frame ([`eth::addresses`](crate::wire::eth::addresses)): the next hop's,
    /// and that of the interface that the packet leaves by.
    pub macs: [WireWord; 3],
    /// Index of that interface.
    pub interface: u32,
    /// 802.1Q tag to send with, 1..=4094; 0 for none. Host byte order.
    pub vlan: u16,
    /// Longest IP packet that may leave, outer header included, in bytes. Host byte order.
    pub mtu: u16,
    /// A [`Mode`].
    pub mode: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// 64-bit words of one entry.
pub const BACKEND_WORDS: usize = 16;
/// 64-bit words of one hop.
pub const HOP_WORDS: usize = 7;

impl Hop {
    /// The hop as the words that are stored into the mapped array (native byte order).
    #[cfg(feature = "user")]
    #[must_use]
    pub fn to_words(&self) -> [u64; HOP_WORDS] {
        let mut bytes = [0; HOP_WORDS * 8];
        bytes[..16].copy_from_slice(&self.tunnel_destination.bytes());
        bytes[16..32].copy_from_slice(&self.tunnel_source.bytes());
        for (word, at) in self.macs.iter().zip([32, 36, 40]) {
            bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        bytes[44..48].copy_from_slice(&self.interface.to_ne_bytes());
        bytes[48..50].copy_from_slice(&self.vlan.to_ne_bytes());
        bytes[50..52].copy_from_slice(&self.mtu.to_ne_bytes());
        bytes[52] = self.mode;
        core::array::from_fn(|word| u64::from_ne_bytes(core::array::from_fn(|i| bytes[word * 8 + i])))
    }

    /// The hop that these words hold.
    #[cfg(feature = "user")]
    #[must_use]
    pub fn from_words(words: &[u64; HOP_WORDS]) -> Self {
        let byte = |at: usize| words[at / 8].to_ne_bytes()[at % 8];
        let word = |at: usize| u32::from_ne_bytes(core::array::from_fn(|i| byte(at + i)));
        Self {
            tunnel_destination: IpAddr16::v6(core::array::from_fn(|i| word(i * 4))),
            tunnel_source: IpAddr16::v6(core::array::from_fn(|i| word(16 + i * 4))),
            macs: [word(32), word(36), word(40)],
            interface: word(44),
            vlan: u16::from_ne_bytes([byte(48), byte(49)]),
            mtu: u16::from_ne_bytes([byte(50), byte(51)]),
            mode: byte(52),
            pad: [0; 3],
        }
    }
}

pod!(Hop: 16 + 16 + 12 + 4 + 2 + 2 + 1 + 3, Backend: 8 + 2 * 56 + 8);
const _: () = assert!(size_of::<Backend>() == BACKEND_WORDS * 8 && size_of::<Hop>() == HOP_WORDS * 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_survives_its_words() {
        let hop = Hop {
            tunnel_destination: IpAddr16::v6([7, 8, 9, 10]),
            tunnel_source: IpAddr16::v4(11),
            macs: [0x0403_0201, 0x0807_0605, 0x0c0b_0a09],
            interface: 0xdead_beef,
            vlan: 100,
            mtu: 1500,
            mode: Mode::Gue6 as u8,
            pad: [0; 3],
        };
        assert_eq!(Hop::from_words(&hop.to_words()), hop);
    }

    #[test]
    fn every_mode_has_its_own_value() {
        for mode in Mode::ALL {
            assert_eq!(Mode::from_value(mode as u8), mode);
        }
    }

    #[test]
    fn a_head_keeps_generation_and_selector_apart() {
        let head = Head::new(0x7ff, 1);
        assert_eq!((head.generation(), head.active()), (0x7ff, 1));
    }
}
