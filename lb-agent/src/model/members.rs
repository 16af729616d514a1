//! What this node's agent has heard of the others.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

/// The other nodes' agents, as they are heard, and what follows from it for this node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Members {
    /// The peers by name; empty if no membership is kept.
    pub peers: BTreeMap<String, Member>,
    /// Most of those that ever spoke are silent: it is rather this node that is cut off, so nobody is believed silent.
    pub most_silent: bool,
    /// Whether this node may draw traffic.
    pub gate: Gate,
    /// Live peers that do not know this node as a director, though it may announce: they drop what it sends them.
    pub not_known_to: Vec<String>,
    /// What keeps this node from speaking or hearing, in words.
    pub troubles: Vec<String>,
}

/// A peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// The node's addresses.
    pub addresses: Vec<IpAddr>,
    /// What is heard of it.
    pub state: MemberState,
    /// Whether it accepts this node as a director, by what it said last.
    pub knows_us: Option<bool>,
}

/// What is heard of a peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MemberState {
    /// It has not been heard since this agent started, and nobody says that it fell silent: it may not speak at all.
    Unknown,
    /// It speaks.
    Heard,
    /// It said that its agent stops for a while; what it forwards goes on.
    Left,
    /// It spoke, to this node or to others, and does not any more.
    Silent {
        /// When it was last heard, or when this agent began to listen.
        since: Instant,
    },
    /// It speaks with another secret.
    Stranger {
        /// Fingerprint of that secret.
        fingerprint: String,
    },
}

impl MemberState {
    /// One word for it.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Heard => "heard",
            Self::Left => "left",
            Self::Silent { .. } => "silent",
            Self::Stranger { .. } => "stranger",
        }
    }
}

/// Whether a node may draw traffic.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Gate {
    /// Yes.
    #[default]
    Open,
    /// Peers are being asked whether they know this node.
    Asking,
    /// These live peers do not know this node as a director yet: they would drop what it sends them.
    Unknown(Vec<String>),
    /// More nodes have another secret than have this node's: they choose other backends for the same flows.
    Outvoted {
        /// Fingerprint of their secret.
        fingerprint: String,
        /// Who they are.
        by: Vec<String>,
    },
}

impl Gate {
    /// Why this node may not draw traffic.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Open => None,
            Self::Asking => Some("peers are being asked whether they know this node as a director".to_owned()),
            Self::Unknown(names) => Some(format!(
                "not known as a director yet to {}, which would drop what is sent there",
                names.join(", ")
            )),
            Self::Outvoted { fingerprint, by } => Some(format!(
                "the secret differs from that of {} (fingerprint {fingerprint}), so flows would go to other backends; give every node the same secret",
                by.join(", ")
            )),
        }
    }
}

impl Members {
    /// The node that has this address, if it is believed to be silent.
    #[must_use]
    pub fn silent(&self, address: IpAddr) -> Option<&str> {
        if self.most_silent {
            return None;
        }
        let is_silent = |member: &Member| matches!(member.state, MemberState::Silent { .. });
        let mut silent = self.peers.iter().filter(|(_, member)| is_silent(member));
        silent.find(|(_, member)| member.addresses.contains(&address)).map(|(name, _)| name.as_str())
    }
}
