//! Follows one kind of object: a watch becomes a table of plain values.

use std::{collections::BTreeMap, fmt::Debug};

use futures::{TryStreamExt, pin_mut};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::JoinSet};

/// All objects of a kind.
#[derive(Clone, Debug)]
pub(super) struct Table<K, T> {
    /// A complete list was seen. Before that the items mean nothing.
    pub(super) complete: bool,
    /// The objects, as they were shown last.
    pub(super) items: BTreeMap<K, T>,
    /// Why nothing new comes; `None` while all is well.
    pub(super) error: Option<String>,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self { complete: false, items: BTreeMap::new(), error: None }
    }
}

/// Follows the objects of a kind as long as the set of tasks lives. `convert` leaves out what it makes nothing of.
pub(super) fn follow<O, K, T>(
    api: Api<O>,
    kind: &'static str,
    convert: fn(O) -> Option<(K, T)>,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<Table<K, T>>
where
    O: Clone + Debug + DeserializeOwned + Resource + Send + 'static,
    K: Clone + Ord + Send + Sync + 'static,
    T: Clone + PartialEq + Send + Sync + 'static,
{
    let (sender, receiver) = watch::channel(Table::default());
    tasks.spawn(async move {
        let events = watcher(api, watcher::Config::default()).default_backoff();
        pin_mut!(events);
        let mut relist = BTreeMap::new();
        loop {
            match events.try_next().await {
                Ok(Some(event)) => {
                    sender.send_if_modified(|table| take(table, &mut relist, event, convert));
                }
                Ok(None) => return,
                Err(error) => sender.send_modify(|table| {
                    let error = full(&error);
                    if table.error.is_none() {
                        tracing::warn!(kind, error, "watching failed; trying again, the last state stays");
                    }
                    table.error = Some(error);
                }),
            }
        }
    });
    receiver
}

/// Takes an event in; whether the table changed.
fn take<O, K, T>(
    table: &mut Table<K, T>,
    relist: &mut BTreeMap<K, T>,
    event: watcher::Event<O>,
    convert: fn(O) -> Option<(K, T)>,
) -> bool
where
    K: Ord,
    T: PartialEq,
{
    let recovered = !matches!(event, watcher::Event::Init) && table.error.take().is_some();
    let changed = match event {
        watcher::Event::Init => {
            relist.clear();
            false
        }
        watcher::Event::InitApply(object) => {
            relist.extend(convert(object));
            false
        }
        watcher::Event::InitDone => {
            let items = std::mem::take(relist);
            let changed = !table.complete || items != table.items;
            (table.complete, table.items) = (true, items);
            changed
        }
        watcher::Event::Apply(object) => match convert(object) {
            Some((key, item)) if table.items.get(&key) != Some(&item) => {
                table.items.insert(key, item);
                true
            }
            _ => false,
        },
        watcher::Event::Delete(object) => convert(object).is_some_and(|(key, _)| table.items.remove(&key).is_some()),
    };
    recovered || changed
}

/// An error with its causes.
pub(super) fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
