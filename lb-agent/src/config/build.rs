//! From a draft without problems to the checked configuration.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    AgentConfig, Config,
    draft::{Draft, DraftNode},
    draft_service::DraftService,
    error::Place,
};
use crate::model::{Announcement, Backend, DesiredState, HoldWhen, Node, Peer, Service, Shared};

/// Where the values stand that later checks compare with the host's network.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Places {
    pub(super) file: String,
    /// In the order of `agent.interfaces`.
    pub(super) interfaces: Vec<Place>,
    /// In the order of `desired.node.addresses`.
    pub(super) node_addresses: Vec<Place>,
    /// First place of each VIP.
    pub(super) vips: BTreeMap<IpAddr, Place>,
    /// Of `controlPlane.serverPort`.
    pub(super) server_port: Place,
    /// Of each service that has servers on another port, by name.
    pub(super) target_ports: BTreeMap<String, Place>,
}

/// Builds the configuration; `None` if something required is missing, which was reported then.
pub(super) fn build(file: &str, draft: Draft) -> Option<Config> {
    let places = places(file, &draft);
    let node = draft.node?;
    let mut peers: Vec<Peer> = draft.peers.into_iter().map(peer).collect();
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    let mut services: Vec<Shared<Service>> = draft.services.into_iter().map(service).map(Shared::new).collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let announcements = draft.announcements.into_iter().flat_map(|entry| {
        let announcement =
            move |vip| Announcement { vip, announcer: entry.announcer, when: entry.when, lifetime: entry.lifetime };
        entry.vips.into_iter().map(move |vip| announcement(vip.value))
    });
    let mut announcements: Vec<Announcement> = announcements.collect();
    announcements.sort_by_key(|announcement| (announcement.vip, announcement.announcer));
    let Peer { name, addresses } = peer(node);
    let has_kubernetes = draft.kubernetes.is_some();
    let kubernetes = draft.kubernetes.map(|settings| settings.build(&name, !peers.is_empty()));
    Some(Config {
        agent: AgentConfig {
            interfaces: draft.interfaces.into_iter().map(|interface| interface.value).collect(),
            secret: draft.secret?,
            pin_path: draft.pin_path,
            http: draft.http,
            socket: draft.socket,
            log: draft.log,
            on_terminate: draft.on_terminate,
            cgroup_path: draft.cgroup_path,
            capacities: draft.capacities.effective(),
            membership: draft.membership,
        },
        desired: DesiredState { node: Node { name, addresses }, peers, services, announcements },
        kubernetes,
        control_plane: draft.control_plane.map(|settings| settings.build(has_kubernetes)),
        warnings: Vec::new(),
        files: draft.files,
        places,
    })
}

fn places(file: &str, draft: &Draft) -> Places {
    let mut vips = BTreeMap::new();
    for vip in draft.services.iter().flat_map(|service| &service.vips) {
        vips.entry(vip.value).or_insert(vip.place);
    }
    for vip in draft.control_plane.iter().flat_map(|settings| &settings.vips) {
        vips.entry(vip.value).or_insert(vip.place);
    }
    let target = |service: &DraftService| Some((service.name.value.clone(), service.other_port()?.place));
    Places {
        server_port: draft.control_plane.as_ref().map_or_else(Place::default, |settings| settings.server_port.place),
        target_ports: draft.services.iter().filter_map(target).collect(),
        file: file.to_owned(),
        interfaces: draft.interfaces.iter().map(|interface| interface.place).collect(),
        node_addresses: draft.node.iter().flat_map(|node| &node.addresses).map(|address| address.place).collect(),
        vips,
    }
}

fn peer(node: DraftNode) -> Peer {
    Peer { name: node.name.value, addresses: node.addresses.into_iter().map(|address| address.value).collect() }
}

fn service(draft: DraftService) -> Service {
    let port = draft.server_port();
    let backend = |address, weight| Backend { address, port, weight };
    let mut backends: Vec<Backend> =
        draft.backends.iter().map(|written| backend(written.address.value, written.weight)).collect();
    backends.sort_by_key(|backend| (backend.address, backend.port));
    let mut ports: Vec<u16> = draft.ports.iter().map(|port| port.value).collect();
    ports.sort_unstable();
    let mut source_ranges: Vec<IpNet> = draft.source_ranges.iter().map(|range| range.value).collect();
    source_ranges.sort_unstable();
    Service {
        name: draft.name.value,
        vips: draft.vips.iter().map(|vip| vip.value).collect(),
        ports,
        protocol: draft.protocol,
        delivery: draft.delivery.value,
        ring_size: draft.ring_size.value,
        backends,
        flow_timeout: draft.flow_timeout,
        affinity: draft.affinity,
        probe: draft.probe.map(Arc::new),
        slow_start: draft.slow_start,
        drop_unmatched: draft.drop_unmatched.value,
        source_ranges,
        mss_clamp: draft.mss_clamp,
        hold: HoldWhen::Trusted,
        connect_translation: draft.connect_translation.value,
        second_chance: draft.second_chance,
        local_first: draft.local_first,
    }
}
