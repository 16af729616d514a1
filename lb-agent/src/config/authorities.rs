//! Files with the certificates of authorities (`caFile`): read with the configuration, so that a file that is missing or
//! bad is refused like any other mistake, and a changed one is a changed configuration.

use std::{
    collections::BTreeMap,
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read},
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject},
    },
};
use thiserror::Error;

/// A file longer than this is no list of authorities.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A file whose content became part of a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Of what was read.
    hash: u64,
}

impl NamedFile {
    /// Whether the file still holds what was read. Reads it again.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        bytes(&self.path).is_ok_and(|bytes| hash(&bytes) == self.hash)
    }
}

/// The files that were named so far, each read once.
pub(super) struct CaFiles {
    base_dir: PathBuf,
    read: BTreeMap<PathBuf, Result<Authorities, String>>,
    /// Files with credentials, by a hash of what they hold.
    credentials: BTreeMap<PathBuf, u64>,
}

/// What a file holds.
struct Authorities {
    /// Certificates in DER.
    certificates: Vec<Vec<u8>>,
    hash: u64,
}

impl CaFiles {
    /// None yet; relative paths start from `base_dir`.
    pub(super) fn new(base_dir: &Path) -> Self {
        Self { base_dir: base_dir.to_owned(), read: BTreeMap::new(), credentials: BTreeMap::new() }
    }

    /// The certificates in a file, in DER; or what is wrong with it.
    pub(super) fn certificates(&mut self, path: &str) -> Result<Vec<Vec<u8>>, String> {
        let path = self.base_dir.join(path);
        let read = self.read.entry(path).or_insert_with_key(|path| read(path).map_err(|error| error.to_string()));
        read.as_ref().map(|read| read.certificates.clone()).map_err(Clone::clone)
    }

    /// What a file with credentials holds; or why it can't be read, as the value of `key`.
    pub(super) fn bytes(&mut self, key: &str, path: &str) -> Result<Vec<u8>, String> {
        let path = self.base_dir.join(path);
        let shown = path.display();
        let read = bytes(&path)
            .map_err(|error| format!("`{key}` {shown} can't be read: {error}; check the path and its mode"))?;
        if read.len() as u64 > MAX_FILE_BYTES {
            return Err(format!(
                "`{key}` {shown} has more than {MAX_FILE_BYTES} bytes; name a file with nothing else in it"
            ));
        }
        self.credentials.insert(path, hash(&read));
        Ok(read)
    }

    /// The files that were read.
    pub(super) fn into_files(self) -> Vec<NamedFile> {
        let good = self.read.into_iter().filter_map(|(path, read)| Some((path, read.ok()?)));
        let good = good.map(|(path, read)| (path, read.hash)).chain(self.credentials);
        good.map(|(path, hash)| NamedFile { path, hash }).collect()
    }
}

/// Why a file was refused.
#[derive(Debug, Error)]
enum CaError {
    #[error("`caFile` {} can't be read: {source}; check the path and its mode", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("`caFile` {} has more than {MAX_FILE_BYTES} bytes; keep only the authorities that sign the servers' certificates", path.display())]
    TooLarge { path: PathBuf },
    #[error("`caFile` {} is not PEM: {cause}; write the authority's certificate between BEGIN and END CERTIFICATE", path.display())]
    NotPem { path: PathBuf, cause: String },
    #[error("`caFile` {} has no certificate; write the authority's certificate between BEGIN and END CERTIFICATE", path.display())]
    Empty { path: PathBuf },
    #[error("certificate {number} in `caFile` {} is no X.509 certificate of an authority ({cause}); export it again", path.display())]
    Bad { path: PathBuf, number: usize, cause: String },
}

fn read(path: &Path) -> Result<Authorities, CaError> {
    let bytes = bytes(path).map_err(|source| CaError::Unreadable { path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(CaError::TooLarge { path: path.to_owned() });
    }
    let not_pem = |cause: pem::Error| CaError::NotPem { path: path.to_owned(), cause: cause.to_string() };
    let certificates: Vec<CertificateDer<'_>> =
        CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(not_pem)?;
    if certificates.is_empty() {
        return Err(CaError::Empty { path: path.to_owned() });
    }
    let mut roots = RootCertStore::empty();
    for (number, certificate) in (1..).zip(&certificates) {
        let bad = |error| {
            let cause = match error {
                rustls::Error::InvalidCertificate(cause) => cause.to_string(),
                other => other.to_string(),
            };
            CaError::Bad { path: path.to_owned(), number, cause }
        };
        roots.add(certificate.clone()).map_err(bad)?;
    }
    let certificates = certificates.iter().map(|certificate| certificate.to_vec()).collect();
    Ok(Authorities { certificates, hash: hash(&bytes) })
}

/// The content of a file, and one byte more than the limit of a longer one.
fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
