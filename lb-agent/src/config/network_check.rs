//! What only shows on the host: interfaces that are absent, VIPs that the network would ask for by ARP or NDP.

use std::net::IpAddr;

use super::{
    Config,
    error::{ConfigErrors, Place, Problems},
};
use crate::model::{Network, network::InterfaceAddress};

/// Compares the configuration with this host's network.
///
/// # Errors
/// Everything that does not fit, with its place in the file: a named interface that is absent, an address of the node
/// that no interface has, a VIP that this host has as its own address or that lies in a subnet it is connected to.
pub fn check_against(config: &Config, network: &Network) -> Result<(), ConfigErrors> {
    let mut problems = Problems::of(&config.places.file);
    interfaces(config, network, &mut problems);
    node_addresses(config, network, &mut problems);
    for (vip, place) in &config.places.vips {
        check_vip(*vip, *place, network, &mut problems);
    }
    problems.finish(()).map(|_| ())
}

fn interfaces(config: &Config, network: &Network, problems: &mut Problems) {
    let present: Vec<&str> = network.interfaces.values().map(|interface| interface.name.as_str()).collect();
    for (spec, place) in config.agent.interfaces.iter().zip(&config.places.interfaces) {
        if network.interface_named(&spec.name).is_none() {
            let present = if present.is_empty() { "none".to_owned() } else { present.join(", ") };
            problems.refuse(*place, format!("interface `{}` is absent on this host; there are {present}", spec.name));
        }
    }
}

fn node_addresses(config: &Config, network: &Network, problems: &mut Problems) {
    for (address, place) in config.desired.node.addresses.iter().zip(&config.places.node_addresses) {
        if !network.addresses.iter().any(|own| own.net.addr() == *address) {
            let reason = format!(
                "node address {address} is on no interface of this host; correct `node.addresses` or add it to one"
            );
            problems.refuse(*place, reason);
        }
    }
}

/// At most one refusal per VIP: an address of this host lies in a connected subnet, too.
fn check_vip(vip: IpAddr, place: Place, network: &Network, problems: &mut Problems) {
    if let Some(own) = network.addresses.iter().find(|own| own.net.addr() == vip) {
        let interface = interface_name(network, own);
        let reason = format!(
            "VIP {vip} is an address of {interface} on this host already; remove it there or choose another VIP"
        );
        problems.refuse(place, reason);
    } else if let Some(subnet) = network.connected().into_iter().find(|subnet| subnet.net.contains(&vip)) {
        let (subnet, interface) = (subnet.net, subnet.interface);
        let protocol = if vip.is_ipv4() { "ARP" } else { "NDP" };
        let reason = format!(
            "VIP {vip} lies in the connected subnet {subnet} of {interface}: hosts there would ask for it by {protocol}, \
             which this version does not answer; choose an address outside"
        );
        problems.refuse(place, reason);
    }
}

fn interface_name<'n>(network: &'n Network, address: &InterfaceAddress) -> &'n str {
    network.interfaces.get(&address.interface).map_or("an interface", |interface| interface.name.as_str())
}
