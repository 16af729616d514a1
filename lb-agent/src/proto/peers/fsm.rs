//! One agent among its peers: whom it hears, who hears it, and what follows. No I/O, no clock, no randomness.
//!
//! After any `handle_*` or `set_*`, drain [`Peers::poll_output`], look at [`Peers::members`], and come back at
//! [`Peers::poll_timeout`].
//!
//! A datagram counts if it was made with the same secret, is for this node, and is new: its number is higher than those
//! of the same incarnation before; and the first of an incarnation names a datagram of *this* incarnation with a higher
//! number than any that was named before. So nothing that was recorded counts again, whichever of the two was
//! started anew. What does not count yet is answered at once, so that its sender can prove itself with the next.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    gate,
    wire::{self, Key, MAX_SILENT, Mark, Message, WireError},
};
use crate::model::{Member, MemberState, Members, Peer};

/// How long after it said that it stops an agent is waited for.
const AWAY: Duration = Duration::from_secs(60);

/// How an agent speaks and listens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Time between two datagrams to a peer, 100 ms..=1 s. Default 500 ms.
    pub interval: Duration,
    /// So many intervals without a datagram make a peer silent, 2..=100. Default 3.
    pub silent_after: u32,
    /// How long after its start a node that live peers do not know waits before it announces. Default 5 s.
    pub known_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { interval: Duration::from_millis(500), silent_after: 3, known_within: Duration::from_secs(5) }
    }
}

impl Settings {
    /// How long a peer may be silent.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.interval * self.silent_after
    }
}

/// A datagram to be sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transmit {
    /// To which address.
    pub to: IpAddr,
    /// What.
    pub bytes: Vec<u8>,
}

/// One agent among its peers. See the module.
#[derive(Debug)]
pub struct Peers {
    me: String,
    key: Key,
    settings: Settings,
    boot: u64,
    number: u64,
    begun: Instant,
    next_beat: Instant,
    beats: u64,
    peers: BTreeMap<String, Speaker>,
    /// This node may draw traffic, and goes on doing so whoever comes and goes.
    is_admitted: bool,
    members: Members,
    judged_at: Instant,
    outputs: VecDeque<Transmit>,
}

/// What is known of a peer.
#[derive(Debug, Default)]
struct Speaker {
    addresses: Vec<IpAddr>,
    /// Address that it was heard from last.
    from: Option<IpAddr>,
    /// Its latest datagram that counted.
    last: Option<Mark>,
    heard_at: Option<Instant>,
    /// The highest of this agent's numbers that it has named.
    echoed: u64,
    knows_us: Option<bool>,
    left_at: Option<Instant>,
    /// Ids of those that are silent to it.
    silent: BTreeSet<u64>,
    stranger: Option<Stranger>,
}

/// What somebody with another secret says in a peer's name.
#[derive(Debug)]
struct Stranger {
    fingerprint: u32,
    last: Mark,
    /// When it last proved that it receives what is sent to the peer's address.
    proven_at: Option<Instant>,
}

impl Peers {
    /// The agent of node `me` among these peers. `boot` is this process's random number, not 0. `is_admitted`: it announced before it was
    /// started anew, and goes on.
    #[must_use]
    pub fn new(
        me: &str,
        key: Key,
        settings: Settings,
        boot: u64,
        peers: &[Peer],
        is_admitted: bool,
        now: Instant,
    ) -> Self {
        let mut agent = Self {
            me: me.to_owned(),
            key,
            settings,
            boot: boot.max(1),
            number: 0,
            begun: now,
            next_beat: now,
            beats: boot,
            peers: BTreeMap::new(),
            is_admitted,
            members: Members::default(),
            judged_at: now,
            outputs: VecDeque::new(),
        };
        agent.set_peers(peers, now);
        agent
    }

    /// Replaces the peers that this node accepts as directors; what is known of those that stay is kept.
    pub fn set_peers(&mut self, peers: &[Peer], now: Instant) {
        let mut before = std::mem::take(&mut self.peers);
        for peer in peers {
            let known = before.remove(&peer.name).unwrap_or_default();
            self.peers.insert(peer.name.clone(), Speaker { addresses: peer.addresses.clone(), ..known });
        }
        self.next_beat = self.next_beat.min(now);
        self.judge(now);
    }

    /// Replaces secret and settings. Who was heard with the former secret stays heard until its time is over.
    pub fn set_key(&mut self, key: Key, settings: Settings, now: Instant) {
        (self.key, self.settings) = (key, settings);
        self.next_beat = self.next_beat.min(now);
        self.judge(now);
    }

    /// What is known of the peers.
    #[must_use]
    pub const fn members(&self) -> &Members {
        &self.members
    }

    /// The next datagram to be sent.
    pub fn poll_output(&mut self) -> Option<Transmit> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let silence = self.settings.silence();
        let ends =
            self.peers.values().filter(|peer| self.hears(peer)).filter_map(|peer| Some(peer.heard_at? + silence));
        let gate = gate::ends(self.begun, &self.settings);
        // What is over already was dealt with when it was.
        let pending = ends.chain(gate).filter(|at| *at > self.judged_at);
        pending.fold(self.next_beat, Instant::min)
    }

    /// Speaks if it is time to, and notes who fell silent.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.forgive(now);
        if now >= self.next_beat {
            self.beat(now, false);
            self.next_beat = now + self.pause();
        }
        self.judge(now);
    }

    /// Takes a datagram.
    pub fn handle_datagram(&mut self, from: IpAddr, bytes: &[u8], now: Instant) {
        self.forgive(now);
        match wire::decode(bytes, &self.key) {
            Ok(message) if message.to == self.me && message.from != self.me => self.heard(from, message, now),
            Err(WireError::Stranger { fingerprint, message }) if message.to == self.me => {
                self.strange(from, fingerprint, &message, now);
            }
            Ok(_) | Err(_) => return,
        }
        self.judge(now);
    }

    /// Tells every peer that this agent stops for a while.
    pub fn leave(&mut self, now: Instant) {
        self.beat(now, true);
    }

    fn heard(&mut self, from: IpAddr, message: Message, now: Instant) {
        let (boot, number) = (self.boot, self.number);
        let Some(peer) = self.peers.get_mut(&message.from) else {
            // It is told that it is not known here.
            self.answer(from, message.from, message.mark, false);
            return;
        };
        let echoed = message.echo.filter(|echo| echo.boot == boot && echo.number <= number).map(|echo| echo.number);
        let is_new = match peer.last {
            Some(last) if last.boot == message.mark.boot && message.mark.number <= last.number => return,
            Some(last) => last.boot != message.mark.boot,
            None => true,
        };
        if is_new && echoed.is_none_or(|echoed| echoed <= peer.echoed) {
            self.answer(from, message.from, message.mark, false);
            return;
        }
        peer.echoed = peer.echoed.max(echoed.unwrap_or(0));
        (peer.last, peer.heard_at) = (Some(message.mark), Some(now));
        peer.from = peer.addresses.contains(&from).then_some(from);
        peer.knows_us = Some(message.knows);
        peer.left_at = message.leaves.then_some(now);
        peer.silent = message.silent.into_iter().collect();
        peer.stranger = None;
        if is_new && !message.hears {
            self.answer(from, message.from, message.mark, true);
        }
    }

    fn strange(&mut self, from: IpAddr, fingerprint: u32, message: &Message, now: Instant) {
        let (boot, number) = (self.boot, self.number);
        let Some(peer) = self.peers.get_mut(&message.from).filter(|peer| peer.addresses.contains(&from)) else {
            return;
        };
        // Who cannot see what is sent to that address cannot guess this.
        let is_proven = message.echo.is_some_and(|echo| echo.boot == boot && echo.number <= number);
        let before = peer.stranger.take().filter(|before| before.fingerprint == fingerprint);
        let proven_at = if is_proven { Some(now) } else { before.and_then(|before| before.proven_at) };
        peer.stranger = Some(Stranger { fingerprint, last: message.mark, proven_at });
    }

    /// Sends a datagram at once that names one of the receiver's.
    fn answer(&mut self, to: IpAddr, name: String, echo: Mark, hears: bool) {
        let knows = self.peers.contains_key(&name);
        let message = self.message(name, Some(echo), knows, hears, false, Vec::new());
        self.outputs.push_back(Transmit { to, bytes: wire::encode(&message, &self.key) });
    }

    /// Speaks to every peer: at the address that it was heard from, or at all of them if it was not of late.
    fn beat(&mut self, now: Instant, leaves: bool) {
        let silent = self.members.peers.iter().filter(|(_, member)| matches!(member.state, MemberState::Silent { .. }));
        let silent: Vec<u64> = if self.members.most_silent {
            Vec::new()
        } else {
            silent.map(|(name, _)| wire::id_of(name)).take(MAX_SILENT).collect()
        };
        let recent = self.settings.interval * 3 / 2;
        for name in self.peers.keys().cloned().collect::<Vec<_>>() {
            let Some(peer) = self.peers.get(&name) else { continue };
            let hears = self.hears(peer);
            let is_recent = peer.heard_at.is_some_and(|at| now.saturating_duration_since(at) < recent);
            let targets = match peer.from.filter(|_| is_recent) {
                Some(from) => vec![from],
                None => peer.addresses.clone(),
            };
            let echo = peer.stranger.as_ref().map(|stranger| stranger.last).or(peer.last);
            for to in targets {
                let message = self.message(name.clone(), echo, true, hears, leaves, silent.clone());
                self.outputs.push_back(Transmit { to, bytes: wire::encode(&message, &self.key) });
            }
        }
    }

    /// Whoever was not called for two intervals did not listen: that is nobody else's silence.
    fn forgive(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.judged_at);
        if gap < self.settings.interval * 2 {
            return;
        }
        let silence = self.settings.silence();
        for peer in self.peers.values_mut() {
            let was_heard = |at: &Instant| self.judged_at.saturating_duration_since(*at) < silence;
            peer.heard_at = peer.heard_at.map(|at| if was_heard(&at) { at + gap } else { at });
        }
        self.judged_at = now;
    }

    fn hears(&self, peer: &Speaker) -> bool {
        let silence = self.settings.silence();
        peer.heard_at.is_some_and(|at| self.judged_at.saturating_duration_since(at) < silence)
    }

    /// Makes of what was heard what is told.
    fn judge(&mut self, now: Instant) {
        self.judged_at = now;
        let member = |(name, peer): (&String, &Speaker)| {
            let state = self.state(name, peer, now);
            (name.clone(), Member { addresses: peer.addresses.clone(), state, knows_us: peer.knows_us })
        };
        let peers: BTreeMap<_, _> = self.peers.iter().map(member).collect();
        let count = |is: fn(&MemberState) -> bool| peers.values().filter(|member| is(&member.state)).count();
        let spoke = count(|state| *state != MemberState::Unknown);
        let silent = count(|state| matches!(state, MemberState::Silent { .. }));
        let verdict = gate::judge(&peers, &self.me, now.saturating_duration_since(self.begun), &self.settings);
        self.is_admitted |= verdict.admits;
        self.members = Members {
            most_silent: silent * 2 > spoke,
            gate: verdict.gate(self.is_admitted),
            not_known_to: if self.is_admitted { verdict.not_known_to } else { Vec::new() },
            peers,
            troubles: Vec::new(),
        };
    }

    fn state(&self, name: &str, peer: &Speaker, now: Instant) -> MemberState {
        let silence = self.settings.silence();
        let within = |at: Option<Instant>, limit| at.is_some_and(|at| now.saturating_duration_since(at) < limit);
        if peer.left_at.is_none() && within(peer.heard_at, silence) {
            return MemberState::Heard;
        }
        if let Some(stranger) = &peer.stranger
            && within(stranger.proven_at, silence)
        {
            return MemberState::Stranger { fingerprint: format!("{:08x}", stranger.fingerprint) };
        }
        if within(peer.left_at, AWAY) {
            return MemberState::Left;
        }
        if let Some(since) = peer.heard_at {
            return MemberState::Silent { since };
        }
        // It may never have spoken; but others may have heard it before this agent began.
        let listened = now.saturating_duration_since(self.begun) >= silence;
        let id = wire::id_of(name);
        let is_missed = self.peers.values().any(|other| self.hears(other) && other.silent.contains(&id));
        if listened && is_missed { MemberState::Silent { since: self.begun } } else { MemberState::Unknown }
    }

    fn message(
        &mut self,
        to: String,
        echo: Option<Mark>,
        knows: bool,
        hears: bool,
        leaves: bool,
        silent: Vec<u64>,
    ) -> Message {
        self.number += 1;
        let mark = Mark { boot: self.boot, number: self.number };
        Message { from: self.me.clone(), to, mark, echo, knows, hears, leaves, silent }
    }

    /// The time until the next datagrams: the interval less up to a tenth, so that agents do not speak in step.
    fn pause(&mut self) -> Duration {
        self.beats = self.beats.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let part = u32::try_from(self.beats >> 48).unwrap_or(0); // of 65536
        self.settings.interval - self.settings.interval / 10 * part / (1 << 16)
    }
}

#[cfg(test)]
mod tests;
