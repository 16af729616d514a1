//! The values of the membership's metrics.

use super::{
    Family,
    samples::{flag, labelled, single},
};
use crate::{
    metrics::facts,
    status::{AgentStatus, PeerStatus},
};

/// The membership's metrics in the order of `facts`.
pub(super) fn families(status: &AgentStatus) -> Vec<Family> {
    let membership = &status.membership;
    let peers = |fact, is_set: fn(&PeerStatus) -> bool| {
        labelled(fact, "peer", membership.peers.iter().map(|peer| (peer.node.clone(), flag(is_set(peer)))))
    };
    vec![
        peers(facts::PEER_HEARD, |peer| peer.state == "heard"),
        peers(facts::PEER_SILENT, |peer| peer.state == "silent"),
        peers(facts::PEER_STRANGER, |peer| peer.state == "stranger"),
        peers(facts::PEER_REFUSES, |peer| peer.knows_us == Some(false)),
        single(facts::MOST_SILENT, flag(membership.most_silent)),
        single(facts::GATE_SHUT, flag(membership.gate.is_some())),
    ]
}
