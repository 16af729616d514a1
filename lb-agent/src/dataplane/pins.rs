//! The pin directory on bpffs: what is where, who may write, and how one set of maps takes another's place.
//!
//! ```text
//! <pinPath>/                locked by the agent that runs (flock)
//!   maps-v2/NAME            the maps in force, of layout version 2
//!   maps-v2-next/NAME       a set that is being filled beside them
//!   links/INTERFACE         what keeps the program on an interface
//!   clamps/INTERFACE        what keeps the program for segment sizes and ports on an interface
//!   cgroup/PROGRAM          what keeps a program for connections on a cgroup
//!   lookup                  the dry entry
//! ```

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::maps::MapData;
use lb_common::{
    LAYOUT_VERSION,
    maps::{self, agent::AgentInfo},
};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::{error::DataplaneError, tables};
use crate::plan::Sizes;

/// A pin directory.
#[derive(Clone, Debug)]
pub struct PinDirectory {
    root: PathBuf,
}

/// The set of maps that an agent works on.
pub struct MapSet {
    directory: PathBuf,
}

/// The lock that makes one agent the only one; released when dropped.
pub struct PinLock {
    directory: PinDirectory,
    _lock: Flock<File>,
}

/// The agent that signed the maps.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PinOwner {
    /// Process id as that agent sees it.
    pub pid: u32,
    /// Name of its node.
    pub node: String,
    /// Its version.
    pub version: String,
    /// When it started, seconds of Unix time.
    pub started: u64,
}

impl PinDirectory {
    /// The pin directory at `root`, whether it exists or not.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Its path.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Path of a pinned map that is in force.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Creates the directory if need be and locks it.
    ///
    /// # Errors
    /// [`DataplaneError::NoBpffs`], or [`DataplaneError::Locked`] with the name of the agent that is at work there.
    pub fn lock(&self) -> Result<PinLock, DataplaneError> {
        self.check_bpffs()?;
        fs::create_dir_all(&self.root).map_err(|source| DataplaneError::io("creating", &self.root, source))?;
        let mut tries = 0;
        loop {
            let directory =
                File::open(&self.root).map_err(|source| DataplaneError::io("opening", &self.root, source))?;
            match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
                Ok(lock) if self.is(&lock) => return Ok(PinLock { directory: self.clone(), _lock: lock }),
                // Removed between opening and locking, by an agent that left nothing there: what is there now is another.
                Ok(_) => return self.lock(),
                Err((_, nix::Error::EWOULDBLOCK)) if tries < LOCK_TRIES => tries += 1,
                Err((_, nix::Error::EWOULDBLOCK)) => {
                    let owner = self.owner().map_or_else(|| "not known by name".to_owned(), |owner| owner.to_string());
                    return Err(DataplaneError::Locked { path: self.root.clone(), owner });
                }
                Err((_, error)) => return Err(DataplaneError::io("locking", &self.root, error.into())),
            }
            std::thread::sleep(LOCK_PAUSE);
        }
    }

    /// Whether an open directory is the one that is there.
    fn is(&self, directory: &File) -> bool {
        let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        directory.metadata().ok().map(id) == fs::metadata(&self.root).ok().map(id)
    }

    /// Whether an agent is at work: it holds the lock.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        let Ok(directory) = File::open(&self.root) else {
            return false;
        };
        matches!(Flock::lock(directory, FlockArg::LockSharedNonblock), Err((_, nix::Error::EWOULDBLOCK)))
    }

    /// The agent that signed the maps last.
    #[must_use]
    pub fn owner(&self) -> Option<PinOwner> {
        let data = MapData::from_pin(self.map("AGENT")).ok()?;
        let map: aya::maps::Array<_, AgentInfo> = aya::maps::Map::Array(data).try_into().ok()?;
        let info = map.get(&0, 0).ok().filter(|info| info.pid != 0)?;
        Some(PinOwner {
            pid: info.pid,
            node: tables::text(&info.node),
            version: tables::text(&info.version),
            started: info.started,
        })
    }

    /// The interfaces whose links are pinned.
    #[must_use]
    pub fn linked_interfaces(&self) -> Vec<String> {
        let mut names = names(&self.root.join("links"));
        names.sort();
        names
    }

    pub(super) fn link(&self, interface: &str) -> PathBuf {
        // bpffs allows no dots in names; no interface name has a slash.
        self.root.join("links").join(interface.replace('.', "%2e"))
    }

    /// The interfaces on whose egress segment sizes are bounded.
    pub(super) fn clamped_interfaces(&self) -> Vec<String> {
        names(&self.root.join("clamps")).into_iter().map(|name| name.replace("%2e", ".")).collect()
    }

    pub(super) fn clamp(&self, interface: &str) -> PathBuf {
        self.root.join("clamps").join(interface.replace('.', "%2e"))
    }

    pub(super) fn create_clamps(&self) -> Result<(), DataplaneError> {
        let path = self.root.join("clamps");
        fs::create_dir_all(&path).map_err(|source| DataplaneError::io("creating", &path, source))
    }

    /// Whether programs that translate connections are kept on a cgroup.
    #[must_use]
    pub fn translates(&self) -> bool {
        names(&self.cgroup()).len() >= 2
    }

    /// Where the links of the programs for connections are.
    pub(super) fn cgroup(&self) -> PathBuf {
        self.root.join("cgroup")
    }

    pub(super) fn lookup_program(&self) -> PathBuf {
        self.root.join("lookup")
    }

    /// The set to work on: the one in force if its maps have the layout and the sizes wanted, else a fresh one beside it.
    pub(super) fn choose_set(&self, sizes: Sizes) -> Result<MapSet, DataplaneError> {
        let links = self.root.join("links");
        fs::create_dir_all(&links).map_err(|source| DataplaneError::io("creating", &links, source))?;
        remove_directory(&self.next())?;
        let in_force = MapSet { directory: self.maps() };
        let directory = if in_force.fits(sizes) || self.layouts().is_empty() { self.maps() } else { self.next() };
        fs::create_dir_all(&directory).map_err(|source| DataplaneError::io("creating", &directory, source))?;
        Ok(MapSet { directory })
    }

    /// The set that `set` is to take the place of, with its layout version; `None` if `set` is in force itself.
    pub(super) fn replaced_by(&self, set: &MapSet) -> Option<(u32, MapSet)> {
        if set.directory != self.next() {
            return None;
        }
        let layouts = self.layouts();
        // Sets of other layouts beside one of this layout are what a `commit` that was interrupted has left.
        let version = layouts.iter().find(|version| **version == LAYOUT_VERSION).or(layouts.last()).copied()?;
        Some((version, MapSet { directory: self.root.join(format!("maps-v{version}")) }))
    }

    /// Layout versions of the sets that are or were in force, in ascending order.
    fn layouts(&self) -> BTreeSet<u32> {
        names(&self.root).iter().filter_map(|name| name.strip_prefix("maps-v")?.parse().ok()).collect()
    }

    /// Puts the set that was filled beside the one in force in its place, and removes sets of other layouts.
    pub(super) fn commit(&self) -> Result<(), DataplaneError> {
        let (maps, next) = (self.maps(), self.next());
        if next.exists() {
            remove_directory(&maps)?;
            fs::rename(&next, &maps).map_err(|source| DataplaneError::io("renaming to", &maps, source))?;
        }
        for other in names(&self.root).iter().filter(|name| name.starts_with("maps-")) {
            let path = self.root.join(other);
            if path != maps {
                remove_directory(&path)?;
            }
        }
        Ok(())
    }

    fn maps(&self) -> PathBuf {
        self.root.join(format!("maps-v{LAYOUT_VERSION}"))
    }

    fn next(&self) -> PathBuf {
        self.root.join(format!("maps-v{LAYOUT_VERSION}-next"))
    }

    fn check_bpffs(&self) -> Result<(), DataplaneError> {
        let existing = self.root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        match statfs(existing) {
            Ok(info) if info.filesystem_type() == BPF_FS_MAGIC => Ok(()),
            Ok(_) => {
                let mount = self.root.parent().unwrap_or(&self.root).to_owned();
                Err(DataplaneError::NoBpffs { path: self.root.clone(), mount })
            }
            Err(error) => Err(DataplaneError::io("examining", existing, error.into())),
        }
    }
}

impl MapSet {
    /// Path of a map of the set.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Entries that a map is to have; `None` if the object fixes them.
    pub fn entries(&self, name: &str, sizes: Sizes) -> Option<u32> {
        match name {
            "SERVICES" | "PUBLISHED" | "TRACKING" | "SERVICE_COUNTERS" | "SERVICE_INFO" | "REWRITES"
            | "TRANSLATIONS" => Some(sizes.services),
            "BACKENDS" | "BACKEND_COUNTERS" | "BACKEND_INFO" => Some(sizes.backends),
            "RINGS" => Some(sizes.ring_slots),
            "NEW_FLOWS" | "OLD_FLOWS" => Some(sizes.flows),
            "ADDRESSES" => Some(sizes.addresses),
            "PEERS" | "PEER_MACS" => Some(sizes.peers),
            "DEVICES" => Some(DEVICES),
            "FRAGMENTS" => Some(sizes.fragments),
            "SOURCE_RANGES" => Some(sizes.source_ranges),
            _ => None,
        }
    }

    /// Whether every map is there with the sizes wanted: one that is not would be read amiss.
    fn fits(&self, sizes: Sizes) -> bool {
        maps::ALL.iter().all(|fact| {
            let info = MapData::from_pin(self.path(fact.name)).and_then(|data| data.info());
            info.is_ok_and(|info| self.entries(fact.name, sizes).is_none_or(|entries| info.max_entries() == entries))
        })
    }
}

/// `lbctl` takes the lock for an instant to see whether an agent has it ([`PinDirectory::is_locked`]); an agent does not
/// take that for another agent.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Interfaces that packets can leave by.
const DEVICES: u32 = 256;

impl PinLock {
    /// The directory that is locked.
    #[must_use]
    pub fn directory(&self) -> &PinDirectory {
        &self.directory
    }

    /// Removes every pin, links first; returns the interfaces that had one.
    pub(super) fn remove_all(self) -> Result<Vec<String>, DataplaneError> {
        let root = self.directory.root.clone();
        let interfaces = self.directory.linked_interfaces();
        remove_directory(&root.join("links"))?;
        remove_directory(&root.join("clamps"))?;
        remove_directory(&root.join("cgroup"))?;
        remove_directory(&root)?;
        Ok(interfaces.into_iter().map(|name| name.replace("%2e", ".")).collect())
    }
}

/// An agent that was refused before it pinned anything leaves no empty directory. One that is not empty stays.
impl Drop for PinLock {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.directory.root);
    }
}

impl std::fmt::Display for PinOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} of node {}, version {}", self.pid, self.node, self.version)
    }
}

/// Names in a directory; none if it is not there.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn remove_directory(path: &Path) -> Result<(), DataplaneError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(DataplaneError::io("removing", path, source)),
        _ => Ok(()),
    }
}
