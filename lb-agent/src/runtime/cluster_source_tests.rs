use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    election::lease::node,
    kubernetes::fake::{Asked, EVENTS, Fake, LEASES, NODES, POOLS, SERVICES, SLICES},
    model::{ClusterAccess, Origin},
    runtime::followed::SharedSource,
    status::{AgentStatus, ClusterStatus},
};

/// Nothing here takes that long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    followed: Followed,
    fingerprint: watch::Sender<String>,
    cancel: CancellationToken,
    _servers: watch::Sender<Vec<SocketAddr>>,
}

fn bench(fake: &Fake, folder: &Path) -> Bench {
    let (_servers, servers) = watch::channel(Vec::new());
    let fingerprint = watch::Sender::new("0a1b2c3d".to_owned());
    let cancel = CancellationToken::new();
    let access = ClusterAccess {
        kubeconfig: Some(fake.kubeconfig(folder)),
        servers: Vec::new(),
        state_file: folder.join("inventory.json"),
    };
    let errand =
        Errand { access, node: "n1".to_owned(), servers, fingerprint: fingerprint.subscribe(), cancel: cancel.clone() };
    Bench { followed: follow(errand).unwrap(), fingerprint, cancel, _servers }
}

async fn live(followed: &mut Followed) {
    let is_live = |snapshot: &Option<crate::model::Snapshot>| {
        snapshot.as_ref().is_some_and(|snapshot| snapshot.origin == Origin::Live)
    };
    timeout(PATIENCE, followed.snapshots.wait_for(is_live)).await.expect("the inventory is not live").unwrap();
}

fn leases(fake: &Fake) -> Vec<Asked> {
    fake.store().asked.iter().filter(|asked| asked.path.starts_with(LEASES)).cloned().collect()
}

fn fingerprint(asked: &Asked) -> Value {
    let lease: Value = serde_json::from_str(&asked.body).unwrap();
    lease["metadata"]["annotations"][node::FINGERPRINT].clone()
}

#[tokio::test]
async fn the_nodes_lease_is_renewed_with_the_fingerprint_as_long_as_the_source_runs() {
    let fake = Fake::new(&[NODES, SERVICES, SLICES, POOLS, LEASES, EVENTS]);
    let folder = tempfile::tempdir().unwrap();
    let Bench { mut followed, fingerprint: shown, cancel, .. } = bench(&fake, folder.path());
    live(&mut followed).await;
    let renewed = timeout(PATIENCE, followed.lease.wait_for(|lease| lease.renewed_at.is_some()));
    let first = renewed.await.expect("no Lease").unwrap().clone();
    assert_eq!((first.name.as_str(), first.error), ("levee-system/levee-node-n1", None));
    shown.send_replace("99999999".to_owned());
    let again = timeout(PATIENCE, followed.lease.wait_for(|lease| lease.renewed_at > first.renewed_at));
    again.await.expect("the new fingerprint is not written").unwrap();
    let asked = leases(&fake);
    assert!(asked.iter().all(|asked| asked.method == "PATCH" && asked.path == format!("{LEASES}/levee-node-n1")));
    assert_eq!(asked.iter().map(fingerprint).collect::<Vec<_>>(), ["0a1b2c3d", "99999999"]);
    cancel.cancel();
    let ended = timeout(PATIENCE, followed.lease.wait_for(|_| false)).await.expect("it is still renewed");
    assert!(ended.is_err());
}

#[tokio::test]
async fn without_rights_or_namespace_the_inventory_does_not_suffer_and_the_status_says_so() {
    let fake = Fake::complete();
    let folder = tempfile::tempdir().unwrap();
    let Bench { mut followed, cancel, .. } = bench(&fake, folder.path());
    live(&mut followed).await;
    let failed = timeout(PATIENCE, followed.lease.wait_for(|lease| lease.error.is_some()));
    assert_eq!(failed.await.expect("no failure").unwrap().renewed_at, None);
    let complete = |status: &crate::model::SourceStatus| status.kinds.values().all(|kind| kind.is_complete);
    timeout(PATIENCE, followed.status.wait_for(complete)).await.expect("no status").unwrap();
    let shared = SharedSource::default();
    shared.set(Some((followed.status.clone(), followed.lease.clone())));
    let mut status = AgentStatus { cluster: Some(ClusterStatus::default()), ..AgentStatus::default() };
    shared.enter(&mut status);
    let source = status.cluster.unwrap().source.unwrap();
    assert_eq!(source.server, Some(fake.address.to_string()));
    assert!(source.lease.error.unwrap().contains("no such resource"));
    let kinds: Vec<_> = source.kinds.iter().map(|kind| (kind.resource.as_str(), kind.complete)).collect();
    assert_eq!(kinds, [("nodes", true), ("services", true), ("endpointslices", true), ("vippools", true)]);
    assert!(source.kinds.iter().all(|kind| kind.listed.is_some_and(|at| at > 1_700_000_000)));
    assert_eq!(leases(&fake).len(), 1, "the next attempt is {} s later", node::DENIED.as_secs());
    cancel.cancel();
}
