//! The last complete inventory on disk, for a start without an API server.
//!
//! A line with format and version, then the inventory as JSON. Written beside the old file, synced and renamed, so that
//! there is always a whole one; its modification time says when it was last known to be true, changed or not.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    hash::{DefaultHasher, Hasher},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::{Interned, inventory::Inventory};

/// What the first line calls the file.
const FORMAT: &str = "levee-inventory";
/// Version of what follows; raised when an older release would misread it.
const VERSION: u32 = 1;
/// Longest first line.
const MAX_HEADER: usize = 256;

#[derive(Debug, Deserialize, Serialize)]
struct Header {
    format: String,
    version: u32,
}

/// A saved inventory.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) inventory: Arc<Inventory>,
    /// How long ago it was known to be true, by the wall clock; zero if that is in the future.
    pub(super) age: Duration,
    /// Of its bytes.
    pub(super) hash: u64,
}

/// Why a saved inventory is not used.
#[derive(Debug, Error)]
pub(super) enum SavedError {
    /// It can't be read.
    #[error("the saved inventory {} can't be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// It is something else.
    #[error("{} is no saved inventory; it is replaced once an API server answers", path.display())]
    Foreign { path: PathBuf },
    /// A newer release wrote it.
    #[error(
        "the saved inventory {} has version {version}, this release reads {VERSION}; it is replaced once an API server answers",
        path.display()
    )]
    Newer { path: PathBuf, version: u32 },
    /// It is damaged.
    #[error("the saved inventory {} is damaged; it is replaced once an API server answers", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
}

/// Reads the saved inventory; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Saved>, SavedError> {
    let unreadable = |source| SavedError::Unreadable { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let modified = file.metadata().and_then(|metadata| metadata.modified()).map_err(unreadable)?;
    let mut bytes = Vec::new();
    BufReader::new(file).read_to_end(&mut bytes).map_err(unreadable)?;
    let end = bytes.iter().take(MAX_HEADER).position(|byte| *byte == b'\n');
    let header = end.and_then(|end| serde_json::from_slice::<Header>(&bytes[..end]).ok());
    let (Some(end), Some(header)) = (end, header.filter(|header| header.format == FORMAT)) else {
        return Err(SavedError::Foreign { path: path.to_owned() });
    };
    if header.version != VERSION {
        return Err(SavedError::Newer { path: path.to_owned(), version: header.version });
    }
    let damaged = |source| SavedError::Damaged { path: path.to_owned(), source };
    let mut inventory: Inventory = serde_json::from_slice(&bytes[end + 1..]).map_err(damaged)?;
    let mut nodes = Interned::default();
    inventory.slices.values_mut().flatten().for_each(|slice| slice.share_nodes(&mut nodes));
    let age = SystemTime::now().duration_since(modified).unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    Ok(Some(Saved { inventory: inventory.into(), age, hash: hasher.finish() }))
}

/// What a write came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) hash: u64,
}

/// Writes an inventory, unless it is what `before` is the hash of: then only the time is.
pub(super) fn write(path: &Path, inventory: &Inventory, before: Option<u64>) -> io::Result<Written> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    remove(&new)?; // of a process that ended half-way
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let mut writer = Hashing { inner: BufWriter::new(file), hasher: DefaultHasher::new(), bytes: 0 };
    let header = Header { format: FORMAT.to_owned(), version: VERSION };
    serde_json::to_writer(&mut writer, &header)?;
    writer.write_all(b"\n")?;
    serde_json::to_writer(&mut writer, inventory)?;
    let written = Written { bytes: writer.bytes, hash: writer.hasher.finish() };
    let file = writer.inner.into_inner().map_err(io::IntoInnerError::into_error)?;
    if before == Some(written.hash) && touch(path).is_ok() {
        remove(&new)?;
        return Ok(written);
    }
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(folder)?.sync_all()?;
    Ok(written)
}

/// Notes that the saved inventory is true now.
pub(super) fn touch(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.set_modified(SystemTime::now())
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Counts and hashes what is written.
struct Hashing<W> {
    inner: W,
    hasher: DefaultHasher,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.write(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::model::inventory::{
        ClusterNode, ClusterService, Endpoint, EndpointPort, EndpointSlice, IpFamily, ObjectName, ServicePort,
        TrafficPolicy,
    };

    fn inventory() -> Inventory {
        let service = ClusterService {
            affinity: Some(Duration::from_secs(5)),
            external_policy: TrafficPolicy::Local,
            families: vec![IpFamily::Ipv6],
            ports: vec![ServicePort { name: "http".to_owned(), protocol: "TCP".to_owned(), port: 80 }],
            cluster_ips: vec!["fd96::7".parse().unwrap()],
            ..ClusterService::default()
        };
        let slice = EndpointSlice {
            name: "web-1".to_owned(),
            ports: vec![EndpointPort::default()],
            endpoints: vec![Endpoint { addresses: vec![[10, 1, 0, 5].into()], ready: true, ..Endpoint::default() }],
        };
        let node = ClusterNode { pod_cidrs: vec!["10.1.0.0/24".parse().unwrap()], ..ClusterNode::default() };
        let name = ObjectName::new("shop", "web");
        Inventory {
            nodes: [("n1".to_owned(), node)].into(),
            services: [(name.clone(), service.into())].into(),
            slices: [(name, vec![slice.into()])].into(),
            ..Inventory::default()
        }
    }

    #[test]
    fn an_inventory_comes_back_as_it_was_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/inventory.json");
        assert!(read(&path).unwrap().is_none());
        let written = write(&path, &inventory(), None).unwrap();
        let saved = read(&path).unwrap().unwrap();
        assert_eq!(*saved.inventory, inventory());
        assert_eq!(saved.hash, written.hash);
        assert_eq!(fs::metadata(&path).unwrap().len(), written.bytes);
        assert!(saved.age < Duration::from_secs(60), "{:?}", saved.age);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let names: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["inventory.json"], "nothing is left beside it");
    }

    #[test]
    fn the_age_counts_from_when_it_was_last_known_to_be_true() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inventory.json");
        let hour = Duration::from_secs(3600);
        let age = |path: &Path| {
            OpenOptions::new().write(true).open(path).unwrap().set_modified(SystemTime::now() - hour).unwrap();
        };
        let written = write(&path, &inventory(), None).unwrap();
        age(&path);
        assert!(read(&path).unwrap().unwrap().age >= hour);
        assert_eq!(write(&path, &inventory(), Some(written.hash)).unwrap(), written);
        assert!(read(&path).unwrap().unwrap().age < hour);
        age(&path);
        touch(&path).unwrap();
        assert!(read(&path).unwrap().unwrap().age < hour);
    }

    #[test]
    fn a_file_that_was_lost_is_written_again_though_nothing_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inventory.json");
        let written = write(&path, &inventory(), None).unwrap();
        fs::remove_file(&path).unwrap();
        write(&path, &inventory(), Some(written.hash)).unwrap();
        assert_eq!(*read(&path).unwrap().unwrap().inventory, inventory());
    }

    #[test]
    fn what_is_foreign_newer_or_damaged_is_refused_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inventory.json");
        let cases = [
            ("", "is no saved inventory"),
            ("{}\n{}", "is no saved inventory"),
            ("{\"format\":\"levee-inventory\",\"version\":2}\n{}", "has version 2, this release reads 1"),
            ("{\"format\":\"levee-inventory\",\"version\":1}\n{\"nodes\"", "is damaged"),
        ];
        for (text, part) in cases {
            fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn what_a_process_left_half_written_does_not_hinder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inventory.json");
        fs::write(folder.path().join("inventory.json.new"), "{").unwrap();
        write(&path, &inventory(), None).unwrap();
        assert!(read(&path).unwrap().is_some());
    }
}
