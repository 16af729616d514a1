//! The programs that translate connections, on a cgroup: kept there by pinned links, as the XDP program is.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use aya::programs::{CgroupAttachMode, CgroupSockAddr, links::FdLink};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::{
    error::{DataplaneError, chain},
    object::Programs,
    pins::PinDirectory,
};

/// The programs, by the names under which their links are pinned.
const PROGRAMS: [&str; 4] = ["levee_connect4", "levee_connect6", "levee_peer4", "levee_peer6"];

/// Where the cgroups of version 2 are: alone, or beside those of version 1.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The programs on the cgroup.
#[derive(Default)]
pub struct Translators {
    attached: Option<PathBuf>,
}

impl Translators {
    /// Puts the programs on a cgroup, that of every process unless `wanted` names another; then takes those of an earlier
    /// agent off. Between the two a connection meets both, of which the second finds nothing to do.
    pub fn attach(
        &mut self,
        programs: &mut Programs,
        pins: &PinDirectory,
        wanted: Option<&Path>,
    ) -> Result<(), DataplaneError> {
        let path = cgroup(wanted)?;
        if self.attached.as_ref() == Some(&path) {
            return Ok(());
        }
        let directory = File::open(&path).map_err(|source| DataplaneError::io("opening", &path, source))?;
        let links = pins.cgroup();
        fs::create_dir_all(&links).map_err(|source| DataplaneError::io("creating", &links, source))?;
        for name in PROGRAMS {
            put(programs.cgroup(name)?, &directory, &links.join(name))
                .map_err(|reason| DataplaneError::TranslationRefused { cgroup: path.clone(), program: name, reason })?;
        }
        tracing::info!(cgroup = %path.display(), "connections of this node's processes are translated");
        self.attached = Some(path);
        Ok(())
    }

    /// Takes the programs off.
    pub fn detach(&mut self, pins: &PinDirectory) {
        let was_there = PROGRAMS.iter().filter(|name| fs::remove_file(pins.cgroup().join(name)).is_ok()).count() > 0;
        if was_there {
            tracing::info!("connections of this node's processes are not translated any more");
        }
        let _ = fs::remove_dir(pins.cgroup());
        self.attached = None;
    }
}

/// Attaches a program and pins its link in the place of an earlier one, which ends with its pin.
fn put(program: &mut CgroupSockAddr, cgroup: &File, path: &Path) -> Result<(), String> {
    let id = program.attach(cgroup, CgroupAttachMode::Single).map_err(|error| chain(&error))?;
    let link = program.take_link(id).map_err(|error| chain(&error))?;
    let link = FdLink::try_from(link).map_err(|error| chain(&error))?;
    let new = path.with_file_name(format!("{}-new", path.file_name().unwrap_or_default().display()));
    let _ = fs::remove_file(&new);
    link.pin(&new).map_err(|error| chain(&error))?;
    fs::rename(&new, path).map_err(|error| format!("pinning its link: {error}"))
}

/// The cgroup to attach to.
fn cgroup(wanted: Option<&Path>) -> Result<PathBuf, DataplaneError> {
    let is_version_2 = |path: &Path| statfs(path).is_ok_and(|info| info.filesystem_type() == CGROUP2_SUPER_MAGIC);
    match wanted {
        Some(path) if is_version_2(path) => Ok(path.to_owned()),
        Some(path) => Err(DataplaneError::NoCgroup { paths: path.display().to_string() }),
        None => {
            let found = ROOTS.iter().map(Path::new).find(|path| is_version_2(path));
            found.map(Path::to_owned).ok_or_else(|| DataplaneError::NoCgroup { paths: ROOTS.join(" and ") })
        }
    }
}
