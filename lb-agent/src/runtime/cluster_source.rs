//! Starts what a node agent has to do with its cluster: the source of inventories, the renewing of the node's Lease, and
//! the telling of Events about the node.

use anyhow::Result;
use tokio::sync::watch;

use super::followed::{Errand, Followed};
use crate::{
    election::lease::{NAMESPACE, node::Renewal},
    kubernetes::{
        client::{Access, Credentials, Limits},
        crds::VipPool,
        notices::Notices,
    },
    model::LeaseStatus,
    sources::kubernetes::{self, Settings},
};

/// Follows a cluster until the errand is cancelled. Its servers are asked in their order, before the one that the
/// credentials name. What is written there (Lease, Events) only tells: where the API does not take it, nothing else suffers.
#[expect(clippy::unnecessary_wraps, reason = "one of the ways to follow a cluster, of which others can fail")]
pub fn follow(errand: Errand) -> Result<Followed> {
    let Errand { access, node, servers, fingerprint, cancel } = errand;
    let way = Access::new(credentials(access.kubeconfig), servers, Limits::default());
    let settings = Settings { saved: Some(access.state_file), ..Settings::default() };
    let source = kubernetes::spawn::<VipPool>(settings, way.clone(), cancel.clone());
    let (status, lease) = watch::channel(LeaseStatus::default());
    let namespace = NAMESPACE.to_owned();
    let renewal = Renewal { client: way.client(), namespace, node: node.clone(), fingerprint, status };
    tokio::spawn(renewal.run(cancel.clone()));
    let notices = Notices { client: way.client(), node, source: source.status.clone(), lease: lease.clone() };
    tokio::spawn(notices.run(cancel));
    Ok(Followed { snapshots: source.snapshots, status: source.status, lease })
}

/// What a kubeconfig says, or the pod's service account.
pub fn credentials(kubeconfig: Option<std::path::PathBuf>) -> Credentials {
    kubeconfig.map_or(Credentials::InCluster, Credentials::Kubeconfig)
}

#[cfg(test)]
#[path = "cluster_source_tests.rs"]
mod tests;
