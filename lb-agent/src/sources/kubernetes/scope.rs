//! A part of the cluster, for those who need no more.

use tokio::sync::mpsc;

use super::change::Note;
use crate::model::source::Kind;

/// How much of a cluster is watched. What is not is absent from its inventories.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Scope {
    /// Everything.
    #[default]
    Everything,
    /// What names API servers: nodes, and the slices of the namespace `default`.
    ApiServers,
}

/// Says that there is nothing of these kinds.
pub(super) async fn tell_none(notes: mpsc::Sender<(Kind, Note)>, kinds: [Kind; 2]) {
    for kind in kinds {
        // It fails when nobody takes notes any more.
        let _ = notes.send((kind, Note::List { objects: Vec::new(), streaming: false })).await;
    }
}
