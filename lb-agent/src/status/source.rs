//! What the agent says of the reading of its cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the cluster is followed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FollowStatus {
    /// The API server that answered last (host and port).
    pub server: Option<String>,
    /// Why no API server answers; `null` while one does.
    pub error: Option<String>,
    /// Inventories that were published.
    pub publications: u64,
    /// Every kind of object that is watched.
    pub kinds: Vec<WatchStatus>,
    /// The inventory on disk; `null` if none is kept.
    pub saved: Option<SavedStatus>,
    /// The node's own Lease.
    pub lease: NodeLeaseStatus,
}

/// How the watch of one kind of object fares.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchStatus {
    /// The resource's name in the API.
    pub resource: String,
    /// Objects in the inventory, saved ones included.
    pub objects: usize,
    /// Whether this agent had a complete list and believed it.
    pub complete: bool,
    /// Whether the last complete list came as a streaming list.
    pub streaming: bool,
    /// When the last complete list was there, seconds of Unix time.
    pub listed: Option<u64>,
    /// When the API last said anything about this kind, seconds of Unix time.
    pub heard: Option<u64>,
    /// Complete lists so far.
    pub lists: u64,
    /// Failures so far.
    pub failures: u64,
    /// The last failure, until something is heard again.
    pub error: Option<String>,
    /// A complete list that is not believed yet.
    pub doubted: Option<DoubtedStatus>,
    /// Objects that could not be read, the last good version of which stays in force, and why.
    pub unreadable: BTreeMap<String, String>,
}

/// A complete list that lost most of what was known.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DoubtedStatus {
    /// Objects in the list.
    pub listed: usize,
    /// Objects in the inventory.
    pub held: usize,
    /// Lists that said so.
    pub lists: u32,
    /// Lists that have to say so.
    pub needed: u32,
}

/// The inventory on disk.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedStatus {
    /// Times it was written by this agent.
    pub writes: u64,
    /// Size in bytes, when it was written last.
    pub bytes: u64,
    /// Why it could not be read or written, until it can.
    pub error: Option<String>,
}

/// The Lease by which this node shows the API that its agent lives.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeLeaseStatus {
    /// Namespace and name.
    pub name: String,
    /// When it was renewed last, seconds of Unix time.
    pub renewed: Option<u64>,
    /// Why it could not be renewed, until it is.
    pub error: Option<String>,
}
