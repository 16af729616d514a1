//! The record of an election in a Lease, and the requests for it.

use std::{error::Error, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};

use super::super::fsm::{Answer, Claim, Record, Request};

/// What came of a request.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) answer: Answer,
    /// The Lease, if one was received.
    pub(super) lease: Option<Lease>,
    /// What went wrong, with all its causes.
    pub(super) error: Option<String>,
}

impl Outcome {
    /// No answer came in time.
    pub(super) fn silence() -> Self {
        Self { answer: Answer::Failed, lease: None, error: Some("no answer in time".to_owned()) }
    }
}

/// Performs a request. `lease` is the latest one received: what is not the election's stays in it.
pub(super) async fn perform(leases: Api<Lease>, name: String, request: Request, lease: Option<Lease>) -> Outcome {
    let result = match request {
        Request::Read => leases.get(&name).await,
        Request::Create(claim) => {
            let metadata = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec(claim, None)) };
            leases.create(&PostParams::default(), &lease).await
        }
        Request::Replace(claim, version) => {
            let mut lease = lease.unwrap_or_default();
            lease.metadata.name = Some(name.clone());
            lease.metadata.resource_version = Some(version);
            lease.metadata.managed_fields = None;
            lease.spec = Some(spec(claim, lease.spec));
            leases.replace(&name, &PostParams::default(), &lease).await
        }
    };
    match result {
        Ok(lease) => Outcome { answer: Answer::Record(record(&lease)), lease: Some(lease), error: None },
        Err(kube::Error::Api(status)) if status.code == 404 => {
            // A namespace that is not there says 404 to a write as well, and that has to be told.
            let error = (status.details.as_ref()).filter(|details| details.kind == "namespaces");
            Outcome { answer: Answer::Missing, lease: None, error: error.map(|_| status.message.clone()) }
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {
            Outcome { answer: Answer::Conflict, lease: None, error: None }
        }
        Err(error) => Outcome { answer: Answer::Failed, lease: None, error: Some(causes(&error)) },
    }
}

/// The error with all its causes.
pub(super) fn causes(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What a Lease says of the election.
pub(super) fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let number = |field: Option<i32>| field.and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
    let time = |field: &Option<MicroTime>| field.as_ref().map_or_else(String::new, |time| time.0.to_string());
    Record {
        duration: Duration::from_secs(number(spec.lease_duration_seconds).into()),
        transitions: number(spec.lease_transitions),
        stamp: format!("{} {}", time(&spec.acquire_time), time(&spec.renew_time)),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.holder_identity.unwrap_or_default(),
    }
}

fn spec(claim: Claim, before: Option<LeaseSpec>) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    let before = before.unwrap_or_default();
    let acquired = if claim.is_change { None } else { before.acquire_time.clone() };
    LeaseSpec {
        holder_identity: Some(claim.holder),
        lease_duration_seconds: Some(i32::try_from(claim.duration.as_secs()).unwrap_or(i32::MAX)),
        lease_transitions: Some(i32::try_from(claim.transitions).unwrap_or(i32::MAX)),
        acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
        renew_time: Some(now),
        ..before
    }
}
