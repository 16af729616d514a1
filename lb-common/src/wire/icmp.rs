//! ICMP (RFC 792) and ICMPv6 (RFC 4443) messages.

use crate::addr::{WireWord, wire_word};

/// Length of the header of every message that the packet path reads or writes, bytes.
pub const LEN: usize = 8;
/// Its length in words.
pub const WORDS: usize = LEN / 4;
/// Offset of the checksum in the header, bytes.
pub const CHECKSUM: usize = 2;

/// What a message that is addressed to a VIP is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// An error about a packet that left from the VIP; it quotes the beginning of that packet.
    Error,
    /// An echo request.
    Echo,
    /// A neighbour solicitation or advertisement (RFC 4861 sections 4.3 and 4.4).
    Neighbour,
    /// Anything else.
    Other,
}

/// What a message of this type is.
#[must_use]
#[inline(always)]
pub const fn kind(is_ipv4: bool, message_type: u8) -> Kind {
    match (is_ipv4, message_type) {
        // Destination unreachable, time exceeded, parameter problem.
        (true, 3 | 11 | 12) => Kind::Error,
        (true, 8) => Kind::Echo,
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        (false, 1..=4) => Kind::Error,
        (false, 128) => Kind::Echo,
        (false, 135 | 136) => Kind::Neighbour,
        _ => Kind::Other,
    }
}

/// Type, code and fifth to eighth byte of an error, without its checksum.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Error {
    message_type: u8,
    code: u8,
    rest: u32,
}

impl Error {
    /// "Time to live exceeded in transit" (RFC 792), "hop limit exceeded in transit" (RFC 4443 section 3.3).
    #[must_use]
    #[inline(always)]
    pub const fn time_exceeded(is_ipv4: bool) -> Self {
        Self { message_type: if is_ipv4 { 11 } else { 3 }, code: 0, rest: 0 }
    }

    /// "Fragmentation needed" with the next hop's MTU (RFC 1191 section 4), "packet too big" (RFC 4443 section 3.2).
    #[must_use]
    #[inline(always)]
    pub const fn too_big(is_ipv4: bool, mtu: u16) -> Self {
        let (message_type, code) = if is_ipv4 { (3, 4) } else { (2, 0) };
        Self { message_type, code, rest: mtu as u32 }
    }

    /// The header with a checksum.
    #[must_use]
    #[inline(always)]
    pub const fn header(self, checksum: u16) -> [WireWord; WORDS] {
        let check = checksum.to_be_bytes();
        [wire_word([self.message_type, self.code, check[0], check[1]]), self.rest.to_be()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_from_other_messages() {
        let of = |is_ipv4, wanted| (0..=255).filter(|number| kind(is_ipv4, *number) == wanted).collect::<Vec<u8>>();
        assert_eq!(of(true, Kind::Error), [3, 11, 12]);
        assert_eq!(of(false, Kind::Error), [1, 2, 3, 4]);
        assert_eq!((of(true, Kind::Echo), of(false, Kind::Echo)), (vec![8], vec![128]));
        assert_eq!((of(true, Kind::Neighbour), of(false, Kind::Neighbour)), (vec![], vec![135, 136]));
    }
}
