//! Watches: what is there if it is asked for, then every change, and now and then a bookmark.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use hyper::body::Bytes;
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    faults::Verb,
    query::Query,
    resources::{Resource, Target},
    selector::Selector,
    shared::Shared,
    status::Failure,
    store::{Change, Object},
};

/// How long a watch lasts that does not say.
const LIFETIME: Duration = Duration::from_mins(30);
/// Between two looks whether a watch still has to keep still.
const PAUSE: Duration = Duration::from_millis(10);

/// One watch.
pub struct Watch {
    shared: Arc<Shared>,
    target: Target,
    selector: Selector,
    /// Changes after this version were not told yet.
    version: u64,
    life: u64,
    /// Lines that wait to be sent.
    queue: VecDeque<Bytes>,
    bookmarks: bool,
    bookmarks_seen: u64,
    end: Instant,
    next_bookmark: Instant,
    ended: bool,
}

impl Watch {
    /// Begins a watch.
    ///
    /// # Errors
    /// If the version it asks for is forgotten.
    pub fn begin(shared: &Arc<Shared>, target: &Target, query: &Query, selector: Selector) -> Result<Self, Failure> {
        let now = Instant::now();
        let settings = shared.settings();
        if query.initial_events && !settings.streaming_lists {
            let why = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList \
                       feature gate is enabled";
            return Err(Failure::new(422, "Invalid", why));
        }
        let store = shared.store();
        let mut watch = Self {
            shared: Arc::clone(shared),
            target: target.clone(),
            selector,
            version: query.version.unwrap_or_default(),
            life: store.life(),
            queue: VecDeque::new(),
            bookmarks: query.bookmarks,
            bookmarks_seen: *shared.bookmarks.borrow(),
            end: now + query.timeout.unwrap_or(LIFETIME),
            next_bookmark: now + settings.bookmark_every,
            ended: false,
        };
        if query.initial_events || watch.version == 0 {
            for (_, object) in store.list(target.resource, target.namespace.as_deref(), None) {
                if watch.selector.fits(&object.value) {
                    watch.queue.push_back(line("ADDED", object, target.resource));
                }
            }
            watch.version = store.version();
            if query.initial_events {
                let end = json!({ "k8s.io/initial-events-end": "true" });
                watch.queue.push_back(bookmark(target.resource, watch.version, Some(end)));
            }
        } else {
            store.changes(target.resource, watch.version).map(drop)?;
        }
        drop(store);
        Ok(watch)
    }

    /// The next line; none when the watch is over.
    pub async fn next(&mut self) -> Option<Bytes> {
        let mut changed = self.shared.version.subscribe();
        let mut bookmarks = self.shared.bookmarks.subscribe();
        loop {
            self.keep_still().await;
            if let Some(line) = self.queue.pop_front() {
                return Some(line);
            }
            if self.ended || Instant::now() >= self.end {
                return None;
            }
            changed.borrow_and_update();
            bookmarks.borrow_and_update();
            if self.collect() {
                continue;
            }
            let wake = self.end.min(if self.bookmarks { self.next_bookmark } else { self.end });
            // It is looked again, whatever woke this up.
            let _ = timeout_at(wake, async {
                tokio::select! { _ = changed.changed() => {} _ = bookmarks.changed() => {} }
            })
            .await;
        }
    }

    /// Waits while requests like this are told to hang.
    async fn keep_still(&self) {
        let name = self.target.name.as_deref().unwrap_or_default();
        while self.shared.faults().hangs(Verb::Watch, self.target.resource.plural, name) {
            sleep_until(Instant::now() + PAUSE).await;
        }
    }

    /// Queues what is to be told; false if there is nothing.
    fn collect(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let store = shared.store();
        if store.life() != self.life {
            self.ended = true;
            return true;
        }
        match store.changes(self.target.resource, self.version) {
            Err(failure) => {
                self.queue.push_back(error(&failure));
                self.ended = true;
                return true;
            }
            Ok(changes) => {
                let namespace = self.target.namespace.as_deref();
                self.queue.extend(changes.filter_map(|it| told(it, self.target.resource, namespace, &self.selector)));
            }
        }
        self.version = store.version();
        let asked = *shared.bookmarks.borrow();
        if self.bookmarks && (Instant::now() >= self.next_bookmark || asked != self.bookmarks_seen) {
            self.bookmarks_seen = asked;
            self.next_bookmark = Instant::now() + shared.settings().bookmark_every;
            self.queue.push_back(bookmark(self.target.resource, self.version, None));
        }
        !self.queue.is_empty()
    }
}

/// What a watch with this selector is told of a change: an object that begins to fit is added, one that ceases is deleted.
fn told(change: &Change, resource: &Resource, namespace: Option<&str>, selector: &Selector) -> Option<Bytes> {
    let own = change.after.value["metadata"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_some_and(|namespace| namespace != own) {
        return None;
    }
    let fitted = change.before.as_ref().is_some_and(|before| selector.fits(&before.value));
    let fits = !change.removed && selector.fits(&change.after.value);
    let event = match (fitted, fits) {
        (false, false) => return None,
        (false, true) => "ADDED",
        (true, true) => "MODIFIED",
        (true, false) => "DELETED",
    };
    Some(line(event, &change.after, resource))
}

fn line(event: &str, object: &Object, resource: &Resource) -> Bytes {
    let mut line = format!(r#"{{"type":"{event}","object":"#).into_bytes();
    object.write(Some(resource), &mut line);
    line.extend_from_slice(b"}\n");
    line.into()
}

fn bookmark(resource: &Resource, version: u64, annotations: Option<serde_json::Value>) -> Bytes {
    let mut metadata = json!({ "resourceVersion": version.to_string(), "creationTimestamp": null });
    if let Some(annotations) = annotations {
        metadata["annotations"] = annotations;
    }
    let object = json!({ "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata });
    format!("{}\n", json!({ "type": "BOOKMARK", "object": object })).into()
}

/// The line of a failure.
#[must_use]
pub fn error(failure: &Failure) -> Bytes {
    format!("{}\n", json!({ "type": "ERROR", "object": failure.document() })).into()
}
