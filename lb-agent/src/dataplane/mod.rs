//! The data plane: performs plans on the BPF maps, loads and attaches the program, adopts what an earlier agent pinned.

mod arena;
mod attach;
mod clamp;
mod clock;
mod error;
mod flows;
mod grace;
mod kernel;
mod maps;
mod migrate;
mod object;
mod old_set;
mod pins;
mod tables;
mod trace;
mod translate;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod plan_tests;

use std::path::Path;

use lb_common::{maps::trace::Filter, report::Report};

pub(crate) use arena::MappedWords;
pub use attach::{Attachment, GENERIC, Present};
pub use clock::monotonic;
pub use error::DataplaneError;
pub use flows::{FlowTables, Scanned};
pub use kernel::{CAPABILITIES, KernelVersion, missing_capabilities};
pub use maps::Maps;
pub use object::OBJECT;
pub use pins::{PinDirectory, PinLock, PinOwner};
pub use tables::{Tables, text, translated_backends, translations};
pub use trace::{EventReader, LoadedTracing, TracingLoader};

use crate::{
    config::XdpMode,
    model::Drain,
    plan::{MapOp, MapState, Rings, Sizes},
};

/// What performs the steps of a plan.
pub trait Dataplane {
    /// Performs one step, whole or not at all.
    ///
    /// # Errors
    /// [`DataplaneError`] if the kernel refused it.
    fn perform(&mut self, step: &MapOp) -> Result<(), DataplaneError>;
}

/// The data plane of this node, in the kernel.
pub struct Kernel {
    maps: Maps,
    programs: object::Programs,
    attachments: attach::Attachments,
    clamps: clamp::Clamps,
    translators: translate::Translators,
    pins: PinDirectory,
    migration: Option<migrate::Migration>,
}

impl Kernel {
    /// Opens the maps under the pin directory, or creates them, and loads the program. Nothing is attached yet, and
    /// what an earlier agent attached goes on as it was. Maps of other sizes or of another layout are not touched: new ones
    /// beside them are made to hold the same. `lock` proves that no other agent is at work there.
    ///
    /// # Errors
    /// [`DataplaneError`], each saying what is missing.
    pub fn open(lock: &PinLock, sizes: Sizes) -> Result<Self, DataplaneError> {
        Self::open_object(lock, sizes, OBJECT.ok_or(DataplaneError::NoObject)?)
    }

    /// As [`Self::open`], with the program of another build: `object` holds its bytes, aligned to eight.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_object(lock: &PinLock, sizes: Sizes, object: &[u8]) -> Result<Self, DataplaneError> {
        let pins = lock.directory().clone();
        let set = pins.choose_set(sizes)?;
        let (programs, mut maps) = object::load(&set, sizes, object)?;
        let migration = match pins.replaced_by(&set) {
            Some((layout, old)) => migrate::Migration::begin(&mut maps, layout, &old, sizes)?,
            None => None,
        };
        let (attachments, clamps) = (attach::Attachments::default(), clamp::Clamps::default());
        let translators = translate::Translators::default();
        Ok(Self { maps, programs, attachments, clamps, translators, pins, migration })
    }

    /// What the maps hold.
    ///
    /// # Errors
    /// [`DataplaneError`] if they cannot be read.
    pub fn state(&self) -> Result<MapState, DataplaneError> {
        self.maps.state()
    }

    /// Puts the program on an interface, or in the place of the one that an earlier agent put there. `present` is what
    /// the kernel reports on it now.
    ///
    /// # Errors
    /// [`DataplaneError`] if the interface takes no XDP program, or has one of somebody else's.
    pub fn attach(
        &mut self,
        interface: &str,
        index: u32,
        mode: XdpMode,
        present: Option<Present>,
    ) -> Result<Attachment, DataplaneError> {
        self.hand_over()?;
        self.attachments.attach(&mut self.programs, &self.pins, interface, index, mode, present)
    }

    /// Readies maps that were created beside those in force for the first packet: copies the recorded flows, and has new
    /// flows on unsettled slots go to the former owner until [`Self::commit`]. [`Self::attach`] does so by itself.
    ///
    /// # Errors
    /// [`DataplaneError`] if the maps cannot be read or written.
    pub fn hand_over(&mut self) -> Result<(), DataplaneError> {
        self.migration.as_mut().map_or(Ok(()), |migration| migration.hand_over(&mut self.maps))
    }

    /// Takes the program off interfaces that are not among `wanted`.
    pub fn detach_others(&mut self, wanted: &[String]) {
        self.attachments.detach_others(&self.pins, wanted);
    }

    /// Takes the program off an interface.
    pub fn detach(&mut self, interface: &str) {
        self.attachments.detach(&self.pins, interface);
    }

    /// Rewrites what leaves from VIPs on the egress of these interfaces (name and index), and of no other. Errors are independent
    /// of each other.
    pub fn clamp(&mut self, wanted: &[(String, u32)]) -> Vec<DataplaneError> {
        let names: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
        self.clamps.detach_others(&self.pins, &names);
        let (clamps, programs, pins) = (&mut self.clamps, &mut self.programs, &self.pins);
        wanted.iter().filter_map(|(name, index)| clamps.attach(programs, pins, name, *index).err()).collect()
    }

    /// Translates connections of a cgroup's processes: of every process, unless `cgroup` names another. Nothing is done if
    /// that is so already.
    ///
    /// # Errors
    /// [`DataplaneError`] if the kernel refuses it, or there is no such cgroup.
    pub fn translate(&mut self, cgroup: Option<&Path>) -> Result<(), DataplaneError> {
        self.translators.attach(&mut self.programs, &self.pins, cgroup)
    }

    /// Translates no connection.
    pub fn stop_translating(&mut self) {
        self.translators.detach(&self.pins);
    }

    /// The program for the egress of uplinks, to run it on packets of one's own.
    ///
    /// # Errors
    /// [`DataplaneError`] if it cannot be loaded.
    pub fn egress(&mut self) -> Result<&mut aya::programs::SchedClassifier, DataplaneError> {
        self.programs.egress()
    }

    /// Puts maps that were created beside older ones in their place: their sizes differ, or their layout does. Called
    /// as soon as every interface has the program that reads them: flows recorded since are carried over here.
    ///
    /// # Errors
    /// [`DataplaneError`] if the pins cannot be moved.
    pub fn commit(&mut self) -> Result<(), DataplaneError> {
        if let Some(migration) = self.migration.take() {
            migration.finish(&mut self.maps)?;
        }
        self.pins.commit()?;
        object::pin_lookup(&mut self.programs, &self.pins)
    }

    /// The program that packets take, to run it on frames of one's own (`BPF_PROG_TEST_RUN`).
    ///
    /// # Errors
    /// [`DataplaneError`] if it is not loaded.
    pub fn program(&mut self) -> Result<&mut aya::programs::Xdp, DataplaneError> {
        self.programs.live()
    }

    /// The rings in force.
    #[must_use]
    pub fn rings(&self) -> &dyn Rings {
        &self.maps
    }

    /// The tables of flows, to scan them beside everything else. To be called behind [`Self::commit`].
    ///
    /// # Errors
    /// [`DataplaneError`] if they cannot be opened.
    pub fn flow_tables(&self) -> Result<FlowTables, DataplaneError> {
        FlowTables::open(&self.pins, self.maps.sizes())
    }

    /// What loads the tracing program, beside other work.
    #[must_use]
    pub fn tracing_loader(&self) -> TracingLoader {
        TracingLoader::new(&self.pins)
    }

    /// Puts the tracing program on every interface, in one step each. What it tells is read from the result.
    ///
    /// # Errors
    /// [`DataplaneError`] if the kernel refuses it; then the plain program is on every interface.
    pub fn start_tracing(&mut self, loaded: LoadedTracing) -> Result<EventReader, DataplaneError> {
        trace::put(&mut self.programs, &self.pins, loaded)
    }

    /// Says which packets the tracing program is to tell of.
    ///
    /// # Errors
    /// [`DataplaneError`] if the map refuses it.
    pub fn filter_trace(&mut self, filter: &Filter) -> Result<(), DataplaneError> {
        self.programs.tracing.as_mut().map_or(Ok(()), |tracing| tracing.filter(filter))
    }

    /// Puts the plain program back and unloads the tracing one. Nothing happens if that is not loaded.
    ///
    /// # Errors
    /// [`DataplaneError`] if the kernel refuses it; the tracing program then stays loaded.
    pub fn stop_tracing(&mut self) -> Result<(), DataplaneError> {
        trace::stop(&mut self.programs, &self.pins)
    }

    /// The tracing program, while it is loaded, to run it on frames of one's own.
    ///
    /// # Errors
    /// [`DataplaneError`] if it is not in the object.
    pub fn tracing_program(&mut self) -> Result<Option<&mut aya::programs::Xdp>, DataplaneError> {
        self.programs.tracing.as_mut().map(trace::Tracing::program).transpose()
    }

    /// Notes who keeps these maps, and how its node is drained.
    ///
    /// # Errors
    /// [`DataplaneError`] if the map refuses it.
    pub fn sign(&mut self, node: &str, drain: Option<Drain>) -> Result<(), DataplaneError> {
        self.maps.sign(node, drain)
    }

    /// How the node was drained when these maps were signed the last time.
    ///
    /// # Errors
    /// [`DataplaneError`] if the map cannot be read.
    pub fn node_drain(&self) -> Result<Option<Drain>, DataplaneError> {
        self.maps.node_drain()
    }
}

impl Dataplane for Kernel {
    fn perform(&mut self, step: &MapOp) -> Result<(), DataplaneError> {
        self.maps.perform(step)
    }
}

/// Asks the dry entry that the agent pinned what would become of `frame`, an Ethernet frame of at least 64 bytes.
///
/// # Errors
/// [`DataplaneError`] if no agent ever ran here, or the kernel refuses to run the program.
pub fn lookup(pin_path: &Path, frame: &[u8]) -> Result<Report, DataplaneError> {
    object::lookup(&PinDirectory::new(pin_path), frame)
}

/// Id and name of the program that the pinned link of an interface keeps there. The kernel tells names to processes with
/// CAP_SYS_ADMIN only; others get an empty one.
///
/// # Errors
/// [`DataplaneError`] if there is no such link or the kernel does not tell.
pub fn linked_program(pin_path: &Path, interface: &str) -> Result<(u32, String), DataplaneError> {
    attach::linked_program(&PinDirectory::new(pin_path), interface)
}

/// Takes the program off every interface and removes all pins. `lock` proves that no agent is at work there.
///
/// # Errors
/// [`DataplaneError`] if a pin cannot be removed.
pub fn detach(lock: PinLock) -> Result<Vec<String>, DataplaneError> {
    lock.remove_all()
}
