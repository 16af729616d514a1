//! The Lease by which a node's agent shows the API that it lives: one per node, renewed by its agent, with the
//! fingerprint of the secret. What the agents tell one another is nearer to the truth; this is more evidence.

use std::{error::Error, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{super::sightings::Sighting, record};
use crate::{
    kubernetes::node_leases::{self, LABEL, name_of},
    model::LeaseStatus,
};

/// How often a node renews its Lease.
pub const RENEWAL: Duration = Duration::from_secs(10);
/// How long it says to be alive with that, whole seconds.
pub const DURATION: Duration = Duration::from_secs(40);
/// How long to wait where the API does not allow it, or has no such namespace.
pub const DENIED: Duration = Duration::from_secs(60);
/// Annotation with the fingerprint of the secret.
pub const FINGERPRINT: &str = "levee.dev/secret-fingerprint";
/// Field manager of what the node agent writes.
pub const MANAGER: &str = "levee-agent";

/// Renews the Lease of `node` in `namespace` until `cancel`. A changed fingerprint is written at once. An API that does
/// not answer is asked again with the next renewal, one that does not allow it after [`DENIED`].
pub async fn renew(
    client: Client,
    namespace: String,
    node: String,
    fingerprint: watch::Receiver<String>,
    cancel: CancellationToken,
) {
    Renewal { client, namespace, node, fingerprint, status: watch::Sender::default() }.run(cancel).await;
}

/// The renewing of a node's Lease.
pub struct Renewal {
    /// The way to the API.
    pub client: Client,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the node's object.
    pub node: String,
    /// Fingerprint of the secret.
    pub fingerprint: watch::Receiver<String>,
    /// How it fares.
    pub status: watch::Sender<LeaseStatus>,
}

impl Renewal {
    /// Renews until `cancel`.
    pub async fn run(mut self, cancel: CancellationToken) {
        self.status.send_modify(|status| status.name = format!("{}/{}", self.namespace, name_of(&self.node)));
        let mut ticks = interval(RENEWAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
                Ok(()) = self.fingerprint.changed() => ticks.reset(),
            }
            let Some(failure) = cancel.run_until_cancelled(self.write()).await else { return };
            if failure.as_ref().is_some_and(|failure| failure.is_denied) {
                ticks.reset_after(DENIED);
            }
            self.tell(failure);
        }
    }

    /// Writes the Lease once; why that failed, if it did.
    async fn write(&mut self) -> Option<Failure> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let shown = self.fingerprint.borrow_and_update().clone();
        let (name, patch) = (name_of(&self.node), Patch::Apply(lease(&self.node, &shown)));
        match timeout(RENEWAL, leases.patch(&name, &PatchParams::apply(MANAGER).force(), &patch)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => {
                let is_denied = matches!(&error, kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404));
                Some(Failure { is_denied, text: record::causes(&error as &dyn Error) })
            }
            Err(_) => Some(Failure { is_denied: false, text: "no answer in time".to_owned() }),
        }
    }

    fn tell(&self, failure: Option<Failure>) {
        let name = self.status.borrow().name.clone();
        let was_failing = self.status.borrow().error.is_some();
        match &failure {
            Some(Failure { is_denied: true, text }) if !was_failing => tracing::warn!(
                error = text,
                "lease {name} could not be written, trying again every {} s; it takes the namespace and the agent's Role \
                 in it (`patch` and `create` on leases), and nothing else depends on it",
                DENIED.as_secs()
            ),
            Some(Failure { text, .. }) if !was_failing => {
                tracing::warn!(error = text, "lease {name} could not be renewed; trying again");
            }
            None if was_failing => tracing::info!("lease {name} is renewed again"),
            _ => {}
        }
        self.status.send_modify(|status| match failure {
            None => (status.renewed_at, status.error) = (Some(Instant::now().into_std()), None),
            Some(failure) => status.error = Some(failure.text),
        });
    }
}

/// Why a Lease was not written.
#[derive(Debug)]
struct Failure {
    /// There is no such namespace, or the agent may not: only somebody's change helps.
    is_denied: bool,
    text: String,
}

/// What all nodes show at present, for [`Sightings`](super::super::sightings::Sightings).
///
/// # Errors
/// If the API cannot be asked.
pub async fn sight(client: &Client, namespace: &str) -> Result<Vec<Sighting>, kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let found = leases.list(&ListParams::default().labels(&node_leases::selector())).await?;
    Ok(found.items.iter().filter_map(sighting).collect())
}

/// What a Lease shows; `None` if it is no node's.
#[must_use]
pub fn sighting(lease: &Lease) -> Option<Sighting> {
    let node = node_leases::node_of(lease.metadata.name.as_deref()?)?.to_owned();
    let record = record::record(lease);
    let fingerprint = lease.metadata.annotations.as_ref().and_then(|annotations| annotations.get(FINGERPRINT)).cloned();
    Some(Sighting { node, stamp: record.stamp, duration: record.duration, fingerprint })
}

fn lease(node: &str, fingerprint: &str) -> serde_json::Value {
    // The API counts in microseconds and takes no finer time.
    let now = format!("{:.6}", Timestamp::now());
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name_of(node),
            "labels": {LABEL.0: LABEL.1},
            "annotations": {FINGERPRINT: fingerprint},
        },
        "spec": {"holderIdentity": node, "leaseDurationSeconds": DURATION.as_secs(), "renewTime": now},
    })
}
