//! The container image: nothing but two static programs, as an OCI image layout (image-spec 1.1).
//!
//! No daemon, no base image: a layer is a tar archive, the rest is JSON that names it by its hash. The same programs make
//! the same image, byte for byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::build::{build_ebpf, embedding_cargo};
use crate::process::{ask, run, say};
use crate::tar::{Entry, archive};
use crate::workspace::{Profile, Workspace};

/// What is in the image.
const PROGRAMS: [&str; 2] = ["lb-agent", "lbctl"];
/// What it is built for.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Its name in an image's configuration (GOARCH).
const ARCHITECTURE: &str = "amd64";

/// Builds the image; returns the folder of its layout.
///
/// # Errors
/// If the programs do not build, or cannot be written.
pub fn image(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    let programs = static_programs(workspace, profile)?;
    let seconds = source_time(workspace);
    let layer = archive(&contents(workspace, &programs)?, seconds)?;
    let folder = workspace.target().join("image");
    let layout = folder.join("oci");
    if layout.exists() {
        fs::remove_dir_all(&layout).with_context(|| format!("removing the image before, {}", layout.display()))?;
    }
    let digest = write(&layout, &layer, seconds, env!("CARGO_PKG_VERSION"))?;
    let archive_path = folder.join(format!("levee-image-{}-{ARCHITECTURE}.tar", env!("CARGO_PKG_VERSION")));
    fs::write(&archive_path, archive(&entries_of(&layout)?, seconds)?)
        .with_context(|| format!("writing {}", archive_path.display()))?;
    say(format!("image: {} ({digest})", layout.display()));
    say(format!("to load it: ctr -n k8s.io images import {}", archive_path.display()));
    Ok(layout)
}

/// `lb-agent` and `lbctl` without any library to load; returns the folder they are in.
///
/// Only the last step is told to link statically, so that everything compiled for the ordinary programs serves here too.
///
/// # Errors
/// If they do not build, or are not static.
pub fn static_programs(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    build_ebpf(workspace)?;
    let folder = workspace.target().join("image/programs");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    for program in PROGRAMS {
        let mut command = embedding_cargo(workspace);
        command.args(["rustc", "-p", "lb-agent", "--bin", program]).args(profile.args());
        command.args(["--", "-C", "target-feature=+crt-static"]);
        run(&format!("building a static {program}"), &mut command)?;
        let path = folder.join(program);
        fs::copy(workspace.binaries(profile).join(program), &path).with_context(|| format!("copying {program}"))?;
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        if has_interpreter(&bytes) {
            bail!("{} asks for a dynamic linker, which the image does not have", path.display());
        }
    }
    Ok(folder)
}

/// Whether an ELF file (64 bits, little-endian) has a PT_INTERP segment, so that it needs a dynamic linker.
fn has_interpreter(elf: &[u8]) -> bool {
    let word = |at: usize, size: usize| -> Option<usize> {
        let bytes = elf.get(at..at + size)?;
        bytes.iter().rev().try_fold(0_usize, |sum, &byte| sum.checked_mul(256)?.checked_add(byte.into()))
    };
    let (Some(start), Some(size), Some(count)) = (word(32, 8), word(54, 2), word(56, 2)) else {
        return false;
    };
    (0..count).any(|index| word(start + index * size, 4) == Some(3)) // PT_INTERP
}

/// When the sources were last changed, seconds since 1970: `SOURCE_DATE_EPOCH`, else the last commit, else 0.
pub fn source_time(workspace: &Workspace) -> u64 {
    let told = std::env::var("SOURCE_DATE_EPOCH").ok();
    let committed = || ask(Command::new("git").current_dir(workspace.root()).args(["log", "-1", "--format=%ct"]));
    told.or_else(committed).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn contents(workspace: &Workspace, programs: &Path) -> Result<Vec<Entry>> {
    let mut entries = vec![
        stripped("lb-agent", programs)?,
        stripped("lbctl", programs)?,
        Entry::copy("LICENSE", 0o644, &workspace.root().join("LICENSE"))?,
    ];
    // Where the manifests mount something: the root is read-only, so that these have to be there.
    for folder in ["etc", "etc/levee", "run", "run/levee", "var", "var/lib", "var/lib/levee", "proc", "sys", "dev"] {
        entries.push(Entry::Folder { path: folder.to_owned(), mode: 0o755 });
    }
    Ok(entries)
}

/// A program without its debug information, which is most of it; symbols stay for backtraces.
pub fn stripped(name: &str, folder: &Path) -> Result<Entry> {
    let target = folder.join(format!("{name}.stripped"));
    let mut command = Command::new("objcopy");
    command.arg("--strip-debug").arg(folder.join(name)).arg(&target);
    run(&format!("removing the debug information of {name}"), &mut command)?;
    Entry::copy(name, 0o755, &target)
}

/// Writes the layout; returns the digest of the image.
fn write(layout: &Path, layer: &[u8], seconds: u64, version: &str) -> Result<String> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("creating {}", blobs.display()))?;
    let layer = blob(&blobs, "application/vnd.oci.image.layer.v1.tar", layer)?;
    let configuration = json!({
        "architecture": ARCHITECTURE,
        "os": "linux",
        "created": date(seconds),
        "config": {
            "Entrypoint": ["/lb-agent"],
            "Cmd": ["run", "--config", "/etc/levee/levee.yaml"],
            "Env": ["PATH=/"],
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
            "Labels": {
                "org.opencontainers.image.title": "levee",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        "history": [{"created": date(seconds), "created_by": "cargo xtask image"}],
    });
    let configuration = blob(&blobs, "application/vnd.oci.image.config.v1+json", &text(&configuration))?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": configuration,
        "layers": [layer],
    });
    let mut manifest = blob(&blobs, "application/vnd.oci.image.manifest.v1+json", &text(&manifest))?;
    manifest["platform"] = json!({"architecture": ARCHITECTURE, "os": "linux"});
    // `ref.name` is what `ctr images import` calls the image.
    manifest["annotations"] = json!({
        "org.opencontainers.image.ref.name": version,
        "io.containerd.image.name": format!("registry.example/levee:{version}"),
    });
    let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    put(&layout.join("index.json"), &text(&index))?;
    put(&layout.join("oci-layout"), &text(&json!({"imageLayoutVersion": "1.0.0"})))?;
    Ok(digest)
}

/// Writes a blob under its hash; returns its descriptor.
fn blob(blobs: &Path, media_type: &str, bytes: &[u8]) -> Result<Value> {
    let draft = blobs.join("draft");
    put(&draft, bytes)?;
    let hash = sha256(&draft)?;
    fs::rename(&draft, blobs.join(&hash)).with_context(|| format!("naming the blob {hash}"))?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{hash}"), "size": bytes.len()}))
}

/// The SHA-256 of a file, in hexadecimal digits, as `sha256sum` tells it.
///
/// # Errors
/// If sha256sum cannot be run, or cannot read the file.
pub fn sha256(path: &Path) -> Result<String> {
    let told = ask(Command::new("sha256sum").arg("--binary").arg(path));
    let hash = told.and_then(|line| Some(line.split_once(' ')?.0.to_owned())).filter(|hash| hash.len() == 64);
    hash.with_context(|| format!("sha256sum does not tell the hash of {}", path.display()))
}

fn entries_of(layout: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for name in ["oci-layout", "index.json"] {
        entries.push(Entry::copy(name, 0o644, &layout.join(name))?);
    }
    for folder in ["blobs", "blobs/sha256"] {
        entries.push(Entry::Folder { path: folder.to_owned(), mode: 0o755 });
    }
    let blobs = layout.join("blobs/sha256");
    for blob in fs::read_dir(&blobs).with_context(|| format!("listing {}", blobs.display()))? {
        let path = blob.with_context(|| format!("listing {}", blobs.display()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a blob's name is no hash")?;
        entries.push(Entry::copy(&format!("blobs/sha256/{name}"), 0o644, &path)?);
    }
    Ok(entries)
}

fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// A time in the form of RFC 3339, UTC. Days to a date after the proleptic Gregorian calendar, years from 1970 on.
pub fn date(seconds: u64) -> String {
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{:02}Z", days + 1, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // As `date --utc --date=@SECONDS` has them.
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(date(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(date(1_735_689_599), "2024-12-31T23:59:59Z");
    }

    #[test]
    fn a_program_with_a_dynamic_linker_is_told_apart() {
        assert!(has_interpreter(&fs::read("/bin/sh").unwrap()));
        let mut elf = vec![0_u8; 64 + 56];
        elf[32] = 64; // e_phoff
        elf[54] = 56; // e_phentsize
        elf[56] = 1; // e_phnum
        elf[64] = 1; // PT_LOAD
        assert!(!has_interpreter(&elf));
        elf[64] = 3; // PT_INTERP
        assert!(has_interpreter(&elf));
    }

    #[test]
    fn every_blob_has_the_name_of_its_hash_and_the_manifest_leads_to_the_layer() {
        let folder = std::env::temp_dir().join(format!("levee-image-test-{}", std::process::id()));
        let digest = write(&folder, b"layer", 0, "1.2.3").unwrap();
        let manifest = fs::read(folder.join("blobs").join(digest.replace(':', "/"))).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap().replace(':', "/");
        assert_eq!(fs::read(folder.join("blobs").join(layer)).unwrap(), b"layer");
        for blob in fs::read_dir(folder.join("blobs/sha256")).unwrap() {
            let path = blob.unwrap().path();
            assert_eq!(sha256(&path).unwrap(), path.file_name().unwrap().to_str().unwrap());
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
