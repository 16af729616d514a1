//! What NSX-T can do to VIPs at a node's port. No node can see it, so it is said wherever NSX-T may be: where the
//! controller's file says so, or where an interface is one of a virtual machine on vSphere.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Check, Facts, Finding, Severity};
use crate::inspect::Inspection;

const NSXT: Check = Check::new("nsx-t", "Routes and firewalls of NSX-T decide which packets for VIPs come and go");
const SPOOF_GUARD: Check = Check::new(
    "spoofguard",
    "Replies leave the node with the VIP as their source; SpoofGuard and port security drop what is not bound to its port",
);
const FIREWALL: Check = Check::new(
    "firewall",
    "A reply can leave another node than the one that its request entered; a stateful firewall at the nodes' ports drops it",
);
/// The driver of interfaces that vSphere gives to virtual machines.
const DRIVER: &str = "vmxnet3";

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let Ok(maps) = &facts.maps else { return Vec::new() };
    let (vips, because) = match &facts.routed {
        Some(Ok(routed)) if routed.vips.is_empty() => return Vec::new(),
        Some(Ok(routed)) => (routed.vips.clone(), format!("routes of Tier-1 {}", routed.tier1)),
        Some(Err(reason)) => {
            let advice = "`lb-agent controller` reads the same file; correct it";
            return vec![NSXT.found(
                Severity::Unknown,
                format!("the controller's file cannot be read: {reason}"),
                Some(advice.to_owned()),
            )];
        }
        None => match facts.interfaces.iter().find(|interface| interface.driver.as_deref() == Some(DRIVER)) {
            Some(interface) => (all_vips(maps), format!("{} is a {DRIVER} of vSphere", interface.name)),
            None => return Vec::new(),
        },
    };
    if vips.is_empty() {
        return Vec::new();
    }
    let shown = vips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let bindings = format!("if NSX-T guards the ports, bind {shown} to the segment ports of all nodes (docs/nsxt.md)");
    let seen = format!("whether replies from {shown} may leave ({because}) cannot be seen from here");
    vec![SPOOF_GUARD.found(Severity::Unknown, seen, Some(bindings)), firewall(facts, maps, &vips, &shown, &because)]
}

fn all_vips(maps: &Inspection) -> BTreeSet<IpAddr> {
    maps.addresses.iter().filter(|view| view.vip).map(|view| view.address).collect()
}

/// A firewall with a state does no harm where every flow stays on the node that it enters.
fn firewall(facts: &Facts, maps: &Inspection, vips: &BTreeSet<IpAddr>, shown: &str, because: &str) -> Finding {
    let stays = |name: &str| {
        let services = facts.agent.status.iter().flat_map(|status| &status.services);
        services.filter(|service| *service.service == name).any(|service| service.local_first)
    };
    let mut of_vips = maps.services.iter().filter(|service| vips.contains(&service.vip)).peekable();
    if of_vips.peek().is_some() && of_vips.all(|service| stays(&service.name)) {
        return FIREWALL.ok(format!("flows to {shown} that enter this node stay here (`localFirst`)"));
    }
    let seen = format!("whether a firewall keeps state of flows to {shown} ({because}) cannot be seen from here");
    let advice = format!(
        "if a rule of the distributed firewall is stateful, write a stateless one for {shown}, both directions, or set \
         `localFirst: true` (docs/nsxt.md)"
    );
    FIREWALL.found(Severity::Unknown, seen, Some(advice))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Routed, samples},
        *,
    };

    fn found(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Severity)> {
        let mut facts = samples::healthy();
        change(&mut facts);
        examine(&facts).into_iter().map(|finding| (finding.check, finding.severity)).collect()
    }

    fn routed(facts: &mut Facts) {
        let vips = facts.maps.as_ref().unwrap().services[0].vip;
        facts.routed = Some(Ok(Routed { tier1: "t1".to_owned(), vips: [vips].into() }));
    }

    const BOTH: [(&str, Severity); 2] = [("spoofguard", Severity::Unknown), ("firewall", Severity::Unknown)];

    #[test]
    fn nothing_is_said_where_no_nsx_t_can_be() {
        assert_eq!(found(|_| {}), []);
        assert_eq!(found(|facts| facts.interfaces[0].driver = Some("ixgbe".to_owned())), []);
    }

    #[test]
    fn routes_or_a_port_on_vsphere_are_reason_enough() {
        assert_eq!(found(routed), BOTH);
        assert_eq!(found(|facts| facts.interfaces[0].driver = Some(DRIVER.to_owned())), BOTH);
        let mut facts = samples::healthy();
        routed(&mut facts);
        let findings = examine(&facts);
        assert!(findings[0].advice.as_ref().unwrap().contains("bind 192.0.2.10 to the segment ports"), "{findings:?}");
        assert!(findings[1].seen.contains("192.0.2.10 (routes of Tier-1 t1)"), "{findings:?}");
    }

    #[test]
    fn flows_that_stay_need_no_stateless_rule() {
        let stay = |facts: &mut Facts| {
            routed(facts);
            facts.agent.status.as_mut().unwrap().services[0].local_first = true;
        };
        assert_eq!(found(stay), [BOTH[0], ("firewall", Severity::Ok)]);
        let silent = |facts: &mut Facts| {
            stay(facts);
            facts.agent.status = Err("no answer".to_owned());
        };
        assert_eq!(found(silent), BOTH);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_said_to_be() {
        assert_eq!(found(|facts| facts.routed = Some(Err("no such file".to_owned()))), [("nsx-t", Severity::Unknown)]);
    }
}
