//! What a Kubernetes cluster holds of interest, as plain values: the watch publishes it, the disk keeps it, `cluster`
//! makes services of it.
//!
//! Values are as the API server gave them, not judged: an address that does not parse is a string here, so that whoever
//! judges can name it in a condition. Only what is of no interest to anybody is left out.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{interned::Interned, pool::ClusterPool, shared::Shared};

/// Labels or annotations of an object.
pub type Labels = BTreeMap<String, String>;

/// All of a cluster that is of interest, from complete lists only.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// Nodes by name.
    pub nodes: BTreeMap<String, ClusterNode>,
    /// Services of every type: addresses of those that are not ours are refused to ours.
    pub services: BTreeMap<ObjectName, Shared<ClusterService>>,
    /// Slices of endpoints by the Service that they belong to, each list in the order of the slices' names. A slice
    /// without its Service stays: one comes before the other.
    pub slices: BTreeMap<ObjectName, Vec<Shared<EndpointSlice>>>,
    /// Pools of addresses by name, in force or not.
    pub pools: BTreeMap<String, ClusterPool>,
}

/// An inventory and where it is from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// What the cluster held.
    pub inventory: Arc<Inventory>,
    /// Where that is from.
    pub origin: Origin,
}

/// Where an inventory is from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// Complete lists of an API server, by this process. It stays that when the API goes away.
    Live,
    /// The disk: no API server has answered since this process began.
    Saved {
        /// How long before this process began it was saved, by the wall clock: all that a new process has.
        age: Duration,
    },
}

/// Namespace and name of an object. Written `namespace/name`.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct ObjectName {
    /// Namespace.
    pub namespace: String,
    /// Name within it.
    pub name: String,
}

impl ObjectName {
    /// The object of this name in this namespace.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for ObjectName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (namespace, name) = text.split_once('/').ok_or_else(|| format!("`{text}` is not namespace/name"))?;
        Ok(Self::new(namespace, name))
    }
}

/// A node of the cluster.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNode {
    /// Addresses of type `InternalIP`, in the order of the object.
    pub internal: Vec<IpAddr>,
    /// Addresses of type `ExternalIP`.
    pub external: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// Labels: roles, zones, `node.kubernetes.io/exclude-from-external-load-balancers`.
    pub labels: Labels,
    /// Condition `Ready` is `True`. Told, never the only reason to do anything: the kubelet can be dead while the network
    /// is well.
    pub ready: bool,
    /// `spec.unschedulable`: cordoned.
    pub unschedulable: bool,
}

impl ClusterNode {
    /// Whether the label keeps this node out of what serves Services (never out of the control plane).
    #[must_use]
    pub fn is_excluded(&self) -> bool {
        self.labels.contains_key("node.kubernetes.io/exclude-from-external-load-balancers")
    }
}

/// A Service, of any type.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterService {
    /// `metadata.uid`: another object of the same name has another.
    pub uid: String,
    /// `metadata.creationTimestamp`, seconds since 1970; the elder of two that want one address keeps it.
    pub created: i64,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Labels, for pools that select Services.
    pub labels: Labels,
    /// Annotations whose key begins with `levee.dev/`.
    pub annotations: Labels,
    /// `spec.type` is `LoadBalancer`.
    pub is_load_balancer: bool,
    /// `spec.loadBalancerClass`.
    pub load_balancer_class: Option<String>,
    /// `spec.loadBalancerIP`.
    pub load_balancer_ip: Option<String>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<String>,
    /// `spec.loadBalancerSourceRanges`.
    pub source_ranges: Vec<String>,
    /// `spec.clusterIPs`, without `None`.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.sessionAffinity: ClientIP`, with its timeout.
    pub affinity: Option<Duration>,
    /// `spec.externalTrafficPolicy`.
    pub external_policy: TrafficPolicy,
    /// `spec.ipFamilies`, in order; empty if the server does not know the field.
    pub families: Vec<IpFamily>,
    /// `spec.ipFamilyPolicy`.
    pub family_policy: FamilyPolicy,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `status.loadBalancer.ingress`.
    pub ingress: Vec<Ingress>,
}

/// Where a node may send what comes from outside.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TrafficPolicy {
    /// To any endpoint: kube-proxy hides the client's address.
    #[default]
    Cluster,
    /// To endpoints on the node itself.
    Local,
}

/// Family of an address.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum IpFamily {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl IpFamily {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

/// `spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FamilyPolicy {
    /// One family.
    #[default]
    SingleStack,
    /// Both if they can be had.
    PreferDualStack,
    /// Both or nothing.
    RequireDualStack,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Name, empty if it is the only one and has none. Slices name their ports by it.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The Service's port.
    pub port: u16,
}

/// An entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// Address, as written.
    pub ip: Option<String>,
    /// Name instead of an address.
    pub hostname: Option<String>,
    /// `VIP` or `Proxy`; absent before Kubernetes 1.29.
    pub ip_mode: Option<String>,
}

/// A slice of a Service's endpoints.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Name of the slice.
    pub name: String,
    /// Ports of all its endpoints.
    pub ports: Vec<EndpointPort>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of the endpoints of a slice.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPort {
    /// Name of the Service's port that it stands for.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Port of the endpoint; 0 stands for every port.
    pub port: u16,
}

/// An endpoint.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Addresses of one family (slices of type `FQDN` are left out); all lead to the same endpoint.
    pub addresses: Vec<IpAddr>,
    /// May take new flows; what is absent in the object is true.
    pub ready: bool,
    /// Serves, be it ending or not; what is absent is as `ready`.
    pub serving: bool,
    /// Is ending.
    pub terminating: bool,
    /// The node that it is on.
    pub node: Option<Shared<String>>,
}

impl EndpointSlice {
    /// Keeps the names of nodes with those of all other slices: a node has very many endpoints.
    pub fn share_nodes(&mut self, names: &mut Interned<String>) {
        for node in self.endpoints.iter_mut().filter_map(|endpoint| endpoint.node.as_mut()) {
            *node = names.share((**node).clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_with_a_slash_and_read_back() {
        let name = ObjectName::new("default", "kubernetes");
        let text = serde_json::to_string(&BTreeMap::from([(name.clone(), 1)])).unwrap();
        assert_eq!(text, r#"{"default/kubernetes":1}"#);
        assert_eq!(serde_json::from_str::<BTreeMap<ObjectName, u8>>(&text).unwrap(), BTreeMap::from([(name, 1)]));
        assert!(serde_json::from_str::<ObjectName>("\"kubernetes\"").is_err());
    }
}
