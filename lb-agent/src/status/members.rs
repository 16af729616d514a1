//! What the agent says of the other nodes' agents.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The membership.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MembershipStatus {
    /// Whether this agent speaks and listens.
    pub enabled: bool,
    /// Most peers are silent, so that none is believed to be.
    pub most_silent: bool,
    /// Why this node may not announce; `null` if it may.
    pub gate: Option<String>,
    /// Live peers that do not know this node as a director.
    pub not_known_to: Vec<String>,
    /// What keeps it from speaking or hearing.
    pub troubles: Vec<String>,
    /// The peers in the order of their names.
    pub peers: Vec<PeerStatus>,
}

/// One peer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Name of the node.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// `heard`; `silent`; `left` (it stopped and is expected back); `stranger` (it has another secret); `unknown` (it has
    /// not been heard yet).
    pub state: String,
    /// When a silent one was last heard, seconds of Unix time.
    pub since: Option<u64>,
    /// Fingerprint of a stranger's secret.
    pub fingerprint: Option<String>,
    /// Whether it knows this node as a director; `null` if it did not say.
    pub knows_us: Option<bool>,
}
