//! The tracing program: loaded when somebody begins to listen, put in the plain one's place under the links, and unloaded
//! with the last listener.
//!
//! It comes from a second load of the object over the pinned maps, so that its ring buffer exists only meanwhile.

use aya::{
    Ebpf,
    maps::{Array, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::Xdp,
};
use lb_common::maps::trace::{Event, Filter, TraceCounts};

use super::{
    attach,
    error::{DataplaneError, chain},
    kernel::KernelVersion,
    object::{self, Programs},
    pins::PinDirectory,
};

/// Size of the ring buffer, bytes: some 7,000 events.
const RING_BYTES: u32 = 1 << 20;

/// The loaded tracing program.
pub struct Tracing {
    ebpf: Ebpf,
    name: &'static str,
    filter: Array<MapData, Filter>,
}

impl Tracing {
    /// The program.
    pub fn program(&mut self) -> Result<&mut Xdp, DataplaneError> {
        object::program(&mut self.ebpf, self.name)
    }

    /// Sets the filter.
    pub fn filter(&mut self, filter: &Filter) -> Result<(), DataplaneError> {
        self.filter.set(0, filter, 0).map_err(|error| DataplaneError::map("TRACE_FILTER", "writing", &error))
    }
}

/// Loads the tracing program: the kernel checks it, which takes a busy machine seconds and can go on beside other work.
#[derive(Clone, Debug)]
pub struct TracingLoader {
    pins: PinDirectory,
}

/// The tracing program, ready to be put on the interfaces.
pub struct LoadedTracing {
    tracing: Tracing,
    reader: EventReader,
}

impl TracingLoader {
    /// Loads over the maps in force in this directory.
    pub(super) fn new(pins: &PinDirectory) -> Self {
        Self { pins: pins.clone() }
    }

    /// Loads it.
    ///
    /// # Errors
    /// [`DataplaneError`] if the kernel refuses it.
    pub fn load(&self) -> Result<LoadedTracing, DataplaneError> {
        let running = KernelVersion::running();
        if running < KernelVersion::TRACING {
            let reason =
                format!("it needs Linux {}, this is {running}: its stack does not fit", KernelVersion::TRACING);
            return Err(DataplaneError::Load { program: "levee_trace", reason });
        }
        let (tracing, reader) = load(&self.pins)?;
        Ok(LoadedTracing { tracing, reader })
    }
}

/// Puts the tracing program on every interface.
pub fn put(programs: &mut Programs, pins: &PinDirectory, loaded: LoadedTracing) -> Result<EventReader, DataplaneError> {
    let LoadedTracing { mut tracing, reader } = loaded;
    let put = tracing.program().and_then(|program| attach::put_everywhere(program, pins));
    if let Err(error) = put {
        attach::put_everywhere(programs.live()?, pins)?;
        return Err(error);
    }
    programs.tracing = Some(tracing);
    Ok(reader)
}

/// Puts the plain program back and unloads the tracing one.
pub fn stop(programs: &mut Programs, pins: &PinDirectory) -> Result<(), DataplaneError> {
    if programs.tracing.is_some() {
        attach::put_everywhere(programs.live()?, pins)?;
        programs.tracing = None;
    }
    Ok(())
}

fn load(pins: &PinDirectory) -> Result<(Tracing, EventReader), DataplaneError> {
    let bytes = object::OBJECT.ok_or(DataplaneError::NoObject)?;
    let has_frags = KernelVersion::running() >= KernelVersion::FRAGS;
    let name = if has_frags { "levee_trace_frags" } else { "levee_trace" };
    let failed = |error: &dyn std::error::Error| DataplaneError::Load { program: name, reason: chain(error) };
    let mut loader = object::loader(|map| pins.map(map));
    loader.map_max_entries("EVENTS", RING_BYTES);
    let mut ebpf = loader.load(bytes).map_err(|error| failed(&error))?;
    let reader = EventReader { events: take(&mut ebpf, "EVENTS")?, counts: take(&mut ebpf, "TRACE_COUNTS")? };
    let filter = take(&mut ebpf, "TRACE_FILTER")?;
    let mut tracing = Tracing { ebpf, name, filter };
    tracing.program()?.load().map_err(|error| failed(&error))?;
    Ok((tracing, reader))
}

fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, DataplaneError> {
    let failed = |error: &MapError| DataplaneError::map(name, "opening", error);
    let map = ebpf.take_map(name).ok_or_else(|| failed(&MapError::KeyNotFound))?;
    map.try_into().map_err(|error| failed(&error))
}

/// What the tracing program tells.
pub struct EventReader {
    events: RingBuf<MapData>,
    counts: PerCpuArray<MapData, TraceCounts>,
}

impl EventReader {
    /// The next event, if there is one. A record that cannot be read is left out.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let record = self.events.next()?;
            if let Some(event) = Event::from_bytes(&record) {
                return Some(event);
            }
        }
    }

    /// How many events were wanted and could not be told since the program was loaded, on all CPUs.
    ///
    /// # Errors
    /// [`DataplaneError`] if the map cannot be read.
    pub fn lost(&self) -> Result<u64, DataplaneError> {
        let read = self.counts.get(&0, 0);
        let counts = read.map_err(|error| DataplaneError::map("TRACE_COUNTS", "reading", &error))?;
        Ok(counts.iter().map(|counts| counts.lost).sum())
    }
}
