//! Events: told when something changes, never again while it stays, and never so many that they are a burden.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinSet,
    time::Instant,
};

use super::{MANAGER, desired::shortened, follow::full, report::SharedReport};

/// How many may be told at once.
const BURST: u32 = 100;
/// How often one more may be told after that.
const REFILL: Duration = Duration::from_millis(200);
/// How many wait to be sent.
const WAITING: usize = 256;
/// How long to wait for the server to take one.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Tells Events in the background.
#[derive(Clone, Debug)]
pub(super) struct Events {
    waiting: mpsc::Sender<(Event, ObjectReference)>,
    report: SharedReport,
}

impl Events {
    /// Tells Events as long as the set of tasks lives.
    pub(super) fn start(client: Client, identity: &str, report: SharedReport, tasks: &mut JoinSet<()>) -> Self {
        let (waiting, mut taken) = mpsc::channel::<(Event, ObjectReference)>(WAITING);
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(identity.to_owned()) };
        let recorder = Recorder::new(client, reporter);
        let counted = report.clone();
        tasks.spawn(async move {
            let mut bucket = Bucket { tokens: BURST, since: Instant::now() };
            while let Some((event, about)) = taken.recv().await {
                if !bucket.take(Instant::now()) {
                    counted.change(|report| report.events_dropped += 1);
                    continue;
                }
                let error = publish(&recorder, &event, about).await.err();
                if let Some(error) = &error {
                    tracing::debug!(error, reason = event.reason, "an Event was not taken");
                }
                counted.change(|report| match error {
                    None => report.events_told += 1,
                    Some(_) => report.events_dropped += 1,
                });
            }
        });
        Self { waiting, report }
    }

    /// Something went as it should.
    pub(super) fn normal(&self, about: &ObjectReference, reason: &str, note: String) {
        self.tell(EventType::Normal, about, reason, note);
    }

    /// Something went wrong.
    pub(super) fn warning(&self, about: &ObjectReference, reason: &str, note: String) {
        self.tell(EventType::Warning, about, reason, note);
    }

    fn tell(&self, type_: EventType, about: &ObjectReference, reason: &str, note: String) {
        let (name, namespace) = (about.name.as_deref(), about.namespace.as_deref());
        tracing::info!(kind = about.kind.as_deref(), namespace, name, reason, "{note}");
        let note = Some(shortened(note));
        let event = Event { type_, reason: reason.to_owned(), note, action: "Allocate".to_owned(), secondary: None };
        if let Err(TrySendError::Full(_) | TrySendError::Closed(_)) = self.waiting.try_send((event, about.clone())) {
            self.report.change(|report| report.events_dropped += 1);
        }
    }
}

/// Tells an Event. Some servers (1.20) want a namespace for a custom object
/// that has none.
async fn publish(recorder: &Recorder, event: &Event, mut about: ObjectReference) -> Result<(), String> {
    loop {
        match tokio::time::timeout(TIMEOUT, recorder.publish(event, &about)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(kube::Error::Api(status))) if status.code == 422 && about.namespace.is_none() => {
                about.namespace = Some("default".to_owned());
            }
            Ok(Err(error)) => return Err(full(&error)),
            Err(_) => return Err("no answer".to_owned()),
        }
    }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    tokens: u32,
    since: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let refills = (now - self.since).as_millis() / REFILL.as_millis();
        let refills = u32::try_from(refills).unwrap_or(u32::MAX);
        self.since += REFILL * refills.min(BURST);
        if refills >= BURST {
            self.since = now;
        }
        self.tokens = self.tokens.saturating_add(refills).min(BURST);
        let taken = self.tokens > 0;
        self.tokens -= u32::from(taken);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_burst_and_the_refill() {
        let now = Instant::now();
        let mut bucket = Bucket { tokens: BURST, since: now };
        let taken = |bucket: &mut Bucket, at| (0..1000).filter(|_| bucket.take(at)).count();
        assert_eq!(taken(&mut bucket, now), 100);
        assert_eq!(taken(&mut bucket, now + Duration::from_millis(199)), 0);
        assert_eq!(taken(&mut bucket, now + Duration::from_secs(1)), 5);
        assert_eq!(taken(&mut bucket, now + Duration::from_secs(3600)), 100);
    }
}
