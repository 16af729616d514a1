//! Pools of addresses that Services may have, as plain values (`VipPool` of the API).

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    desired::AnnouncerKind,
    inventory::{IpFamily, Labels},
};

/// A pool of addresses, read and in itself sound. How pools stand to each other is judged elsewhere.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// Addresses, in the order of the object.
    pub addresses: Vec<AddressRange>,
    /// Namespaces whose Services may have addresses of it; empty admits all.
    pub namespaces: Vec<String>,
    /// Labels that a Service has to have; empty admits all.
    pub service_selector: Labels,
    /// Pools with a higher one give addresses first. Default 0.
    pub priority: i32,
    /// Whether Services that ask for no address get one of it. Default true.
    pub auto_assign: bool,
    /// Leave out IPv4 addresses whose last byte is 0 or 255. Default false.
    pub avoid_buggy_ips: bool,
    /// Whether `spec.externalIPs` may name addresses of it (CVE-2020-8554). Default false.
    pub allow_external_ips: bool,
    /// How its addresses are announced.
    pub announce: AnnouncePolicy,
}

/// A pool as the API server has it, and what the controller said of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPool {
    /// `metadata.uid`: another pool of the same name has another.
    pub uid: String,
    /// `metadata.creationTimestamp`, seconds since 1970; of two that overlap the elder is in force.
    pub created: i64,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// What its spec describes; `None` if that makes no sense, which the controller tells more about.
    pub spec: Option<Pool>,
    /// What its status says was in force when the status was written.
    pub last_good: Option<Pool>,
    /// Its status is of the spec as it is.
    pub is_judged: bool,
}

/// How addresses of a pool are announced.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncePolicy {
    /// By what. Default `loopback`.
    pub announcers: Vec<AnnouncerKind>,
    /// Labels that a node has to have to announce; empty: every node.
    pub node_selector: Labels,
    /// On which of those.
    pub nodes: AnnounceNodes,
}

/// Which nodes announce an address.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AnnounceNodes {
    /// Every node that directs.
    #[default]
    All,
    /// Those with a ready backend of the Service.
    LocalBackends,
}

/// Addresses of one family from the first to the last, both included.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is no range of addresses.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RangeError {
    /// Neither an address, nor a prefix, nor two addresses.
    #[error("`{0}` is no address, no prefix (192.0.2.0/28) and no range (192.0.2.10-192.0.2.20)")]
    Unreadable(String),
    /// The ends are of different families.
    #[error("`{0}` begins and ends in different families")]
    Families(String),
    /// The end is before the beginning.
    #[error("`{0}` ends before it begins; swap its ends")]
    Backwards(String),
}

impl AddressRange {
    /// The first address.
    #[must_use]
    pub const fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address.
    #[must_use]
    pub const fn last(&self) -> IpAddr {
        self.last
    }

    /// Its family.
    #[must_use]
    pub const fn family(&self) -> IpFamily {
        IpFamily::of(self.first)
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    /// Whether an address is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family() == other.family() && self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let unreadable = || RangeError::Unreadable(text.to_owned());
        if let Ok(address) = text.trim().parse::<IpAddr>() {
            return Ok(Self { first: address, last: address });
        }
        if let Ok(net) = text.trim().parse::<IpNet>() {
            return Ok(Self { first: net.network(), last: net.broadcast() });
        }
        let (first, last) = text.split_once('-').ok_or_else(unreadable)?;
        let end = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| unreadable());
        let (first, last) = (end(first)?, end(last)?);
        if first.is_ipv4() != last.is_ipv4() {
            return Err(RangeError::Families(text.to_owned()));
        }
        if last < first {
            return Err(RangeError::Backwards(text.to_owned()));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

impl TryFrom<String> for AddressRange {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_is_an_address_a_prefix_or_two_addresses() {
        let cases = [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.0/30", "192.0.2.0-192.0.2.3"),
            ("192.0.2.9/30", "192.0.2.8-192.0.2.11"),
            ("192.0.2.250 - 192.0.3.1", "192.0.2.250-192.0.3.1"),
            ("2001:db8::/126", "2001:db8::-2001:db8::3"),
        ];
        for (text, expected) in cases {
            assert_eq!(range(text).to_string(), expected, "{text}");
        }
        assert_eq!("192.0.2".parse::<AddressRange>(), Err(RangeError::Unreadable("192.0.2".to_owned())));
        let mixed = "192.0.2.1-2001:db8::1";
        assert_eq!(mixed.parse::<AddressRange>(), Err(RangeError::Families(mixed.to_owned())));
        let backwards = "192.0.2.9-192.0.2.1";
        assert_eq!(backwards.parse::<AddressRange>(), Err(RangeError::Backwards(backwards.to_owned())));
    }

    #[test]
    fn ranges_of_different_families_have_nothing_in_common() {
        assert!(range("192.0.2.0/24").contains("192.0.2.255".parse().unwrap()));
        assert!(!range("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(range("192.0.2.0/24").overlaps(&range("192.0.2.255-192.0.3.0")));
        assert!(!range("192.0.2.0/24").overlaps(&range("192.0.3.0/24")));
        assert!(!range("0.0.0.0/0").overlaps(&range("::/0")));
    }
}
