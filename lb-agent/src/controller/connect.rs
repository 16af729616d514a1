//! How the controller reaches the API server.

use std::{path::Path, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig can't be used.
    #[error("the kubeconfig {path} can't be used; check the file and its current context")]
    Kubeconfig {
        /// Its path.
        path: String,
        /// Why.
        source: kube::config::KubeconfigError,
    },
    /// There is no ServiceAccount.
    #[error("there is no ServiceAccount to use; run in a pod that mounts its token, or set `kubeconfig`")]
    InCluster(#[source] kube::config::InClusterError),
    /// The client can't be made of what was read.
    #[error("no client can be made of the credentials")]
    Client(#[source] kube::Error),
}

/// A client by a kubeconfig, or by the ServiceAccount of the pod.
///
/// # Errors
/// If the credentials can't be read or used. Whether a server answers is not asked.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let unusable = |source| ConnectError::Kubeconfig { path: path.display().to_string(), source };
            let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(unusable)?
        }
        None => Config::incluster().map_err(ConnectError::InCluster)?,
    };
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).map_err(ConnectError::Client)
}
