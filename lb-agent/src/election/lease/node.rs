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
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{super::sightings::Sighting, record};

/// How often a node renews its Lease.
pub const RENEWAL: Duration = Duration::from_secs(10);
/// How long it says to be alive with that, whole seconds.
pub const DURATION: Duration = Duration::from_secs(40);
/// Annotation with the fingerprint of the secret.
pub const FINGERPRINT: &str = "levee.dev/secret-fingerprint";
/// Field manager of what the node agent writes.
pub const MANAGER: &str = "levee-agent";

/// Label by which the Leases of nodes are found.
const LABEL: (&str, &str) = ("levee.dev/lease", "node");
const PREFIX: &str = "levee-node-";

/// Name of a node's Lease.
#[must_use]
pub fn name_of(node: &str) -> String {
    format!("{PREFIX}{node}")
}

/// Renews the Lease of `node` in `namespace` until `cancel`. A changed fingerprint is written at once. An API that does
/// not answer is asked again with the next renewal.
pub async fn renew(
    client: Client,
    namespace: String,
    node: String,
    mut fingerprint: watch::Receiver<String>,
    cancel: CancellationToken,
) {
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    let (name, parameters) = (name_of(&node), PatchParams::apply(MANAGER).force());
    let mut ticks = interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = false;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
            Ok(()) = fingerprint.changed() => ticks.reset(),
        }
        let shown = fingerprint.borrow_and_update().clone();
        let patch = Patch::Apply(lease(&node, &shown));
        let written = timeout(RENEWAL, leases.patch(&name, &parameters, &patch));
        let error = tokio::select! {
            () = cancel.cancelled() => return,
            written = written => match written {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(record::causes(&error as &dyn Error)),
                Err(_) => Some("no answer in time".to_owned()),
            },
        };
        match &error {
            Some(error) if !said => {
                tracing::warn!(error, "lease {namespace}/{name} could not be renewed; trying again");
            }
            None if said => tracing::info!("lease {namespace}/{name} is renewed again"),
            _ => {}
        }
        said = error.is_some();
    }
}

/// What all nodes show at present, for [`Sightings`](super::super::sightings::Sightings).
///
/// # Errors
/// If the API cannot be asked.
pub async fn sight(client: &Client, namespace: &str) -> Result<Vec<Sighting>, kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let found = leases.list(&ListParams::default().labels(&format!("{}={}", LABEL.0, LABEL.1))).await?;
    Ok(found.items.iter().filter_map(sighting).collect())
}

/// What a Lease shows; `None` if it is no node's.
#[must_use]
pub fn sighting(lease: &Lease) -> Option<Sighting> {
    let node = lease.metadata.name.as_deref()?.strip_prefix(PREFIX)?.to_owned();
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
