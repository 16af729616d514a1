//! Objects of the API as values of the inventory.
//!
//! What cannot be a value there (an address that is none, a port out of range) is left out with a debug line; the rest of
//! the object stays.

use std::{fmt::Display, net::IpAddr, str::FromStr, time::Duration};

use k8s_openapi::api::{
    core::v1::{LoadBalancerIngress, Node, NodeStatus, Service, ServiceSpec},
    discovery::v1::{self as discovery, EndpointSlice as ApiSlice},
};
use tracing::debug;

use crate::model::{
    Shared,
    inventory::{
        ClusterNode, ClusterService, Endpoint, EndpointPort, EndpointSlice, FamilyPolicy, Ingress, IpFamily,
        ObjectName, ServicePort, TrafficPolicy,
    },
};

/// Annotations that are kept begin with this.
const OURS: &str = "levee.dev/";
/// Label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Where slices of `v1beta1` name the node.
const HOSTNAME: &str = "kubernetes.io/hostname";
/// Default of `spec.sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: u64 = 10_800;

/// A node and its name; `None` for an object without a name.
#[must_use]
pub fn node(node: Node) -> Option<(String, ClusterNode)> {
    let name = node.metadata.name?;
    let (spec, status) = (node.spec.unwrap_or_default(), node.status.unwrap_or_default());
    let cidrs = spec.pod_cidrs.or_else(|| spec.pod_cidr.map(|cidr| vec![cidr])).unwrap_or_default();
    let value = ClusterNode {
        internal: addresses_of(&name, &status, "InternalIP"),
        external: addresses_of(&name, &status, "ExternalIP"),
        pod_cidrs: parsed(&name, "podCIDRs", cidrs),
        labels: node.metadata.labels.unwrap_or_default(),
        ready: status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True"),
        unschedulable: spec.unschedulable.unwrap_or_default(),
    };
    Some((name, value))
}

fn addresses_of(name: &str, status: &NodeStatus, kind: &str) -> Vec<IpAddr> {
    let addresses = status.addresses.iter().flatten().filter(|address| address.type_ == kind);
    parsed(name, kind, addresses.map(|address| address.address.as_str()))
}

/// A Service and its name; `None` for an object without a name.
#[must_use]
pub fn service(service: Service) -> Option<(ObjectName, ClusterService)> {
    let metadata = service.metadata;
    let name = ObjectName::new(metadata.namespace.unwrap_or_default(), metadata.name?);
    let spec = service.spec.unwrap_or_default();
    let ingress = service.status.and_then(|status| status.load_balancer?.ingress).unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.retain(|key, _| key.starts_with(OURS));
    let value = ClusterService {
        uid: metadata.uid.unwrap_or_default(),
        created: metadata.creation_timestamp.map_or(0, |time| time.0.as_second()),
        deleting: metadata.deletion_timestamp.is_some(),
        labels: metadata.labels.unwrap_or_default(),
        annotations,
        is_load_balancer: spec.type_.as_deref() == Some("LoadBalancer"),
        cluster_ips: cluster_ips(&name, &spec),
        affinity: affinity(&spec),
        external_policy: external_policy(&spec),
        families: families(&spec),
        family_policy: family_policy(&spec),
        ports: service_ports(&name, &spec),
        load_balancer_class: spec.load_balancer_class,
        load_balancer_ip: spec.load_balancer_ip.filter(|ip| !ip.is_empty()),
        external_ips: spec.external_ips.unwrap_or_default(),
        source_ranges: spec.load_balancer_source_ranges.unwrap_or_default(),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
        ingress: kept(ingress.into_iter().map(given).collect()),
    };
    Some((name, value))
}

fn given(entry: LoadBalancerIngress) -> Ingress {
    Ingress { ip: entry.ip, hostname: entry.hostname, ip_mode: entry.ip_mode }
}

/// The same in as much memory as it needs: what is collected from an object's own list stays in the place of that one,
/// whose items are several times as large.
fn kept<T>(mut list: Vec<T>) -> Vec<T> {
    list.shrink_to_fit();
    list
}

fn cluster_ips(name: &ObjectName, spec: &ServiceSpec) -> Vec<IpAddr> {
    let all = spec.cluster_ips.clone().or_else(|| spec.cluster_ip.clone().map(|ip| vec![ip])).unwrap_or_default();
    parsed(name, "clusterIPs", all.into_iter().filter(|ip| ip != "None" && !ip.is_empty()))
}

fn affinity(spec: &ServiceSpec) -> Option<Duration> {
    (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
        let seconds = config.and_then(|client| client.timeout_seconds).and_then(|seconds| u64::try_from(seconds).ok());
        Duration::from_secs(seconds.unwrap_or(AFFINITY_SECONDS))
    })
}

fn external_policy(spec: &ServiceSpec) -> TrafficPolicy {
    match spec.external_traffic_policy.as_deref() {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    }
}

fn families(spec: &ServiceSpec) -> Vec<IpFamily> {
    let family = |text: &String| match text.as_str() {
        "IPv4" => Some(IpFamily::Ipv4),
        "IPv6" => Some(IpFamily::Ipv6),
        _ => None,
    };
    spec.ip_families.iter().flatten().filter_map(family).collect()
}

fn family_policy(spec: &ServiceSpec) -> FamilyPolicy {
    match spec.ip_family_policy.as_deref() {
        Some("PreferDualStack") => FamilyPolicy::PreferDualStack,
        Some("RequireDualStack") => FamilyPolicy::RequireDualStack,
        _ => FamilyPolicy::SingleStack,
    }
}

fn service_ports(name: &ObjectName, spec: &ServiceSpec) -> Vec<ServicePort> {
    let ports = spec.ports.iter().flatten();
    ports
        .filter_map(|port| {
            Some(ServicePort {
                name: port.name.clone().unwrap_or_default(),
                protocol: protocol(port.protocol.as_deref()),
                port: number(name, port.port)?,
            })
        })
        .collect()
}

/// A slice, its own name, and the name of its Service. `None` for a slice that belongs to no Service, or whose endpoints
/// are names (`addressType: FQDN`).
#[must_use]
pub fn slice(slice: ApiSlice) -> Option<(ObjectName, String, EndpointSlice)> {
    let metadata = slice.metadata;
    let name = ObjectName::new(metadata.namespace.unwrap_or_default(), metadata.name?);
    let service = metadata.labels.and_then(|mut labels| labels.remove(SERVICE_NAME)).filter(|name| !name.is_empty())?;
    if slice.address_type == "FQDN" {
        return None;
    }
    let ports = slice.ports.unwrap_or_default().into_iter().filter_map(|port| endpoint_port(&name, port));
    let ports = kept(ports.collect());
    let endpoints = kept(slice.endpoints.into_iter().map(|one| endpoint(&name, one)).collect());
    let value = EndpointSlice { name: name.name.clone(), ports, endpoints };
    Some((name, service, value))
}

fn endpoint_port(name: &ObjectName, port: discovery::EndpointPort) -> Option<EndpointPort> {
    Some(EndpointPort {
        name: port.name.unwrap_or_default(),
        protocol: protocol(port.protocol.as_deref()),
        port: port.port.map_or(Some(0), |port| number(name, port))?,
    })
}

fn endpoint(name: &ObjectName, endpoint: discovery::Endpoint) -> Endpoint {
    let conditions = endpoint.conditions.unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    // `v1beta1`, read as `v1`, has its topology where `v1` has what is left of it.
    let node =
        endpoint.node_name.or_else(|| endpoint.deprecated_topology.and_then(|mut labels| labels.remove(HOSTNAME)));
    let mut addresses: Vec<IpAddr> = parsed(name, "endpoints", endpoint.addresses);
    addresses.shrink_to_fit();
    Endpoint {
        addresses,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or_default(),
        node: node.map(Shared::new),
    }
}

fn protocol(text: Option<&str>) -> String {
    text.unwrap_or("TCP").to_owned()
}

/// A port, unless it is out of range. 0 is no port that anybody can name.
fn number(name: &ObjectName, port: i32) -> Option<u16> {
    let number = u16::try_from(port).ok().filter(|port| *port != 0);
    if number.is_none() {
        debug!(object = %name, port, "left out a port that is none");
    }
    number
}

/// What of the texts can be read.
fn parsed<T: FromStr>(
    object: &(impl Display + ?Sized),
    field: &str,
    texts: impl IntoIterator<Item = impl AsRef<str>>,
) -> Vec<T> {
    let read = |text: &str| {
        let value = text.parse().ok();
        if value.is_none() {
            debug!(%object, field, text, "left out what can't be read");
        }
        value
    };
    texts.into_iter().filter_map(|text| read(text.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;
    use crate::model::inventory::Labels;

    fn object<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_node_has_its_addresses_in_order_and_garbage_is_left_out() {
        let (name, value) = node(object(json!({
            "metadata": {"name": "n1", "labels": {"zone": "a"}},
            "spec": {"podCIDRs": ["10.1.0.0/24", "nonsense", "fd00::/64"], "unschedulable": true},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "n1"},
                    {"type": "InternalIP", "address": "fd00::1"},
                    {"type": "InternalIP", "address": "300.0.0.1"},
                    {"type": "InternalIP", "address": "10.0.0.1"},
                    {"type": "ExternalIP", "address": "192.0.2.1"}
                ],
                "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}]
            }
        })))
        .unwrap();
        assert_eq!(name, "n1");
        assert_eq!(value.internal, ["fd00::1".parse::<IpAddr>().unwrap(), Ipv4Addr::new(10, 0, 0, 1).into()]);
        assert_eq!(value.external, [IpAddr::from([192, 0, 2, 1])]);
        assert_eq!(value.pod_cidrs, ["10.1.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()]);
        assert!(value.ready && value.unschedulable && value.labels["zone"] == "a");
    }

    #[test]
    fn a_node_whose_state_is_unknown_is_not_ready() {
        let status = json!({"conditions": [{"type": "Ready", "status": "Unknown"}]});
        let (_, value) = node(object(json!({"metadata": {"name": "n1"}, "status": status}))).unwrap();
        assert!(!value.ready);
        assert!(node(Node::default()).is_none(), "without a name");
    }

    #[test]
    fn a_service_keeps_as_text_what_others_judge() {
        let (name, value) = service(object(json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u1", "creationTimestamp": "1970-01-02T00:00:00Z",
                "annotations": {"levee.dev/addresses": "any", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
            },
            "spec": {
                "type": "LoadBalancer", "loadBalancerClass": "levee.dev/levee", "loadBalancerIP": "not-an-address",
                "externalIPs": ["192.0.2.300"], "loadBalancerSourceRanges": ["everybody"],
                "clusterIPs": ["10.96.0.7", "fd96::7"], "sessionAffinity": "ClientIP",
                "externalTrafficPolicy": "Local", "ipFamilies": ["IPv6", "IPv4", "IPv8"],
                "ipFamilyPolicy": "RequireDualStack", "publishNotReadyAddresses": true,
                "ports": [
                    {"name": "http", "port": 80},
                    {"name": "quic", "port": 443, "protocol": "UDP"},
                    {"name": "bad", "port": 70000},
                    {"name": "odd", "port": 9, "protocol": "QUIC"}
                ]
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9", "ipMode": "VIP"}, {"hostname": "lb.example"}]}}
        })))
        .unwrap();
        let port = |name: &str, protocol: &str, port| ServicePort {
            name: name.to_owned(),
            protocol: protocol.to_owned(),
            port,
        };
        let expected = ClusterService {
            uid: "u1".to_owned(),
            created: 86_400,
            annotations: Labels::from([("levee.dev/addresses".to_owned(), "any".to_owned())]),
            is_load_balancer: true,
            load_balancer_class: Some("levee.dev/levee".to_owned()),
            load_balancer_ip: Some("not-an-address".to_owned()),
            external_ips: vec!["192.0.2.300".to_owned()],
            source_ranges: vec!["everybody".to_owned()],
            cluster_ips: vec![[10, 96, 0, 7].into(), "fd96::7".parse().unwrap()],
            affinity: Some(Duration::from_secs(10_800)),
            external_policy: TrafficPolicy::Local,
            families: vec![IpFamily::Ipv6, IpFamily::Ipv4],
            family_policy: FamilyPolicy::RequireDualStack,
            ports: vec![port("http", "TCP", 80), port("quic", "UDP", 443), port("odd", "QUIC", 9)],
            publish_not_ready: true,
            ingress: vec![
                Ingress { ip: Some("192.0.2.9".to_owned()), hostname: None, ip_mode: Some("VIP".to_owned()) },
                Ingress { hostname: Some("lb.example".to_owned()), ..Ingress::default() },
            ],
            ..ClusterService::default()
        };
        assert_eq!((name, value), (ObjectName::new("shop", "web"), expected));
    }

    #[test]
    fn a_headless_service_has_no_address_and_affinity_has_its_own_time() {
        let (_, value) = service(object(json!({
            "metadata": {"name": "db", "namespace": "shop"},
            "spec": {
                "clusterIP": "None", "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}
            }
        })))
        .unwrap();
        assert_eq!((value.cluster_ips, value.affinity), (Vec::new(), Some(Duration::from_secs(5))));
    }

    fn slice_of(kind: &str, labels: &Value) -> ApiSlice {
        object(json!({
            "metadata": {"name": "web-x", "namespace": "shop", "labels": labels},
            "addressType": kind,
            "ports": [{"name": "http", "port": 8080}, {"port": -1}, {"protocol": "UDP", "port": null}],
            "endpoints": [
                {"addresses": ["10.1.0.5"], "nodeName": "n1", "targetRef": {"kind": "Pod", "name": "web-1"}},
                {"addresses": ["10.1.0.6", "x"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.1.0.7"], "conditions": {"ready": false}, "deprecatedTopology": {HOSTNAME: "n2"}}
            ]
        }))
    }

    #[test]
    fn a_slice_says_what_is_absent_as_the_api_means_it() {
        let (name, service, value) = slice(slice_of("IPv4", &json!({SERVICE_NAME: "web"}))).unwrap();
        assert_eq!((name, service.as_str()), (ObjectName::new("shop", "web-x"), "web"));
        let ports: Vec<_> = value.ports.iter().map(|p| (p.name.as_str(), p.protocol.as_str(), p.port)).collect();
        assert_eq!(ports, [("http", "TCP", 8080), ("", "UDP", 0)]);
        let endpoint = |last, ready, serving, terminating, node: Option<&str>| Endpoint {
            addresses: vec![IpAddr::from([10, 1, 0, last])],
            ready,
            serving,
            terminating,
            node: node.map(|node| node.to_owned().into()),
        };
        let expected = [
            endpoint(5, true, true, false, Some("n1")),
            endpoint(6, false, true, true, None),
            endpoint(7, false, false, false, Some("n2")),
        ];
        assert_eq!(value.endpoints, expected);
    }

    #[test]
    fn slices_of_names_or_of_no_service_are_left_out() {
        assert!(slice(slice_of("FQDN", &json!({SERVICE_NAME: "web"}))).is_none());
        assert!(slice(slice_of("IPv4", &json!({}))).is_none());
    }
}
