//! Speaks and listens for [`proto::peers`](crate::proto::peers): UDP sockets, clock and random numbers around it.
//!
//! [`spawn`] runs the task. What it finds is told as [`Members`] whenever that changes.

mod sockets;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep_until, timeout},
};

use self::sockets::Sockets;
use crate::{
    config::{MembershipConfig, Secret},
    model::{Gate, MemberState, Members, Node, Peer},
    proto::peers::{Key, Peers, Settings},
};

/// Who speaks to whom, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Speaking {
    /// This node; a socket is bound to each of its addresses.
    pub node: Node,
    /// The nodes that this one accepts as directors, as the maps have them.
    pub peers: Vec<Peer>,
    /// The cluster's secret.
    pub secret: Secret,
    /// How; `None` is not at all.
    pub config: Option<MembershipConfig>,
    /// An agent on this node announced before this one: it goes on.
    pub is_admitted: bool,
}

/// The task.
#[derive(Debug)]
pub struct Membership {
    /// What is heard.
    pub members: watch::Receiver<Members>,
    ending: watch::Sender<Option<Farewell>>,
    task: JoinHandle<()>,
}

/// How an agent goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Farewell {
    /// Another one is expected soon; what is forwarded goes on meanwhile.
    BackSoon,
    /// Without a word.
    Silent,
}

impl Membership {
    /// Ends the task, after it said what is to be said.
    pub async fn end(self, farewell: Farewell) {
        self.ending.send_replace(Some(farewell));
        // It sends a few datagrams and ends.
        let _ = timeout(Duration::from_secs(1), self.task).await;
    }
}

/// Speaks and listens as `speaking` says, which is `None` as long as that is not known, in the network namespace of the
/// calling thread, until [`Membership::end`].
#[must_use]
pub fn spawn(speaking: watch::Receiver<Option<Speaking>>) -> Membership {
    let (told, members) = watch::channel(Members { gate: Gate::Asking, ..Members::default() });
    let (ending, ended) = watch::channel(None);
    let task = tokio::spawn(async move {
        Driver { speaking, told, ended, sockets: Sockets::default(), present: None, has_told: false }.run().await;
    });
    Membership { members, ending, task }
}

impl From<MembershipConfig> for Settings {
    fn from(config: MembershipConfig) -> Self {
        Self { interval: config.interval, silent_after: config.silent_after, ..Self::default() }
    }
}

struct Driver {
    speaking: watch::Receiver<Option<Speaking>>,
    told: watch::Sender<Members>,
    ended: watch::Receiver<Option<Farewell>>,
    sockets: Sockets,
    /// What is in force, and its state. None while nothing is spoken.
    present: Option<(Speaking, Peers)>,
    has_told: bool,
}

impl Driver {
    async fn run(mut self) {
        loop {
            let due = self.present.as_ref().map(|(_, peers)| peers.poll_timeout().into());
            tokio::select! {
                Ok(()) = self.speaking.changed() => self.follow(),
                (from, bytes) = self.sockets.receive() => {
                    if let Some((_, peers)) = &mut self.present {
                        peers.handle_datagram(from, &bytes, Instant::now());
                    }
                }
                () = sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {
                    self.sockets.mend();
                    if let Some((_, peers)) = &mut self.present {
                        peers.handle_timeout(Instant::now());
                    }
                }
                farewell = ended(&mut self.ended) => {
                    if let (Farewell::BackSoon, Some((_, peers))) = (farewell, &mut self.present) {
                        peers.leave(Instant::now());
                        self.speak();
                    }
                    return;
                }
            }
            self.speak();
            self.tell();
        }
    }

    /// Puts in force what was changed.
    fn follow(&mut self) {
        let Some(wanted) = self.speaking.borrow_and_update().clone() else { return };
        let Some(config) = wanted.config.filter(|_| !wanted.peers.is_empty()) else {
            self.present = None;
            self.sockets = Sockets::default();
            return;
        };
        self.sockets.bind(&wanted.node.addresses, config.port);
        let now = Instant::now();
        let key = key(&wanted.secret);
        let kept = self.present.take().filter(|(before, _)| before.node.name == wanted.node.name);
        let mut peers = match kept {
            Some((before, mut peers)) => {
                if (before.secret, before.config) != (wanted.secret, wanted.config) {
                    peers.set_key(key, config.into(), now);
                }
                peers.set_peers(&wanted.peers, now);
                peers
            }
            None => {
                let (name, is_admitted) = (&wanted.node.name, wanted.is_admitted);
                Peers::new(name, key, config.into(), incarnation(), &wanted.peers, is_admitted, now)
            }
        };
        peers.handle_timeout(now);
        self.present = Some((wanted, peers));
    }

    /// Sends what is to be sent. What does not get out is as lost as what gets lost on the way.
    fn speak(&mut self) {
        if let Some((_, peers)) = &mut self.present {
            while let Some(transmit) = peers.poll_output() {
                self.sockets.send(transmit.to, &transmit.bytes);
            }
        }
    }

    /// Tells what changed; the first time, whatever there is.
    fn tell(&mut self) {
        if self.speaking.borrow().is_none() {
            return;
        }
        let is_first = !std::mem::replace(&mut self.has_told, true);
        let heard = self.present.as_ref().map(|(_, peers)| peers.members().clone());
        let members = Members { troubles: self.sockets.troubles(), ..heard.unwrap_or_default() };
        self.told.send_if_modified(|told| {
            let differs = is_first || *told != members;
            if differs {
                report(told, &members);
                *told = members;
            }
            differs
        });
    }
}

async fn ended(ending: &mut watch::Receiver<Option<Farewell>>) -> Farewell {
    match ending.wait_for(Option::is_some).await {
        Ok(farewell) => farewell.unwrap_or(Farewell::Silent),
        Err(_) => Farewell::Silent,
    }
}

/// Says what changed.
fn report(before: &Members, after: &Members) {
    for (node, member) in &after.peers {
        let was = before.peers.get(node).map(|member| &member.state);
        match &member.state {
            state if was == Some(state) => {}
            MemberState::Stranger { fingerprint } => {
                tracing::error!(node, fingerprint, "a peer has another secret; give every node the same one");
            }
            MemberState::Silent { .. } if was.is_none_or(|was| !matches!(was, MemberState::Silent { .. })) => {
                tracing::warn!(node, "a peer has fallen silent");
            }
            MemberState::Silent { .. } => {}
            MemberState::Heard if was.is_none_or(|was| *was == MemberState::Unknown) => {
                tracing::debug!(node, "a peer speaks");
            }
            MemberState::Heard => tracing::info!(node, "a peer speaks again"),
            MemberState::Left => tracing::info!(node, "a peer's agent stops for a while"),
            MemberState::Unknown => {}
        }
    }
    if after.most_silent && !before.most_silent {
        tracing::warn!("most peers are silent: this node may be cut off, so none of them is believed to be");
    }
    if !after.not_known_to.is_empty() && after.not_known_to != before.not_known_to {
        let nodes = after.not_known_to.join(", ");
        tracing::warn!(nodes, "live peers do not know this node as a director, and drop what it sends them");
    }
    match after.gate.reason() {
        Some(reason) if after.gate != before.gate && after.gate != Gate::Asking => {
            tracing::warn!(reason, "announcing nothing");
        }
        _ => {}
    }
}

/// The key of datagrams under this secret.
fn key(secret: &Secret) -> Key {
    Key::new(&secret.bytes(), u32::from_str_radix(&secret.fingerprint(), 16).unwrap_or(0))
}

/// This process's random number. Without random numbers there is a clock: the number has to be another one each time, and
/// hard to guess for those who cannot hear it.
fn incarnation() -> u64 {
    let mut bytes = [0; 8];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        return now.as_secs().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(now.subsec_nanos());
    }
    u64::from_ne_bytes(bytes)
}
