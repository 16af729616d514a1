//! What goes over the socket: a line per event, as the program numbers things. Names are the reader's to find.

use std::net::IpAddr;

use lb_common::{
    addr::IpAddr16,
    maps::{published::RingWord, trace::Event},
    report::{End, Report},
};
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Line {
    /// A packet.
    Packet(PacketEvent),
    /// Events that were wanted and could not be told, since the last such line.
    Lost {
        /// How many.
        events: u64,
    },
    /// Nothing: shows that both sides are alive.
    Alive,
}

/// A packet that concerns a VIP, and how it ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PacketEvent {
    /// When, nanoseconds of Unix time.
    pub time: u64,
    /// Index of the interface it came in by.
    pub interface: u32,
    /// Where it came from.
    pub source: IpAddr,
    /// 0 where it has none.
    pub source_port: u16,
    /// The VIP.
    pub destination: IpAddr,
    /// 0 where it has none.
    pub destination_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Bytes of the IP packet.
    pub length: u32,
    /// Whether it is an ARP packet; then it has no protocol number.
    pub arp: bool,
    /// Whether it is a fragment.
    pub fragment: bool,
    /// The director whose tunnel it came in.
    pub tunnel_source: Option<IpAddr>,
    /// Whether it was dropped.
    pub dropped: bool,
    /// Value of the verdict, or of the drop reason.
    pub end: u32,
    /// Index of the service.
    pub service: Option<u32>,
    /// The ring and the slot, as far as one was chosen.
    pub choice: Option<Choice>,
}

/// How a backend was chosen.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// The flow's hash.
    pub hash: u64,
    /// The flow's slot.
    pub slot: u32,
    /// Slots of the ring.
    pub slots: u32,
    /// The ring's generation.
    pub generation: u32,
    /// Bits of the backend's id.
    pub backend: u32,
    /// Value of the mode.
    pub mode: u8,
}

impl PacketEvent {
    /// From a record. `to_unix` is what to add to `CLOCK_MONOTONIC` to get Unix time, nanoseconds.
    #[must_use]
    pub fn new(event: &Event, report: &Report, to_unix: u64) -> Self {
        let (dropped, end) = match report.end {
            End::Verdict(value) => (false, value),
            End::Drop(value) => (true, value),
        };
        Self {
            time: event.time.wrapping_add(to_unix),
            interface: event.interface,
            source: event.source.into(),
            source_port: event.source_port.get(),
            destination: event.destination.into(),
            destination_port: event.destination_port.get(),
            protocol: event.protocol,
            length: event.length,
            arp: event.has(Event::ARP),
            fragment: event.has(Event::FRAGMENT),
            tunnel_source: (event.tunnel_source != IpAddr16::default()).then(|| event.tunnel_source.into()),
            dropped,
            end,
            service: report.service.checked_sub(1),
            choice: Choice::of(report),
        }
    }

    /// How it ended.
    #[must_use]
    pub const fn ended(&self) -> End {
        if self.dropped { End::Drop(self.end) } else { End::Verdict(self.end) }
    }
}

impl Choice {
    /// `None` if no backend was chosen.
    fn of(report: &Report) -> Option<Self> {
        let ring = RingWord::from_bits(report.ring);
        (report.backend != 0).then(|| Self {
            hash: report.hash,
            slot: report.slot,
            slots: if ring.is_empty() { 0 } else { 1 << ring.log2() },
            generation: ring.generation(),
            backend: report.backend,
            mode: report.mode,
        })
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{addr::Be16, verdict::DropReason};

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_record_becomes_a_line_and_a_line_survives_its_text() {
        let event = Event {
            time: 5,
            source: address("203.0.113.7").into(),
            destination: address("198.51.100.10").into(),
            tunnel_source: address("2001:db8::2").into(),
            source_port: Be16::new(40_000),
            destination_port: Be16::new(443),
            interface: 3,
            length: 60,
            protocol: 6,
            flags: Event::TUNNEL,
            ..Event::default()
        };
        let report = Report {
            end: End::Drop(DropReason::TooBig as u32),
            service: 1,
            ring: RingWord::new(1, 6, true, 4).bits(),
            hash: u64::MAX,
            slot: 63,
            backend: 7,
            mode: 2,
            state: 0,
        };
        let line = PacketEvent::new(&event, &report, 1_000);
        assert_eq!(line.time, 1_005);
        assert_eq!((line.ended(), line.service), (report.end, Some(0)));
        assert_eq!(line.tunnel_source, Some(address("2001:db8::2")));
        let choice = Choice { hash: u64::MAX, slot: 63, slots: 64, generation: 4, backend: 7, mode: 2 };
        assert_eq!(line.choice, Some(choice));
        let text = serde_json::to_string(&Line::Packet(line.clone())).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), Line::Packet(line));
    }

    #[test]
    fn what_was_not_reached_is_absent() {
        let line = PacketEvent::new(&Event { flags: Event::ARP, ..Event::default() }, &Report::START, 0);
        assert_eq!((line.service, line.choice, line.tunnel_source, line.arp), (None, None, None, true));
    }
}
