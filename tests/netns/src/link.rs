//! Veth pairs that behave like wires: no offloads, and fit for XDP on either end.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use crate::{
    netns::{Netns, run},
    pass::{Action, SECTION, object},
    scope::Scope,
};

/// One end of a link.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Namespace it lies in.
    pub netns: &'a Netns,
    /// Interface name, at most 15 characters.
    pub device: &'a str,
}

/// Connects two ends with a veth pair of the given MTU in bytes and brings both up.
///
/// Offloads are switched off on both: a veth sends partial checksums and oversized segments by default, and what XDP
/// then forwards arrives with wrong checksums or not at all.
///
/// # Errors
/// If iproute2 or ethtool refuses, or is not installed.
pub fn connect(left: End<'_>, right: End<'_>, mtu: u16) -> Result<()> {
    let (peer, netns) = (right.device, right.netns.name());
    left.netns.ip(&format!("link add {} mtu {mtu} type veth peer name {peer} mtu {mtu} netns {netns}", left.device))?;
    for End { netns, device } in [left, right] {
        let mut ethtool = vec!["-K", device];
        for feature in ["rx", "tx", "sg", "tso", "gso", "gro"] {
            ethtool.extend([feature, "off"]);
        }
        netns.run("ethtool", &ethtool)?;
        netns.ip(&format!("link set {device} up"))?;
    }
    Ok(())
}

/// Attaches an XDP program that passes every packet to `end`.
///
/// Needed on the end opposite to one whose XDP program sends (`XDP_TX`, redirect).
///
/// # Errors
/// If the kernel refuses the program.
pub fn attach_pass(scope: &Scope, end: End<'_>) -> Result<()> {
    attach(scope, end, Action::Pass)
}

/// Attaches an XDP program of one action to `end`, in native mode. It stays until the interface goes.
///
/// # Errors
/// If the kernel refuses the program.
pub fn attach(scope: &Scope, end: End<'_>, action: Action) -> Result<()> {
    let file = scope.file(&format!("{action:?}.o"));
    fs::write(&file, object(action)).with_context(|| format!("writing {}", file.display()))?;
    // `ip` mounts a bpffs when it loads an object. With `-n` it does so in mounts of its own, and the machine's stay.
    let mut command = Command::new("ip");
    command.args(["-n", end.netns.name(), "link", "set", "dev", end.device, "xdpdrv", "obj"]).arg(&file);
    run(command.args(["sec", SECTION]))?;
    Ok(())
}
