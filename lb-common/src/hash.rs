//! The flow hash: SipHash-1-3 (Aumasson and Bernstein 2012) with 128 secret bits, identical in kernel and user space.
//!
//! Keyed, so that nobody outside can choose addresses and ports that all meet one backend. Every director computes
//! the same value from the same packet and secret.

use crate::{
    addr::{Be16, IpAddr16, WireWord},
    maps::services::VipKey,
};

/// What names a flow: addresses, ports and protocol, as in its packets towards the VIP. Key of `NEW_FLOWS` and
/// `OLD_FLOWS`; there the port 0 stands for all flows of a client to a service with affinity.
///
/// Aligned and ordered so that both addresses lie at multiples of eight: the packet path copies them eight bytes at a
/// time, and the verifier allows that on the stack only there.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(C, align(8))]
pub struct Tuple {
    /// Client's address.
    pub source: IpAddr16,
    /// The VIP, the service's port and the protocol: just what a service is looked up by.
    pub to: VipKey,
    /// Client's port.
    pub source_port: Be16,
    /// Zero: the kernel compares keys byte by byte.
    pad: u16,
}

impl Tuple {
    /// The flow from this address and port.
    #[must_use]
    #[inline(always)]
    pub const fn new(source: IpAddr16, source_port: Be16, to: VipKey) -> Self {
        Self { source, to, source_port, pad: 0 }
    }

    /// What stands for all flows of its client to the service.
    #[must_use]
    #[inline(always)]
    pub const fn of_client(self) -> Self {
        Self { source_port: Be16::new(0), ..self }
    }
}

/// A 64-bit hash of a flow. The upper half chooses the slot, the lower half is the tunnels' entropy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FlowHash(u64);

impl FlowHash {
    /// The 32 bits that choose a slot.
    #[must_use]
    #[inline(always)]
    pub const fn slot_bits(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// All 64 bits.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// A UDP source port in 49152..=65535 that spreads flows over the paths and queues in between.
    #[must_use]
    #[inline(always)]
    pub const fn entropy_port(self) -> u16 {
        0xc000 | (self.0 & 0x3fff) as u16
    }

    /// 20 bits for the flow label of an outer IPv6 header (RFC 6438).
    #[must_use]
    #[inline(always)]
    pub const fn flow_label(self) -> u32 {
        (self.0 & 0xf_ffff) as u32
    }
}

/// The secret, as the two words of SipHash's key.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct HashKey {
    /// Bytes 0..8 of the secret, little endian.
    pub k0: u64,
    /// Bytes 8..16 of the secret, little endian.
    pub k1: u64,
}

impl HashKey {
    /// The key made of a 16-byte secret.
    #[must_use]
    pub fn new(secret: [u8; 16]) -> Self {
        let word = |at: usize| u64::from_le_bytes(core::array::from_fn(|i| secret[at + i]));
        Self { k0: word(0), k1: word(8) }
    }
}

/// Hashes an IPv4 flow: SipHash-1-3 of source, destination, source port, destination port, protocol (13 bytes). The
/// source port is the flow's, or 0 where a client's port is not to count.
#[must_use]
#[inline(always)]
pub const fn ipv4(key: &HashKey, tuple: &Tuple, source_port: Be16) -> FlowHash {
    let mut state = Sip::new(key);
    state.compress(pair(tuple.source.last(), tuple.to.address.last()));
    FlowHash(state.finish(last_word(tuple, source_port, 13)))
}

/// Hashes an IPv6 flow: SipHash-1-3 of source, destination, source port, destination port, protocol (37 bytes).
#[must_use]
#[inline(always)]
pub const fn ipv6(key: &HashKey, tuple: &Tuple, source_port: Be16) -> FlowHash {
    let mut state = Sip::new(key);
    let (s, d) = (tuple.source.words(), tuple.to.address.words());
    state.compress(pair(s[0], s[1]));
    state.compress(pair(s[2], s[3]));
    state.compress(pair(d[0], d[1]));
    state.compress(pair(d[2], d[3]));
    FlowHash(state.finish(last_word(tuple, source_port, 37)))
}

/// Hashes a flow of either family. `has_affinity`: the client's port does not count.
#[must_use]
#[inline(always)] // as a function of its own it would read the tuple from the stack in words that are not aligned there
pub const fn flow(key: &HashKey, tuple: &Tuple, has_affinity: bool, is_ipv4: bool) -> FlowHash {
    let source_port = if has_affinity { Be16::new(0) } else { tuple.source_port };
    if is_ipv4 { ipv4(key, tuple, source_port) } else { ipv6(key, tuple, source_port) }
}

/// SipHash-1-3 of any bytes, for seeds and fingerprints.
#[must_use]
pub fn bytes(key: &HashKey, message: &[u8]) -> u64 {
    let mut state = Sip::new(key);
    let mut chunks = message.chunks_exact(8);
    for chunk in &mut chunks {
        state.compress(u64::from_le_bytes(core::array::from_fn(|i| chunk[i])));
    }
    let mut last = (message.len() as u64) << 56;
    for (i, byte) in chunks.remainder().iter().enumerate() {
        last |= u64::from(*byte) << (8 * i);
    }
    state.finish(last)
}

/// The bit of an address in the filter over VIPs (`VIP_FILTER`): 0..65536.
#[must_use]
#[inline(always)]
pub const fn filter_bit(address: &IpAddr16) -> u32 {
    let words = address.words();
    let folded = pair(words[2], words[3]) ^ pair(words[0], words[1]).rotate_left(29);
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u32
}

/// The bit of a MAC address in the filter over peers' MACs (`Settings::peer_macs`): 0..512.
#[must_use]
#[inline(always)]
pub const fn mac_bit(mac: &[u8; 6]) -> u32 {
    let word = u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0]);
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55) as u32
}

/// Eight bytes as they are on the wire, as the little-endian number that SipHash takes.
#[inline(always)]
const fn pair(first: WireWord, second: WireWord) -> u64 {
    u32::from_le(first) as u64 | (u32::from_le(second) as u64) << 32
}

#[inline(always)]
const fn last_word(tuple: &Tuple, source_port: Be16, length: u8) -> u64 {
    let (s, d) = (source_port.wire(), tuple.to.port.wire());
    u64::from_le_bytes([s[0], s[1], d[0], d[1], tuple.to.protocol, 0, 0, length])
}

struct Sip {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl Sip {
    #[inline(always)]
    const fn new(key: &HashKey) -> Self {
        Self {
            v0: key.k0 ^ 0x736f_6d65_7073_6575,
            v1: key.k1 ^ 0x646f_7261_6e64_6f6d,
            v2: key.k0 ^ 0x6c79_6765_6e65_7261,
            v3: key.k1 ^ 0x7465_6462_7974_6573,
        }
    }

    #[inline(always)]
    const fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline(always)]
    const fn compress(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    #[inline(always)]
    const fn finish(mut self, last: u64) -> u64 {
        self.compress(last);
        self.v2 ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher;

    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    use super::*;
    use crate::addr::wire_word;

    fn oracle(key: &HashKey, message: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(key.k0, key.k1);
        hasher.write(message);
        hasher.finish()
    }

    fn message(tuple: &Tuple, is_ipv4: bool) -> Vec<u8> {
        let mut message = Vec::new();
        for address in [tuple.source, tuple.to.address] {
            message.extend_from_slice(&address.bytes()[if is_ipv4 { 12 } else { 0 }..]);
        }
        message.extend_from_slice(&tuple.source_port.wire());
        message.extend_from_slice(&tuple.to.port.wire());
        message.push(tuple.to.protocol);
        message
    }

    proptest! {
        #[test]
        fn flows_hash_as_the_reference_implementation_does(k0 in any::<u64>(), k1 in any::<u64>(), s in any::<[u8; 16]>(), d in any::<[u8; 16]>(), sp in any::<u16>(), dp in any::<u16>(), protocol in any::<u8>()) {
            let key = HashKey { k0, k1 };
            let tuple = Tuple::new(IpAddr16::from_bytes(s), Be16::new(sp), VipKey::new(IpAddr16::from_bytes(d), Be16::new(dp), protocol));
            prop_assert_eq!(ipv6(&key, &tuple, tuple.source_port).0, oracle(&key, &message(&tuple, false)));
            prop_assert_eq!(ipv4(&key, &tuple, tuple.source_port).0, oracle(&key, &message(&tuple, true)));
        }

        #[test]
        fn bytes_hash_as_the_reference_implementation_does(k0 in any::<u64>(), k1 in any::<u64>(), message in prop::collection::vec(any::<u8>(), 0..64)) {
            let key = HashKey { k0, k1 };
            prop_assert_eq!(bytes(&key, &message), oracle(&key, &message));
        }

        #[test]
        fn filter_bits_stay_in_their_tables(address in any::<[u8; 16]>(), mac in any::<[u8; 6]>()) {
            prop_assert!(filter_bit(&IpAddr16::from_bytes(address)) < 65_536);
            prop_assert!(mac_bit(&mac) < 512);
        }
    }

    #[test]
    fn another_secret_gives_another_mapping() {
        let to = VipKey::new(IpAddr16::v4(wire_word([192, 0, 2, 10])), Be16::new(6443), 6);
        let tuple = Tuple::new(IpAddr16::v4(wire_word([10, 0, 0, 1])), Be16::new(40_000), to);
        assert_ne!(
            ipv4(&HashKey::new([1; 16]), &tuple, tuple.source_port),
            ipv4(&HashKey::new([2; 16]), &tuple, tuple.source_port)
        );
    }
}
