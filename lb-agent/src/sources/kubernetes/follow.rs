//! Follows one kind of object: a complete list, then a watch from there on, and again when that ends badly.
//!
//! Invariant: nothing is lost in silence. An event that can't be read, a history that ended or went back (a restored or
//! fresh data store) lead to a new list. Every failure is followed by a wait, and so is a watch that ends at once.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api, Resource,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::debug;

use super::{
    backoff::{Backoff, chance},
    change::{Entry, Note},
};
use crate::{
    kubernetes::client::{Access, chain},
    model::{inventory::ObjectName, source::Kind},
};

/// Objects of one page of a list.
const PAGE: u32 = 500;
/// How long streaming lists are left alone once they did not work: servers are upgraded.
const PLAIN_FOR: Duration = Duration::from_secs(600);
/// Shortest time between the beginnings of two watches.
const WATCH_GAP: Duration = Duration::from_millis(500);
/// How long a server may keep a watch open, in seconds, and how much longer by chance.
const WATCH_SECONDS: (u32, u32) = (200, 80);

/// Waits between failures.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The first wait is at most this. Default 0.5 s.
    pub min: Duration,
    /// Every wait is at most this. Default 10 s.
    pub max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { min: Duration::from_millis(500), max: Duration::from_secs(10) }
    }
}

type Events<K> = BoxStream<'static, kube::Result<WatchEvent<K>>>;

/// Follows one kind of object.
pub(super) struct Follower<K> {
    pub(super) kind: Kind,
    pub(super) api: Api<K>,
    pub(super) read: fn(K) -> Entry,
    pub(super) line: Line,
}

/// What a follower needs whatever it reads.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) access: Access,
    pub(super) notes: mpsc::Sender<(Kind, Note)>,
    /// Asks for a new list.
    pub(super) again: Arc<Notify>,
    pub(super) retry: Retry,
    /// How long a streaming list may be silent; `None`: not tried.
    pub(super) streaming: Option<Duration>,
}

/// Why something did not work.
enum Trouble {
    /// The server does not have this kind of object.
    Absent,
    /// The server does not do streaming lists.
    NoStreaming(String),
    /// What was known is no base for more: a new list is needed.
    Relist(String),
    /// Anything else; the same can be tried again.
    Other(String, Duration),
}

/// How a watch ended.
enum End {
    /// As it should: the server's time was over.
    Usual,
    /// A new list is wanted.
    Again,
    Trouble(Trouble),
}

struct Listed<K> {
    objects: Vec<(ObjectName, Entry)>,
    version: String,
    /// The rest of a streaming list.
    events: Option<Events<K>>,
}

impl<K> Follower<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Follows until the server turns out not to have this kind of object.
    pub(super) async fn run(&self) {
        let mut course = Course { plain_until: None, backoff: Backoff::new(self.line.retry.min, self.line.retry.max) };
        loop {
            let listed = match self.list(&mut course).await {
                Ok(listed) => listed,
                Err(Trouble::Absent) => return,
                Err(trouble) => {
                    self.pause(&mut course, trouble).await;
                    continue;
                }
            };
            let streaming = listed.events.is_some();
            self.tell(Note::List { objects: listed.objects, streaming }).await;
            if self.watch(&mut course, listed.version, listed.events).await.is_none() {
                return;
            }
        }
    }

    async fn list(&self, course: &mut Course) -> Result<Listed<K>, Trouble> {
        let plain = course.plain_until.is_some_and(|until| Instant::now() < until);
        if let Some(patience) = self.line.streaming.filter(|_| !plain) {
            match self.streaming_list(patience).await {
                Err(Trouble::NoStreaming(why)) => {
                    debug!(kind = %self.kind, why, "no streaming lists from this server; listing by pages");
                    course.plain_until = Some(Instant::now() + PLAIN_FOR);
                }
                outcome => return outcome,
            }
        }
        self.list_by_pages().await
    }

    async fn streaming_list(&self, patience: Duration) -> Result<Listed<K>, Trouble> {
        let params = WatchParams { send_initial_events: true, ..watch_params() };
        let mut events = match self.api.watch(&params, "0").await {
            Ok(events) => events.boxed(),
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 405 | 422) => {
                return Err(Trouble::NoStreaming(status.message.clone()));
            }
            Err(error) => return Err(trouble(&error)),
        };
        let mut objects = Vec::new();
        loop {
            let Ok(event) = timeout(patience, events.next()).await else {
                return Err(Trouble::NoStreaming(format!("its end did not come within {patience:?}")));
            };
            match event {
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    objects.extend(self.entry(object));
                }
                Some(Ok(WatchEvent::Bookmark(mark))) => {
                    if mark.metadata.annotations.contains_key("k8s.io/initial-events-end") {
                        let version = mark.metadata.resource_version;
                        return Ok(Listed { objects, version, events: Some(events) });
                    }
                }
                Some(Ok(WatchEvent::Deleted(_))) => {
                    return Err(Trouble::NoStreaming("it tells of deletions".to_owned()));
                }
                Some(Ok(WatchEvent::Error(status))) => return Err(Trouble::NoStreaming(status.message.clone())),
                Some(Err(error)) => return Err(trouble(&error)),
                None => return Err(other("the streaming list ended before it was complete")),
            }
        }
    }

    async fn list_by_pages(&self) -> Result<Listed<K>, Trouble> {
        let mut params = ListParams::default().limit(PAGE);
        let mut objects = Vec::new();
        loop {
            let page = self.api.list(&params).await.map_err(|error| trouble(&error))?;
            objects.extend(page.items.into_iter().filter_map(|object| self.entry(object)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => {
                    let version = page.metadata.resource_version.filter(|version| !version.is_empty());
                    let version = version.ok_or_else(|| other("a list without a version"))?;
                    return Ok(Listed { objects, version, events: None });
                }
            }
        }
    }

    /// Watches from a version on, until a new list is needed; `None` if the kind is gone.
    async fn watch(&self, course: &mut Course, mut version: String, mut ready: Option<Events<K>>) -> Option<()> {
        let mut is_suspicious = false;
        loop {
            let begin = Instant::now();
            let events = match ready.take() {
                Some(events) => Ok(events),
                None => self.resume(&version, is_suspicious).await,
            };
            let end = match events {
                Ok(events) => self.listen(course, events, &mut version).await,
                Err(trouble) => End::Trouble(trouble),
            };
            // A server that ends a watch early is going away; who answers next may know another history.
            is_suspicious = begin.elapsed() < Duration::from_secs(WATCH_SECONDS.0.into());
            match end {
                End::Usual => sleep_until(begin + WATCH_GAP).await,
                End::Again => return Some(()),
                End::Trouble(Trouble::Absent) => return None,
                End::Trouble(trouble) => {
                    let relist = matches!(trouble, Trouble::Relist(_));
                    is_suspicious = true;
                    self.pause(course, trouble).await;
                    if relist {
                        return Some(());
                    }
                }
            }
        }
    }

    /// Begins a watch; a suspicious one only if the server's history has not gone back.
    async fn resume(&self, version: &str, is_suspicious: bool) -> Result<Events<K>, Trouble> {
        if is_suspicious {
            let newest = self.api.list(&ListParams::default().limit(1)).await.map_err(|error| trouble(&error))?;
            let newest = newest.metadata.resource_version.unwrap_or_default();
            if is_older(&newest, version) {
                return Err(went_back(&newest, version));
            }
        }
        let events = self.api.watch(&watch_params(), version).await.map_err(|error| trouble(&error))?;
        self.tell(Note::Heard).await;
        Ok(events.boxed())
    }

    async fn listen(&self, course: &mut Course, events: Events<K>, version: &mut String) -> End {
        let begin = Instant::now();
        let end = self.pass_on(events, version).await;
        course.backoff.went_well(begin.elapsed());
        end
    }

    /// Tells of all events, and how they ended.
    async fn pass_on(&self, mut events: Events<K>, version: &mut String) -> End {
        loop {
            let event = tokio::select! {
                biased;
                () = self.line.again.notified() => return End::Again,
                event = events.next() => event,
            };
            let (object, is_gone) = match event {
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => (object, false),
                Some(Ok(WatchEvent::Deleted(object))) => (object, true),
                Some(Ok(WatchEvent::Bookmark(mark))) => {
                    let newer = mark.metadata.resource_version;
                    if is_older(&newer, version) {
                        return End::Trouble(went_back(&newer, version));
                    }
                    *version = newer;
                    self.tell(Note::Heard).await;
                    continue;
                }
                Some(Ok(WatchEvent::Error(status))) => return End::Trouble(trouble(&kube::Error::Api(status.boxed()))),
                Some(Err(error)) => return End::Trouble(trouble(&error)),
                None => return End::Usual,
            };
            let newer = object.meta().resource_version.clone().filter(|version| !version.is_empty());
            let (Some(newer), Some((key, entry))) = (newer, self.entry(object)) else {
                return End::Trouble(Trouble::Relist("an event without name or version".to_owned()));
            };
            if !is_gone && is_older(&newer, version) {
                return End::Trouble(went_back(&newer, version));
            }
            *version = newer;
            self.tell(Note::Changed(key, if is_gone { Entry::Nothing } else { entry })).await;
        }
    }

    fn entry(&self, object: K) -> Option<(ObjectName, Entry)> {
        let meta = object.meta();
        let key = ObjectName::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone()?);
        Some((key, (self.read)(object)))
    }

    /// Tells what was learnt.
    pub(super) async fn tell(&self, note: Note) {
        // Whoever takes the notes ends this task, too.
        if self.line.notes.send((self.kind, note)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Tells of a failure and waits, as long as the server wants it if it said so.
    async fn pause(&self, course: &mut Course, trouble: Trouble) {
        let (why, patience) = match trouble {
            Trouble::Absent => ("the server does not have them".to_owned(), Duration::ZERO),
            Trouble::NoStreaming(why) | Trouble::Relist(why) => (why, Duration::ZERO),
            Trouble::Other(why, patience) => (why, patience),
        };
        let now = Instant::now();
        let wait = course.backoff.failed(chance()).max(self.line.access.hold_off(now)).max(patience);
        debug!(kind = %self.kind, why, ?wait, "watching failed");
        self.tell(Note::Failed(why)).await;
        sleep(wait).await;
    }
}

/// What a follower remembers.
struct Course {
    plain_until: Option<Instant>,
    backoff: Backoff,
}

fn watch_params() -> WatchParams {
    WatchParams::default().timeout(WATCH_SECONDS.0 + chance() % WATCH_SECONDS.1)
}

fn trouble(error: &kube::Error) -> Trouble {
    match error {
        kube::Error::Api(status) if status.code == 404 => Trouble::Absent,
        kube::Error::Api(status) if status.code == 410 => Trouble::Relist(status.message.clone()),
        // Any JSON object passes for a status where an event was expected.
        kube::Error::Api(status) if status.code == 0 => Trouble::Relist("an answer that can't be read".to_owned()),
        kube::Error::Api(status) => {
            let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
            Trouble::Other(chain(error), Duration::from_secs(u64::from(seconds).min(30)))
        }
        kube::Error::SerdeError(_) => Trouble::Relist(format!("an answer that can't be read: {}", chain(error))),
        _ => other(chain(error)),
    }
}

fn other(why: impl Into<String>) -> Trouble {
    Trouble::Other(why.into(), Duration::ZERO)
}

fn went_back(newest: &str, known: &str) -> Trouble {
    Trouble::Relist(format!("the server's history ends at {newest}, before {known}, which was known"))
}

/// Whether a version is before another. Versions that are no numbers can't be compared.
fn is_older(version: &str, than: &str) -> bool {
    matches!((version.parse::<u64>(), than.parse::<u64>()), (Ok(version), Ok(than)) if version < than)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_older("9", "10") && !is_older("10", "9") && !is_older("10", "10"));
        assert!(!is_older("a", "10") && !is_older("9", ""));
    }
}
