//! Judges what is served: VIPs, the ways to backends, MTUs.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Check, Facts, Finding, Read};
use crate::inspect::{BackendView, Inspection};

const MAPS: Check = Check::new("maps", "What packets meet is in the pinned maps");
const VIP: Check = Check::new("vip", "A VIP is on `lo` of nodes that announce it, and nowhere else");
const ARP: Check = Check::new(
    "arp",
    "Linux answers ARP for a VIP on any interface and asks with it as the sender, which draws and poisons its traffic",
);
const FORWARDING: Check = Check::new(
    "forwarding",
    "What this node does not hold and passes up the stack is sent back to the router, in circles",
);
const NODE_ADDRESS: Check = Check::new("node-address", "Tunnels from the other directors end at the node's addresses");
const WAY: Check = Check::new("way", "Packets for a backend whose way is not known are dropped (next_hop_unknown)");
const BACKENDS: Check = Check::new("backends", "A service without backends drops its packets (no_backend)");
const MTU: Check = Check::new("mtu", "A packet that does not fit its tunnel is dropped (too_big)");

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let maps = match &facts.maps {
        Ok(maps) => maps,
        Err(reason) => return vec![MAPS.unknown("the pinned maps", reason)],
    };
    [
        capacities(maps),
        vips(facts, maps),
        node_addresses(facts, maps),
        ways(facts, maps),
        backends(facts, maps),
        mtus(facts, maps),
    ]
    .concat()
}

fn capacities(maps: &Inspection) -> Vec<Finding> {
    let full: Vec<_> = maps.maps.iter().filter(|map| map.is_nearly_full()).collect();
    if full.is_empty() {
        return vec![MAPS.ok(format!("{} services, no map is nearly full", maps.services.len()))];
    }
    let seen = |map: &&crate::inspect::MapUse| {
        let entries = map.entries.unwrap_or(0);
        let seen = format!("{} holds {entries} of {} entries", map.name, map.capacity);
        MAPS.warning(seen, "raise its capacity under `capacities` and restart the agent")
    };
    full.iter().map(seen).collect()
}

fn vips(facts: &Facts, maps: &Inspection) -> Vec<Finding> {
    let network = match &facts.network {
        Ok(network) => network,
        Err(reason) => return vec![VIP.unknown("the addresses of this node", reason)],
    };
    let mut findings = Vec::new();
    let vips: BTreeSet<IpAddr> = maps.addresses.iter().filter(|view| view.vip).map(|view| view.address).collect();
    for vip in vips {
        let others = network.addresses.iter().filter(|address| address.net.addr() == vip);
        let mut others: Vec<_> = others
            .map(|address| network.interfaces.get(&address.interface).map_or("?", |interface| interface.name.as_str()))
            .collect();
        others.dedup();
        findings.push(if others.is_empty() {
            VIP.ok(format!("{vip} is on no interface but by the agent"))
        } else {
            let seen = format!("{vip} is on {} too, put there by somebody else", others.join(", "));
            VIP.error(seen, format!("remove it there (`ip addr del {vip}/.. dev {}`)", others[0]))
        });
        let subnet = network.addresses.iter().find(|address| {
            address.net.prefix_len() < address.net.max_prefix_len()
                && address.net.contains(&vip)
                && address.net.addr() != vip
        });
        if let Some(subnet) = subnet.filter(|_| vip.is_ipv4()) {
            findings.extend(arp(facts, vip, &subnet.net.trunc().to_string()));
        }
        findings.extend(forwarding(facts, maps, vip));
    }
    findings
}

/// The kernel takes the greater of the interface's value and that for all.
fn arp(facts: &Facts, vip: IpAddr, subnet: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, wanted, value) in
        [("arp_announce", 2, &facts.sysctls.arp_announce), ("arp_ignore", 1, &facts.sysctls.arp_ignore)]
    {
        let own = |interface: &super::InterfaceFacts| -> Read<u32> {
            let sysctls = &interface.sysctls;
            if name == "arp_announce" { sysctls.arp_announce.clone() } else { sysctls.arp_ignore.clone() }
        };
        for interface in &facts.interfaces {
            let both: Read<u32> = value.clone().and_then(|all| own(interface).map(|own| own.max(all)));
            let at = &interface.name;
            findings.push(match both {
                Err(reason) => ARP.unknown(&format!("{name} of {at}"), &reason),
                Ok(value) if value < wanted => ARP.warning(
                    format!("{vip} lies in {subnet}, and {name} of {at} is {value}"),
                    format!("run `sysctl -w net.ipv4.conf.{at}.{name}={wanted}`"),
                ),
                Ok(value) => ARP.ok(format!("{vip} lies in {subnet}, and {name} of {at} is {value}")),
            });
        }
    }
    findings
}

fn forwarding(facts: &Facts, maps: &Inspection, vip: IpAddr) -> Option<Finding> {
    if maps.services.iter().any(|service| service.vip == vip && service.held) {
        return None;
    }
    let sysctls = facts.interfaces.first().map_or(&facts.sysctls, |interface| &interface.sysctls);
    let (value, name) = if vip.is_ipv4() {
        (&sysctls.forwarding4, "net.ipv4.ip_forward")
    } else {
        (&sysctls.forwarding6, "net.ipv6.conf.all.forwarding")
    };
    Some(match value {
        Err(reason) => FORWARDING.unknown(name, reason),
        Ok(0) => FORWARDING.ok(format!("{vip} is not held, and {name} = 0")),
        Ok(value) => FORWARDING.warning(
            format!("{vip} is not held here, and {name} = {value}"),
            "as long as packets reach this node for it, give it a backend here, or a route that ends them: `ip route add \
             blackhole` for the VIP, with a metric above all others",
        ),
    })
}

fn node_addresses(facts: &Facts, maps: &Inspection) -> Vec<Finding> {
    let Ok(network) = &facts.network else { return Vec::new() };
    let judge = |address: IpAddr| {
        if network.addresses.iter().any(|own| own.net.addr() == address) {
            return NODE_ADDRESS.ok(format!("{address} is on this node"));
        }
        let advice = "correct `node.addresses` in the configuration, or give the node that address";
        NODE_ADDRESS.error(format!("{address} is on no interface of this node"), advice)
    };
    maps.addresses.iter().filter(|view| view.node).map(|view| judge(view.address)).collect()
}

/// Whether the way to each backend and peer is known.
fn ways(facts: &Facts, maps: &Inspection) -> Vec<Finding> {
    let Ok(network) = &facts.network else { return Vec::new() };
    let own: BTreeSet<IpAddr> = maps.addresses.iter().filter(|view| view.node).map(|view| view.address).collect();
    let backends = maps.services.iter().flat_map(|service| &service.backends).map(|backend| backend.address);
    let wanted: BTreeSet<IpAddr> = backends.chain(maps.peers.iter().copied()).filter(|to| !own.contains(to)).collect();
    let mut unknown = Vec::new();
    for address in &wanted {
        match network.next_hops.get(address) {
            None => unknown.push(WAY.error(
                format!("there is no route to {address}"),
                format!("see `ip route get {address}`, and give the node a route to it"),
            )),
            Some(way) if way.mac.is_none() => {
                let neighbour = way.gateway.unwrap_or(*address);
                unknown.push(WAY.error(
                    format!("{neighbour}, on the way to {address}, has not answered ARP or neighbour discovery"),
                    format!("see `ip neigh show {neighbour}`; it may be down, or in another VLAN"),
                ));
            }
            Some(_) => {}
        }
    }
    if unknown.is_empty() && !wanted.is_empty() {
        unknown.push(WAY.ok(format!("the ways to all of {} backends and peers are known", wanted.len())));
    }
    unknown
}

fn backends(facts: &Facts, maps: &Inspection) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Ok(status) = &facts.agent.status {
        for backend in &status.backends {
            let advice = match &*backend.health {
                "failed" => "look after the server there, and what filters packets on the way",
                "wantsCredentials" => "until its probe has credentials nobody knows whether it is ready",
                _ => continue,
            };
            let seen = format!("{} of {}: {}", backend.address, backend.service, backend.reason);
            findings.push(BACKENDS.warning(seen, advice));
        }
    }
    let idle = maps.services.iter().filter(|service| service.ring_slots == 0);
    let mut idle: Vec<_> = idle.map(|service| service.name.clone()).collect();
    idle.dedup();
    for service in idle {
        let advice = "see `lbctl explain`; a weight of 0, or `delivery: local` without a backend here, leaves none";
        findings.push(BACKENDS.error(format!("no backend of {service} takes flows"), advice));
    }
    if findings.is_empty() {
        findings.push(BACKENDS.ok("every service has backends, and none is failing"));
    }
    findings
}

/// Whether what comes in fits the tunnels.
fn mtus(facts: &Facts, maps: &Inspection) -> Vec<Finding> {
    let Ok(network) = &facts.network else { return Vec::new() };
    let arriving = facts.interfaces.iter().filter_map(|interface| network.interface_named(&interface.name));
    let Some(largest) = arriving.map(|interface| interface.mtu).max() else { return Vec::new() };
    let all = maps.services.iter().flat_map(|service| &service.backends);
    let mut seen = BTreeSet::new();
    let mut findings = Vec::new();
    for (backend, room) in all.filter_map(|backend| Some((backend, room(backend)?))) {
        if room < largest && seen.insert(backend.address) {
            let needed = largest + u32::from(backend.hop.mtu.unwrap_or(0)) - room;
            findings.push(MTU.warning(
                format!(
                    "packets of up to {largest} bytes come in, and of {room} bytes fit {} to {}",
                    backend.hop.mode, backend.address
                ),
                format!(
                    "raise the MTU between the nodes to {needed}, or lower the MSS that the servers advertise (`ip route \
                     change .. advmss {}`)",
                    room.saturating_sub(60)
                ),
            ));
        }
    }
    if findings.is_empty() {
        findings.push(MTU.ok(format!("packets of {largest} bytes fit the ways to all backends")));
    }
    findings
}

/// The longest packet that fits the way to a backend; `None` where nothing is sent on.
fn room(backend: &BackendView) -> Option<u32> {
    let headers = match backend.hop.mode {
        "ipip over IPv4" => 20,
        "ipip over IPv6" => 40,
        "gue over IPv4" => 20 + 8 + 4,
        "gue over IPv6" => 40 + 8 + 4,
        _ => 0,
    };
    backend.hop.mtu.map(|mtu| u32::from(mtu).saturating_sub(headers))
}

#[cfg(test)]
mod tests {
    use lb_common::maps::backends::Mode;

    use super::{
        super::{Severity, samples},
        *,
    };

    fn bad(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Severity)> {
        let mut facts = samples::healthy();
        change(&mut facts);
        let findings = examine(&facts).into_iter().filter(|finding| finding.severity != Severity::Ok);
        findings.map(|finding| (finding.check, finding.severity)).collect()
    }

    fn maps(facts: &mut Facts) -> &mut Inspection {
        facts.maps.as_mut().unwrap()
    }

    #[test]
    fn a_healthy_node_has_nothing_but_good_findings() {
        assert_eq!(bad(|_| {}), []);
    }

    #[test]
    fn a_vip_that_somebody_else_put_there_is_an_error() {
        let duplicate = bad(|facts| {
            let address = samples::on_eth0("192.0.2.10/32");
            facts.network.as_mut().unwrap().addresses.push(address);
        });
        assert_eq!(duplicate, [("vip", Severity::Error)]);
    }

    #[test]
    fn a_vip_in_the_segments_subnet_needs_arp_to_keep_quiet() {
        let inside = |facts: &mut Facts| {
            facts.network.as_mut().unwrap().addresses.push(samples::on_eth0("192.0.2.1/24"));
        };
        let warning = Severity::Warning;
        assert_eq!(bad(inside), [("arp", warning), ("arp", warning)]);
        let set = bad(|facts| {
            inside(facts);
            facts.sysctls.arp_announce = Ok(2);
            facts.interfaces[0].sysctls.arp_ignore = Ok(1);
        });
        assert_eq!(set, []);
    }

    #[test]
    fn forwarding_loops_what_is_not_held() {
        let forwards = |facts: &mut Facts| facts.interfaces[0].sysctls.forwarding4 = Ok(1);
        assert_eq!(bad(forwards), [], "a held VIP does not loop");
        let loops = bad(|facts| {
            forwards(facts);
            maps(facts).services[0].held = false;
        });
        assert_eq!(loops, [("forwarding", Severity::Warning)]);
    }

    #[test]
    fn an_address_of_the_node_that_is_not_there_is_an_error() {
        let gone = |facts: &mut Facts| facts.network.as_mut().unwrap().addresses.clear();
        assert_eq!(bad(gone), [("node-address", Severity::Error)]);
    }

    #[test]
    fn ways_that_are_not_known_are_errors() {
        let error = [("way", Severity::Error)];
        let peer: IpAddr = "10.0.2.2".parse().unwrap();
        let gone = |facts: &mut Facts| facts.network.as_mut().unwrap().next_hops.retain(|address, _| *address != peer);
        assert_eq!(bad(gone), error);
        let silent = |facts: &mut Facts| facts.network.as_mut().unwrap().next_hops.get_mut(&peer).unwrap().mac = None;
        assert_eq!(bad(silent), error);
    }

    #[test]
    fn failing_backends_are_warnings_and_none_left_is_an_error() {
        let failing = |facts: &mut Facts| facts.agent.status.as_mut().unwrap().backends[0].health = "failed".into();
        assert_eq!(bad(failing), [("backends", Severity::Warning)]);
        let strange = |facts: &mut Facts| {
            facts.agent.status.as_mut().unwrap().backends[0].health = "wantsCredentials".into();
        };
        assert_eq!(bad(strange), [("backends", Severity::Warning)]);
        assert_eq!(bad(|facts| maps(facts).services[0].ring_slots = 0), [("backends", Severity::Error)]);
    }

    #[test]
    fn a_tunnel_that_is_too_narrow_is_a_warning_with_figures() {
        let mut facts = samples::healthy();
        maps(&mut facts).services[0].backends[2].hop.mtu = Some(1_500);
        let findings = mtus(&facts, facts.maps.as_ref().unwrap());
        assert_eq!(findings.len(), 1);
        assert_eq!(
            findings[0].seen,
            "packets of up to 1500 bytes come in, and of 1448 bytes fit gue over IPv6 to 2001:db8:3::2"
        );
        assert!(findings[0].advice.as_ref().unwrap().starts_with("raise the MTU between the nodes to 1552,"));
    }

    #[test]
    fn every_tunnel_has_its_overhead() {
        let rooms = Mode::ALL.map(|mode| {
            let mut backend = crate::examples::service().backends[1].clone();
            backend.hop.mode = mode.label();
            room(&backend)
        });
        assert_eq!(rooms, [1500, 1500, 1500, 1480, 1460, 1468, 1448].map(Some));
    }

    #[test]
    fn maps_that_cannot_be_read_are_said_to_be() {
        assert_eq!(bad(|facts| facts.maps = Err("permission denied".to_owned())), [("maps", Severity::Unknown)]);
        let full = |facts: &mut Facts| maps(facts).maps[0].entries = Some(1);
        assert_eq!(bad(full), [("maps", Severity::Warning)]);
    }
}
