//! What this process may do, as the kernel tells it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::run;

/// Bits of `/proc/self/status` (include/uapi/linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// Whether this process runs as root.
pub fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| effective_uid(&status) == Some(0))
}

/// Fails unless programs can be loaded and namespaces be made; `verb` is what the user asked for.
pub fn require_kernel_access(verb: &str) -> Result<()> {
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status; is /proc mounted?")?;
    if effective_uid(&status) != Some(0) {
        bail!(
            "`cargo xtask {verb}` loads BPF programs and makes network namespaces, so it needs root. \
             Run it as root, for example `sudo -E env PATH=\"$PATH\" cargo xtask {verb}`"
        );
    }
    let effective = effective_capabilities(&status).context("no CapEff line in /proc/self/status")?;
    for (bit, name) in [(CAP_NET_ADMIN, "CAP_NET_ADMIN"), (CAP_SYS_ADMIN, "CAP_SYS_ADMIN")] {
        if effective & (1 << bit) == 0 {
            bail!(
                "root lacks {name} here (CapEff {effective:#x}), so `cargo xtask {verb}` can't load BPF programs or make \
                 network namespaces; in a container, start it with `--privileged`"
            );
        }
    }
    if !Path::new("/sys/fs/bpf").exists() {
        bail!(
            "/sys/fs/bpf is missing: this kernel has no BPF, or /sys is not mounted; `cargo xtask {verb}` needs both"
        );
    }
    mount_bpffs()
}

/// Mounts the BPF filesystem where it belongs, unless it is there: an init system usually does, a container does not.
fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts; is /proc mounted?")?;
    if has_bpffs(&mounts) {
        return Ok(());
    }
    run("mounting the BPF filesystem on /sys/fs/bpf", Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))
}

fn has_bpffs(mounts: &str) -> bool {
    mounts.lines().any(|line| line.split(' ').skip(1).take(2).eq(["/sys/fs/bpf", "bpf"]))
}

/// The second number of the `Uid:` line (real, effective, saved, file system).
fn effective_uid(status: &str) -> Option<u32> {
    field(status, "Uid:")?.split_whitespace().nth(1)?.parse().ok()
}

/// The effective capabilities as a bit set.
fn effective_capabilities(status: &str) -> Option<u64> {
    u64::from_str_radix(field(status, "CapEff:")?, 16).ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\txtask\nUid:\t1000\t0\t0\t0\nGid:\t5\t5\t5\t5\nCapEff:\t000001fffeffffff\n";

    #[test]
    fn the_effective_user_decides() {
        assert_eq!(effective_uid(STATUS), Some(0));
        assert_eq!(effective_uid("Name:\txtask\n"), None);
    }

    #[test]
    fn only_bpffs_at_its_place_counts() {
        assert!(has_bpffs("proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw,relatime 0 0\n"));
        assert!(!has_bpffs("none /sys/fs/bpf tmpfs rw 0 0\nbpf /run/bpf bpf rw 0 0\n"));
    }

    #[test]
    fn capabilities_are_a_bit_set() {
        let effective = effective_capabilities(STATUS).unwrap();
        assert_ne!(effective & (1 << CAP_NET_ADMIN), 0);
        assert_eq!(effective & (1 << 24), 0); // CAP_SYS_RESOURCE, masked out above
    }
}
