//! What can go wrong with the kernel, each with what to do.

use std::{io, path::PathBuf};

use super::kernel::KernelVersion;
use crate::plan::PlanError;

/// A failure of the data plane.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The process lacks capabilities.
    #[error(
        "missing {missing}; run as root, or give the process CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (systemd: \
         AmbientCapabilities=, Kubernetes: securityContext.capabilities.add)"
    )]
    Capabilities {
        /// Names of the missing capabilities.
        missing: String,
    },
    /// The kernel is older than the floor.
    #[error("Linux {found} is too old; Linux 5.10 or newer is needed")]
    KernelTooOld {
        /// The version that runs.
        found: KernelVersion,
    },
    /// There is no BPF filesystem at the pin path.
    #[error(
        "{path} is not on a BPF filesystem; run `mount -t bpf bpf {mount}`, or in a container mount the host's /sys/fs/bpf there"
    )]
    NoBpffs {
        /// The configured pin path.
        path: PathBuf,
        /// Where to mount it.
        mount: PathBuf,
    },
    /// Another agent holds the lock.
    #[error(
        "another agent ({owner}) already runs on {path}; one node has one agent: stop that one first, or set another `pinPath`"
    )]
    Locked {
        /// The pin path.
        path: PathBuf,
        /// Who holds it.
        owner: String,
    },
    /// This build has no BPF object.
    #[error("this build carries no BPF object; build with `cargo xtask build`")]
    NoObject,
    /// An XDP program that is not ours is attached.
    #[error(
        "{interface} already has an XDP program that is not Levee's{program}; only one can be attached: detach it (`ip link set \
         dev {interface} xdp off`, if you know whose it is), or leave {interface} out of `interfaces`"
    )]
    ForeignProgram {
        /// The interface.
        interface: String,
        /// Its id in words, if it is known.
        program: String,
    },
    /// An interface takes no tc program on its egress.
    #[error(
        "{interface} takes no tc program on its egress: {reason}; without it segment sizes are not bounded (set `mssClamp: off` \
         if that is as it should be), and servers behind a `targetPort` cannot answer by it"
    )]
    EgressRefused {
        /// Name of the interface.
        interface: String,
        /// The kernel's words.
        reason: String,
    },
    /// There is no cgroup to attach to.
    #[error(
        "no cgroup of version 2 at {paths}, which `connectTranslation` needs; mount it (`mount -t cgroup2 none /sys/fs/cgroup`), \
         in a container mount the host's, or set `cgroupPath`"
    )]
    NoCgroup {
        /// Where it was looked for.
        paths: String,
    },
    /// A cgroup takes no program for connections.
    #[error("{cgroup} does not take {program}: {reason}; set `connectTranslation: off` to do without")]
    TranslationRefused {
        /// The cgroup.
        cgroup: PathBuf,
        /// Name of the program.
        program: &'static str,
        /// The kernel's words.
        reason: String,
    },
    /// An interface takes no program in the mode that was asked for.
    #[error("{interface} refused XDP in {mode} mode: {reason}")]
    AttachRefused {
        /// The interface.
        interface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// Generic mode would see merged packets.
    #[error(
        "{interface} has XDP in generic mode, which sees packets after {offloads} merged them into longer ones that fit no \
         MTU; turn that off (`ethtool -K {interface} gro off lro off`), or deliver every service with `delivery: local`"
    )]
    MergedPackets {
        /// The interface.
        interface: String,
        /// The offloads that merge, by their names in the kernel.
        offloads: String,
    },
    /// The kernel attaches programs in a way that cannot outlive the agent.
    #[error("{interface}: this kernel has no BPF links for XDP, which came with Linux 5.9")]
    NoLinks {
        /// The interface.
        interface: String,
    },
    /// A map operation failed.
    #[error("map {map}: {action} failed: {reason}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// The kernel refused the program.
    #[error("the kernel refused the program {program}: {reason}")]
    Load {
        /// Name of the program.
        program: &'static str,
        /// What it said.
        reason: String,
    },
    /// A file operation failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The maps in force hold more than the capacities allow.
    #[error("what the maps in force hold does not fit the configured capacities: {0}")]
    DoesNotFit(PlanError),
    /// Nothing is pinned.
    #[error(
        "nothing of Levee is pinned under {path}; has `lb-agent run` been started on this node, with this `pinPath`?"
    )]
    NothingPinned {
        /// The pin path.
        path: PathBuf,
    },
}

impl DataplaneError {
    /// A failed map operation.
    pub(crate) fn map(map: &'static str, action: &'static str, error: &dyn std::error::Error) -> Self {
        Self::Map { map, action, reason: chain(error) }
    }

    /// A failed file operation.
    pub(crate) fn io(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }
}

/// An error with all its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
