//! Slices of `discovery.k8s.io/v1beta1`, which servers before Kubernetes 1.21 have instead of `v1`.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, core::NamespaceResourceScope};
use serde::Deserialize;

/// A slice of `v1beta1`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BetaSlice {
    metadata: ObjectMeta,
    address_type: String,
    endpoints: Option<Vec<BetaEndpoint>>,
    ports: Option<Vec<EndpointPort>>,
}

/// An endpoint of `v1beta1`: it names its node in a map of topology.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BetaEndpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<EndpointConditions>,
    hostname: Option<String>,
    node_name: Option<String>,
    target_ref: Option<ObjectReference>,
    topology: Option<BTreeMap<String, String>>,
}

impl From<BetaSlice> for EndpointSlice {
    fn from(beta: BetaSlice) -> Self {
        let endpoint = |beta: BetaEndpoint| Endpoint {
            addresses: beta.addresses.unwrap_or_default(),
            conditions: beta.conditions,
            hostname: beta.hostname,
            node_name: beta.node_name,
            target_ref: beta.target_ref,
            deprecated_topology: beta.topology,
            ..Endpoint::default()
        };
        Self {
            metadata: beta.metadata,
            address_type: beta.address_type,
            endpoints: beta.endpoints.unwrap_or_default().into_iter().map(endpoint).collect(),
            ports: beta.ports,
        }
    }
}

impl Resource for BetaSlice {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(&(): &()) -> Cow<'_, str> {
        "EndpointSlice".into()
    }

    fn group(&(): &()) -> Cow<'_, str> {
        "discovery.k8s.io".into()
    }

    fn version(&(): &()) -> Cow<'_, str> {
        "v1beta1".into()
    }

    fn plural(&(): &()) -> Cow<'_, str> {
        "endpointslices".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::convert;

    #[test]
    fn a_beta_slice_tells_its_nodes_in_either_way() {
        let text = r#"{
            "apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": null,
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [
                {"addresses": ["10.1.0.5"], "topology": {"kubernetes.io/hostname": "n1"}, "conditions": {"ready": true}},
                {"addresses": ["10.1.0.6"], "nodeName": "n2"}
            ]
        }"#;
        let beta: BetaSlice = serde_json::from_str(text).unwrap();
        let (_, service, value) = convert::slice(beta.into()).unwrap();
        let nodes: Vec<_> =
            value.endpoints.iter().map(|endpoint| endpoint.node.as_ref().map(|node| node.as_str())).collect();
        assert_eq!((service.as_str(), nodes), ("web", vec![Some("n1"), Some("n2")]));
    }
}
