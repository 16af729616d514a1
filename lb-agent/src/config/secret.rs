//! The cluster's secret: key of the flow hash, so that nobody outside can aim at one backend.
//!
//! Invariant: the value never reaches a log, an error or `Debug`; people compare fingerprints.

use std::{
    fmt,
    fs::File,
    hash::Hasher,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use siphasher::sip::SipHasher24;
use thiserror::Error;

/// A secret is 16 bytes, written as this many hexadecimal digits.
const DIGITS: usize = 32;
/// A secret file longer than this is no secret file.
const MAX_FILE_BYTES: u64 = 4096;
/// Permission bits that a secret file must not have: writing by the group, anything by others.
const TOO_OPEN: u32 = 0o027;
/// Prints a new one.
const HOW_TO_CREATE: &str = "od -An -N16 -tx1 /dev/urandom | tr -d ' \\n'";

/// Key of the flow hash, 128 bits.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Secret([u8; 16]);

impl Secret {
    /// The secret of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The key's bytes, for the data plane's settings only.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 16] {
        self.0
    }

    /// Eight hexadecimal digits by which people and agents compare secrets without showing them: SipHash-2-4 of a
    /// fixed text under the secret as key, its lower 32 bits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(b"levee secret fingerprint");
        format!("{:08x}", hasher.finish() & 0xffff_ffff)
    }

    /// Reads 32 hexadecimal digits.
    pub(super) fn from_hex(text: &str) -> Result<Self, SecretError> {
        let digits = text.chars().count();
        if digits != DIGITS {
            return Err(SecretError::BadLength { digits });
        }
        let mut bytes = [0; 16];
        for (index, digit) in text.chars().enumerate() {
            let value = digit.to_digit(16).and_then(|value| u8::try_from(value).ok());
            let value = value.ok_or(SecretError::BadDigit { position: index + 1 })?;
            bytes[index / 2] = bytes[index / 2] << 4 | value;
        }
        if bytes == [0; 16] {
            return Err(SecretError::Zero);
        }
        Ok(Self(bytes))
    }

    /// Reads a file that holds 32 hexadecimal digits and that not everybody may read.
    pub(super) fn from_file(path: &Path) -> Result<Self, SecretError> {
        let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
        let metadata = path.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(SecretError::NotAFile { path: path.to_owned() });
        }
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & TOO_OPEN != 0 {
            return Err(SecretError::TooOpen { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(unreadable)?;
        Self::from_hex(text.trim())
            .map_err(|cause| SecretError::InFile { path: path.to_owned(), cause: cause.to_string() })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret(fingerprint {})", self.fingerprint())
    }
}

/// Why a secret was refused. No variant carries any of it.
#[derive(Debug, Error)]
pub(super) enum SecretError {
    #[error(
        "the secret has {digits} characters; write {DIGITS} hexadecimal digits, for instance from `{HOW_TO_CREATE}`"
    )]
    BadLength { digits: usize },
    #[error(
        "character {position} of the secret is no hexadecimal digit; write {DIGITS} of them, for instance from `{HOW_TO_CREATE}`"
    )]
    BadDigit { position: usize },
    #[error(
        "the secret is all zeros, which anybody can guess; write {DIGITS} random hexadecimal digits, for instance from `{HOW_TO_CREATE}`"
    )]
    Zero,
    #[error("secret file {}: {cause}", path.display())]
    InFile { path: PathBuf, cause: String },
    #[error("secret file {} is not a regular file; name a file with {DIGITS} hexadecimal digits", path.display())]
    NotAFile { path: PathBuf },
    #[error(
        "secret file {} has mode {mode:04o}, so others than its owner can read or change it; run `chmod 0600 {}` (0640 at most)",
        path.display(), path.display()
    )]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("secret file {} can't be read: {source}; create it once with `(umask 077; {HOW_TO_CREATE} > FILE)` and copy it to every node", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f";

    #[test]
    fn debug_shows_a_fingerprint_only() {
        let secret = Secret::from_hex(HEX).unwrap();
        let shown = format!("{secret:?}");
        assert_eq!(shown, format!("Secret(fingerprint {})", secret.fingerprint()));
        assert!(!shown.contains("0001") && secret.fingerprint().len() == 8, "{shown}");
    }

    #[test]
    fn one_changed_bit_changes_the_fingerprint() {
        let mut bytes = [7; 16];
        let before = Secret::new(bytes).fingerprint();
        bytes[15] ^= 1;
        assert_ne!(Secret::new(bytes).fingerprint(), before);
    }

    #[test]
    fn errors_say_what_is_wrong_and_show_nothing() {
        for (text, part) in [
            ("abcd", "has 4 characters"),
            ("zz0102030405060708090a0b0c0d0e0f", "character 1 of"),
            ("00000000000000000000000000000000", "all zeros"),
            ("\u{e9}00102030405060708090a0b0c0d0e0f", "character 1 of"),
        ] {
            let error = Secret::from_hex(text).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, format!("{HEX}\n")).unwrap();
        for (mode, accepted) in [(0o644, false), (0o660, false), (0o640, true), (0o600, true), (0o400, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = Secret::from_file(&path);
            assert_eq!(read.is_ok(), accepted, "mode {mode:o}: {read:?}");
        }
    }

    #[test]
    fn an_absent_file_says_how_to_create_one() {
        let error = Secret::from_file(Path::new("/nonexistent/secret")).unwrap_err().to_string();
        assert!(error.starts_with("secret file /nonexistent/secret can't be read: "), "{error}");
        assert!(error.contains("/dev/urandom"), "{error}");
    }
}
