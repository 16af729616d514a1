//! What does not go together in `kubernetes` and `controlPlane`, and between them and the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{draft::Draft, draft_cluster::DraftControlPlane, error::Problems};
use crate::{cluster::CONTROL_PLANE, model::ServersFrom};

/// Reports everything in the draft that does not go together.
pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    if let Some(control_plane) = &draft.control_plane {
        source(draft, control_plane, problems);
        vips(draft, control_plane, problems);
        twice(control_plane, problems);
        backends(control_plane, problems);
        for service in draft.services.iter().filter(|service| service.name.value == CONTROL_PLANE) {
            let reason =
                format!("`{CONTROL_PLANE}` is what the service of `controlPlane` is called; choose another name");
            problems.refuse(service.name.place, reason);
        }
    }
}

fn source(draft: &Draft, control_plane: &DraftControlPlane, problems: &mut Problems) {
    let place = control_plane.from.map_or(control_plane.place, |from| from.place);
    match (control_plane.source(draft.kubernetes.is_some()), &draft.kubernetes) {
        (ServersFrom::Static, _) if control_plane.backends.is_empty() => {
            let reason =
                "no API server is known: name them in `controlPlane.backends`, or add `kubernetes` to learn them";
            problems.refuse(place, reason);
        }
        (ServersFrom::Endpoints | ServersFrom::Nodes, None) => {
            let reason = "`from` learns API servers from the cluster, but there is no `kubernetes`; add it, or write `from: static`";
            problems.refuse(place, reason);
        }
        (_, Some(kubernetes)) if kubernetes.access.kubeconfig.is_none() => {
            let reason = "the agent has a pod's credentials and serves the control plane's VIP: after a power cut the kubelet needs the \
                          VIP to start the pod; run it as static pod or systemd unit on nodes with API servers, with a `kubeconfig`";
            problems.warn(control_plane.place, reason);
        }
        _ => {}
    }
}

/// Reports what does not go together in `controlPlane` of a file that always has a cluster, and no services.
pub(super) fn check_alone(control_plane: &DraftControlPlane, problems: &mut Problems) {
    if control_plane.source(true) == ServersFrom::Static && control_plane.backends.is_empty() {
        let place = control_plane.from.map_or(control_plane.place, |from| from.place);
        problems
            .refuse(place, "`from: static` has no API server; name them in `controlPlane.backends`, or drop `from`");
    }
    twice(control_plane, problems);
    backends(control_plane, problems);
}

fn vips(draft: &Draft, control_plane: &DraftControlPlane, problems: &mut Problems) {
    let nodes = draft.node.iter().chain(&draft.peers);
    let own: BTreeMap<IpAddr, &str> =
        nodes.flat_map(|node| node.addresses.iter().map(|address| (address.value, node.name.value.as_str()))).collect();
    for vip in &control_plane.vips {
        if let Some(node) = own.get(&vip.value) {
            let reason =
                format!("VIP {} is an address of node `{node}` itself; choose one that no node has", vip.value);
            problems.refuse(vip.place, reason);
        }
        let mut services = draft.services.iter();
        if let Some(service) = services.find(|service| service.vips.iter().any(|other| other.value == vip.value)) {
            let reason = format!(
                "VIP {} belongs to service `{}` (line {}) already; the control plane needs one of its own",
                vip.value, service.name.value, service.place.line
            );
            problems.refuse(vip.place, reason);
        }
    }
}

fn twice(control_plane: &DraftControlPlane, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for vip in control_plane.vips.iter().filter(|vip| !seen.insert(vip.value)) {
        problems.refuse(vip.place, format!("VIP {} is there twice; remove one of them", vip.value));
    }
}

fn backends(control_plane: &DraftControlPlane, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for backend in &control_plane.backends {
        if control_plane.vips.iter().any(|vip| vip.value == backend.value) {
            let reason = format!(
                "backend {} is itself the VIP; its packets would come back: name the host's own address",
                backend.value
            );
            problems.refuse(backend.place, reason);
        }
        if !seen.insert(backend.value) {
            problems.refuse(backend.place, format!("backend {} is there twice; remove one of them", backend.value));
        }
    }
}
