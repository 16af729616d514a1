//! `VipPool`: addresses that Services of type `LoadBalancer` may have.
//!
//! The schema refuses what it can (with CEL rules from Kubernetes 1.25 on); [`VipPoolSpec::pool`] refuses the same and
//! the rest, whatever the server let through. Words are texts here, so that a value of a later release spoils one pool
//! and not the reading of all.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    cluster::pools::{PoolError, check},
    model::{
        desired::AnnouncerKind,
        inventory::Labels,
        pool::{AnnounceNodes, AnnouncePolicy, Pool},
    },
};

/// A pool of addresses for Services of type `LoadBalancer`.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "levee.dev",
    version = "v1alpha1",
    kind = "VipPool",
    plural = "vippools",
    shortname = "vpool",
    category = "levee",
    status = "VipPoolStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Used","type":"integer","jsonPath":".status.used.total"}"#,
    printcolumn = r#"{"name":"Free","type":"integer","jsonPath":".status.free.total"}"#,
    printcolumn = r#"{"name":"Addresses","type":"string","jsonPath":".spec.addresses"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct VipPoolSpec {
    /// Addresses of either family: single ones, prefixes (192.0.2.0/28) and ranges (192.0.2.10-192.0.2.20).
    #[schemars(length(min = 1, max = 256), inner(length(max = 100), regex(pattern = ADDRESSES)))]
    #[x_kube(
        validation = Rule::new("self.all(a, !a.contains('-') || a.split('-')[0].contains(':') == a.split('-')[1].contains(':'))")
            .message("a range begins and ends in different families"),
        validation = Rule::new("self.all(a, !a.contains('/') || a.contains(':') || int(a.split('/')[1]) <= 32)")
            .message("the prefix length of an IPv4 address is at most 32")
    )]
    pub addresses: Vec<String>,
    /// Namespaces whose Services may have addresses of this pool; none named: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)))]
    pub namespaces: Vec<String>,
    /// Labels that a Service has to have for an address of this pool.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub service_selector: BTreeMap<String, String>,
    /// Pools with a higher number give addresses first. Default 0.
    #[serde(default)]
    pub priority: i32,
    /// Whether Services that ask for no address get one of this pool. Default true.
    #[serde(default = "yes")]
    pub auto_assign: bool,
    /// Leave out IPv4 addresses that end in .0 or .255. Default false.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,
    /// Whether `spec.externalIPs` of admitted Services may name addresses of this pool (CVE-2020-8554). Default false.
    #[serde(default, rename = "allowExternalIPs")]
    pub allow_external_ips: bool,
    /// How the addresses are announced.
    #[serde(default)]
    pub announce: AnnounceSpec,
}

/// A text that could be an address, a prefix or a range.
const ADDRESSES: &str = r"^[0-9A-Fa-f.:]+(/[0-9]{1,3}|[ ]*-[ ]*[0-9A-Fa-f.:]+)?$";

/// Condition of a pool: whether its spec is in force.
pub const READY: &str = "Ready";
/// Reason of [`READY`] while a pool is being deleted: it is in force for those that have its addresses.
pub const DELETING: &str = "PoolDeleting";

const fn yes() -> bool {
    true
}

/// How the addresses of a pool are announced.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnounceSpec {
    /// By what: `loopback`, an address on `lo` for the node's routing daemon. Default: `loopback`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(regex(pattern = "^loopback$")))]
    pub announcers: Vec<String>,
    /// Labels that a node has to have to announce; none: every node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Which of those nodes: `all`, or `localBackends`, those with a ready backend of the Service. Default `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(all|localBackends)$"))]
    pub nodes: Option<String>,
}

/// What the controller says of a pool.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VipPoolStatus {
    /// Generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Addresses that Services have.
    #[serde(default)]
    pub used: AddressCounts,
    /// Addresses that are left, at most 2^63 - 1.
    #[serde(default)]
    pub free: AddressCounts,
    /// What is in force instead of the spec, while the spec is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Atomic: an apply that leaves it out takes it away whole, and not only the parts that were applied before.
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub in_force: Option<VipPoolSpec>,
    /// `Ready`: whether the spec is in force, and why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Numbers of addresses, each at most 2^63 - 1.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct AddressCounts {
    /// Of IPv4.
    #[serde(default)]
    pub ipv4: i64,
    /// Of IPv6.
    #[serde(default)]
    pub ipv6: i64,
    /// Of both.
    #[serde(default)]
    pub total: i64,
}

impl AddressCounts {
    /// These many of each family.
    #[must_use]
    pub const fn new(ipv4: i64, ipv6: i64) -> Self {
        Self { ipv4, ipv6, total: ipv4.saturating_add(ipv6) }
    }
}

impl VipPoolSpec {
    /// The pool that the spec describes.
    ///
    /// # Errors
    /// The first value that makes no sense, with its key.
    pub fn pool(&self) -> Result<Pool, PoolError> {
        let mut addresses = Vec::with_capacity(self.addresses.len());
        for (index, text) in self.addresses.iter().enumerate() {
            addresses.push(text.parse().map_err(|reason| PoolError::Range { index, reason })?);
        }
        let pool = Pool {
            addresses,
            namespaces: self.namespaces.clone(),
            service_selector: self.service_selector.clone(),
            priority: self.priority,
            auto_assign: self.auto_assign,
            avoid_buggy_ips: self.avoid_buggy_ips,
            allow_external_ips: self.allow_external_ips,
            announce: self.announce.policy()?,
        };
        check(&pool)?;
        Ok(pool)
    }
}

impl AnnounceSpec {
    fn policy(&self) -> Result<AnnouncePolicy, PoolError> {
        let word = |key, value: &str, known| PoolError::Word { key, value: value.to_owned(), known };
        let mut announcers = Vec::with_capacity(self.announcers.len());
        for name in &self.announcers {
            match name.as_str() {
                "loopback" => announcers.push(AnnouncerKind::Loopback),
                other => return Err(word("announce.announcers", other, "loopback")),
            }
        }
        if announcers.is_empty() {
            announcers.push(AnnouncerKind::Loopback);
        }
        let nodes = match self.nodes.as_deref() {
            None | Some("all") => AnnounceNodes::All,
            Some("localBackends") => AnnounceNodes::LocalBackends,
            Some(other) => return Err(word("announce.nodes", other, "all, localBackends")),
        };
        let node_selector: Labels = self.node_selector.clone();
        Ok(AnnouncePolicy { announcers, node_selector, nodes })
    }
}

impl VipPool {
    /// What was in force when the status was written: what it names, or the spec if it says so of this very spec.
    #[must_use]
    pub fn last_good(&self) -> Option<Pool> {
        let status = self.status.as_ref()?;
        if let Some(spec) = &status.in_force {
            return spec.pool().ok();
        }
        let said = status.conditions.iter().find(|condition| condition.type_ == READY);
        let in_force = said.is_some_and(|said| said.status == "True" || said.reason == DELETING);
        if in_force && self.is_judged() { self.spec.pool().ok() } else { None }
    }

    /// Whether the status is of this very spec.
    #[must_use]
    pub fn is_judged(&self) -> bool {
        let observed = self.status.as_ref().and_then(|status| status.observed_generation);
        observed.is_some() && observed == self.metadata.generation
    }

    /// `metadata.creationTimestamp`, seconds since 1970.
    #[must_use]
    pub fn created(&self) -> i64 {
        self.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
    }
}

/// The custom resource definitions, as YAML.
///
/// # Errors
/// If a schema can't be written as YAML, which is a mistake of this program.
pub fn yaml() -> Result<String, serde_saphyr::SerializeError> {
    Ok(format!("# Made by `lbctl sample crds`.\n---\n{}", serde_saphyr::to_string(&VipPool::crd())?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(value: Value) -> VipPoolSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_file_for_deployment_is_in_step() {
        assert_eq!(
            include_str!("../../../deploy/chart/crds/vippools.yaml"),
            yaml().unwrap(),
            "write it with `lbctl sample crds`"
        );
    }

    #[test]
    fn the_schema_says_what_servers_need_to_know() {
        let crd = serde_json::to_value(VipPool::crd()).unwrap();
        assert_eq!(crd["metadata"]["name"], "vippools.levee.dev");
        assert_eq!(crd["spec"]["scope"], "Cluster");
        let version = &crd["spec"]["versions"][0];
        assert_eq!(version["subresources"]["status"], json!({}));
        let schema = &version["schema"]["openAPIV3Schema"]["properties"];
        let properties = &schema["spec"]["properties"];
        assert_eq!(properties["addresses"]["minItems"], 1);
        assert_eq!(properties["addresses"]["items"]["pattern"], ADDRESSES);
        assert_eq!(properties["addresses"]["x-kubernetes-validations"].as_array().map(Vec::len), Some(2));
        assert_eq!(properties["autoAssign"]["default"], true);
        assert_eq!(properties["announce"]["properties"]["announcers"]["items"]["pattern"], "^loopback$");
        assert_eq!(schema["status"]["properties"]["inForce"]["x-kubernetes-map-type"], "atomic");
        for key in ["namespaces", "serviceSelector", "priority", "avoidBuggyIPs", "allowExternalIPs"] {
            assert!(properties[key].is_object(), "{key}");
        }
        assert_eq!(schema["spec"]["required"], json!(["addresses"]));
    }

    #[test]
    fn a_spec_without_more_than_addresses_has_defaults() {
        let pool = spec(json!({"addresses": ["192.0.2.0/30", "2001:db8::1"]})).pool().unwrap();
        let expected = Pool {
            addresses: vec!["192.0.2.0-192.0.2.3".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            namespaces: vec![],
            service_selector: Labels::new(),
            priority: 0,
            auto_assign: true,
            avoid_buggy_ips: false,
            allow_external_ips: false,
            announce: AnnouncePolicy { announcers: vec![AnnouncerKind::Loopback], ..AnnouncePolicy::default() },
        };
        assert_eq!(pool, expected);
    }

    #[test]
    fn what_the_schema_refuses_is_refused_here_too() {
        let cases = [
            (json!({"addresses": []}), "`spec.addresses` is empty"),
            (json!({"addresses": ["192.0.2.1", "web"]}), "`spec.addresses[1]`: `web` is no address"),
            (json!({"addresses": ["192.0.2.1-2001:db8::1"]}), "different families"),
            (json!({"addresses": ["192.0.2.0/33"]}), "`spec.addresses[0]`: `192.0.2.0/33`"),
            (json!({"addresses": ["192.0.2.9-192.0.2.1"]}), "ends before it begins"),
            (json!({"addresses": ["0.0.0.0/0"]}), "0.0.0.0/8"),
            (json!({"addresses": ["192.0.2.0"], "avoidBuggyIPs": true}), "`spec.avoidBuggyIPs` leaves none"),
            (json!({"addresses": ["192.0.2.1"], "announce": {"announcers": ["smoke"]}}), "`smoke`"),
            (json!({"addresses": ["192.0.2.1"], "announce": {"nodes": "some"}}), "`spec.announce.nodes` is `some`"),
        ];
        for (value, reason) in cases {
            let error = spec(value.clone()).pool().unwrap_err().to_string();
            assert!(error.contains(reason), "{value}: {error}");
        }
    }

    #[test]
    fn the_spec_that_the_status_names_is_in_force_instead() {
        let mut pool = VipPool::new("edge", spec(json!({"addresses": ["web"]})));
        assert_eq!((pool.last_good(), pool.is_judged()), (None, false));
        let good = spec(json!({"addresses": ["192.0.2.1"]}));
        pool.status = Some(VipPoolStatus { in_force: Some(good.clone()), ..VipPoolStatus::default() });
        assert_eq!(pool.last_good(), good.pool().ok());
    }

    #[test]
    fn a_status_counts_for_the_spec_that_it_is_of() {
        let said = |status: &str, reason: &str, observed: i64| {
            let condition = json!({"type": READY, "status": status, "reason": reason, "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let mut pool = VipPool::new("edge", spec(json!({"addresses": ["192.0.2.1"]})));
            pool.metadata.generation = Some(2);
            let status = json!({"observedGeneration": observed, "conditions": [condition]});
            pool.status = Some(serde_json::from_value(status).unwrap());
            (pool.last_good().is_some(), pool.is_judged())
        };
        assert_eq!(said("True", "PoolInForce", 2), (true, true));
        assert_eq!(said("True", "PoolInForce", 1), (false, false));
        assert_eq!(said("False", "PoolConflict", 2), (false, true));
        assert_eq!(said("False", DELETING, 2), (true, true));
    }
}
