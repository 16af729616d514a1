//! `sourceRanges`: prefixes, and what can be wrong with them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    draft_service::DraftService,
    error::Problems,
    read::{Located, quoted, text},
    yaml::{Node, Value},
};

/// Reads one entry of `sourceRanges`.
pub(super) fn range(node: &Node, problems: &mut Problems) -> Option<Located<IpNet>> {
    if matches!(node.value, Value::Map(_)) {
        problems.refuse(node.place, "source range is a mapping to YAML; write IPv6 prefixes in quotes");
        return None;
    }
    let Located { place, value } = text(node, "sourceRanges", problems)?;
    let Ok(net) = value.parse::<IpNet>() else {
        let advice = match value.parse::<IpAddr>() {
            Ok(address) => format!("write {address}/{} for it alone", if address.is_ipv4() { 32 } else { 128 }),
            Err(_) => "write a prefix as in 10.0.0.0/8, IPv6 in quotes".to_owned(),
        };
        problems.refuse(place, format!("source range {} is no prefix; {advice}", quoted(value)));
        return None;
    };
    if net != net.trunc() {
        let reason = format!("source range {net} has bits beyond its length; write {}", net.trunc());
        problems.refuse(place, reason);
        return None;
    }
    if let IpNet::V6(v6) = net
        && v6.prefix_len() >= MAPPED_BITS
        && v6.network().to_ipv4_mapped().is_some()
    {
        let reason = format!("source range {net} is of IPv4 addresses in IPv6 dress; write it as IPv4");
        problems.refuse(place, reason);
        return None;
    }
    Some(Located::new(place, net))
}

/// Length of the prefix that holds the IPv4 addresses among the IPv6 ones (RFC 4291 section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// Warns of VIPs that nobody can reach, since every range is of the other family.
pub(super) fn check(service: &DraftService, problems: &mut Problems) {
    let Some(first) = service.source_ranges.first() else {
        return;
    };
    let is_ipv4 = |range: &Located<IpNet>| range.value.network().is_ipv4();
    let shut_out =
        service.vips.iter().find(|vip| service.source_ranges.iter().all(|range| is_ipv4(range) != vip.value.is_ipv4()));
    if let Some(vip) = shut_out {
        let family = if vip.value.is_ipv4() { "IPv4" } else { "IPv6" };
        let reason = format!("no source range is {family}, so nobody reaches VIP {}; add one, or remove it", vip.value);
        problems.warn(first.place, reason);
    }
}
