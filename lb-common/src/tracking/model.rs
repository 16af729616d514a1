//! A director in memory: a ring, the tables of flows, and a clock that is moved by hand.

use alloc::{collections::BTreeMap, vec::Vec};
use core::cell::{Cell, RefCell};

use super::{FlowTables, NoRoom, OnSlot, resolve};
use crate::{
    addr::BackendId,
    hash::Tuple,
    maglev,
    maps::{
        flows::FlowEntry,
        rings::{Slot, SlotState},
    },
    tracking::Kind,
};

/// Gives a slot its owner: [`transition`](super::transition), or a faulty one to test the tests with.
pub type Transition = fn(Slot, BackendId, &dyn Fn(BackendId) -> bool) -> Slot;

/// A director with one service.
pub struct Director {
    transition: Transition,
    log2: u32,
    slots: Vec<Slot>,
    /// When the window of each slot that is not settled ends.
    windows: Vec<u64>,
    /// Backends that are there; whether each takes new flows.
    backends: BTreeMap<BackendId, bool>,
    tables: [RefCell<BTreeMap<Tuple, FlowEntry>>; 2],
    limit: usize,
    now: Cell<u64>,
    window: u64,
    has_affinity: bool,
}

impl Director {
    /// A director without backends; `window` is the time that a flow may be silent, in nanoseconds, and `limit` the
    /// number of flows that each table has room for.
    #[must_use]
    pub fn new(transition: Transition, log2: u32, window: u64, limit: usize, has_affinity: bool) -> Self {
        Self {
            transition,
            log2,
            slots: alloc::vec![Slot::default(); 1 << log2],
            windows: alloc::vec![0; 1 << log2],
            backends: BTreeMap::new(),
            tables: [RefCell::default(), RefCell::default()],
            limit,
            now: Cell::new(1),
            window,
            has_affinity,
        }
    }

    /// Time passes, and windows end: nanoseconds.
    pub fn pass(&mut self, time: u64) {
        self.now.set(self.now.get() + time);
        for (slot, until) in self.slots.iter_mut().zip(&self.windows) {
            if slot.state() == SlotState::Unsettled && *until <= self.now.get() {
                *slot = slot.settling();
            }
        }
    }

    /// Puts owners in force: the ring of `1 << log2` slots that `owner` tells, over `backends`, each with whether it
    /// takes new flows. As long as a larger ring has flows to remember, a smaller one repeats its entries in it.
    pub fn publish(&mut self, backends: BTreeMap<BackendId, bool>, log2: u32, owner: impl Fn(usize) -> BackendId) {
        if log2 > self.log2 || self.repeats(log2) {
            self.resize(log2);
        }
        self.backends = backends;
        let until = self.now.get() + self.window;
        let serves = |id: BackendId| self.backends.contains_key(&id);
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let new = owner(at >> (self.log2 - log2));
            let after = (self.transition)(*slot, new, &serves);
            if after.state() != SlotState::Settled && after.current() != slot.current() {
                self.windows[at] = until;
            }
            *slot = after;
        }
    }

    /// Puts a ring in force as it is.
    pub fn adopt(&mut self, backends: BTreeMap<BackendId, bool>, log2: u32, slots: Vec<Slot>) {
        self.windows = alloc::vec![self.now.get() + self.window; slots.len()];
        (self.backends, self.log2, self.slots) = (backends, log2, slots);
    }

    /// Whether the ring is a smaller one, repeated and settled.
    fn repeats(&self, log2: u32) -> bool {
        let is_settled = self.slots.iter().all(|slot| slot.state() == SlotState::Settled);
        is_settled && self.slots.chunks(1 << (self.log2 - log2)).all(|chunk| chunk.iter().all(|slot| *slot == chunk[0]))
    }

    fn resize(&mut self, log2: u32) {
        let repeats = |at: usize| if log2 >= self.log2 { at >> (log2 - self.log2) } else { at << (self.log2 - log2) };
        self.slots = (0..1 << log2).map(|at| self.slots[repeats(at)]).collect();
        self.windows = (0..1 << log2).map(|at| self.windows[repeats(at)]).collect();
        self.log2 = log2;
    }

    /// What the agent's sweep does: removes what has expired, and settles slots whose window is over and that no live flow
    /// of another backend is on.
    pub fn sweep(&mut self) {
        let now = self.now.get();
        let mut elsewhere = alloc::vec![false; self.slots.len()];
        for table in &self.tables {
            table.borrow_mut().retain(|_, entry| entry.deadline > now);
            for entry in table.borrow().values() {
                let at = maglev::slot(entry.slot_bits, self.log2) as usize;
                elsewhere[at] |=
                    self.backends.contains_key(&entry.backend()) && entry.backend() != self.slots[at].current();
            }
        }
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if slot.state() == SlotState::Settling && !elsewhere[at] && self.windows[at] <= now {
                *slot = Slot::settled(slot.current());
            }
        }
    }

    /// Where a packet goes; the flow's hash is the caller's.
    ///
    /// # Errors
    /// [`NoRoom`]: it is dropped, since its flow cannot be recorded.
    pub fn packet(&self, tuple: &Tuple, slot_bits: u32, kind: Kind) -> Result<BackendId, NoRoom> {
        let slot = self.slots[maglev::slot(slot_bits, self.log2) as usize];
        if slot.state() == SlotState::Settled {
            return Ok(slot.current());
        }
        let has_affinity = self.has_affinity;
        resolve(self, &OnSlot { tuple, kind, slot_bits, service: 0, has_affinity, slot, records: true })
    }

    /// Its slots.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// What is recorded in both tables, expired or not.
    #[must_use]
    pub fn flows(&self) -> Vec<(Tuple, FlowEntry)> {
        self.tables.iter().flat_map(|table| table.borrow().clone()).collect()
    }

    /// What its clock shows.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.now.get()
    }

    /// Number of flows in both tables.
    #[must_use]
    pub fn recorded(&self) -> usize {
        self.tables.iter().map(|table| table.borrow().len()).sum()
    }
}

impl FlowTables for Director {
    type Place = (usize, Tuple);

    fn find_new(&self, key: &Tuple) -> Option<Self::Place> {
        self.tables[0].borrow().contains_key(key).then_some((0, *key))
    }

    fn find_old(&self, key: &Tuple) -> Option<Self::Place> {
        self.tables[1].borrow().contains_key(key).then_some((1, *key))
    }

    fn read(&self, (table, key): Self::Place) -> FlowEntry {
        self.tables[table].borrow()[&key]
    }

    fn write(&self, (table, key): Self::Place, entry: &FlowEntry) {
        self.tables[table].borrow_mut().insert(key, *entry);
    }

    fn insert(&self, is_new: bool, key: &Tuple, entry: &FlowEntry) -> bool {
        let mut table = self.tables[usize::from(!is_new)].borrow_mut();
        if table.len() >= self.limit {
            return false;
        }
        table.insert(*key, *entry);
        true
    }

    fn takes(&self, backend: BackendId) -> Option<bool> {
        self.backends.get(&backend).copied()
    }

    fn now(&self) -> u64 {
        self.now.get()
    }

    fn lifetime(&self, _service: u32) -> u64 {
        self.window
    }
}
