//! Ethernet frames around packets.

use std::net::Ipv4Addr;

use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType};
use lb_common::wire::eth;

use crate::{packet::Packet, world::addresses};

/// A 48-bit Ethernet address.
pub type MacBytes = [u8; 6];

/// An Ethernet frame.
#[derive(Clone, Debug)]
pub struct Frame {
    to: MacBytes,
    from: MacBytes,
    /// EtherType of the tag and its tag control information, outermost first.
    tags: Vec<(u16, u16)>,
    ethertype: u16,
    payload: Vec<u8>,
    /// Bytes behind the packet.
    padding: usize,
}

/// An ARP packet from the router: operation 1 asks, 2 answers.
#[must_use]
pub fn arp(operation: u16, target: Ipv4Addr) -> Frame {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation(operation),
        &addresses::ROUTER_MAC,
        &[192, 0, 2, 254],
        &[0; 6],
        &target.octets(),
    );
    Frame::new(eth::ARP, &packet.expect("lengths agree").to_bytes())
}

impl Frame {
    /// Any payload in a frame from the router to this node.
    #[must_use]
    pub fn new(ethertype: u16, payload: &[u8]) -> Self {
        Self {
            to: addresses::NODE_MAC,
            from: addresses::ROUTER_MAC,
            tags: Vec::new(),
            ethertype,
            payload: payload.to_vec(),
            padding: 0,
        }
    }

    /// A packet in a frame from the router to this node.
    #[must_use]
    pub fn of(packet: &Packet) -> Self {
        let ethertype = if packet.source().is_ipv4() { eth::IPV4 } else { eth::IPV6 };
        Self::new(ethertype, &packet.bytes())
    }

    /// To and from these addresses.
    #[must_use]
    pub fn between(mut self, from: MacBytes, to: MacBytes) -> Self {
        (self.from, self.to) = (from, to);
        self
    }

    /// With these 802.1Q tags, outermost first.
    #[must_use]
    pub fn tagged(mut self, tags: &[u16]) -> Self {
        self.tags = tags.iter().map(|tag| (eth::VLAN, *tag)).collect();
        self
    }

    /// With an 802.1ad service tag in front.
    #[must_use]
    pub fn service_tagged(mut self, tag: u16) -> Self {
        self.tags.insert(0, (eth::SERVICE_VLAN, tag));
        self
    }

    /// With bytes behind the packet, as a link adds them to reach its shortest frame.
    #[must_use]
    pub fn padded(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    /// With other bytes at an offset of the network header; no checksum is corrected.
    #[must_use]
    pub fn patched(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.payload[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Offset of the network header.
    #[must_use]
    pub fn l3(&self) -> usize {
        eth::LEN + eth::VLAN_LEN * self.tags.len()
    }

    /// Length of the packet inside as its header claims it; 0 if it is no IP packet.
    #[must_use]
    pub fn packet_length(&self) -> u64 {
        let field = |at: usize| u64::from(u16::from_be_bytes([self.payload[at], self.payload[at + 1]]));
        match self.ethertype {
            eth::IPV4 => field(2),
            eth::IPV6 => 40 + field(4),
            _ => 0,
        }
    }

    /// The frame as it is on the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.to, self.from].concat();
        for (ethertype, control) in &self.tags {
            bytes.extend(ethertype.to_be_bytes());
            bytes.extend(control.to_be_bytes());
        }
        bytes.extend(self.ethertype.to_be_bytes());
        bytes.extend(&self.payload);
        bytes.resize(bytes.len() + self.padding, 0xa5);
        bytes
    }
}

impl From<Packet> for Frame {
    fn from(packet: Packet) -> Self {
        Self::of(&packet)
    }
}
