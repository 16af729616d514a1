//! `SOURCE_RANGES`: who may use a service that does not admit everybody. One trie for all services; written by the
//! agent, read for packets of services whose published word says that they have ranges.

use super::pod;
use crate::addr::IpAddr16;

/// Data of a key of `SOURCE_RANGES`, behind its prefix length.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct SourceKey {
    /// Index of the service in the low 31 bits; the highest bit is set for IPv4, so that `::/0` admits IPv6 only.
    scope: u32,
    /// The address.
    address: IpAddr16,
}

/// Bits of [`SourceKey`] that a prefix always covers.
const SCOPE_BITS: u32 = u32::BITS;
const IPV4: u32 = 1 << 31;

impl SourceKey {
    /// Prefix length of a single address.
    pub const WHOLE: u32 = SCOPE_BITS + 128;

    /// The key of an address as a client of a service.
    #[must_use]
    #[inline(always)]
    pub const fn new(service: u32, is_ipv4: bool, address: IpAddr16) -> Self {
        Self { scope: service | if is_ipv4 { IPV4 } else { 0 }, address }
    }
}

/// Value of `SOURCE_RANGES`: that it is there is all it says.
pub type SourceEntry = u32;

/// Addresses that a service admits.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SourceRange {
    address: IpAddr16,
    /// Bits of `address` that count, 0..=128.
    bits: u8,
    is_ipv4: bool,
}

impl SourceRange {
    /// Prefix length and data of the range's key for a service.
    #[must_use]
    pub const fn key(&self, service: u32) -> (u32, SourceKey) {
        (SCOPE_BITS + self.bits as u32, SourceKey::new(service, self.is_ipv4, self.address))
    }

    /// Service and range of a key; `None` if no range has it.
    #[must_use]
    pub fn of_key(prefix: u32, key: &SourceKey) -> Option<(u32, Self)> {
        let bits = u8::try_from(prefix.checked_sub(SCOPE_BITS)?).ok().filter(|bits| *bits <= 128)?;
        Some((key.scope & !IPV4, Self { address: key.address, bits, is_ipv4: key.scope & IPV4 != 0 }))
    }
}

#[cfg(feature = "user")]
impl SourceRange {
    /// Bits of an [`IpAddr16`] in front of an IPv4 address.
    const MAPPED_BITS: u8 = 96;

    /// The range of the addresses whose first `length` bits are those of `address`; the others have to be zero.
    #[must_use]
    pub fn new(address: core::net::IpAddr, length: u8) -> Self {
        let is_ipv4 = address.is_ipv4();
        let bits = if is_ipv4 { Self::MAPPED_BITS + length.min(32) } else { length.min(128) };
        Self { address: address.into(), bits, is_ipv4 }
    }

    /// First address and prefix length.
    #[must_use]
    pub fn prefix(&self) -> (core::net::IpAddr, u8) {
        let length = if self.is_ipv4 { self.bits.saturating_sub(Self::MAPPED_BITS) } else { self.bits };
        (self.address.into(), length)
    }

    /// Whether the range has this address.
    #[must_use]
    pub fn contains(&self, address: core::net::IpAddr) -> bool {
        let (own, other) =
            (u128::from_be_bytes(self.address.bytes()), u128::from_be_bytes(IpAddr16::from(address).bytes()));
        self.is_ipv4 == address.is_ipv4() && (own ^ other).leading_zeros() >= u32::from(self.bits)
    }
}

pod!(SourceKey: 4 + 16);

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    fn range(address: &str, length: u8) -> SourceRange {
        SourceRange::new(address.parse().unwrap(), length)
    }

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn a_range_survives_its_key() {
        for range in [range("10.0.0.0", 8), range("0.0.0.0", 0), range("2001:db8::", 32), range("::", 0)] {
            let (prefix, key) = range.key(7);
            assert_eq!(SourceRange::of_key(prefix, &key), Some((7, range)));
        }
        let (_, key) = range("10.0.0.0", 8).key(7);
        assert_eq!((SourceRange::of_key(31, &key), SourceRange::of_key(161, &key)), (None, None));
        assert_eq!(range("10.0.0.0", 8).prefix(), (ip("10.0.0.0"), 8));
        assert_eq!(range("2001:db8::", 32).prefix(), (ip("2001:db8::"), 32));
    }

    #[test]
    fn the_prefix_covers_the_service_and_the_mapped_part() {
        assert_eq!((range("10.0.0.0", 8).key(0).0, range("2001:db8::", 32).key(0).0), (32 + 96 + 8, 32 + 32));
        assert_ne!(range("::", 0).key(1).1, range("::", 0).key(2).1);
    }

    #[test]
    fn a_range_of_one_family_has_no_address_of_the_other() {
        assert!(range("::", 0).contains(ip("2001:db8::1")) && !range("::", 0).contains(ip("10.0.0.1")));
        assert!(range("0.0.0.0", 0).contains(ip("10.0.0.1")) && !range("0.0.0.0", 0).contains(ip("2001:db8::1")));
        assert!(range("10.0.0.0", 8).contains(ip("10.255.0.1")) && !range("10.0.0.0", 8).contains(ip("11.0.0.1")));
    }
}
