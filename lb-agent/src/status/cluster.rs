//! What the agent says of the cluster that it follows.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::FollowStatus;
use crate::model::{Judgement, Severity, Shared};

/// The inventory in force and what came of it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Where the inventory is from: `live` (an API server), `saved` (the disk), or `none`.
    pub origin: String,
    /// When a saved one was written, seconds of Unix time.
    pub saved: Option<u64>,
    /// Nodes in it.
    pub nodes: usize,
    /// Services in it, of every type and class.
    pub services: usize,
    /// `VipPool`s in it.
    pub pools: usize,
    /// Services of which at least one port is served.
    pub served: usize,
    /// What there is to say of its objects.
    pub judgements: Vec<Shared<Judgement>>,
    /// VIPs that are served and not announced here, and why.
    pub withheld: Vec<WithheldStatus>,
    /// How often services were made of configuration and inventory.
    pub compositions: u64,
    /// Time that this took in all, seconds.
    pub compose_seconds: f64,
    /// How it is followed; `null` if no cluster is.
    #[serde(default)]
    pub source: Option<FollowStatus>,
}

/// A VIP that is not announced here.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WithheldStatus {
    /// The VIP.
    pub vip: IpAddr,
    /// Why.
    pub reason: String,
}

impl ClusterStatus {
    /// What somebody should look at: everything but notes.
    pub fn complaints(&self) -> impl Iterator<Item = &Judgement> {
        self.judgements.iter().map(|judgement| &**judgement).filter(|judgement| judgement.severity != Severity::Note)
    }
}
