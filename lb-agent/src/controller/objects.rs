//! Objects of the API as the controller sees them.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{Node, Service},
    apimachinery::pkg::apis::meta::v1::{Condition, ManagedFieldsEntry},
};

use super::MANAGER;
use crate::{
    cluster::pools::PoolObject,
    kubernetes::{convert, crds::VipPool},
    model::inventory::{ClusterNode, ClusterService, ObjectName},
};

/// A Service.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServiceItem {
    /// What it asks for.
    pub(super) service: Arc<ClusterService>,
    /// `metadata.resourceVersion`.
    pub(super) version: String,
    /// We wrote its `status.loadBalancer.ingress`, as `metadata.managedFields` say.
    pub(super) ours: bool,
    /// `status.conditions`.
    pub(super) conditions: Arc<Vec<Condition>>,
}

/// A pool.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PoolItem {
    /// What it asks for.
    pub(super) object: PoolObject,
    /// The object as it is, for its status.
    pub(super) pool: Arc<VipPool>,
}

pub(super) fn service(mut service: Service) -> Option<(ObjectName, ServiceItem)> {
    let managed = service.metadata.managed_fields.take().unwrap_or_default();
    let version = service.metadata.resource_version.take().unwrap_or_default();
    let conditions = service.status.as_mut().and_then(|status| status.conditions.take()).unwrap_or_default();
    let (name, service) = convert::service(service)?;
    let item = ServiceItem {
        service: Arc::new(service),
        version,
        ours: managed.iter().any(wrote_ingress),
        conditions: Arc::new(conditions),
    };
    Some((name, item))
}

/// Whether the entry is ours and has the addresses, as a whole or in parts.
fn wrote_ingress(entry: &ManagedFieldsEntry) -> bool {
    let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:status"]["f:loadBalancer"]);
    entry.manager.as_deref() == Some(MANAGER) && fields.is_some_and(|fields| !fields["f:ingress"].is_null())
}

pub(super) fn node(node: Node) -> Option<(String, Arc<ClusterNode>)> {
    let (name, mut node) = convert::node(node)?;
    // Conditions and labels decide nothing here: a heartbeat is no change.
    (node.ready, node.unschedulable) = (false, false);
    node.labels.clear();
    Some((name, Arc::new(node)))
}

pub(super) fn pool(mut pool: VipPool) -> Option<(String, PoolItem)> {
    pool.metadata.managed_fields = None;
    let metadata = &pool.metadata;
    let name = metadata.name.clone()?;
    let object = PoolObject {
        uid: metadata.uid.clone().unwrap_or_default(),
        created: pool.created(),
        deleting: metadata.deletion_timestamp.is_some(),
        spec: pool.spec.pool(),
        last_good: pool.last_good(),
    };
    Some((name, PoolItem { object, pool: Arc::new(pool) }))
}
