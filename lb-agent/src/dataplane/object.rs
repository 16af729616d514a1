//! The BPF object: loading it over pinned maps, and running its dry entry.

use std::path::PathBuf;

use aya::{
    Ebpf, EbpfLoader, TestRun,
    programs::{CgroupSockAddr, SchedClassifier, TestRunOptions, Xdp},
};
use aya_obj::programs::XdpAttachType;
use lb_common::{
    maps,
    report::{self, Report},
};

use super::{
    error::{DataplaneError, chain},
    kernel::{self, KernelVersion},
    maps::Maps,
    pins::{MapSet, PinDirectory},
    trace::Tracing,
};
use crate::plan::Sizes;

/// The object's bytes, if the build has them: `cargo xtask build` puts them in.
#[cfg(bpf_object)]
pub const OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf.o")));
/// The object's bytes, if the build has them: `cargo xtask build` puts them in.
#[cfg(not(bpf_object))]
pub const OBJECT: Option<&[u8]> = None;

/// The loaded programs.
pub struct Programs {
    ebpf: Ebpf,
    live: &'static str,
    dry: &'static str,
    /// The program that goes on the interfaces instead of `live` while somebody listens.
    pub(super) tracing: Option<Tracing>,
}

/// Loads the programs of an object over the maps of a set, which are created and pinned if they are not there.
pub fn load(set: &MapSet, sizes: Sizes, object: &[u8]) -> Result<(Programs, Maps), DataplaneError> {
    kernel::check()?;
    let mut loader = loader(|name| set.path(name));
    for fact in maps::ALL {
        if let Some(entries) = set.entries(fact.name, sizes) {
            loader.map_max_entries(fact.name, entries);
        }
    }
    let mut ebpf =
        loader.load(object).map_err(|error| DataplaneError::Load { program: "object", reason: chain(&error) })?;
    let maps = Maps::new(&mut ebpf, set, sizes)?;
    let has_frags = KernelVersion::running() >= KernelVersion::FRAGS;
    let (live, dry) = if has_frags { ("levee_frags", "levee_lookup_frags") } else { ("levee", "levee_lookup") };
    let mut programs = Programs { ebpf, live, dry, tracing: None };
    for name in [live, dry] {
        programs
            .program(name)?
            .load()
            .map_err(|error| DataplaneError::Load { program: name, reason: chain(&error) })?;
    }
    Ok((programs, maps))
}

/// A loader of the object over maps that are pinned, or will be, where `path` says.
pub(super) fn loader<'a>(path: impl Fn(&str) -> PathBuf) -> EbpfLoader<'a> {
    let mut loader = EbpfLoader::new();
    for fact in maps::ALL {
        loader.map_pin_path(fact.name, path(fact.name));
    }
    loader
}

impl Programs {
    /// The program that belongs on the interfaces: the plain one, or the tracing one while somebody listens.
    pub fn in_force(&mut self) -> Result<&mut Xdp, DataplaneError> {
        match &mut self.tracing {
            Some(tracing) => tracing.program(),
            None => program(&mut self.ebpf, self.live),
        }
    }

    /// The plain program.
    pub fn live(&mut self) -> Result<&mut Xdp, DataplaneError> {
        self.program(self.live)
    }

    /// The program for the egress of uplinks, loaded when it is first asked for.
    pub fn egress(&mut self) -> Result<&mut SchedClassifier, DataplaneError> {
        const NAME: &str = "levee_egress";
        let failed = |reason| DataplaneError::Load { program: NAME, reason };
        let program = self.ebpf.program_mut(NAME).and_then(|program| program.try_into().ok());
        let program: &mut SchedClassifier = program.ok_or_else(|| failed("not in the object".to_owned()))?;
        if program.fd().is_err() {
            program.load().map_err(|error| failed(chain(&error)))?;
        }
        Ok(program)
    }

    /// A program for connections, loaded when it is first asked for.
    pub fn cgroup(&mut self, name: &'static str) -> Result<&mut CgroupSockAddr, DataplaneError> {
        let failed = |reason| DataplaneError::Load { program: name, reason };
        let program = self.ebpf.program_mut(name).and_then(|program| program.try_into().ok());
        let program: &mut CgroupSockAddr = program.ok_or_else(|| failed("not in the object".to_owned()))?;
        if program.fd().is_err() {
            program.load().map_err(|error| failed(chain(&error)))?;
        }
        Ok(program)
    }

    fn program(&mut self, name: &'static str) -> Result<&mut Xdp, DataplaneError> {
        program(&mut self.ebpf, name)
    }
}

/// A program of the object.
pub(super) fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, DataplaneError> {
    let program = ebpf.program_mut(name).and_then(|program| program.try_into().ok());
    program.ok_or_else(|| DataplaneError::Load { program: name, reason: "not in the object".to_owned() })
}

/// Pins the dry entry, in the place of an earlier one.
pub fn pin_lookup(programs: &mut Programs, pins: &PinDirectory) -> Result<(), DataplaneError> {
    let path = pins.lookup_program();
    let new = path.with_file_name("lookup-new");
    let _ = std::fs::remove_file(&new);
    let dry = programs.dry;
    programs.program(dry)?.pin(&new).map_err(|error| DataplaneError::Load { program: dry, reason: chain(&error) })?;
    std::fs::rename(&new, &path).map_err(|source| DataplaneError::io("renaming to", &path, source))
}

/// Runs the pinned dry entry on a frame.
pub fn lookup(pins: &PinDirectory, frame: &[u8]) -> Result<Report, DataplaneError> {
    let path = pins.lookup_program();
    if !path.exists() {
        return Err(DataplaneError::NothingPinned { path: pins.root().to_owned() });
    }
    let failed = |reason: String| DataplaneError::Load { program: "levee_lookup", reason };
    let program = Xdp::from_pin(&path, XdpAttachType::Interface).map_err(|error| failed(chain(&error)))?;
    let mut out = vec![0; frame.len()];
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
    program.test_run(options).map_err(|error| failed(chain(&error)))?;
    let word = |at: usize| out.get(at * 8..at * 8 + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
    let mut words = [0; report::LEN / 8];
    for (at, slot) in words.iter_mut().enumerate() {
        *slot = word(at).ok_or_else(|| failed("the report is shorter than the frame".to_owned()))?;
    }
    Ok(Report::from_words(&words))
}
