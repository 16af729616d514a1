//! `TRACE_FILTER`, `TRACE_COUNTS`, `TRACE_SCRATCH` and the ring buffer `EVENTS`: what the tracing variant of the program
//! tells while somebody listens. None of them is pinned: they live as long as the tracing program is loaded, and the
//! program that packets take otherwise does not know them.

use super::pod;
use crate::{
    addr::{Be16, IpAddr16, WireWord},
    report::{self, Report},
    verdict::Verdict,
};

/// 64-bit words of an [`Event`].
pub const EVENT_WORDS: usize = report::LEN / 8 + 9;

/// Record of `EVENTS`: one packet that concerns a VIP, and how it ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C, align(8))]
pub struct Event {
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// The words of a [`Report`], its end included.
    pub report: [u64; report::LEN / 8],
    /// Where the packet for the VIP came from.
    pub source: IpAddr16,
    /// The VIP.
    pub destination: IpAddr16,
    /// The director whose tunnel it came in; zero if it came in none.
    pub tunnel_source: IpAddr16,
    /// Index of the interface it came in by.
    pub interface: u32,
    /// Bytes of the IP packet, without the tunnel header.
    pub length: u32,
    /// Source port, 0 where the packet has none.
    pub source_port: Be16,
    /// Destination port, 0 where the packet has none.
    pub destination_port: Be16,
    /// IANA protocol number behind the IP header and its extensions.
    pub protocol: u8,
    /// A sum of the constants below.
    pub flags: u8,
    /// Offset of the packet's network header, where `found` is [`Self::IPV4`] or [`Self::IPV6`].
    pub l3: u8,
    /// What was found in the frame: one of the constants below.
    pub found: u8,
}

impl Event {
    /// Value of `found`: nothing for a VIP.
    pub const NOTHING: u8 = 0;
    /// Value of `found`: an IPv4 packet.
    pub const IPV4: u8 = 1;
    /// Value of `found`: an IPv6 packet.
    pub const IPV6: u8 = 2;
    /// Value of `found`: something else, which is noted whole.
    pub const OTHER: u8 = 3;

    /// An ARP packet: source and destination are the sender's and the target's protocol address.
    pub const ARP: u8 = 1;
    /// A fragment that is not the whole datagram.
    pub const FRAGMENT: u8 = 2;
    /// It came in a tunnel.
    pub const TUNNEL: u8 = 4;

    /// How it was decided.
    #[must_use]
    pub fn report(&self) -> Report {
        Report::from_words(&self.report)
    }

    /// How it ended, as [`Report::to_words`] writes it.
    #[must_use]
    #[inline(always)]
    pub const fn end(&self) -> u64 {
        self.report[0]
    }

    /// Whether the decision was that it is not ours.
    #[must_use]
    #[inline(always)]
    pub const fn is_for_nobody(&self) -> bool {
        self.end() == Verdict::NotOurs as u64
    }

    /// Whether any of `flags` is set.
    #[must_use]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// The event that a record holds; `None` if it has another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        let mut words = [0u64; EVENT_WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(chunk.try_into().ok()?);
        }
        Some(Self::from_words(&words))
    }

    fn from_words(words: &[u64; EVENT_WORDS]) -> Self {
        const AT: usize = 1 + report::LEN / 8;
        let byte = |at: usize| words[AT + at / 8].to_ne_bytes()[at % 8];
        let address = |at: usize| IpAddr16::from_bytes(core::array::from_fn(|i| byte(at + i)));
        let number = |at: usize| u32::from_ne_bytes(core::array::from_fn(|i| byte(at + i)));
        Self {
            time: words[0],
            report: core::array::from_fn(|i| words[1 + i]),
            source: address(0),
            destination: address(16),
            tunnel_source: address(32),
            interface: number(48),
            length: number(52),
            source_port: Be16::from_wire([byte(56), byte(57)]),
            destination_port: Be16::from_wire([byte(58), byte(59)]),
            protocol: byte(60),
            flags: byte(61),
            l3: byte(62),
            found: byte(63),
        }
    }
}

/// Value of `TRACE_FILTER`: which packets yield events. Everything zero: all that concern a VIP.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Filter {
    /// The client's network.
    pub source: IpAddr16,
    /// Bits of `source` that count, as they are on the wire.
    pub mask: [WireWord; 4],
    /// Index of the service plus one; 0 for every one and for packets that match none.
    pub service: u32,
    /// Bits of a backend's id; 0 for every one.
    pub backend: u32,
    /// Which ends: one of the constants below.
    pub ends: u32,
    /// The verdict or drop reason, where `ends` asks for one.
    pub end: u32,
    /// Events per second and CPU, more are counted and not told; 0 for no limit.
    pub rate: u32,
    /// Source or destination port; 0 for every one.
    pub port: Be16,
    /// IANA protocol number; 0 for every one.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

impl Filter {
    /// Value of `ends`: all.
    pub const ALL_ENDS: u32 = 0;
    /// Value of `ends`: every drop.
    pub const DROPS: u32 = 1;
    /// Value of `ends`: the verdict `end`.
    pub const VERDICT: u32 = 2;
    /// Value of `ends`: the drop reason `end`.
    pub const DROP: u32 = 3;

    /// Whether a packet is wanted.
    #[must_use]
    #[inline(always)]
    pub fn wants(&self, event: &Event) -> bool {
        (self.service == 0 || self.service == event.report[report::SERVICE] as u32)
            && (self.backend == 0 || self.backend == event.report[report::BACKEND] as u32)
            && (self.protocol == 0 || self.protocol == event.protocol)
            && (self.port.is_zero() || self.port == event.source_port || self.port == event.destination_port)
            && self.wants_source(&event.source)
            && self.wants_end(event.end())
    }

    #[inline(always)]
    fn wants_end(&self, end: u64) -> bool {
        let is_drop = end >> 32 != 0;
        match self.ends {
            Self::ALL_ENDS => true,
            Self::DROPS => is_drop,
            Self::VERDICT => !is_drop && end as u32 == self.end,
            _ => is_drop && end as u32 == self.end,
        }
    }

    #[inline(always)]
    fn wants_source(&self, source: &IpAddr16) -> bool {
        let (wanted, found) = (self.source.words(), source.words());
        (wanted[0] ^ found[0]) & self.mask[0] == 0
            && (wanted[1] ^ found[1]) & self.mask[1] == 0
            && (wanted[2] ^ found[2]) & self.mask[2] == 0
            && (wanted[3] ^ found[3]) & self.mask[3] == 0
    }
}

/// Value of `TRACE_COUNTS`, per CPU.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct TraceCounts {
    /// Second of `CLOCK_MONOTONIC` that `told` counts in.
    pub second: u64,
    /// Events of that second.
    pub told: u64,
    /// Events that were wanted and not told: more than the rate, or the ring buffer was full.
    pub lost: u64,
}

pod!(Event: EVENT_WORDS * 8, Filter: 16 + 16 + 5 * 4 + 2 + 1 + 1, TraceCounts: 3 * 8);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::End, verdict::DropReason};

    fn address(text: &str) -> IpAddr16 {
        text.parse::<core::net::IpAddr>().unwrap().into()
    }

    fn report() -> Report {
        Report { end: End::Verdict(Verdict::L2 as u32), service: 3, backend: 7, ..Report::START }
    }

    fn event() -> Event {
        Event {
            time: u64::MAX - 1,
            report: report().to_words(),
            source: address("203.0.113.7"),
            destination: address("198.51.100.10"),
            tunnel_source: address("2001:db8::2"),
            interface: 0x0102_0304,
            length: 1_400,
            source_port: Be16::new(40_000),
            destination_port: Be16::new(443),
            protocol: 6,
            flags: Event::TUNNEL,
            l3: 14,
            found: Event::IPV4,
        }
    }

    /// The bytes as the kernel program writes them: field after field.
    fn bytes(event: &Event) -> Vec<u8> {
        let mut bytes = event.time.to_ne_bytes().to_vec();
        bytes.extend(event.report.iter().flat_map(|word| word.to_ne_bytes()));
        for address in [event.source, event.destination, event.tunnel_source] {
            bytes.extend(address.bytes());
        }
        bytes.extend(event.interface.to_ne_bytes());
        bytes.extend(event.length.to_ne_bytes());
        bytes.extend(event.source_port.wire());
        bytes.extend(event.destination_port.wire());
        bytes.extend([event.protocol, event.flags, event.l3, event.found]);
        bytes
    }

    #[test]
    fn an_event_is_read_back_from_its_record() {
        assert_eq!(Event::from_bytes(&bytes(&event())), Some(event()));
        assert_eq!(event().report(), report());
        assert_eq!(Event::from_bytes(&bytes(&event())[1..]), None);
    }

    #[test]
    fn what_is_not_ours_is_recognized() {
        let of = |report: Report| Event { report: report.to_words(), ..Event::default() };
        assert!(of(Report::START).is_for_nobody());
        assert!(!event().is_for_nobody());
        assert!(!of(Report { end: End::Drop(0), ..Report::START }).is_for_nobody());
    }

    #[test]
    fn an_empty_filter_wants_everything() {
        assert!(Filter::default().wants(&event()));
        assert!(Filter::default().wants(&Event::default()));
    }

    #[test]
    fn every_part_of_a_filter_can_refuse() {
        let net =
            |text: &str, mask: &str| Filter { source: address(text), mask: address(mask).words(), ..Filter::default() };
        let all = Filter::default();
        let cases = [
            (Filter { service: 3, ..all }, true),
            (Filter { service: 4, ..all }, false),
            (Filter { backend: 7, ..all }, true),
            (Filter { backend: 8, ..all }, false),
            (Filter { protocol: 6, ..all }, true),
            (Filter { protocol: 17, ..all }, false),
            (Filter { port: Be16::new(443), ..all }, true),
            (Filter { port: Be16::new(40_000), ..all }, true),
            (Filter { port: Be16::new(80), ..all }, false),
            (net("203.0.113.0", "255.255.255.0"), true),
            (net("203.0.112.0", "255.255.255.0"), false),
            (Filter { ends: Filter::DROPS, ..all }, false),
            (Filter { ends: Filter::VERDICT, end: Verdict::L2 as u32, ..all }, true),
            (Filter { ends: Filter::VERDICT, end: Verdict::Gue as u32, ..all }, false),
            (Filter { ends: Filter::DROP, end: Verdict::L2 as u32, ..all }, false),
        ];
        for (filter, wanted) in cases {
            assert_eq!(filter.wants(&event()), wanted, "{filter:?}");
        }
    }

    #[test]
    fn drops_are_wanted_all_or_by_reason() {
        let report = Report { end: End::Drop(DropReason::TooBig as u32), ..Report::START };
        let dropped = Event { report: report.to_words(), ..Event::default() };
        let wants = |ends, reason| Filter { ends, end: reason as u32, ..Filter::default() }.wants(&dropped);
        assert!(wants(Filter::DROPS, DropReason::Arp));
        assert!(wants(Filter::DROP, DropReason::TooBig));
        assert!(!wants(Filter::DROP, DropReason::Arp));
        assert!(!wants(Filter::VERDICT, DropReason::TooBig));
    }
}
