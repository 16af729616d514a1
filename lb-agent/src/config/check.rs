//! What only shows when values are compared: names, addresses, ports and families that do not go together.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
};

use super::{
    draft::{Draft, DraftNode},
    draft_service::DraftService,
    error::{Place, Problems},
    read::Located,
    source_range, target_port,
};
use crate::model::{AnnouncerKind, Delivery, Protocol};

/// Entries beyond the largest capacity are refused there; comparing them port by port would only take long.
const MAX_COMPARED_ENTRIES: u64 = 1 << 16;

/// Reports everything in the draft that does not go together.
pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    interfaces(draft, problems);
    names(draft, problems);
    let owners = node_addresses(draft, problems);
    for service in &draft.services {
        ports(service, problems);
        vips(service, &owners, problems);
        backends(service, draft, problems);
        local_delivery(service, draft, problems);
        source_ranges(service, problems);
    }
    target_port::check(draft, problems);
    backends_that_are_vips(draft, problems);
    overlaps(draft, problems);
    unmatched_policies(draft, problems);
    announcements(draft, problems);
}

/// Whether an address is one of this node's own.
fn is_own(draft: &Draft, address: IpAddr) -> bool {
    draft.node.as_ref().is_some_and(|node| node.addresses.iter().any(|own| own.value == address))
}

/// Remembers where each key was first and reports the later ones.
fn once<'a, K: Ord>(
    items: impl Iterator<Item = (Place, K)> + 'a,
    problems: &mut Problems,
    reason: impl Fn(&K, u64) -> String,
) {
    let mut first: BTreeMap<K, Place> = BTreeMap::new();
    for (place, key) in items {
        match first.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(place);
            }
            Entry::Occupied(entry) => problems.refuse(place, reason(entry.key(), entry.get().line)),
        }
    }
}

fn interfaces(draft: &Draft, problems: &mut Problems) {
    let names = draft.interfaces.iter().map(|interface| (interface.place, &interface.value.name));
    once(names, problems, |name, line| format!("interface `{name}` is on line {line} already; remove one of them"));
}

fn names(draft: &Draft, problems: &mut Problems) {
    let named = |name: &Located<String>| !name.value.is_empty();
    let nodes = draft.node.iter().chain(&draft.peers).map(|node| &node.name).filter(|name| named(name));
    once(nodes.map(|name| (name.place, &name.value)), problems, |name, line| {
        format!("`{name}` is the name of the node on line {line} already; node and peers need different names")
    });
    let services = draft.services.iter().map(|service| &service.name).filter(|name| named(name));
    once(services.map(|name| (name.place, &name.value)), problems, |name, line| {
        format!("service `{name}` is on line {line} already; services need different names")
    });
}

/// Reports addresses that two nodes (or one node twice) have; returns whose each address is.
fn node_addresses<'d>(draft: &'d Draft, problems: &mut Problems) -> BTreeMap<IpAddr, (&'d DraftNode, &'static str)> {
    let mut owners: BTreeMap<IpAddr, (&DraftNode, &'static str)> = BTreeMap::new();
    let roles = draft.node.iter().map(|node| (node, "this node")).chain(draft.peers.iter().map(|peer| (peer, "peer")));
    for (node, role) in roles {
        for address in &node.addresses {
            match owners.entry(address.value) {
                Entry::Vacant(entry) => {
                    entry.insert((node, role));
                }
                Entry::Occupied(entry) => {
                    let (other, role) = entry.get();
                    let reason = format!(
                        "address {} is one of {role} `{}` already; an address is one node's, once",
                        address.value, other.name.value
                    );
                    problems.refuse(address.place, reason);
                }
            }
        }
    }
    owners
}

fn ports(service: &DraftService, problems: &mut Problems) {
    let ports = service.ports.iter().map(|port| (port.place, port.value));
    once(ports, problems, |port, line| format!("port {port} is on line {line} already; remove one of them"));
    if service.ports.len() > 1
        && let Some(all) = service.ports.iter().find(|port| port.value == 0)
    {
        problems.refuse(all.place, "port 0 stands for every port and has to be alone; remove it or the others");
    }
}

fn source_ranges(service: &DraftService, problems: &mut Problems) {
    let ranges = service.source_ranges.iter().map(|range| (range.place, range.value));
    once(ranges, problems, |range, line| format!("source range {range} is on line {line} already; remove one of them"));
    source_range::check(service, problems);
}

fn vips(service: &DraftService, owners: &BTreeMap<IpAddr, (&DraftNode, &str)>, problems: &mut Problems) {
    let vips = service.vips.iter().map(|vip| (vip.place, vip.value));
    once(vips, problems, |vip, line| format!("VIP {vip} is on line {line} already; remove one of them"));
    for vip in &service.vips {
        if let Some((owner, role)) = owners.get(&vip.value) {
            let reason = format!(
                "VIP {} is an address of {role} `{}` itself; choose one that no node has",
                vip.value, owner.name.value
            );
            problems.refuse(vip.place, reason);
        }
    }
}

fn backends(service: &DraftService, draft: &Draft, problems: &mut Problems) {
    let name = &service.name.value;
    let addresses = service.backends.iter().map(|backend| (backend.address.place, backend.address.value));
    once(addresses, problems, |address, line| {
        format!("backend {address} is on line {line} already; remove one of them")
    });
    if service.backends.is_empty() {
        problems.warn(
            service.place,
            format!("service `{name}` has no backends; its packets are dropped until it has some"),
        );
    }
    let slots = service.ring_size.value.slots();
    if service.backends.len() as u64 * 100 > u64::from(slots) {
        let backends = service.backends.len();
        let reason = format!(
            "ring coarse: {slots} slots for {backends} backends share unevenly; set `ringSize` to 100 slots per backend or more, on every node at once"
        );
        problems.warn(service.ring_size.place, reason);
    }
    let tunnels = matches!(service.delivery.value, Delivery::Auto | Delivery::Ipip | Delivery::Gue);
    let Some(node) = draft.node.as_ref().filter(|node| tunnels && !node.addresses.is_empty()) else {
        return;
    };
    for Located { place, value } in service.backends.iter().map(|backend| backend.address) {
        if !node.addresses.iter().any(|own| own.value.is_ipv4() == value.is_ipv4()) {
            let family = if value.is_ipv4() { "IPv4" } else { "IPv6" };
            let reason = format!(
                "backend {value} takes a tunnel over {family} (delivery `{}`), but this node has no {family} address to send it from; add one to `node.addresses`",
                service.delivery.value
            );
            problems.refuse(place, reason);
        }
    }
}

fn local_delivery(service: &DraftService, draft: &Draft, problems: &mut Problems) {
    let has_local = service.backends.iter().any(|backend| is_own(draft, backend.address.value));
    if service.delivery.value == Delivery::Local && !service.backends.is_empty() && !has_local {
        let reason = format!(
            "service `{}` is delivered on this node only (`local`), but none of its backends is an address of this node; add one or choose another delivery",
            service.name.value
        );
        problems.refuse(service.delivery.place, reason);
    }
}

fn backends_that_are_vips(draft: &Draft, problems: &mut Problems) {
    let vips: BTreeMap<IpAddr, Place> =
        draft.services.iter().flat_map(|service| &service.vips).map(|vip| (vip.value, vip.place)).collect();
    for backend in draft.services.iter().flat_map(|service| &service.backends) {
        let Located { place, value } = backend.address;
        if let Some(vip) = vips.get(&value) {
            let reason = format!(
                "backend {value} is itself a VIP (line {}); its packets would come back: name the host's own address",
                vip.line
            );
            problems.refuse(place, reason);
        }
    }
}

/// Two services for the same (VIP, protocol, port). Port 0 beside an exact port is none: the exact port wins.
fn overlaps(draft: &Draft, problems: &mut Problems) {
    if draft.services.iter().map(DraftService::entries).sum::<u64>() > MAX_COMPARED_ENTRIES {
        return;
    }
    let mut first: BTreeMap<(IpAddr, Protocol, u16), usize> = BTreeMap::new();
    for (index, service) in draft.services.iter().enumerate() {
        for vip in &service.vips {
            let ports: BTreeSet<u16> = service.ports.iter().map(|port| port.value).collect();
            for port in ports {
                let earlier = *first.entry((vip.value, service.protocol, port)).or_insert(index);
                if earlier == index {
                    continue;
                }
                let other = &draft.services[earlier];
                let ports = if port == 0 { "every port".to_owned() } else { format!("port {port}") };
                let reason = format!(
                    "VIP {} {} {ports} belongs to service `{}` (line {}) already; one service takes it",
                    vip.value, service.protocol, other.name.value, other.place.line
                );
                problems.refuse(vip.place, reason);
            }
        }
    }
}

fn unmatched_policies(draft: &Draft, problems: &mut Problems) {
    let mut first: BTreeMap<IpAddr, &DraftService> = BTreeMap::new();
    for service in &draft.services {
        let own = service.drop_unmatched;
        let differing = service.vips.iter().find_map(|vip| {
            let other = *first.entry(vip.value).or_insert(service);
            (other.drop_unmatched.value != own.value).then_some((vip.value, other))
        });
        if let Some((vip, other)) = differing {
            let (name, theirs) = (&other.name.value, other.drop_unmatched.value);
            let reason = format!(
                "`dropUnmatched` is {} here and {theirs} in service `{name}` (line {}), which has VIP {vip} too; it counts per VIP: make them equal",
                own.value, other.place.line
            );
            problems.refuse(own.place, reason);
        }
    }
}

fn announcements(draft: &Draft, problems: &mut Problems) {
    let vips: BTreeSet<IpAddr> = draft.services.iter().flat_map(|service| &service.vips).map(|vip| vip.value).collect();
    let entries = || draft.announcements.iter().flat_map(|entry| entry.vips.iter().map(|vip| (entry.announcer, *vip)));
    for (_, vip) in entries().filter(|(_, vip)| !vips.contains(&vip.value)) {
        problems.refuse(
            vip.place,
            format!("announced VIP {} belongs to no service; add it to one or remove it here", vip.value),
        );
    }
    let announced = entries().map(|(announcer, vip)| (vip.place, (vip.value, announcer)));
    once(announced, problems, |(vip, announcer), line| {
        let AnnouncerKind::Loopback = announcer;
        format!("VIP {vip} is announced by `loopback` on line {line} already; remove one of them")
    });
}
