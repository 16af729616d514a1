//! Hands the BPF object to the agent, if there is one.
//!
//! `LEVEE_BPF_OBJECT` names the object that `cargo xtask build-ebpf` made. When it is set, the file is copied to
//! `$OUT_DIR/lb-ebpf.o` and the cfg `bpf_object` says that it is there to embed. When it is not set, the crate still
//! builds: plain `cargo build` and `cargo test` need no BPF toolchain.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Path of the compiled BPF object; absolute, since a build script runs in its package's folder.
const OBJECT_VARIABLE: &str = "LEVEE_BPF_OBJECT";
/// How an ELF file begins, which is the format of a BPF object.
const ELF_MAGIC: &[u8] = b"\x7fELF";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rustc-check-cfg=cfg(bpf_object)");
    println!("cargo:rerun-if-env-changed={OBJECT_VARIABLE}");
    println!("cargo:rerun-if-changed=build.rs");
    let Some(object) = env::var_os(OBJECT_VARIABLE).filter(|value| !value.is_empty()) else {
        return Ok(());
    };
    let object = PathBuf::from(object);
    println!("cargo:rerun-if-changed={}", object.display());
    embed(&object)?;
    println!("cargo:rustc-cfg=bpf_object");
    Ok(())
}

/// Copies the object to where `include_bytes_aligned!` finds it.
fn embed(object: &Path) -> Result<(), Box<dyn Error>> {
    let bytes = fs::read(object).map_err(|error| {
        format!("reading {OBJECT_VARIABLE}={}: {error}; make it with `cargo xtask build-ebpf`", object.display())
    })?;
    if !bytes.starts_with(ELF_MAGIC) {
        return Err(format!(
            "{OBJECT_VARIABLE}={} is no ELF object; use what `cargo xtask build-ebpf` made",
            object.display()
        )
        .into());
    }
    let out_dir =
        env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: this file is a build script and cargo has to run it")?;
    fs::write(Path::new(&out_dir).join("lb-ebpf.o"), bytes)?;
    Ok(())
}
