//! Leases of nodes that are no more. An agent has no right to delete its own, and a node that is removed says no farewell:
//! the leader deletes what nobody renews and whose node is gone for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Error,
    api::{DeleteParams, ListParams, Preconditions},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    Lead,
    follow::{Table, full},
};
use crate::{kubernetes::node_leases, model::inventory::ClusterNode};

/// Longest pause between two looks.
const LOOK: Duration = Duration::from_secs(300);

/// The removing of Leases, as long as this process leads.
pub(super) struct Removal {
    pub(super) client: Client,
    pub(super) lead: Lead,
    /// Where the Leases are.
    pub(super) namespace: String,
    /// How long a node has to be gone, and its Lease not renewed.
    pub(super) grace: Duration,
    /// How long to wait for an answer.
    pub(super) timeout: Duration,
    pub(super) nodes: watch::Receiver<Table<String, Arc<ClusterNode>>>,
}

/// A Lease, as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Seen {
    node: String,
    /// Another one is another Lease of this name, or a renewal.
    version: String,
    uid: String,
}

/// Leases without a node, and since when each stands unchanged.
#[derive(Debug, Default)]
struct Orphans(BTreeMap<String, (Seen, Instant)>);

impl Orphans {
    /// Takes note of all Leases as they were read at `now`; those that stand without a node for `grace`.
    fn look(&mut self, leases: Vec<Seen>, nodes: &BTreeSet<&str>, now: Instant, grace: Duration) -> Vec<Seen> {
        let mut before = std::mem::take(&mut self.0);
        for seen in leases.into_iter().filter(|seen| !nodes.contains(seen.node.as_str())) {
            let known = before.remove(&seen.node).filter(|(known, _)| *known == seen);
            let since = known.map_or(now, |(_, since)| since);
            self.0.insert(seen.node.clone(), (seen, since));
        }
        let is_over = |(_, since): &&(Seen, Instant)| now.saturating_duration_since(*since) >= grace;
        self.0.values().filter(is_over).map(|(seen, _)| seen.clone()).collect()
    }
}

impl Removal {
    /// Works until it is dropped.
    pub(super) async fn run(mut self) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let (mut orphans, mut is_failing) = (Orphans::default(), false);
        if self.nodes.wait_for(|nodes| nodes.complete).await.is_err() {
            return;
        }
        loop {
            let failure = self.round(&leases, &mut orphans).await.err();
            if let Some(failure) = failure.as_ref().filter(|_| !is_failing) {
                tracing::warn!(
                    error = failure,
                    namespace = self.namespace,
                    "Leases of removed nodes stay; the controller's Role there needs `list` and `delete` on leases"
                );
            }
            is_failing = failure.is_some();
            sleep((self.grace / 2).min(LOOK)).await;
        }
    }

    async fn round(&self, leases: &Api<Lease>, orphans: &mut Orphans) -> Result<(), String> {
        let found = timeout(self.timeout, leases.list(&ListParams::default().labels(&node_leases::selector()))).await;
        let found = found.map_err(|_| "no answer in time".to_owned())?.map_err(|error| full(&error))?;
        let seen = found.items.into_iter().filter_map(seen).collect();
        let due = {
            let nodes = self.nodes.borrow();
            let names = nodes.items.keys().map(String::as_str).collect();
            orphans.look(seen, &names, Instant::now(), self.grace)
        };
        for lease in due {
            self.delete(leases, lease).await?;
        }
        Ok(())
    }

    /// Deletes a Lease that is still as it was read.
    async fn delete(&self, leases: &Api<Lease>, lease: Seen) -> Result<(), String> {
        if self.lead.borrow().is_none_or(|end| end <= Instant::now()) {
            return Ok(());
        }
        let Seen { node, version, uid } = lease;
        let preconditions = Preconditions { resource_version: Some(version), uid: Some(uid) };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let name = node_leases::name_of(&node);
        match timeout(self.timeout, leases.delete(&name, &parameters)).await {
            Ok(Ok(_)) => {
                tracing::info!(node, lease = name, "the Lease of a node that is no more is removed");
                Ok(())
            }
            // Somebody else was faster, or it is renewed again.
            Ok(Err(Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
            Ok(Err(error)) => Err(full(&error)),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

fn seen(lease: Lease) -> Option<Seen> {
    let metadata = lease.metadata;
    let node = node_leases::node_of(metadata.name.as_deref()?)?.to_owned();
    Some(Seen { node, version: metadata.resource_version?, uid: metadata.uid? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(600);

    fn lease(node: &str, version: &str) -> Seen {
        Seen { node: node.to_owned(), version: version.to_owned(), uid: "u".to_owned() }
    }

    /// Nodes whose Leases are due at these seconds.
    fn due(orphans: &mut Orphans, begin: Instant, at: u64, leases: &[Seen], nodes: &[&str]) -> Vec<String> {
        let nodes = nodes.iter().copied().collect();
        let due = orphans.look(leases.to_vec(), &nodes, begin + Duration::from_secs(at), GRACE);
        due.into_iter().map(|seen| seen.node).collect()
    }

    #[test]
    fn a_lease_goes_when_its_node_is_gone_for_the_grace_and_nobody_renews_it() {
        let (mut orphans, begin) = (Orphans::default(), Instant::now());
        let leases = [lease("a", "1"), lease("b", "1")];
        let mut due = |at, leases: &[Seen], nodes: &[&str]| due(&mut orphans, begin, at, leases, nodes);
        assert_eq!(due(0, &leases, &["a"]), [""; 0]);
        assert_eq!(due(599, &leases, &["a"]), [""; 0]);
        assert_eq!(due(600, &leases, &["a"]), ["b"]);
    }

    #[test]
    fn what_is_renewed_returns_or_is_another_one_begins_anew() {
        let (mut orphans, begin) = (Orphans::default(), Instant::now());
        let mut due = |at, leases: &[Seen], nodes: &[&str]| due(&mut orphans, begin, at, leases, nodes);
        assert_eq!(due(0, &[lease("a", "1")], &[]), [""; 0]);
        assert_eq!(due(600, &[lease("a", "2")], &[]), [""; 0], "an agent of a node without an object renews it");
        assert_eq!(due(1199, &[lease("a", "2")], &["a"]), [""; 0], "the node is back");
        assert_eq!(due(1300, &[lease("a", "2")], &[]), [""; 0]);
        let other = Seen { uid: "v".to_owned(), ..lease("a", "2") };
        assert_eq!(due(1900, std::slice::from_ref(&other), &[]), [""; 0], "another Lease of this name");
        assert_eq!(due(2500, &[other], &[]), ["a"]);
    }
}
