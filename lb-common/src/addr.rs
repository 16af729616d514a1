//! Addresses, ports and ids as both sides store them.

/// A 16-bit number in network byte order.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct Be16([u8; 2]);

impl Be16 {
    /// From a number in host byte order.
    #[must_use]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be_bytes())
    }

    /// From two bytes as they are on the wire.
    #[must_use]
    pub const fn from_wire(bytes: [u8; 2]) -> Self {
        Self(bytes)
    }

    /// The number in host byte order.
    #[must_use]
    pub const fn get(self) -> u16 {
        u16::from_be_bytes(self.0)
    }

    /// Whether it is 0.
    #[must_use]
    #[inline(always)]
    pub const fn is_zero(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0
    }

    /// The two bytes as they are on the wire.
    #[must_use]
    pub const fn wire(self) -> [u8; 2] {
        self.0
    }
}

/// Four bytes as they are on the wire, in a word: the packet path moves words, since a byte at a time costs a load, a
/// shift and a place on the stack each.
pub type WireWord = u32;

/// The word of four bytes as they are on the wire.
#[must_use]
#[inline(always)]
pub const fn wire_word(bytes: [u8; 4]) -> WireWord {
    u32::from_ne_bytes(bytes)
}

/// An IPv6 address, or an IPv4 address as `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2), in network byte order.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct IpAddr16([WireWord; 4]);

impl IpAddr16 {
    /// From an IPv4 address as it is on the wire.
    #[must_use]
    #[inline(always)]
    pub const fn v4(word: WireWord) -> Self {
        Self([0, 0, wire_word([0, 0, 0xff, 0xff]), word])
    }

    /// From an IPv6 address as it is on the wire.
    #[must_use]
    #[inline(always)]
    pub const fn v6(words: [WireWord; 4]) -> Self {
        Self(words)
    }

    /// From sixteen bytes in network order.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self([wire_word([a, b, c, d]), wire_word([e, f, g, h]), wire_word([i, j, k, l]), wire_word([m, n, o, p])])
    }

    /// All sixteen bytes, in network order.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 16] {
        let [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] =
            [self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes(), self.0[2].to_ne_bytes(), self.0[3].to_ne_bytes()];
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The four words.
    #[must_use]
    #[inline(always)]
    pub const fn words(&self) -> [WireWord; 4] {
        self.0
    }

    /// The last word: the IPv4 address, if it is one.
    #[must_use]
    #[inline(always)]
    pub const fn last(&self) -> WireWord {
        self.0[3]
    }
}

#[cfg(feature = "user")]
impl From<core::net::IpAddr> for IpAddr16 {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::v4(wire_word(v4.octets())),
            core::net::IpAddr::V6(v6) => Self::from_bytes(v6.octets()),
        }
    }
}

#[cfg(feature = "user")]
impl From<IpAddr16> for core::net::IpAddr {
    fn from(address: IpAddr16) -> Self {
        core::net::Ipv6Addr::from(address.bytes()).to_canonical()
    }
}

/// A 48-bit Ethernet address.
pub type Mac = [u8; 6];

/// Names one backend entry for as long as it lives: its index in `BACKENDS` and the generation of that entry.
///
/// 31 bits: index in bits 0..20, generation in bits 20..31. The generation of a live entry is never 0, so the id 0
/// names nobody; an id whose generation is not the entry's does not resolve.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct BackendId(u32);

impl BackendId {
    /// Nobody.
    pub const NONE: Self = Self(0);
    /// Bits of the index: 1,048,576 backends.
    pub const INDEX_BITS: u32 = 20;
    /// Bits of the generation.
    pub const GENERATION_BITS: u32 = 11;
    /// The largest generation; 1 follows it.
    pub const LAST_GENERATION: u16 = (1 << Self::GENERATION_BITS) - 1;

    /// The id of entry `index` in its `generation`. Higher bits of either are cut off.
    #[must_use]
    #[inline(always)]
    pub const fn new(index: u32, generation: u16) -> Self {
        let generation = generation as u32 & ((1 << Self::GENERATION_BITS) - 1);
        Self(index & ((1 << Self::INDEX_BITS) - 1) | generation << Self::INDEX_BITS)
    }

    /// The id with these 31 bits.
    #[must_use]
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & 0x7fff_ffff)
    }

    /// Its 31 bits.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Index in `BACKENDS`.
    #[must_use]
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 & ((1 << Self::INDEX_BITS) - 1)
    }

    /// Generation of the entry.
    #[must_use]
    #[inline(always)]
    pub const fn generation(self) -> u16 {
        (self.0 >> Self::INDEX_BITS) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_index_and_generation_apart() {
        let id = BackendId::new(0xf_ffff, BackendId::LAST_GENERATION);
        assert_eq!((id.index(), id.generation()), (0xf_ffff, 0x7ff));
        assert_eq!(BackendId::from_bits(id.bits()), id);
        assert_eq!(BackendId::new(5, 1).bits(), 0x10_0005);
    }

    #[test]
    fn ipv4_is_stored_mapped() {
        let address: core::net::IpAddr = "192.0.2.10".parse().unwrap();
        let stored = IpAddr16::from(address);
        assert_eq!(stored.bytes()[10..], [0xff, 0xff, 192, 0, 2, 10]);
        assert_eq!(core::net::IpAddr::from(stored), address);
    }
}
