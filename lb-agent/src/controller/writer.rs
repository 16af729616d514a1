//! Writes statuses: by server-side apply, or by a merge patch where the server does not know what is to be applied.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::Service,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{
    Api, Client, Error,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Lead, MANAGER,
    desired::{Desired, IP_MODE, is_ours},
    follow::full,
    objects::{self, PoolItem, ServiceItem},
};
use crate::{
    kubernetes::crds::{VipPool, VipPoolStatus},
    model::inventory::ObjectName,
};

/// What became of a write.
#[derive(Debug)]
pub(super) enum Outcome<T> {
    /// The object as it is now.
    Applied(T),
    /// The server did not apply it.
    Refused(Failure),
    /// It may have been applied.
    Unknown(Failure),
    /// This process does not lead: nothing was sent.
    NotLeading,
}

/// Why a write failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Failure {
    /// The status code of the answer; 0 without one.
    pub(super) code: u16,
    /// In words.
    pub(super) text: String,
    /// When the server wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

/// Writes statuses while this process leads.
pub(super) struct Writer {
    client: Client,
    lead: Lead,
    timeout: Duration,
    /// The server can't apply what we write: merge patches from now on.
    merges: AtomicBool,
}

impl Writer {
    pub(super) fn new(client: Client, lead: Lead, timeout: Duration) -> Self {
        Self { client, lead, timeout, merges: AtomicBool::new(false) }
    }

    /// Writes the status of a Service, if the server still has the version that was shown.
    pub(super) async fn service(
        &self,
        name: &ObjectName,
        item: &ServiceItem,
        desired: &Desired,
        now: &Time,
    ) -> Outcome<ServiceItem> {
        let api: Api<Service> = Api::namespaced(self.client.clone(), &name.namespace);
        if !self.merges.load(Ordering::Relaxed) {
            let patch = Patch::Apply(applied(name, item, desired, now));
            let parameters = PatchParams::apply(MANAGER).force();
            let outcome = self.send(api.patch_status(&name.name, &parameters, &patch)).await;
            match outcome {
                Outcome::Refused(failure) | Outcome::Unknown(failure) if cannot_apply(&failure) => {
                    if !self.merges.swap(true, Ordering::Relaxed) {
                        tracing::info!(reason = failure.text, "the server can't apply statuses; writing merge patches");
                    }
                }
                outcome => return outcome.and_then(objects::service),
            }
        }
        let patch = Patch::Merge(merged(item, desired, now));
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let outcome = self.send(api.patch_status(&name.name, &parameters, &patch)).await;
        outcome.and_then(objects::service)
    }

    /// Writes the status of a pool.
    pub(super) async fn pool(&self, name: &str, status: &VipPoolStatus) -> Outcome<PoolItem> {
        let api: Api<VipPool> = Api::all(self.client.clone());
        let patch = json!({"apiVersion": "levee.dev/v1alpha1", "kind": "VipPool", "status": status});
        let (patch, parameters) = (Patch::Apply(patch), PatchParams::apply(MANAGER).force());
        let outcome = self.send(api.patch_status(name, &parameters, &patch)).await;
        outcome.and_then(objects::pool)
    }

    async fn send<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Outcome<T> {
        let now = Instant::now();
        let Some(end) = self.lead.borrow().filter(|end| now < *end) else {
            return Outcome::NotLeading;
        };
        match tokio::time::timeout_at(end.min(now + self.timeout), request).await {
            Ok(Ok(object)) => Outcome::Applied(object),
            Ok(Err(error)) => classify(&error),
            Err(_) => {
                let text = format!("no answer within {} s", self.timeout.as_secs());
                Outcome::Unknown(Failure { code: 0, text, retry_after: None })
            }
        }
    }
}

impl<T> Outcome<T> {
    fn and_then<K, U>(self, convert: impl FnOnce(T) -> Option<(K, U)>) -> Outcome<U> {
        match self {
            Self::Applied(object) => match convert(object) {
                Some((_, item)) => Outcome::Applied(item),
                None => Outcome::Unknown(Failure {
                    code: 200,
                    text: "the answer has no name".to_owned(),
                    retry_after: None,
                }),
            },
            Self::Refused(failure) => Outcome::Refused(failure),
            Self::Unknown(failure) => Outcome::Unknown(failure),
            Self::NotLeading => Outcome::NotLeading,
        }
    }
}

/// A 4xx answer says that nothing was done; whatever else goes wrong can have happened after it was.
fn classify<T>(error: &Error) -> Outcome<T> {
    let Error::Api(status) = error else {
        return Outcome::Unknown(Failure { code: 0, text: full(error), retry_after: None });
    };
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    let retry_after = (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)));
    let failure = Failure { code: status.code, text: status.message.clone(), retry_after };
    if (400..500).contains(&status.code) { Outcome::Refused(failure) } else { Outcome::Unknown(failure) }
}

/// Whether the server refuses to apply the patch for what it is: it knows no apply, or not all of the fields. Older
/// servers answer the latter with 500.
fn cannot_apply(failure: &Failure) -> bool {
    failure.code == 415 || failure.text.contains("field not declared in schema")
}

fn applied(name: &ObjectName, item: &ServiceItem, desired: &Desired, now: &Time) -> Value {
    let mut status = serde_json::Map::new();
    if let Some(ingress) = ingress(desired).filter(|ingress| !ingress.is_empty()) {
        status.insert("loadBalancer".to_owned(), json!({"ingress": ingress}));
    }
    let conditions = desired.conditions(&item.conditions, now);
    if !conditions.is_empty() {
        status.insert("conditions".to_owned(), json!(conditions));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name.name,
            "namespace": name.namespace,
            "uid": item.service.uid,
            "resourceVersion": item.version,
        },
        "status": status,
    })
}

fn merged(item: &ServiceItem, desired: &Desired, now: &Time) -> Value {
    let others = item.conditions.iter().filter(|condition| !is_ours(condition)).cloned();
    let conditions: Vec<Condition> = others.chain(desired.conditions(&item.conditions, now)).collect();
    let mut status = json!({"conditions": conditions});
    if let Some(ingress) = ingress(desired) {
        let ingress = if ingress.is_empty() { Value::Null } else { json!(ingress) };
        status["loadBalancer"] = json!({"ingress": ingress});
    }
    json!({"metadata": {"uid": item.service.uid, "resourceVersion": item.version}, "status": status})
}

fn ingress(desired: &Desired) -> Option<Vec<Value>> {
    let entry = |address: &std::net::IpAddr| json!({"ip": address.to_string(), "ipMode": IP_MODE});
    Some(desired.ingress.as_ref()?.iter().map(entry).collect())
}
