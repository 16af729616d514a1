//! Judges the interfaces: the program on them, and settings that spoil what it does.

use super::{Check, Facts, Finding, InterfaceFacts, Read};
use crate::{
    model::{Interface, InterfaceKind, Network},
    netlink::XdpMode,
};

const INTERFACE: Check = Check::new("interface", "Packets are balanced where the program is attached");
const PROGRAM: Check = Check::new("xdp", "An interface carries one XDP program, and it has to be ours");
const OFFLOADS: Check =
    Check::new("offloads", "Merged packets fit no MTU; partial checksums and stripped tags are sent on as they are");
const REVERSE_PATH: Check =
    Check::new("rp-filter", "What comes out of a tunnel comes by another interface than the client's route says");

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let network = match &facts.network {
        Ok(network) => network,
        Err(reason) => {
            findings.push(INTERFACE.unknown("the network", reason));
            return findings;
        }
    };
    if facts.interfaces.is_empty() {
        findings
            .push(INTERFACE.error("the program is on no interface", "start the agent with `interfaces` in its file"));
    }
    for interface in &facts.interfaces {
        let Some(link) = network.interface_named(&interface.name) else {
            let advice = "bring it up, or correct `interfaces` in the configuration";
            findings.push(INTERFACE.error(format!("{} is absent", interface.name), advice));
            continue;
        };
        findings.push(link_state(link));
        findings.push(program(interface));
        findings.extend(offloads(interface, link, network));
        findings.push(reverse_path(facts, interface));
    }
    findings
}

fn link_state(link: &Interface) -> Finding {
    if link.up {
        return INTERFACE.ok(format!("{} is up, MTU {}", link.name, link.mtu));
    }
    INTERFACE
        .error(format!("{} is down", link.name), format!("run `ip link set {} up`, or look after its cable", link.name))
}

fn program(interface: &InterfaceFacts) -> Finding {
    let name = &interface.name;
    let programs = match &interface.programs {
        Ok(programs) => programs,
        Err(reason) => return PROGRAM.unknown(&format!("the programs on {name}"), reason),
    };
    let Some(first) = programs.first() else {
        let advice = "the agent attaches it; `lbctl status` says why it did not";
        return PROGRAM.error(format!("no program is on {name}"), advice);
    };
    match &interface.linked {
        Err(reason) => PROGRAM.unknown(&format!("which program the agent keeps on {name}"), reason),
        Ok(id) if programs.iter().all(|program| program.program_id != *id) => {
            let advice = format!(
                "find out whose it is (`bpftool prog show id {}`), detach it (`ip link set dev {name} xdp off`), or take \
                 {name} out of `interfaces`",
                first.program_id
            );
            PROGRAM.error(format!("{name} has a foreign program, id {}", first.program_id), advice)
        }
        Ok(_) if programs.iter().all(|program| program.mode == XdpMode::Generic) => PROGRAM.warning(
            format!("{name} has the program in generic mode"),
            "it works, but costs several times as much per packet; use a driver with native XDP where load matters",
        ),
        Ok(id) => PROGRAM.ok(format!("{name} has the program (id {id}) in its driver")),
    }
}

fn offloads(interface: &InterfaceFacts, link: &Interface, network: &Network) -> Vec<Finding> {
    let name = &interface.name;
    let active = match &interface.offloads {
        Ok(active) => active,
        Err(reason) => return vec![OFFLOADS.unknown(&format!("the offloads of {name}"), reason)],
    };
    let mut findings = Vec::new();
    let is_generic = interface
        .programs
        .as_ref()
        .is_ok_and(|programs| programs.iter().any(|program| program.mode == XdpMode::Generic));
    let merging: Vec<_> = ["rx-gro", "rx-gro-hw", "rx-lro"].into_iter().filter(|name| active.contains(*name)).collect();
    if is_generic && !merging.is_empty() {
        let seen = format!("{name} has {} on, in front of the program in generic mode", merging.join(", "));
        findings.push(OFFLOADS.error(seen, format!("run `ethtool -K {name} gro off lro off`")));
    } else if active.contains("rx-lro") {
        let seen = format!("{name} has rx-lro on");
        findings.push(OFFLOADS.warning(seen, format!("run `ethtool -K {name} lro off`: a merged packet fits no MTU")));
    }
    let has_vlans = network
        .interfaces
        .values()
        .any(|other| matches!(other.kind, InterfaceKind::Vlan { parent, .. } if parent == link.index));
    if has_vlans && active.contains("rx-vlan-hw-parse") {
        let seen = format!("{name} has VLANs and takes their tags off in hardware (rx-vlan-offload)");
        let advice = format!("run `ethtool -K {name} rxvlan off`, or native XDP takes tagged frames for untagged ones");
        findings.push(OFFLOADS.warning(seen, advice));
    }
    if interface.is_veth && active.iter().any(|name| name.starts_with("tx-checksum")) {
        let seen = format!("{name} is one end of a veth pair and leaves checksums to the other end (tx-checksum)");
        let advice = format!("run `ethtool -K {name} tx off`, on the other end too: XDP sends on what it gets");
        findings.push(OFFLOADS.warning(seen, advice));
    }
    if findings.is_empty() {
        findings.push(OFFLOADS.ok(format!("{name} has none that spoils packets")));
    }
    findings
}

/// The kernel takes the stricter of the interface's value and that for all.
fn reverse_path(facts: &Facts, interface: &InterfaceFacts) -> Finding {
    let name = &interface.name;
    let both: Read<(u32, u32)> =
        interface.sysctls.rp_filter.clone().and_then(|own| facts.sysctls.rp_filter.clone().map(|all| (own, all)));
    match both {
        Err(reason) => REVERSE_PATH.unknown(&format!("rp_filter of {name}"), &reason),
        Ok((own, all)) if own.max(all) == 1 => REVERSE_PATH.warning(
            format!("rp_filter is strict on {name} ({own}, for all {all})"),
            format!(
                "run `sysctl -w net.ipv4.conf.{name}.rp_filter=0 net.ipv4.conf.all.rp_filter=0` (or 2, loose), or packets \
                 of clients that are routed another way are dropped without a word"
            ),
        ),
        Ok((own, all)) => REVERSE_PATH.ok(format!("rp_filter is not strict on {name} ({own}, for all {all})")),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Severity, samples},
        *,
    };
    use crate::netlink::XdpOnLink;

    fn bad(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Severity)> {
        let mut facts = samples::healthy();
        change(&mut facts);
        let findings = examine(&facts).into_iter().filter(|finding| finding.severity != Severity::Ok);
        findings.map(|finding| (finding.check, finding.severity)).collect()
    }

    fn generic(facts: &mut Facts) {
        facts.interfaces[0].programs = Ok(vec![XdpOnLink { mode: XdpMode::Generic, program_id: 77 }]);
    }

    fn with_offload(facts: &mut Facts, name: &str) {
        facts.interfaces[0].offloads.as_mut().unwrap().insert(name.to_owned());
    }

    #[test]
    fn a_healthy_interface_has_nothing_but_good_findings() {
        assert_eq!(bad(|_| {}), []);
    }

    #[test]
    fn an_interface_that_is_absent_or_down_is_an_error() {
        let (error, absent) = (Severity::Error, |facts: &mut Facts| facts.interfaces[0].name = "eth9".to_owned());
        assert_eq!(bad(absent), [("interface", error)]);
        let down = |facts: &mut Facts| facts.network.as_mut().unwrap().interfaces.get_mut(&2).unwrap().up = false;
        assert_eq!(bad(down), [("interface", error)]);
        assert_eq!(bad(|facts| facts.interfaces.clear()), [("interface", error)]);
    }

    #[test]
    fn no_program_or_a_foreign_one_is_an_error_and_generic_mode_a_warning() {
        assert_eq!(bad(|facts| facts.interfaces[0].programs = Ok(Vec::new())), [("xdp", Severity::Error)]);
        assert_eq!(bad(|facts| facts.interfaces[0].linked = Ok(78)), [("xdp", Severity::Error)]);
        assert_eq!(bad(generic), [("xdp", Severity::Warning)]);
        let unreadable = |facts: &mut Facts| facts.interfaces[0].linked = Err("permission denied".to_owned());
        assert_eq!(bad(unreadable), [("xdp", Severity::Unknown)]);
    }

    #[test]
    fn merging_offloads_are_an_error_in_generic_mode_only() {
        assert_eq!(bad(|facts| with_offload(facts, "rx-gro")), []);
        assert_eq!(bad(|facts| with_offload(facts, "rx-lro")), [("offloads", Severity::Warning)]);
        let both = bad(|facts| {
            generic(facts);
            with_offload(facts, "rx-gro");
        });
        assert_eq!(both, [("xdp", Severity::Warning), ("offloads", Severity::Error)]);
    }

    #[test]
    fn stripped_tags_matter_where_vlans_are() {
        assert_eq!(bad(|facts| with_offload(facts, "rx-vlan-hw-parse")), []);
        let tagged = bad(|facts| {
            with_offload(facts, "rx-vlan-hw-parse");
            let network = facts.network.as_mut().unwrap();
            let mut vlan = network.interfaces[&2].clone();
            (vlan.index, vlan.kind) = (3, InterfaceKind::Vlan { parent: 2, id: 7 });
            network.interfaces.insert(3, vlan);
        });
        assert_eq!(tagged, [("offloads", Severity::Warning)]);
    }

    #[test]
    fn partial_checksums_matter_on_veth() {
        assert_eq!(bad(|facts| with_offload(facts, "tx-checksum-ip-generic")), []);
        let veth = bad(|facts| {
            facts.interfaces[0].is_veth = true;
            with_offload(facts, "tx-checksum-ip-generic");
        });
        assert_eq!(veth, [("offloads", Severity::Warning)]);
    }

    #[test]
    fn the_stricter_reverse_path_filter_counts() {
        let strict = [("rp-filter", Severity::Warning)];
        assert_eq!(bad(|facts| facts.sysctls.rp_filter = Ok(1)), strict);
        assert_eq!(bad(|facts| facts.interfaces[0].sysctls.rp_filter = Ok(1)), strict);
        let loose = |facts: &mut Facts| {
            facts.interfaces[0].sysctls.rp_filter = Ok(2);
            facts.sysctls.rp_filter = Ok(1);
        };
        assert_eq!(bad(loose), [], "2 is the greater value, and loose");
    }
}
