//! Election by a Lease of the Kubernetes API (`coordination.k8s.io/v1`), as other clients of that API hold it: whoever
//! shows the record finds holder, times and transitions where they belong.
//!
//! Times in the record are for people. What counts is in [`fsm`](super::fsm).

pub mod node;
mod record;

use std::{
    error::Error,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant as TokioInstant, error::Elapsed, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::record::Outcome;
use super::{
    Election, Leadership,
    fsm::{Answer, Candidate},
    timing::Timing,
};

/// Namespace of Levee's Leases.
pub const NAMESPACE: &str = "levee-system";
/// Lease of the controller's leader.
pub const LEADER_LEASE: &str = "levee-controller";
/// Reason of the Event that a new leader writes.
pub const EVENT_REASON: &str = "LeaderElection";

/// How long a resignation waits for the API.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long an Event waits for the API.
const EVENT_PATIENCE: Duration = Duration::from_secs(5);

/// What a [`LeaseElection`] is about.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Namespace of the Lease. Default [`NAMESPACE`].
    pub namespace: String,
    /// Name of the Lease. Default [`LEADER_LEASE`].
    pub name: String,
    /// Name of this process, unlike any other's, an earlier one's on this node included: see [`identity`].
    pub identity: String,
    /// Times of the election.
    pub timing: Timing,
    /// Who reports the Event of a change. Default `levee-controller`.
    pub reporter: String,
}

impl LeaseSettings {
    /// The election of the controller's leader, with this candidate.
    #[must_use]
    pub fn controller(identity: String) -> Self {
        Self {
            namespace: NAMESPACE.to_owned(),
            name: LEADER_LEASE.to_owned(),
            identity,
            timing: Timing::default(),
            reporter: "levee-controller".to_owned(),
        }
    }
}

/// The name of this process in an election: the node's, and eight digits that no earlier process on it had.
#[must_use]
pub fn identity(node: &str, random: u32) -> String {
    format!("{node}_{random:08x}")
}

/// Takes part in an election by a Lease.
#[derive(Debug)]
pub struct LeaseElection {
    leadership: watch::Receiver<Leadership>,
    resign: CancellationToken,
    task: JoinHandle<()>,
}

impl LeaseElection {
    /// Begins to take part. Dropped without [`Election::resign`], it goes on.
    #[must_use]
    pub fn start(client: Client, settings: LeaseSettings) -> Self {
        let (sender, leadership) = watch::channel(Leadership::default());
        let resign = CancellationToken::new();
        let mut driver = Driver::new(client, settings, sender);
        let cancelled = resign.clone();
        let task = tokio::spawn(async move { driver.run(&cancelled).await });
        Self { leadership, resign, task }
    }
}

impl Election for LeaseElection {
    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    async fn resign(mut self) {
        self.resign.cancel();
        if timeout(FAREWELL, &mut self.task).await.is_err() {
            tracing::warn!("the lead could not be handed over: others wait until the lease is over");
            self.task.abort();
        }
    }
}

type UnderWay = BoxFuture<'static, Result<Outcome, Elapsed>>;

struct Driver {
    client: Client,
    leases: Api<Lease>,
    settings: LeaseSettings,
    candidate: Candidate,
    /// The Lease as it was received last, with what is not the election's.
    lease: Option<Lease>,
    leadership: watch::Sender<Leadership>,
    /// What went wrong last, so that it is said once.
    said: Option<String>,
}

impl Driver {
    fn new(client: Client, settings: LeaseSettings, leadership: watch::Sender<Leadership>) -> Self {
        let seed = settings.identity.bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
        Self {
            leases: Api::namespaced(client.clone(), &settings.namespace),
            candidate: Candidate::new(settings.identity.clone(), settings.timing, seed, now()),
            client,
            settings,
            lease: None,
            leadership,
            said: None,
        }
    }

    async fn run(&mut self, resign: &CancellationToken) {
        let LeaseSettings { namespace, name, .. } = self.settings.clone();
        tracing::info!("attempting to acquire leader lease {namespace}/{name}");
        let mut under_way = None;
        let mut is_resigning = false;
        loop {
            self.candidate.handle_timeout(now());
            self.publish();
            if self.candidate.is_finished() {
                return;
            }
            if under_way.is_none()
                && let Some((request, deadline)) = self.candidate.poll_request(now())
            {
                let performed = record::perform(self.leases.clone(), name.clone(), request, self.lease.clone());
                under_way = Some(timeout_at(TokioInstant::from_std(deadline), performed).boxed());
            }
            let wake = self.candidate.poll_timeout().map(TokioInstant::from_std);
            tokio::select! {
                outcome = finished(&mut under_way) => self.answered(outcome),
                () = sleep_until(wake.unwrap_or_else(TokioInstant::now)), if wake.is_some() => {}
                () = resign.cancelled(), if !is_resigning => {
                    is_resigning = true;
                    self.candidate.resign(now());
                }
            }
        }
    }

    fn answered(&mut self, outcome: Result<Outcome, Elapsed>) {
        let Outcome { answer, lease, error } = outcome.unwrap_or_else(|_| Outcome::silence());
        if let Some(error) = error {
            if self.said.as_ref() != Some(&error) {
                let LeaseSettings { namespace, name, .. } = &self.settings;
                tracing::warn!(error, "lease {namespace}/{name} could not be read or written; trying again");
            }
            self.said = Some(error);
        } else if self.said.take().is_some() {
            tracing::info!("lease {}/{} answers again", self.settings.namespace, self.settings.name);
        }
        if matches!(answer, Answer::Missing) || lease.is_some() {
            self.lease = lease;
        }
        self.candidate.handle_answer(answer, now());
    }

    /// Tells everybody who leads, and says what changed.
    fn publish(&self) {
        let leadership = self.candidate.leadership();
        if *self.leadership.borrow() == leadership {
            return;
        }
        let before = self.leadership.send_replace(leadership.clone());
        let LeaseSettings { namespace, name, identity, .. } = &self.settings;
        match (before.ours_until.is_some(), leadership.ours_until.is_some()) {
            (false, true) => {
                tracing::info!("successfully acquired lease {namespace}/{name}");
                self.tell(format!("{identity} became leader"));
            }
            (true, false) => tracing::warn!("stopped leading: lease {namespace}/{name} was lost or given up"),
            (false, false) if before.leader != leadership.leader => {
                let leader = leadership.leader.as_deref().unwrap_or("nobody");
                tracing::info!(leader, "lease {namespace}/{name} has a new holder");
            }
            _ => {}
        }
    }

    /// Writes an Event about the Lease. Leading does not wait for it.
    fn tell(&self, note: String) {
        let (controller, instance) = (self.settings.reporter.clone(), self.settings.identity.clone());
        let recorder = Recorder::new(self.client.clone(), Reporter { controller, instance: Some(instance) });
        let about = self.lease.as_ref().map(|lease| lease.object_ref(&())).unwrap_or_default();
        let event = Event {
            type_: EventType::Normal,
            reason: EVENT_REASON.to_owned(),
            note: Some(note),
            action: "BecomeLeader".to_owned(),
            secondary: None,
        };
        tokio::spawn(async move {
            match timeout(EVENT_PATIENCE, recorder.publish(&event, &about)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(error = &error as &dyn Error, "the event of the lead was not written"),
                Err(_) => tracing::warn!("the event of the lead was not written: no answer in time"),
            }
        });
    }
}

/// Waits for the end of what is under way, for ever if nothing is.
async fn finished(under_way: &mut Option<UnderWay>) -> Result<Outcome, Elapsed> {
    let Some(request) = under_way else { return std::future::pending().await };
    let outcome = request.await;
    *under_way = None;
    outcome
}

/// The runtime's clock: monotonic, and still in tests that move it by hand.
fn now() -> Instant {
    TokioInstant::now().into_std()
}

#[cfg(test)]
mod tests;
