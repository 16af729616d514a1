//! Random histories to test a director with: backends come, drain, return and go, rings change their size, time passes,
//! and clients that know nothing of it send packets and expect to meet the backend that they met before.

use alloc::{collections::BTreeMap, format, string::String};

use super::Kind;
use crate::{
    addr::{Be16, IpAddr16, wire_word},
    hash::Tuple,
    maglev::Member,
    maps::services::VipKey,
    wire::protocol,
};

/// How long a flow may be silent, and a slot is unsettled: nanoseconds.
pub const WINDOW: u64 = 1_000_000_000_000;
/// Base-two logarithm of the slots that a history begins with.
pub const LOG2: u8 = 4;
/// Backends that a history knows.
pub const BACKENDS: u16 = 5;
/// Flows that a history knows.
pub const FLOWS: u16 = 24;
/// Flows of one client.
const PER_CLIENT: u16 = 3;

/// Something happens.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A backend comes, if it is not there.
    Add(u16),
    /// A backend takes no new flows.
    Drain(u16),
    /// It does again.
    Undrain(u16),
    /// A backend goes.
    Remove(u16),
    /// The ring gets `1 << n` slots.
    Resize(u8),
    /// A client opens a flow.
    Open(u16),
    /// A client sends a packet of an open flow.
    Packet(u16),
    /// A client ends a flow.
    Finish(u16),
    /// Time passes: nanoseconds.
    Pass(u64),
    /// The agent scans the flows.
    Sweep,
}

impl Event {
    /// The event that random bits stand for; all zeros are the dullest.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        let (flow, backend) = ((bits >> 8) as u16 % FLOWS, (bits >> 8) as u16 % BACKENDS);
        match bits % 40 {
            0..12 => Self::Packet(flow),
            12..20 => Self::Open(flow),
            20..22 => Self::Add(backend),
            22..24 => Self::Drain(backend),
            24 => Self::Undrain(backend),
            25 => Self::Remove(backend),
            26 => Self::Resize(3 + (bits >> 8) as u8 % 3),
            27 => Self::Finish(flow),
            28..34 => {
                let thousandths = if bits & 1 << 30 == 0 { (bits >> 8) % 50 } else { 200 + (bits >> 8) % 400 };
                Self::Pass(u64::from(thousandths) * (WINDOW / 1000))
            }
            _ => Self::Sweep,
        }
    }
}

/// A backend that is there.
#[derive(Clone, Copy, Debug)]
pub struct Present {
    /// Its weight; 0 takes no new flows.
    pub weight: u16,
    /// Which backend of its number it is: one that comes again is another.
    pub generation: u16,
}

impl Present {
    /// The backend as a ring sees it.
    #[must_use]
    pub fn member(&self, number: u16) -> Member {
        Member { address: address(number), port: Be16::new(80), weight: self.weight }
    }
}

/// Backends that are there, by their number.
pub type Members = BTreeMap<u16, Present>;

/// The address of a backend.
#[must_use]
pub fn address(number: u16) -> IpAddr16 {
    IpAddr16::v4(wire_word([192, 0, 2, 100 + number as u8]))
}

/// A flow; some share a client.
#[must_use]
pub fn tuple(flow: u16, protocol: u8) -> Tuple {
    let client = IpAddr16::v4(wire_word([203, 0, 113, (flow / PER_CLIENT) as u8]));
    let to = VipKey::new(IpAddr16::v4(wire_word([198, 51, 100, 10])), Be16::new(80), protocol);
    Tuple::new(client, Be16::new(1000 + flow), to)
}

/// Whom a packet met.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Met {
    /// Number of the backend.
    pub backend: u16,
    /// Its generation.
    pub generation: u16,
}

/// A director that is put to the test.
pub trait Subject {
    /// These backends are there, and the ring is to have `1 << log2` slots.
    fn publish(&mut self, members: &Members, log2: u8);
    /// Whom a packet of a flow meets; `None` if it is dropped.
    fn packet(&mut self, flow: u16, kind: Kind) -> Option<Met>;
    /// Time passes: nanoseconds.
    fn pass(&mut self, time: u64);
    /// The agent scans the flows.
    fn sweep(&mut self);
}

/// A flow as its client knows it.
struct Flow {
    met: Met,
    /// Whether the client sent a packet behind its SYN.
    is_open: bool,
    last: u64,
}

/// A history in the making: what is wanted, what the clients have seen, and the director that is put to the test.
pub struct History<S> {
    subject: S,
    protocol: u8,
    log2: u8,
    members: Members,
    generation: u16,
    flows: BTreeMap<u16, Flow>,
    now: u64,
}

impl<S: Subject> History<S> {
    /// A history that begins with two backends.
    pub fn new(subject: S, protocol: u8) -> Self {
        let members = (0..2).map(|number| (number, Present { weight: 1, generation: 1 })).collect();
        let mut history =
            Self { subject, protocol, log2: LOG2, members, generation: 1, flows: BTreeMap::new(), now: 0 };
        history.publish();
        history
    }

    /// Lets something happen.
    ///
    /// # Errors
    /// Which flow met another backend while its own could serve.
    pub fn apply(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Add(number) if !self.members.contains_key(&number) => {
                self.generation += 1;
                self.members.insert(number, Present { weight: 1, generation: self.generation });
                self.publish();
            }
            Event::Add(_) => {}
            Event::Drain(number) => self.weigh(number, 0),
            Event::Undrain(number) => self.weigh(number, 1),
            Event::Remove(number) => {
                self.members.remove(&number);
                self.publish();
            }
            Event::Resize(log2) => {
                self.log2 = log2;
                self.publish();
            }
            Event::Pass(time) => {
                self.now += time;
                self.subject.pass(time);
            }
            Event::Sweep => self.subject.sweep(),
            Event::Open(flow) => self.open(flow),
            Event::Packet(flow) => self.send(flow, Kind::Segment)?,
            Event::Finish(flow) => {
                self.send(flow, Kind::Fin)?;
                self.flows.remove(&flow);
            }
        }
        Ok(())
    }

    fn weigh(&mut self, number: u16, weight: u16) {
        if let Some(known) = self.members.get_mut(&number) {
            known.weight = weight;
            self.publish();
        }
    }

    fn publish(&mut self) {
        self.subject.publish(&self.members, self.log2);
    }

    fn route(&mut self, flow: u16, kind: Kind) -> Option<Met> {
        self.subject.packet(flow, if self.protocol == protocol::UDP { Kind::Datagram } else { kind })
    }

    fn open(&mut self, flow: u16) {
        // A client that goes on with a flow does not open it again; of UDP nobody can tell, so its first packet does.
        if self.flows.get(&flow).is_some_and(|known| known.is_open && self.serves(known.met)) {
            return;
        }
        let is_open = self.protocol == protocol::UDP;
        match self.route(flow, Kind::Syn) {
            Some(met) => drop(self.flows.insert(flow, Flow { met, is_open, last: self.now })),
            None => drop(self.flows.remove(&flow)),
        }
    }

    fn send(&mut self, flow: u16, kind: Kind) -> Result<(), String> {
        let Some(known) = self.flows.get(&flow) else { return Ok(()) };
        // Kept only while its backend serves and its silence is shorter than the window; a SYN alone is kept a minute.
        let patience = if known.is_open { WINDOW } else { WINDOW.min(60_000_000_000) };
        if !self.serves(known.met) || self.now - known.last >= patience {
            self.flows.remove(&flow);
            return Ok(());
        }
        let expected = known.met;
        let met = self.route(flow, kind);
        self.flows.insert(flow, Flow { met: expected, is_open: true, last: self.now });
        if met == Some(expected) { Ok(()) } else { Err(format!("flow {flow} of {expected:?} met {met:?}")) }
    }

    fn serves(&self, met: Met) -> bool {
        self.members.get(&met.backend).is_some_and(|known| known.generation == met.generation)
    }
}
