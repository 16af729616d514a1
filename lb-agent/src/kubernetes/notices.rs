//! Events that a node's agent tells about its own Node, and about nothing else: what is wrong with a Service all nodes
//! see alike, so the controller tells that once.
//!
//! What lasts is told once, and once more when it is over. While no API server answers there is nobody to tell, and
//! afterwards it is over: an outage of the API ends in no flood of Events.

use std::{collections::BTreeMap, error::Error, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    election::lease::node::MANAGER,
    model::{LeaseStatus, Origin, SourceStatus},
};

/// How long something has to be wrong before it is told.
const LASTS: Duration = Duration::from_secs(60);
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(15);
/// How long to wait after an Event that was not taken.
const RETRY: Duration = Duration::from_secs(300);
/// How long to wait for the server to take one.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest note: the API takes 1024 bytes.
const LONGEST: usize = 1000;

/// The telling of Events about a node.
pub struct Notices {
    /// The way to the API.
    pub client: Client,
    /// Name of the node's object.
    pub node: String,
    /// How the source of inventories fares.
    pub source: watch::Receiver<SourceStatus>,
    /// How the node's Lease fares.
    pub lease: watch::Receiver<LeaseStatus>,
}

/// What can be wrong with a node.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Matter {
    /// Its inventory is not what the cluster holds.
    Inventory,
    /// Its Lease is not renewed.
    Lease,
}

/// What is to be told.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Notice {
    matter: Matter,
    /// Whether it began, or is over.
    began: bool,
    note: String,
}

/// What is wrong, and what was told of it.
#[derive(Debug, Default)]
struct Book {
    wrong: BTreeMap<Matter, Entry>,
    /// When Events are taken again, perhaps.
    quiet_until: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    is_told: bool,
}

impl Notices {
    /// Tells until `cancel`.
    pub async fn run(self, cancel: CancellationToken) {
        cancel.run_until_cancelled(self.watch()).await;
    }

    async fn watch(self) {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(self.node.clone()) };
        let recorder = Recorder::new(self.client.clone(), reporter);
        let (mut book, mut ticks) = (Book::default(), interval(LOOK));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let wrong = wrong(&self.source.borrow(), &self.lease.borrow());
            for notice in book.due(wrong, Instant::now()) {
                match self.tell(&recorder, &notice).await {
                    Ok(()) => book.told(&notice),
                    Err(error) => {
                        tracing::debug!(error, reason = notice.reason(), "an Event about this node was not taken");
                        book.quiet_until = Some(Instant::now() + RETRY);
                    }
                }
            }
        }
    }

    async fn tell(&self, recorder: &Recorder, notice: &Notice) -> Result<(), String> {
        // The uid is the name, as the kubelet's Events about its node have it: that is what they are looked up by.
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(self.node.clone()),
            uid: Some(self.node.clone()),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: if notice.began { EventType::Warning } else { EventType::Normal },
            reason: notice.reason().to_owned(),
            note: Some(notice.note.clone()),
            action: "Follow".to_owned(),
            secondary: None,
        };
        match timeout(PATIENCE, recorder.publish(&event, &about)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(super::client::chain(&error as &dyn Error)),
            Err(_) => Err("no answer".to_owned()),
        }
    }
}

impl Notice {
    const fn reason(&self) -> &'static str {
        match (self.matter, self.began) {
            (Matter::Inventory, true) => "InventoryStale",
            (Matter::Inventory, false) => "InventoryCurrent",
            (Matter::Lease, true) => "LeaseNotRenewed",
            (Matter::Lease, false) => "LeaseRenewed",
        }
    }
}

impl Book {
    /// What is to be told now that this is wrong.
    fn due(&mut self, wrong: BTreeMap<Matter, String>, now: Instant) -> Vec<Notice> {
        let mut due = Vec::new();
        self.wrong.retain(|matter, entry| {
            let is_over = !wrong.contains_key(matter);
            if is_over && entry.is_told {
                let lasted = now.saturating_duration_since(entry.since).as_secs();
                due.push(Notice {
                    matter: *matter,
                    began: false,
                    note: format!("as it should be again after {lasted} s"),
                });
            }
            !is_over
        });
        for (matter, note) in wrong {
            let entry = self.wrong.entry(matter).or_insert(Entry { since: now, is_told: false });
            if !entry.is_told && now.saturating_duration_since(entry.since) >= LASTS {
                due.push(Notice { matter, began: true, note: shortened(note) });
            }
        }
        if self.quiet_until.is_some_and(|until| now < until) {
            due.clear();
        }
        due
    }

    /// It was told.
    fn told(&mut self, notice: &Notice) {
        if let Some(entry) = self.wrong.get_mut(&notice.matter) {
            entry.is_told = notice.began;
        }
    }
}

/// What is wrong at present, and what follows from it.
fn wrong(source: &SourceStatus, lease: &LeaseStatus) -> BTreeMap<Matter, String> {
    let kinds = source.kinds.iter().filter_map(|(kind, status)| {
        let doubted = || {
            let doubted = status.doubted?;
            Some(format!("a list with {} instead of {} objects is not believed yet", doubted.listed, doubted.held))
        };
        let incomplete = || (!status.is_complete).then(|| "no complete list yet".to_owned());
        let why = status.error.clone().or_else(doubted).or_else(incomplete)?;
        Some(format!("{kind}: {why}"))
    });
    let why: Vec<String> = source.error.iter().cloned().chain(kinds).collect();
    let mut wrong = BTreeMap::new();
    if !why.is_empty() {
        let in_force = match source.origin {
            Some(Origin::Live) => "what was known last stays in force",
            Some(Origin::Saved { .. }) => "the saved inventory is in force",
            None => "no Service is served by this node",
        };
        wrong.insert(Matter::Inventory, format!("{in_force}; {}", why.join("; ")));
    }
    if let Some(error) = &lease.error {
        wrong.insert(Matter::Lease, format!("lease {} is not renewed: {error}", lease.name));
    }
    wrong
}

fn shortened(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{
        kubernetes::{
            client::{Access, Credentials, Limits},
            fake::{EVENTS, Fake},
        },
        model::{Kind, KindStatus},
    };

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn well() -> SourceStatus {
        let kind = |kind| (kind, KindStatus { is_complete: true, ..KindStatus::default() });
        SourceStatus { origin: Some(Origin::Live), kinds: Kind::ALL.map(kind).into(), ..SourceStatus::default() }
    }

    fn reasons(notices: &[Notice]) -> Vec<&'static str> {
        notices.iter().map(Notice::reason).collect()
    }

    #[test]
    fn what_lasts_is_told_once_and_its_end_once() {
        let (mut book, begin) = (Book::default(), Instant::now());
        let lost = || BTreeMap::from([(Matter::Lease, "lost".to_owned())]);
        assert_eq!(book.due(lost(), begin), []);
        assert_eq!(book.due(BTreeMap::new(), begin + seconds(59)), [], "it was short");
        assert_eq!(book.due(lost(), begin + seconds(60)), []);
        let due = book.due(lost(), begin + seconds(120));
        assert_eq!(reasons(&due), ["LeaseNotRenewed"]);
        book.told(&due[0]);
        assert_eq!(book.due(lost(), begin + seconds(500)), [], "told already");
        let over = book.due(BTreeMap::new(), begin + seconds(660));
        assert_eq!(reasons(&over), ["LeaseRenewed"]);
        assert_eq!(over[0].note, "as it should be again after 600 s");
        assert_eq!(book.due(BTreeMap::new(), begin + seconds(700)), []);
    }

    #[test]
    fn what_nobody_took_is_not_told_as_over_and_a_refusal_makes_it_quiet() {
        let (mut book, begin) = (Book::default(), Instant::now());
        let lost = || BTreeMap::from([(Matter::Inventory, "lost".to_owned())]);
        book.due(lost(), begin);
        assert_eq!(reasons(&book.due(lost(), begin + LASTS)), ["InventoryStale"]);
        book.quiet_until = Some(begin + LASTS + RETRY);
        assert_eq!(book.due(lost(), begin + LASTS + LOOK), []);
        assert_eq!(reasons(&book.due(lost(), begin + LASTS + RETRY)), ["InventoryStale"]);
        assert_eq!(book.due(BTreeMap::new(), begin + LASTS + RETRY + LOOK), []);
    }

    #[test]
    fn errors_doubts_and_missing_lists_make_an_inventory_stale_and_say_what_is_in_force() {
        let lease = LeaseStatus::default();
        assert_eq!(wrong(&well(), &lease), BTreeMap::new());
        let mut source = well();
        source.kinds.insert(Kind::Nodes, KindStatus { error: Some("403 no".to_owned()), ..KindStatus::default() });
        source.kinds.insert(Kind::Pools, KindStatus::default());
        let note = &wrong(&source, &lease)[&Matter::Inventory];
        assert_eq!(note, "what was known last stays in force; nodes: 403 no; vippools: no complete list yet");
        source.origin = None;
        assert!(wrong(&source, &lease)[&Matter::Inventory].starts_with("no Service is served by this node; "));
        let lost = LeaseStatus { name: "ns/lease".to_owned(), error: Some("403 no".to_owned()), renewed_at: None };
        assert_eq!(wrong(&well(), &lost)[&Matter::Lease], "lease ns/lease is not renewed: 403 no");
        assert_eq!(shortened("ü".repeat(600)).len(), LONGEST + 3);
    }

    #[tokio::test]
    async fn an_event_is_about_the_node_and_names_it_as_its_uid() {
        let fake = Fake::new(&[EVENTS]);
        let folder = tempfile::tempdir().unwrap();
        let credentials = Credentials::Kubeconfig(fake.kubeconfig(folder.path()));
        let way = Access::new(credentials, watch::Sender::default().subscribe(), Limits::default());
        let (client, node) = (way.client(), "n1".to_owned());
        let (source, lease) = (watch::Sender::default().subscribe(), watch::Sender::default().subscribe());
        let notices = Notices { client: client.clone(), node, source, lease };
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some("n1".to_owned()) };
        let notice = Notice { matter: Matter::Lease, began: true, note: "lost".to_owned() };
        notices.tell(&Recorder::new(client, reporter), &notice).await.unwrap();
        let asked = fake.store().asked.last().unwrap().clone();
        assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", EVENTS));
        let event: Value = serde_json::from_str(&asked.body).unwrap();
        let regarding = &event["regarding"];
        assert_eq!(
            (&regarding["kind"], &regarding["name"], &regarding["uid"]),
            (&"Node".into(), &"n1".into(), &"n1".into())
        );
        assert_eq!((&event["reason"], &event["type"]), (&"LeaseNotRenewed".into(), &"Warning".into()));
        assert_eq!((&event["reportingController"], &event["note"]), (&"levee-agent".into(), &"lost".into()));
    }
}
