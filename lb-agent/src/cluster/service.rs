//! What one Service asks for, judged by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;

use super::{
    admit::Admission,
    claim::{self, ClassRule},
    endpoints::{self, Nodes},
    names,
    problem::Problem,
};
use crate::model::{
    Affinity, ClusterService, Delivery, HoldWhen, IpFamily, Judgement, MssClamp, ObjectName, Pool, Protocol, Reason,
    RingSize, Service, Severity, Shared,
    inventory::{EndpointSlice, ServicePort, TrafficPolicy},
};

/// What a Service asks for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wish {
    /// One per port and family.
    pub services: Vec<Shared<Service>>,
    /// Its VIPs, and the pool that has each.
    pub vips: BTreeMap<IpAddr, Shared<Pool>>,
    /// What its owner should know.
    pub judgements: Vec<Shared<Judgement>>,
}

/// What Services are judged by.
#[derive(Debug)]
pub struct Rules<'a> {
    /// Which Services are ours.
    pub class: ClassRule,
    /// Who may have which address.
    pub admission: Admission<'a>,
    /// VIPs of the configuration.
    pub taken: &'a BTreeSet<IpAddr>,
    /// Which nodes there are.
    pub nodes: Nodes<'a>,
    /// Whether nodes with endpoints give them the flows that enter there.
    pub local_first: bool,
    /// Whether connections end in sockets of the nodes.
    pub second_chance: bool,
}

/// Which field of a Service gives it an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
    /// `status.loadBalancer.ingress`: by the controller.
    LoadBalancer,
    /// `spec.externalIPs`: by whoever may write Services.
    ExternalIp,
}

/// Which fields of a Service give it addresses; `None` if it is none of ours.
fn fields(rule: &ClassRule, service: &ClusterService) -> Option<&'static [Asked]> {
    match service.is_load_balancer {
        false => Some(&[Asked::ExternalIp]),
        true if rule.covers(service) => Some(&[Asked::LoadBalancer, Asked::ExternalIp]),
        true => None,
    }
}

/// What a Service asks for; `None` if it asks for nothing of ours.
pub fn wish(
    rules: &Rules<'_>,
    name: &ObjectName,
    service: &ClusterService,
    slices: &[Shared<EndpointSlice>],
) -> Option<Wish> {
    let fields = fields(&rules.class, service)?;
    if fields == [Asked::ExternalIp] && service.external_ips.is_empty() {
        return None;
    }
    let mut wish = Wish::default();
    let mut judge = |severity, reason, message: String| {
        wish.judgements.push(Judgement::on(name, severity, reason, message).into());
    };
    let vips = addresses(rules, name, service, fields, &mut judge);
    let asks = service.external_ips.len() + service.ingress.len();
    if asks == 0 {
        let message = "it has no address yet: the controller gives it one, or says in its Events why not".to_owned();
        judge(Severity::Note, Reason::AddressPending, message);
    }
    if vips.is_empty() {
        return Some(wish);
    }
    let source_ranges = match source_ranges(&service.source_ranges) {
        Ok(ranges) => ranges,
        Err(message) => {
            judge(Severity::Refused, Reason::SourceRangesInvalid, message);
            return Some(Wish { vips, ..wish });
        }
    };
    let services = services(rules, name, service, slices, &vips, &source_ranges, &mut judge);
    if service.external_policy == TrafficPolicy::Cluster && !services.is_empty() {
        let message = "externalTrafficPolicy is Cluster: kube-proxy replaces the clients' addresses by a node's; set it to Local to keep them";
        judge(Severity::Note, Reason::ClientAddressHidden, message.to_owned());
    }
    Some(Wish { services, vips, ..wish })
}

/// The addresses that the Service may have, each with its pool.
fn addresses(
    rules: &Rules<'_>,
    name: &ObjectName,
    service: &ClusterService,
    fields: &[Asked],
    judge: &mut impl FnMut(Severity, Reason, String),
) -> BTreeMap<IpAddr, Shared<Pool>> {
    let mut vips = BTreeMap::new();
    for asked in fields {
        for (text, is_proxied) in asked_for(service, *asked) {
            let refused = match text.parse::<IpAddr>() {
                Err(_) => Some(format!("`{}` is no IP address", shown(text))),
                Ok(_) if is_proxied => Some(format!(
                    "{text} has `ipMode: Proxy`, with which kube-proxy does not deliver it; it has to be `VIP`"
                )),
                Ok(vip) => admitted(rules, name, service, vip, *asked).map_or_else(Some, |pool| {
                    vips.insert(vip, pool.clone());
                    None
                }),
            };
            if let Some(why) = refused {
                judge(Severity::Refused, Reason::AddressRefused, format!("{}: {why}", field(*asked)));
            }
        }
    }
    vips
}

/// The pool that an address is of, or why it is refused.
fn admitted<'r>(
    rules: &Rules<'r>,
    name: &ObjectName,
    service: &ClusterService,
    vip: IpAddr,
    asked: Asked,
) -> Result<&'r Shared<Pool>, String> {
    // kube-proxy has no rules for an address of a family that the Service does not have.
    if !claim::families(service).contains(&IpFamily::of(vip)) {
        return Err(Problem::Family { address: vip }.to_string());
    }
    if rules.taken.contains(&vip) {
        return Err(format!("{vip} is a VIP of the configuration (the control plane's, or of a service there)"));
    }
    let (name, in_force) = rules.admission.admit(name, service, vip).map_err(|problem| problem.to_string())?;
    if asked == Asked::ExternalIp && !in_force.pool.allow_external_ips {
        return Err(format!(
            "{vip} is in VipPool `{name}`, which has no addresses for `externalIPs`; set `allowExternalIPs` there if it should"
        ));
    }
    Ok(&in_force.pool)
}

/// What a field asks for, and whether it asks that kube-proxy does not deliver it.
fn asked_for(service: &ClusterService, asked: Asked) -> Vec<(&str, bool)> {
    match asked {
        Asked::ExternalIp => service.external_ips.iter().map(|ip| (ip.as_str(), false)).collect(),
        Asked::LoadBalancer => {
            let is_proxied = |mode: &Option<String>| mode.as_deref() == Some("Proxy");
            let given = service.ingress.iter();
            given.filter_map(|one| Some((one.ip.as_deref()?, is_proxied(&one.ip_mode)))).collect()
        }
    }
}

const fn field(asked: Asked) -> &'static str {
    match asked {
        Asked::LoadBalancer => "status.loadBalancer.ingress",
        Asked::ExternalIp => "spec.externalIPs",
    }
}

/// Text of an object for people: what is too long is cut, control characters are escaped.
fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// `loadBalancerSourceRanges` without host bits, each once; what is wrong with them if they cannot be read. A Service
/// whose ranges cannot be read admits nobody.
fn source_ranges(texts: &[String]) -> Result<Vec<IpNet>, String> {
    let mut ranges = BTreeSet::new();
    for text in texts {
        let range: IpNet = text.trim().parse().map_err(|_| {
            format!(
                "`loadBalancerSourceRanges` has `{}`, which is no prefix as 10.0.0.0/8; correct it: nobody is admitted",
                shown(text)
            )
        })?;
        if let IpNet::V6(v6) = range
            && v6.addr().to_ipv4_mapped().is_some()
        {
            return Err(format!(
                "`loadBalancerSourceRanges` has {range}, IPv4 in IPv6 dress; write it as IPv4: nobody is admitted"
            ));
        }
        ranges.insert(range.trunc());
    }
    Ok(ranges.into_iter().collect())
}

fn services(
    rules: &Rules<'_>,
    name: &ObjectName,
    service: &ClusterService,
    slices: &[Shared<EndpointSlice>],
    vips: &BTreeMap<IpAddr, Shared<Pool>>,
    source_ranges: &[IpNet],
    judge: &mut impl FnMut(Severity, Reason, String),
) -> Vec<Shared<Service>> {
    let mut services = Vec::new();
    for (port, protocol) in ports(service, judge) {
        for family in [IpFamily::Ipv4, IpFamily::Ipv6] {
            let vips: Vec<IpAddr> = vips.keys().copied().filter(|vip| IpFamily::of(*vip) == family).collect();
            if vips.is_empty() {
                continue;
            }
            let found = endpoints::find(service, port, family, slices, &rules.nodes);
            if let Some((severity, reason, message)) = remark(service, port, family, &found) {
                judge(severity, reason, message);
            }
            let name = names::of_port(name, port.port, protocol, family == IpFamily::Ipv6);
            let service = Service {
                name,
                vips,
                ports: vec![port.port],
                protocol,
                delivery: Delivery::Auto,
                ring_size: RingSize::DEFAULT,
                backends: found.backends,
                flow_timeout: protocol.flow_timeout(),
                affinity: service.affinity.map(affinity),
                probe: None,
                slow_start: Duration::ZERO,
                drop_unmatched: true,
                source_ranges: source_ranges.to_vec(),
                mss_clamp: MssClamp::Auto,
                hold: HoldWhen::Trusted,
                connect_translation: false,
                second_chance: rules.second_chance,
                local_first: rules.local_first,
            };
            services.push(service.into());
        }
    }
    services
}

/// The ports that can be forwarded, each once.
fn ports<'s>(
    service: &'s ClusterService,
    judge: &mut impl FnMut(Severity, Reason, String),
) -> Vec<(&'s ServicePort, Protocol)> {
    let mut seen = BTreeSet::new();
    let mut ports = Vec::with_capacity(service.ports.len());
    for port in &service.ports {
        let number = port.port;
        match protocol(&port.protocol).filter(|_| number != 0) {
            None => {
                let protocol = shown(&port.protocol);
                let message =
                    format!("port {number}/{protocol} cannot be forwarded: TCP, UDP and SCTP can, and ports from 1 on");
                judge(Severity::Refused, Reason::PortUnsupported, message);
            }
            Some(protocol) if !seen.insert((number, protocol)) => {
                let message = format!("port {number}/{protocol} is there twice; the first is served");
                judge(Severity::Refused, Reason::Contradictory, message);
            }
            Some(protocol) => ports.push((port, protocol)),
        }
    }
    ports
}

/// What is to be said of the backends of a port.
fn remark(
    service: &ClusterService,
    port: &ServicePort,
    family: IpFamily,
    found: &endpoints::Found,
) -> Option<(Severity, Reason, String)> {
    let family = if family == IpFamily::Ipv4 { "IPv4" } else { "IPv6" };
    let of = format!("port {}/{} over {family}", port.port, port.protocol);
    Some(match (found.elsewhere, service.external_policy) {
        (true, TrafficPolicy::Cluster) => (
            Severity::Note,
            Reason::EndpointsElsewhere,
            format!("{of}: no ready endpoint is on a node that takes flows, so every such node forwards to the others"),
        ),
        (true, TrafficPolicy::Local) => (
            Severity::Warning,
            Reason::Contradictory,
            format!(
                "{of}: ready endpoints are on no node that takes flows, and externalTrafficPolicy Local has a node deliver to its own only; set it to Cluster"
            ),
        ),
        (false, _) if !found.takes_flows() => {
            (Severity::Note, Reason::NoReadyEndpoints, format!("{of}: no endpoint is ready, so nobody takes new flows"))
        }
        (false, _) => return None,
    })
}

fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// Within the bounds of [`Affinity::timeout`]; Kubernetes takes 1 s to 24 h as well.
fn affinity(timeout: Duration) -> Affinity {
    Affinity { timeout: timeout.clamp(Duration::from_secs(1), Duration::from_secs(24 * 3600)) }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
