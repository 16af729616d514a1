//! Addresses of this node, and how the agent recognizes those that it put there itself.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
};

use super::{Client, LOOPBACK_INDEX, NetlinkError};
use crate::model::network::InterfaceAddress;

/// Marks the announcer's addresses: `IFA_PROTO` (kernel 5.18), shown by `ip address` as `proto 0x4c`.
pub(crate) const IFA_PROTOCOL: u8 = 76;

/// Lifetime of an address that does not expire.
const FOREVER: u32 = u32::MAX;

/// An address as the kernel has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct KernelAddress {
    /// Index of the interface that has it.
    pub interface: u32,
    /// The address itself, also where a peer's address stands beside it.
    pub address: IpAddr,
    /// Length of the prefix.
    pub prefix_length: u8,
    /// Without a route to its prefix.
    pub no_prefix_route: bool,
    /// Who added it (`IFA_PROTO`): absent before kernel 5.18 and where nobody said so.
    pub protocol: Option<u8>,
    /// Seconds until it goes; `u32::MAX` stands for ever.
    pub valid_seconds: u32,
    /// Seconds until it stops to be a source address; `u32::MAX` stands for ever.
    pub preferred_seconds: u32,
}

impl KernelAddress {
    /// Reads a message; `None` for what is no address of IPv4 or IPv6.
    pub fn parse(message: &AddressMessage) -> Option<Self> {
        let (mut address, mut local, mut protocol) = (None, None, None);
        let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
        let (mut valid_seconds, mut preferred_seconds) = (FOREVER, FOREVER);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Address(value) => address = Some(*value),
                AddressAttribute::Local(value) => local = Some(*value),
                AddressAttribute::Flags(value) => flags = *value,
                AddressAttribute::Protocol(value) => protocol = Some(u8::from(*value)),
                AddressAttribute::CacheInfo(value) => {
                    (valid_seconds, preferred_seconds) = (value.ifa_valid, value.ifa_preferred);
                }
                _ => {}
            }
        }
        Some(Self {
            interface: message.header.index,
            address: local.or(address)?,
            prefix_length: message.header.prefix_len,
            no_prefix_route: flags.contains(AddressFlags::Noprefixroute),
            protocol,
            valid_seconds,
            preferred_seconds,
        })
    }

    /// Whether the loopback announcer put it: by its mark, or where the kernel keeps no mark by the combination that
    /// nobody makes by accident: a host prefix on `lo`, without prefix route, with an end, never preferred.
    pub fn is_announcement(&self) -> bool {
        let host_prefix = if self.address.is_ipv4() { 32 } else { 128 };
        let marked = match self.protocol {
            Some(protocol) => protocol == IFA_PROTOCOL,
            None => self.no_prefix_route && self.valid_seconds != FOREVER && self.preferred_seconds == 0,
        };
        self.interface == LOOPBACK_INDEX && self.prefix_length == host_prefix && marked
    }
}

/// Every address of this node.
pub(crate) async fn addresses(client: &Client) -> Result<Vec<KernelAddress>, NetlinkError> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let answers = client.dump("list the addresses", request).await?;
    Ok(answers
        .iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => KernelAddress::parse(message),
            _ => None,
        })
        .collect())
}

/// The addresses that a plan sees, in a stable order: all but the announced ones.
pub(super) fn visible(addresses: &[KernelAddress]) -> Vec<InterfaceAddress> {
    let mut visible: Vec<_> = addresses
        .iter()
        .filter(|address| !address.is_announcement())
        .filter_map(|address| {
            let net = IpNet::new(address.address, address.prefix_length).ok()?;
            Some(InterfaceAddress { interface: address.interface, net })
        })
        .collect();
    visible.sort_unstable();
    visible.dedup();
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(address: &str, prefix_length: u8) -> KernelAddress {
        KernelAddress {
            interface: LOOPBACK_INDEX,
            address: address.parse().unwrap(),
            prefix_length,
            no_prefix_route: true,
            protocol: Some(IFA_PROTOCOL),
            valid_seconds: 30,
            preferred_seconds: 0,
        }
    }

    #[test]
    fn an_announcement_is_recognized_by_its_marks_only() {
        let v4 = announced("192.0.2.10", 32);
        let cases = [
            ("the mark, IPv4", v4, true),
            ("the mark, IPv6", announced("2001:db8::10", 128), true),
            ("the mark, its lifetime made infinite by hand", KernelAddress { valid_seconds: FOREVER, ..v4 }, true),
            ("no mark, but the combination", KernelAddress { protocol: None, ..v4 }, true),
            ("no mark, permanent", KernelAddress { protocol: None, valid_seconds: FOREVER, ..v4 }, false),
            ("no mark, preferred", KernelAddress { protocol: None, preferred_seconds: 30, ..v4 }, false),
            ("no mark, with a prefix route", KernelAddress { protocol: None, no_prefix_route: false, ..v4 }, false),
            ("another's mark", KernelAddress { protocol: Some(3), ..v4 }, false),
            ("another interface", KernelAddress { interface: 2, ..v4 }, false),
            ("a subnet", announced("192.0.2.10", 24), false),
            ("IPv6 with IPv4's host prefix", announced("2001:db8::10", 32), false),
        ];
        for (name, address, expected) in cases {
            assert_eq!(address.is_announcement(), expected, "{name}");
        }
    }

    #[test]
    fn a_plan_sees_every_address_but_the_announced() {
        let own = KernelAddress { interface: 2, protocol: None, ..announced("192.0.2.1", 24) };
        let foreign = KernelAddress { protocol: None, valid_seconds: FOREVER, ..announced("192.0.2.11", 32) };
        let visible = visible(&[own, foreign, announced("192.0.2.10", 32)]);
        let expected = [
            InterfaceAddress { interface: 1, net: "192.0.2.11/32".parse().unwrap() },
            InterfaceAddress { interface: 2, net: "192.0.2.1/24".parse().unwrap() },
        ];
        assert_eq!(visible, expected);
    }
}
