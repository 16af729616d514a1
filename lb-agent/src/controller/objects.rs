//! Objects of the API as the controller sees them.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{Node, Service},
    apimachinery::pkg::apis::meta::v1::{Condition, ManagedFieldsEntry},
};

use super::MANAGER;
use crate::{
    cluster::pools::PoolObject,
    kubernetes::{
        convert,
        crds::{VipPool, VipPoolStatus},
    },
    model::{
        inventory::{ClusterNode, ClusterService, ObjectName},
        pool::Pool,
    },
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
        created: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        deleting: metadata.deletion_timestamp.is_some(),
        spec: pool.spec.pool(),
        last_good: pool.status.as_ref().and_then(|status| last_good(&pool, status)),
    };
    Some((name, PoolItem { object, pool: Arc::new(pool) }))
}

/// What was in force when the status was written: what it names, or the spec if it says so of this very spec.
fn last_good(pool: &VipPool, status: &VipPoolStatus) -> Option<Pool> {
    if let Some(spec) = &status.in_force {
        return spec.pool().ok();
    }
    let of_this_spec = status.observed_generation.is_some() && status.observed_generation == pool.metadata.generation;
    let ready = status.conditions.iter().any(|condition| condition.type_ == READY && condition.status == "True");
    if of_this_spec && ready { pool.spec.pool().ok() } else { None }
}

/// Condition of a pool: whether its spec is in force.
pub(super) const READY: &str = "Ready";
