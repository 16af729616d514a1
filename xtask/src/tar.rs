//! Archives whose bytes depend on their content only: fixed order, owner and time.

use std::fs;
use std::io::{self, Write};

use anyhow::{Context, Result, bail};

/// Size of a block of a tar archive, bytes (POSIX.1-1988 ustar).
const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// A folder; its path ends in no slash.
    Folder {
        /// Path in the archive, without a leading slash.
        path: String,
        /// Permissions.
        mode: u32,
    },
    /// A regular file.
    File {
        /// Path in the archive, without a leading slash.
        path: String,
        /// Permissions.
        mode: u32,
        /// Its content.
        bytes: Vec<u8>,
    },
}

impl Entry {
    /// A file with the content of another.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn copy(path: &str, mode: u32, from: &std::path::Path) -> Result<Self> {
        let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        Ok(Self::File { path: path.to_owned(), mode, bytes })
    }

    /// Its path in the archive.
    pub fn path(&self) -> &str {
        match self {
            Self::Folder { path, .. } | Self::File { path, .. } => path,
        }
    }
}

/// The archive of `entries`, sorted by path; every time is `seconds` since 1970, every owner root.
///
/// # Errors
/// If a path is longer than the 100 bytes that a header has for it.
pub fn archive(entries: &[Entry], seconds: u64) -> Result<Vec<u8>> {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by(|a, b| a.path().cmp(b.path()));
    let mut out = Vec::new();
    for entry in sorted {
        append(&mut out, entry, seconds)?;
    }
    out.resize(out.len() + 2 * BLOCK, 0); // the end: two empty blocks
    Ok(out)
}

fn append(out: &mut Vec<u8>, entry: &Entry, seconds: u64) -> Result<()> {
    let (path, mode, bytes, kind) = match entry {
        Entry::Folder { path, mode } => (format!("{path}/"), mode, &[][..], b'5'),
        Entry::File { path, mode, bytes } => (path.clone(), mode, &bytes[..], b'0'),
    };
    if path.len() > 100 {
        bail!("{path} has {} bytes; a path in the archive has at most 100", path.len());
    }
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, path.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{:011o}", bytes.len()).as_bytes());
    put(136, format!("{seconds:011o}").as_bytes());
    put(148, b"        "); // the checksum is computed over blanks in its place
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    put(265, b"root");
    put(297, b"root");
    let checksum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{checksum:06o}\0").as_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    Ok(())
}

/// Writes `bytes` through `gzip`, without name and time, to `path`.
///
/// # Errors
/// If gzip cannot be run or fails.
pub fn gzip(bytes: &[u8], path: &std::path::Path) -> Result<()> {
    let file = fs::File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut command = std::process::Command::new("gzip");
    command.args(["-9", "--no-name"]).stdin(std::process::Stdio::piped()).stdout(file);
    let mut child = command.spawn().context("starting gzip")?;
    let mut stdin = child.stdin.take().context("gzip has no standard input")?;
    let written = stdin.write_all(bytes);
    drop(stdin);
    let status = child.wait().context("waiting for gzip")?;
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("writing to gzip"),
        _ if !status.success() => bail!("gzip failed ({status}) on {}", path.display()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn file(path: &str, bytes: &[u8]) -> Entry {
        Entry::File { path: path.to_owned(), mode: 0o644, bytes: bytes.to_vec() }
    }

    #[test]
    fn the_order_of_the_entries_does_not_matter() {
        let folder = Entry::Folder { path: "d".to_owned(), mode: 0o755 };
        let one = archive(&[file("d/b", b"2"), folder.clone(), file("a", b"1")], 7).unwrap();
        let other = archive(&[file("a", b"1"), file("d/b", b"2"), folder], 7).unwrap();
        assert_eq!(one, other);
        assert_eq!(one.len() % BLOCK, 0);
    }

    #[test]
    fn tar_itself_reads_it() {
        let entries = [Entry::Folder { path: "d".to_owned(), mode: 0o700 }, file("d/x", &[b'x'; 513])];
        let bytes = archive(&entries, 86_400).unwrap();
        let mut command = Command::new("tar");
        command.args(["--utc", "-tv"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        let lines: Vec<Vec<_>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["drwx------", "root/root", "0", "1970-01-02", "00:00", "d/"]);
        assert_eq!(lines[1], ["-rw-r--r--", "root/root", "513", "1970-01-02", "00:00", "d/x"]);
    }

    #[test]
    fn a_path_that_does_not_fit_is_refused() {
        assert!(archive(&[file(&"x".repeat(101), b"")], 0).is_err());
    }
}
