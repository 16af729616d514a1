//! The rules that kube-proxy writes on a node, in its modes `iptables` and `nftables`, without kube-proxy.
//!
//! Chains, marks and the order of rules are those of Kubernetes 1.33 (`pkg/proxy/iptables/proxier.go` and
//! `pkg/proxy/nftables/proxier.go`) with the defaults: no masquerading of everything, `0x4000` as the mark of what is to be
//! masqueraded, the pods' own addresses told by the cluster's CIDR. Rules for what the tests do not have (source ranges,
//! health-check ports, affinity, draining) are left out.

mod iptables;
mod nftables;

use std::{fs, net::SocketAddrV4};

use anyhow::{Context, Result};
use netns_tests::{netns::Netns, scope::Scope};

/// Which of kube-proxy's modes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// `iptables`, here by way of its nft variant as in Debian.
    Iptables,
    /// `nftables`.
    Nftables,
}

/// A Service of type `LoadBalancer` with one TCP port, as kube-proxy on one node sees it.
#[derive(Clone, Debug)]
pub struct Exposed {
    /// Namespace and name.
    pub name: String,
    /// Cluster address and port.
    pub cluster: SocketAddrV4,
    /// An address in `status.loadBalancer.ingress` or `spec.externalIPs`, with the same port.
    pub external: SocketAddrV4,
    /// Node port.
    pub node_port: u16,
    /// `externalTrafficPolicy: Local`.
    pub local: bool,
    /// All ready endpoints.
    pub endpoints: Vec<SocketAddrV4>,
    /// Those of them on this node.
    pub here: Vec<SocketAddrV4>,
}

/// The CIDR of all pods (`--cluster-cidr`).
pub const PODS: &str = "10.244.0.0/16";

/// Makes the rules of a node those of one mode for one Service, in place of whatever rules there are.
///
/// # Errors
/// If `iptables-restore` or `nft` is missing or refuses.
pub fn load(scope: &Scope, netns: &Netns, mode: Mode, exposed: &Exposed) -> Result<()> {
    netns.run("nft", &["flush", "ruleset"]).context("clearing the rules")?;
    let (program, text, arguments) = match mode {
        Mode::Iptables => ("iptables-nft-restore", iptables::rules(exposed), &[][..]),
        Mode::Nftables => ("nft", nftables::rules(exposed), &["-f"][..]),
    };
    let file = scope.file(&format!("{}.rules", netns.name()));
    fs::write(&file, &text).with_context(|| format!("writing {}", file.display()))?;
    let path = file.display().to_string();
    let loaded = netns.run(program, &[arguments, &[path.as_str()]].concat());
    loaded.with_context(|| format!("{mode:?} with\n{text}"))?;
    Ok(())
}
