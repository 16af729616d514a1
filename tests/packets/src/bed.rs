//! The loaded program with its maps, pinned in a directory of their own.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use aya::{
    TestRun,
    programs::{TestRunOptions, Xdp},
};
use lb_agent::{
    dataplane::{Dataplane, DataplaneError, Kernel, PinDirectory, PinLock, Tables, detach, lookup, monotonic},
    plan::{FlowScan, MapOp, MapState, Sizes, operations, settle},
};
use lb_common::{report::Report, verdict::Action};

use crate::{counts::Counts, link, world::World};

/// Sizes of the maps unless told otherwise.
pub const SIZES: Sizes = Sizes {
    services: 8,
    backends: 32,
    ring_slots: 1 << 15,
    peers: 8,
    addresses: 16,
    flows: 256,
    flows_per_service: 64,
    source_ranges: 16,
    fragments: 1024,
};

/// How much longer than it came in a frame can leave.
const GROWTH: usize = 128;

/// The loaded program; dropping it removes every pin.
pub struct Bed {
    kernel: Kernel,
    state: MapState,
    /// The time that plans are told, nanoseconds; packets are told the kernel's.
    now: u64,
    tables: Tables,
    pins: Pins,
}

/// A pin directory of one's own; dropping it removes every pin.
struct Pins(Option<PinLock>);

impl Pins {
    fn create() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/sys/fs/bpf/levee-packets-{}-{number}", std::process::id()));
        let lock = PinDirectory::new(&path).lock();
        Self(Some(lock.unwrap_or_else(|error| panic!("{error}"))))
    }

    fn lock(&self) -> &PinLock {
        self.0.as_ref().expect("there until dropped")
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Some(lock) = self.0.take() {
            // A failure here would hide the one that the test is about.
            let _ = detach(lock);
        }
    }
}

/// What became of a frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// What the driver is told: an `xdp_action`.
    pub action: u32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
}

impl Outcome {
    /// Whether the frame goes up the stack.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.action == Action::Pass as u32
    }

    /// Whether the frame is dropped.
    #[must_use]
    pub fn is_dropped(&self) -> bool {
        self.action == Action::Drop as u32
    }
}

impl Bed {
    /// Loads the program over new maps of the default sizes.
    ///
    /// # Panics
    /// Without root, without a BPF filesystem or without a BPF object, saying what to do.
    #[must_use]
    pub fn new() -> Self {
        Self::with_sizes(SIZES)
    }

    /// Loads the program over new maps.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_sizes(sizes: Sizes) -> Self {
        Self::opened(|lock| Kernel::open(lock, sizes))
    }

    /// Loads the program of another build over new maps; `object` holds its bytes, aligned to eight.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_object(sizes: Sizes, object: &[u8]) -> Self {
        Self::opened(|lock| Kernel::open_object(lock, sizes, object))
    }

    fn opened(open: impl FnOnce(&PinLock) -> Result<Kernel, DataplaneError>) -> Self {
        link::enter();
        let pins = Pins::create();
        let mut kernel = open(pins.lock()).unwrap_or_else(|error| panic!("{error}"));
        kernel.commit().unwrap_or_else(|error| panic!("{error}"));
        let state = kernel.state().unwrap_or_else(|error| panic!("{error}"));
        let tables = Tables::open(|name| pins.lock().directory().map(name));
        Self { kernel, state, now: monotonic(), tables: tables.unwrap_or_else(|error| panic!("{error}")), pins }
    }

    /// A bed whose maps hold a world.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn holding(world: &World) -> Self {
        let mut bed = Self::new();
        bed.apply(world);
        bed
    }

    /// Makes the maps hold a world, by the plan that the agent would make.
    ///
    /// # Panics
    /// If the plan or one of its steps fails.
    pub fn apply(&mut self, world: &World) {
        let planned = operations(&self.state, &world.target(), self.kernel.rings(), self.now);
        let (steps, state) = planned.unwrap_or_else(|error| panic!("{error}"));
        for step in &steps {
            self.perform(step);
        }
        self.state = state;
    }

    /// Time passes for the plans: windows end, and slots settle that the flows of `scan` leave free.
    ///
    /// # Panics
    /// If a step fails.
    pub fn pass(&mut self, nanoseconds: u64, scan: Option<&FlowScan>) {
        self.now += nanoseconds;
        for step in settle(&mut self.state, self.kernel.rings(), self.now, scan) {
            self.perform(&step);
        }
    }

    /// What the agent's scan of the flows finds, begun just now.
    ///
    /// # Panics
    /// If the tables cannot be read.
    #[must_use]
    pub fn scan(&self) -> FlowScan {
        let mut tables = self.kernel.flow_tables().unwrap_or_else(|error| panic!("{error}"));
        let scanned = tables.scan().unwrap_or_else(|error| panic!("{error}"));
        FlowScan { begun: self.now + 1, ..scanned.flows }
    }

    /// Performs one step of one's own.
    ///
    /// # Panics
    /// If it fails.
    pub fn perform(&mut self, step: &MapOp) {
        self.kernel.perform(step).unwrap_or_else(|error| panic!("{step:?}: {error}"));
    }

    /// Runs the program on a frame that comes in by `interface`.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn send(&mut self, frame: &[u8], interface: u32) -> Outcome {
        run_program(self.program(), frame, interface)
    }

    /// What the dry entry says of a frame.
    ///
    /// # Panics
    /// If it cannot be run.
    #[must_use]
    pub fn lookup(&self, frame: &[u8]) -> Report {
        lookup(self.pins().root(), frame).unwrap_or_else(|error| panic!("{error}"))
    }

    /// All counters.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::read(&self.tables, &self.state)
    }

    /// The program that packets take.
    ///
    /// # Panics
    /// If it is not loaded.
    pub fn program(&mut self) -> &mut Xdp {
        self.kernel.program().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The data plane.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// What the plans so far made of the maps.
    #[must_use]
    pub fn state(&self) -> &MapState {
        &self.state
    }

    /// The maps.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The lock on the pins.
    #[must_use]
    pub fn lock(&self) -> &PinLock {
        self.pins.lock()
    }

    /// The pins.
    #[must_use]
    pub fn pins(&self) -> &PinDirectory {
        self.lock().directory()
    }
}

impl Default for Bed {
    fn default() -> Self {
        Self::new()
    }
}

impl Bed {
    /// What the program on the egress of uplinks makes of a frame that leaves.
    ///
    /// # Panics
    /// If the kernel refuses it.
    pub fn leave(&mut self, frame: &[u8]) -> Outcome {
        let program = self.kernel.egress().unwrap_or_else(|error| panic!("{error}"));
        let mut out = vec![0; frame.len() + GROWTH];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = program.test_run(options).unwrap_or_else(|error| panic!("running the program: {error:?}"));
        out.truncate(result.data_size_out as usize);
        Outcome { action: result.return_value, frame: out }
    }
}

/// Runs a program on a frame that comes in by `interface`.
///
/// # Panics
/// If the kernel refuses, as one without [`crate::Ability::Context`] does if `interface` is not [`link::IN`].
#[must_use]
pub fn run_program(program: &Xdp, frame: &[u8], interface: u32) -> Outcome {
    let length = u32::try_from(frame.len()).expect("frames are short");
    let elsewhere = interface != link::IN;
    // `struct xdp_md` (include/uapi/linux/bpf.h): data, data_end, data_meta, ingress_ifindex, rx_queue_index,
    // egress_ifindex.
    let context: Vec<u8> = [0, length, 0, interface, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    let mut out = vec![0; frame.len() + GROWTH];
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: elsewhere.then_some(&context[..]),
        ..TestRunOptions::default()
    });
    let result = result.unwrap_or_else(|error| panic!("running the program on {length} bytes: {error:?}"));
    out.truncate(result.data_size_out as usize);
    Outcome { action: result.return_value, frame: out }
}
