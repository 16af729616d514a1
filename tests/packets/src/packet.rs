//! IP packets, described field by field and built by `etherparse`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpDscp, IpEcn, IpFragOffset, IpNumber,
    Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader,
};
use lb_common::wire::{gue::PORT, protocol};

use crate::frame::Frame;

/// What transports carry unless told otherwise: an odd number of bytes, so that checksums have to pad.
const DATA: &[u8] = b"every packet ends in a named verdict.";
/// Identification of IPv4 packets that are no tunnel headers.
const IDENTIFICATION: u16 = 0x4c56;

/// An IP packet.
#[derive(Clone, Debug)]
pub struct Packet {
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    class: u8,
    flow_label: u32,
    identification: u16,
    /// Offset in units of eight bytes, and whether more fragments follow.
    fragment: (u16, bool),
    options: Vec<u8>,
    /// Protocol number and bytes behind the "next header" byte of each extension header.
    extensions: Vec<(u8, Vec<u8>)>,
    payload: Payload,
}

#[derive(Clone, Debug)]
enum Payload {
    Tcp(TcpHeader, Vec<u8>),
    Udp { ports: (u16, u16), has_checksum: bool, data: Vec<u8> },
    Raw(u8, Vec<u8>),
}

/// A TCP acknowledgement with some data; TTL 64, DSCP and ECN zero.
#[must_use]
pub fn tcp(source: IpAddr, source_port: u16, destination: IpAddr, destination_port: u16) -> Packet {
    let mut header = TcpHeader::new(source_port, destination_port, 0x0102_0304, 0xfaf0);
    header.acknowledgment_number = 0x0506_0708;
    header.ack = true;
    Packet::new(source, destination, Payload::Tcp(header, DATA.to_vec()))
}

/// A UDP datagram; TTL 64, DSCP and ECN zero.
#[must_use]
pub fn udp(source: IpAddr, source_port: u16, destination: IpAddr, destination_port: u16) -> Packet {
    let payload = Payload::Udp { ports: (source_port, destination_port), has_checksum: true, data: DATA.to_vec() };
    Packet::new(source, destination, payload)
}

/// An echo request of the addresses' family.
#[must_use]
pub fn echo_request(source: IpAddr, destination: IpAddr) -> Packet {
    let echo = IcmpEchoHeader { id: 7, seq: 1 };
    let (number, header) = match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let kind = Icmpv6Type::EchoRequest(echo);
            let header = Icmpv6Header::with_checksum(kind, source.octets(), destination.octets(), DATA);
            (protocol::ICMPV6, header.expect("it fits").to_bytes().to_vec())
        }
        _ => {
            let header = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), DATA);
            (protocol::ICMP, header.to_bytes().to_vec())
        }
    };
    raw(source, destination, number, &[&header, DATA].concat())
}

/// A packet of any protocol.
#[must_use]
pub fn raw(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Packet {
    Packet::new(source, destination, Payload::Raw(protocol, payload.to_vec()))
}

/// A packet in an IP-in-IP tunnel, the outer header as directors write it: TTL 64, identification 0.
#[must_use]
pub fn ipip(source: IpAddr, destination: IpAddr, inner: &Packet) -> Packet {
    let mut packet = raw(source, destination, inner.tunnel_number(), &inner.bytes());
    packet.identification = 0;
    packet
}

/// A packet in a GUE tunnel, the outer headers as directors write them: no UDP checksum, GUE variant 0.
#[must_use]
pub fn gue(source: IpAddr, destination: IpAddr, source_port: u16, inner: &Packet) -> Packet {
    let header = [0, inner.tunnel_number(), 0, 0];
    gue_with_header(source, destination, source_port, header, inner)
}

/// As [`gue`], with the mark of a second chance, a letter for each (`c` the first): private data of one word
/// (draft-ietf-intarea-gue section 3.4).
#[must_use]
pub fn marked_gue(source: IpAddr, destination: IpAddr, source_port: u16, chance: u8, inner: &Packet) -> Packet {
    let header = [1, inner.tunnel_number(), 0, 0, b'L', b'V', b'2', chance];
    gue_with_header(source, destination, source_port, header, inner)
}

/// As [`gue`], with a GUE header of one's own.
#[must_use]
pub fn gue_with_header<const N: usize>(
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    header: [u8; N],
    inner: &Packet,
) -> Packet {
    let payload =
        Payload::Udp { ports: (source_port, PORT), has_checksum: false, data: [&header[..], &inner.bytes()].concat() };
    let mut packet = Packet::new(source, destination, payload);
    packet.identification = 0;
    packet
}

impl Packet {
    fn new(source: IpAddr, destination: IpAddr, payload: Payload) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "a packet has one family");
        Self {
            source,
            destination,
            ttl: 64,
            class: 0,
            flow_label: 0,
            identification: IDENTIFICATION,
            fragment: (0, false),
            options: Vec::new(),
            extensions: Vec::new(),
            payload,
        }
    }

    /// With this TTL or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// With these DSCP (upper six bits) and ECN (lower two).
    #[must_use]
    pub fn class(mut self, class: u8) -> Self {
        self.class = class;
        self
    }

    /// With this IPv6 flow label.
    #[must_use]
    pub fn flow_label(mut self, label: u32) -> Self {
        self.flow_label = label;
        self
    }

    /// As an IPv4 fragment: offset in units of eight bytes, and whether more follow.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = (offset, more);
        self
    }

    /// The packet in fragments, cut behind every `length` bytes of what follows the IP header; a multiple of eight.
    ///
    /// # Panics
    /// If there is nothing to cut.
    #[must_use]
    pub fn fragments(&self, identification: u16, length: usize) -> Vec<Self> {
        let transport = self.transport();
        assert!(length.is_multiple_of(8) && transport.len() > length, "{} bytes are one fragment", transport.len());
        let last = (transport.len() - 1) / length;
        let cut = |(at, piece): (usize, &[u8])| {
            let offset = u16::try_from(at * length / 8).expect("13 bits");
            let packet = Self { payload: Payload::Raw(self.protocol(), piece.to_vec()), ..self.clone() };
            packet.identification(identification).piece(offset, at < last)
        };
        transport.chunks(length).enumerate().map(cut).collect()
    }

    /// With this identification, if it is an IPv4 packet; see [`Self::piece`] for IPv6.
    #[must_use]
    pub fn identification(mut self, identification: u16) -> Self {
        self.identification = identification;
        self
    }

    /// As a fragment of either family: offset in units of eight bytes, and whether more follow.
    #[must_use]
    pub fn piece(self, offset: u16, more: bool) -> Self {
        if self.source.is_ipv4() {
            return self.fragment(offset, more);
        }
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        let [i, j] = self.identification.to_be_bytes();
        self.extension(protocol::FRAGMENT, &[0, high, low, 0xf1, 0xd0, i, j])
    }

    /// With these IPv4 options, a multiple of four bytes.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// With one more IPv6 extension header: its protocol number, and its bytes behind the "next header" byte.
    #[must_use]
    pub fn extension(mut self, number: u8, rest: &[u8]) -> Self {
        self.extensions.push((number, rest.to_vec()));
        self
    }

    /// With this payload behind the transport header.
    #[must_use]
    pub fn data(mut self, bytes: &[u8]) -> Self {
        match &mut self.payload {
            Payload::Tcp(_, data) | Payload::Udp { data, .. } | Payload::Raw(_, data) => *data = bytes.to_vec(),
        }
        self
    }

    /// A UDP datagram with a checksum of zero: none.
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        if let Payload::Udp { has_checksum, .. } = &mut self.payload {
            *has_checksum = false;
        }
        self
    }

    /// A TCP segment that opens a connection.
    #[must_use]
    pub fn syn(mut self) -> Self {
        if let Payload::Tcp(header, _) = &mut self.payload {
            (header.syn, header.ack, header.acknowledgment_number) = (true, false, 0);
        }
        self
    }

    /// The last TCP segment of a connection.
    #[must_use]
    pub fn finish(mut self) -> Self {
        if let Payload::Tcp(header, _) = &mut self.payload {
            header.fin = true;
        }
        self
    }

    /// A TCP segment that answers one that opens a connection.
    #[must_use]
    pub fn syn_ack(mut self) -> Self {
        if let Payload::Tcp(header, _) = &mut self.payload {
            (header.syn, header.ack) = (true, true);
        }
        self
    }

    /// A TCP segment with these options, a multiple of four bytes.
    #[must_use]
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        if let Payload::Tcp(header, _) = &mut self.payload {
            header.set_options_raw(options).expect("at most 40 bytes");
        }
        self
    }

    /// A TCP segment that breaks a connection off.
    #[must_use]
    pub fn reset(mut self) -> Self {
        if let Payload::Tcp(header, _) = &mut self.payload {
            (header.rst, header.ack) = (true, false);
        }
        self
    }

    /// The packet in a frame from the router to this node, without tags.
    #[must_use]
    pub fn frame(&self) -> Frame {
        Frame::of(self)
    }

    /// The packet in a frame from the router to this node, with these tags.
    #[must_use]
    pub fn tagged(&self, tags: &[u16]) -> Frame {
        self.frame().tagged(tags)
    }

    /// Its source address.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// Its destination address.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        self.destination
    }

    /// Source and destination port; zero if it has none.
    #[must_use]
    pub fn ports(&self) -> (u16, u16) {
        match &self.payload {
            Payload::Tcp(header, _) => (header.source_port, header.destination_port),
            Payload::Udp { ports, .. } => *ports,
            Payload::Raw(..) => (0, 0),
        }
    }

    /// IANA protocol number of its transport.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        match &self.payload {
            Payload::Tcp(..) => protocol::TCP,
            Payload::Udp { .. } => protocol::UDP,
            Payload::Raw(number, _) => *number,
        }
    }

    /// DSCP and ECN.
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        self.class
    }

    /// The protocol number by which a tunnel header announces it.
    fn tunnel_number(&self) -> u8 {
        if self.source.is_ipv4() { protocol::IPV4 } else { protocol::IPV6 }
    }

    /// The packet as it is on the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(source, destination, &transport),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.ipv6(source, destination, &transport),
            _ => unreachable!("`new` refused two families"),
        }
    }

    fn transport(&self) -> Vec<u8> {
        match &self.payload {
            Payload::Tcp(header, data) => {
                let mut header = header.clone();
                let checksum = match (self.source, self.destination) {
                    (IpAddr::V4(s), IpAddr::V4(d)) => header.calc_checksum_ipv4_raw(s.octets(), d.octets(), data),
                    (IpAddr::V6(s), IpAddr::V6(d)) => header.calc_checksum_ipv6_raw(s.octets(), d.octets(), data),
                    _ => unreachable!("`new` refused two families"),
                };
                header.checksum = checksum.expect("it fits");
                [&header.to_bytes(), &data[..]].concat()
            }
            Payload::Udp { ports, has_checksum, data } => {
                let header = UdpHeader::without_ipv4_checksum(ports.0, ports.1, data.len());
                let mut header = header.expect("it fits");
                if *has_checksum {
                    let checksum = match (self.source, self.destination) {
                        (IpAddr::V4(s), IpAddr::V4(d)) => header.calc_checksum_ipv4_raw(s.octets(), d.octets(), data),
                        (IpAddr::V6(s), IpAddr::V6(d)) => header.calc_checksum_ipv6_raw(s.octets(), d.octets(), data),
                        _ => unreachable!("`new` refused two families"),
                    };
                    header.checksum = checksum.expect("it fits");
                }
                [&header.to_bytes(), &data[..]].concat()
            }
            Payload::Raw(_, data) => data.clone(),
        }
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr, transport: &[u8]) -> Vec<u8> {
        let length = Ipv4Header::MIN_LEN + self.options.len() + transport.len();
        let mut header = Ipv4Header {
            dscp: IpDscp::try_new(self.class >> 2).expect("six bits"),
            ecn: IpEcn::try_new(self.class & 3).expect("two bits"),
            total_len: u16::try_from(length).expect("it fits"),
            identification: self.identification,
            dont_fragment: self.fragment == (0, false),
            more_fragments: self.fragment.1,
            fragment_offset: IpFragOffset::try_new(self.fragment.0).expect("13 bits"),
            time_to_live: self.ttl,
            protocol: IpNumber(self.protocol()),
            source: source.octets(),
            destination: destination.octets(),
            options: Ipv4Options::try_from(&self.options[..]).expect("a multiple of four, at most 40"),
            header_checksum: 0,
        };
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes(), transport].concat()
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr, transport: &[u8]) -> Vec<u8> {
        let numbers: Vec<u8> = self.extensions.iter().map(|(number, _)| *number).chain([self.protocol()]).collect();
        let mut payload = Vec::new();
        for ((_, rest), next) in self.extensions.iter().zip(&numbers[1..]) {
            payload.push(*next);
            payload.extend(rest);
        }
        payload.extend(transport);
        let header = Ipv6Header {
            traffic_class: self.class,
            flow_label: Ipv6FlowLabel::try_new(self.flow_label).expect("20 bits"),
            payload_length: u16::try_from(payload.len()).expect("it fits"),
            next_header: IpNumber(numbers[0]),
            hop_limit: self.ttl,
            source: source.octets(),
            destination: destination.octets(),
        };
        [&header.to_bytes(), &payload[..]].concat()
    }
}
