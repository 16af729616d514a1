//! Starts the source of inventories as the configuration says.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    kubernetes::{
        client::{Access, Credentials, Limits},
        crds::VipPool,
    },
    model::{ClusterAccess, Snapshot},
    sources::kubernetes::{self, Settings},
};

/// Follows a cluster until `cancel`. `servers` are asked in their order, before the one that the credentials name.
#[expect(clippy::unnecessary_wraps, reason = "one of the ways to follow a cluster, of which others can fail")]
pub fn follow(
    access: &ClusterAccess,
    servers: watch::Receiver<Vec<SocketAddr>>,
    cancel: CancellationToken,
) -> Result<watch::Receiver<Option<Snapshot>>> {
    let access_to_api = Access::new(credentials(access.kubeconfig.clone()), servers, Limits::default());
    let settings = Settings { saved: Some(access.state_file.clone()), ..Settings::default() };
    Ok(kubernetes::spawn::<VipPool>(settings, access_to_api, cancel).snapshots)
}

/// What a kubeconfig says, or the pod's service account.
pub fn credentials(kubeconfig: Option<std::path::PathBuf>) -> Credentials {
    kubeconfig.map_or(Credentials::InCluster, Credentials::Kubeconfig)
}
