//! Sets of addresses as sorted spans: never enumerated, for a pool can have 2^64 of them and more.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::model::{inventory::IpFamily, pool::AddressRange};

/// A set of addresses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Spans {
    v4: Vec<Span>,
    v6: Vec<Span>,
}

/// Addresses from the first to the last, both included, as numbers.
type Span = (u128, u128);

impl Spans {
    /// The addresses of all these ranges.
    #[must_use]
    pub fn of(ranges: impl IntoIterator<Item = AddressRange>) -> Self {
        Self::from_ends(ranges.into_iter().map(|range| (range.first(), range.last())))
    }

    /// The addresses of all these networks.
    #[must_use]
    pub fn of_networks(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self::from_ends(networks.into_iter().map(|network| (network.network(), network.broadcast())))
    }

    fn from_ends(ends: impl Iterator<Item = (IpAddr, IpAddr)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (first, last) in ends {
            let spans = if first.is_ipv4() { &mut v4 } else { &mut v6 };
            spans.push((number(first), number(last)));
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }

    /// Whether the address is in the set.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (spans, number) = (self.family(IpFamily::of(address)), number(address));
        let index = spans.partition_point(|span| span.1 < number);
        spans.get(index).is_some_and(|span| span.0 <= number)
    }

    /// The lowest address that is in both sets.
    #[must_use]
    pub fn common(&self, other: &Self) -> Option<IpAddr> {
        [IpFamily::Ipv4, IpFamily::Ipv6].into_iter().find_map(|family| {
            let (mut left, mut right) = (self.family(family).iter().peekable(), other.family(family).iter().peekable());
            while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
                if a.0 <= b.1 && b.0 <= a.1 {
                    return Some(address(family, a.0.max(b.0)));
                }
                if a.1 < b.1 {
                    left.next()
                } else {
                    right.next()
                };
            }
            None
        })
    }

    /// The addresses of this set that are not in the other.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self { v4: difference(&self.v4, &other.v4), v6: difference(&self.v6, &other.v6) }
    }

    /// How many addresses of the family there are, without those that end in .0 and .255 if `avoid_buggy`.
    #[must_use]
    pub fn count(&self, family: IpFamily, avoid_buggy: bool) -> u128 {
        let size = |span: &Span| (span.1 - span.0).saturating_add(1);
        let buggy = |span: &Span| match (family, avoid_buggy) {
            (IpFamily::Ipv4, true) => buggy_up_to(span.1 + 1) - buggy_up_to(span.0),
            _ => 0,
        };
        self.family(family).iter().fold(0, |sum, span| sum.saturating_add(size(span) - buggy(span)))
    }

    /// The lowest address of the family that is not below `from`; without .0 and .255 if `avoid_buggy`.
    #[must_use]
    pub fn next(&self, family: IpFamily, from: Option<IpAddr>, avoid_buggy: bool) -> Option<IpAddr> {
        let mut from = from.map_or(0, number);
        let spans = self.family(family);
        for span in &spans[spans.partition_point(|span| span.1 < from)..] {
            from = from.max(span.0);
            while from <= span.1 {
                let found = address(family, from);
                if !(avoid_buggy && is_buggy(found)) {
                    return Some(found);
                }
                from += 1; // at most two in a row, and only in IPv4
            }
        }
        None
    }

    fn family(&self, family: IpFamily) -> &[Span] {
        match family {
            IpFamily::Ipv4 => &self.v4,
            IpFamily::Ipv6 => &self.v6,
        }
    }
}

/// Whether an address is one that old network equipment takes for that of a network or a broadcast.
#[must_use]
pub fn is_buggy(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if matches!(v4.octets()[3], 0 | 255))
}

/// The address after this one in its family.
#[must_use]
pub fn successor(of: IpAddr) -> Option<IpAddr> {
    match of {
        IpAddr::V4(v4) => u32::from(v4).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(v6) => u128::from(v6).checked_add(1).map(|next| IpAddr::V6(next.into())),
    }
}

/// How many numbers below `end` end in the byte 0 or 255.
const fn buggy_up_to(end: u128) -> u128 {
    end.div_ceil(256) + end / 256
}

fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.0 <= last.1.saturating_add(1) => last.1 = last.1.max(span.1),
            _ => merged.push(span),
        }
    }
    merged
}

fn difference(of: &[Span], without: &[Span]) -> Vec<Span> {
    let mut left = Vec::with_capacity(of.len());
    for &(mut first, last) in of {
        let begin = without.partition_point(|span| span.1 < first);
        let mut whole = true;
        for &(cut_first, cut_last) in without[begin..].iter().take_while(|cut| cut.0 <= last) {
            if first < cut_first {
                left.push((first, cut_first - 1));
            }
            if cut_last >= last {
                whole = false;
                break;
            }
            first = cut_last + 1;
        }
        if whole {
            left.push((first, last));
        }
    }
    left
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address that a number of [`number`] stands for.
fn address(family: IpFamily, number: u128) -> IpAddr {
    match family {
        IpFamily::Ipv4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        IpFamily::Ipv6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spans(texts: &[&str]) -> Spans {
        Spans::of(texts.iter().map(|text| text.parse::<AddressRange>().unwrap()))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn huge_sets_are_counted_and_searched_without_being_walked() {
        let all = spans(&["2001:db8::/32", "::/0"]);
        assert_eq!(all.count(IpFamily::Ipv6, false), u128::MAX);
        let wide = spans(&["2001:db8::/64"]);
        assert_eq!(wide.count(IpFamily::Ipv6, false), 1 << 64);
        let left = wide.minus(&spans(&["2001:db8::-2001:db8::ffff:ffff:ffff"]));
        assert_eq!(left.next(IpFamily::Ipv6, None, false), Some(ip("2001:db8::1:0:0:0")));
        assert_eq!(left.next(IpFamily::Ipv6, Some(ip("2001:db9::")), false), None);
        assert_eq!(left.next(IpFamily::Ipv4, None, false), None);
    }

    #[test]
    fn addresses_that_old_equipment_fears_are_left_out() {
        let set = spans(&["192.0.2.254-192.0.3.1"]);
        assert_eq!(set.count(IpFamily::Ipv4, false), 4);
        assert_eq!(set.count(IpFamily::Ipv4, true), 2);
        assert_eq!(set.next(IpFamily::Ipv4, Some(ip("192.0.2.255")), true), Some(ip("192.0.3.1")));
        assert_eq!(set.next(IpFamily::Ipv4, Some(ip("192.0.2.255")), false), Some(ip("192.0.2.255")));
        assert_eq!(spans(&["192.0.2.255-192.0.3.0"]).count(IpFamily::Ipv4, true), 0);
        assert_eq!(spans(&["0.0.0.0/0"]).count(IpFamily::Ipv4, true), (1 << 24) * 254);
    }

    #[test]
    fn common_addresses_are_found_in_each_family() {
        let set = spans(&["192.0.2.0/30", "2001:db8::1-2001:db8::9"]);
        assert_eq!(set.common(&spans(&["192.0.2.3-192.0.2.9"])), Some(ip("192.0.2.3")));
        assert_eq!(set.common(&spans(&["192.0.2.4", "2001:db8::9"])), Some(ip("2001:db8::9")));
        assert_eq!(set.common(&spans(&["192.0.2.4/30", "::/64"])), None);
    }

    fn small() -> impl Strategy<Value = Vec<(u8, u8)>> {
        proptest::collection::vec((0u8..60, 0u8..8), 0..6)
    }

    fn set(ends: &[(u8, u8)]) -> Spans {
        let octet = |last| IpAddr::from([192, 0, 2, last]);
        Spans::from_ends(ends.iter().map(|(first, more)| (octet(*first), octet(first + more))))
    }

    fn members(set: &Spans) -> Vec<u8> {
        (0..=255).filter(|last| set.contains(IpAddr::from([192, 0, 2, *last]))).collect()
    }

    proptest! {
        #[test]
        fn sets_behave_as_lists_of_their_members(left in small(), right in small(), avoid in any::<bool>()) {
            let within = |ends: &[(u8, u8)], number| ends.iter().any(|(first, more)| (*first..=first + more).contains(&number));
            let (a, b) = (set(&left), set(&right));
            let listed: Vec<u8> = (0..=255).filter(|number| within(&left, *number)).collect();
            prop_assert_eq!(&members(&a), &listed);
            let apart: Vec<u8> = listed.iter().copied().filter(|number| !within(&right, *number)).collect();
            prop_assert_eq!(members(&a.minus(&b)), apart);
            let both = listed.iter().copied().find(|number| within(&right, *number));
            prop_assert_eq!(a.common(&b), both.map(|last| IpAddr::from([192, 0, 2, last])));
            let kept: Vec<_> = listed.iter().copied().filter(|number| !(avoid && [0, 255].contains(number))).collect();
            prop_assert_eq!(a.count(IpFamily::Ipv4, avoid), kept.len() as u128);
            let mut walked = Vec::new();
            let mut at = a.next(IpFamily::Ipv4, None, avoid);
            while let Some(IpAddr::V4(v4)) = at {
                walked.push(v4.octets()[3]);
                at = successor(v4.into()).and_then(|from| a.next(IpFamily::Ipv4, Some(from), avoid));
            }
            prop_assert_eq!(walked, kept);
        }
    }
}
