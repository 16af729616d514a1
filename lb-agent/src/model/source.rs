//! How the Kubernetes source fares, for people and metrics.

use std::{collections::BTreeMap, fmt, time::Instant};

use super::inventory::Origin;

/// How the Kubernetes source fares.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SourceStatus {
    /// The API server that answered last (host and port).
    pub server: Option<String>,
    /// Why no API server answers, if none does.
    pub error: Option<String>,
    /// Where the inventory in force is from; `None` while there is none.
    pub origin: Option<Origin>,
    /// Inventories that were published.
    pub publications: u64,
    /// Every kind of object that is watched.
    pub kinds: BTreeMap<Kind, KindStatus>,
    /// The saved inventory; `None` if none is kept.
    pub saved: Option<SaveStatus>,
}

/// A kind of object that is watched.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Nodes.
    Nodes,
    /// Services.
    Services,
    /// Slices of endpoints.
    Slices,
    /// Pools of addresses.
    Pools,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Nodes, Self::Services, Self::Slices, Self::Pools];

    /// The resource's name in the API.
    #[must_use]
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Services => "services",
            Self::Slices => "endpointslices",
            Self::Pools => "vippools",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource())
    }
}

/// How the watch of one kind fares.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KindStatus {
    /// Objects in the inventory, saved ones included.
    pub objects: usize,
    /// This process had a complete list and believed it.
    pub is_complete: bool,
    /// The last complete list came as a streaming list.
    pub is_streaming: bool,
    /// When the last complete list was there.
    pub listed_at: Option<Instant>,
    /// When the API last said anything about this kind, bookmarks included.
    pub heard_at: Option<Instant>,
    /// Complete lists so far.
    pub lists: u64,
    /// Failures so far.
    pub failures: u64,
    /// The last failure, until something is heard again.
    pub error: Option<String>,
    /// A complete list that is not believed yet.
    pub doubted: Option<Doubted>,
    /// Objects that could not be read, the last good version of which stays in force, and why.
    pub unreadable: BTreeMap<String, String>,
}

/// A complete list that lost most of what was known, and is not believed before others say the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Doubted {
    /// Objects in the list.
    pub listed: usize,
    /// Objects in the inventory.
    pub held: usize,
    /// Lists that said so.
    pub lists: u32,
    /// Lists that have to say so.
    pub needed: u32,
}

/// How the saved inventory fares.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SaveStatus {
    /// Times it was written by this process.
    pub writes: u64,
    /// Size in bytes, when it was written last.
    pub bytes: u64,
    /// Why it could not be read or written, until it can.
    pub error: Option<String>,
}

/// How the Lease fares by which this node shows the API that its agent lives.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LeaseStatus {
    /// Namespace and name.
    pub name: String,
    /// When it was renewed last.
    pub renewed_at: Option<Instant>,
    /// Why it could not be renewed, until it is.
    pub error: Option<String>,
}
