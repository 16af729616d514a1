//! All Services, the control plane and the configuration beside each other: one desired state.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    control_plane::{self, Remembered},
    judged::{Judged, News},
    pools::PoolSet,
    room::Room,
    settle::{Settled, Situation, settle},
};
use crate::model::{
    ControlPlaneSettings, DesiredState, Inventory, Judgement, KubernetesSettings, Peer, Reason, Service, Severity,
    Shared, Snapshot, Subject, network::Subnet,
};

/// What is put together.
#[derive(Clone, Debug)]
pub struct Sources<'a> {
    /// What the configuration asks of this node.
    pub desired: &'a DesiredState,
    /// `kubernetes` of the configuration.
    pub kubernetes: Option<&'a KubernetesSettings>,
    /// `controlPlane` of the configuration.
    pub control_plane: Option<&'a ControlPlaneSettings>,
    /// The latest inventory, if there is one.
    pub snapshot: Option<&'a Snapshot>,
    /// How old a saved inventory is now.
    pub age: Duration,
    /// What the maps have room for.
    pub room: Room,
    /// Subnets on this node's links.
    pub connected: &'a [Subnet],
}

/// What comes of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Composed {
    /// What is asked of this node, the configuration's included.
    pub desired: DesiredState,
    /// What is to be said of objects, in their order, each once.
    pub judgements: Vec<Shared<Judgement>>,
    /// VIPs that this node serves and does not announce, and why.
    pub withheld: BTreeMap<IpAddr, String>,
    /// Services of the cluster of which at least one port is served.
    pub served: usize,
    /// Time after which the result is another though nothing else changed: a saved inventory becomes too old.
    pub changes_in: Option<Duration>,
    /// API servers, this node's own first.
    pub api_servers: Vec<SocketAddr>,
}

/// Puts sources together again and again. Of the Services only those that changed are judged, and as long as nothing but
/// backends changed, what was settled among them stays.
#[derive(Debug, Default)]
pub struct Composer {
    servers: Remembered,
    pools: PoolSet,
    judged: Judged,
    settled: Option<Settled>,
}

impl Composer {
    /// Puts them together.
    pub fn compose(&mut self, sources: &Sources<'_>) -> Composed {
        let inventory = sources.snapshot.map(|snapshot| &*snapshot.inventory);
        let mut result = Composed {
            desired: sources.desired.clone(),
            judgements: Vec::new(),
            withheld: BTreeMap::new(),
            served: 0,
            changes_in: None,
            api_servers: Vec::new(),
        };
        if let Some(settings) = sources.control_plane {
            let mut judgements = Vec::new();
            let service = control_plane::service(settings, inventory, &mut self.servers, &mut judgements);
            result.judgements.extend(judgements.into_iter().map(Shared::new));
            result.desired.services.push(service.into());
            result.desired.announcements.extend(control_plane::announcements(settings));
        }
        result.api_servers = api_servers(sources, &result.desired);
        match (sources.kubernetes, inventory) {
            (Some(settings), Some(inventory)) => {
                peers(settings, inventory, sources, &mut result);
                if settings.services {
                    return self.with_services(settings, inventory, sources, result);
                }
            }
            _ => self.judged = Judged::default(),
        }
        self.settled = None;
        result.in_order()
    }

    /// Adds the Services of the cluster to what there is without them.
    fn with_services(
        &mut self,
        settings: &KubernetesSettings,
        inventory: &Inventory,
        sources: &Sources<'_>,
        without: Composed,
    ) -> Composed {
        let taken = without.desired.services.iter().flat_map(|service| &service.vips).copied().collect();
        let pools = self.pools.follow(&inventory.pools);
        let news = self.judged.follow(settings, inventory, taken, pools);
        let situation = Situation::of(settings, inventory, sources);
        let before = self.settled.take().filter(|before| before.is_of(&situation, &without));
        let patched = match (before, news) {
            (Some(before), News::Wishes(news)) => before.with(&news),
            _ => None,
        };
        let settled = patched.unwrap_or_else(|| settle(&situation, inventory, &self.judged, without));
        let result = settled.result.clone();
        self.settled = Some(settled);
        result
    }
}

impl Composed {
    /// Everything in the order in which it is compared and looked up.
    pub(super) fn in_order(mut self) -> Self {
        self.desired.services.sort_by(|a, b| a.name.cmp(&b.name));
        self.desired.announcements.sort_by_key(|one| (one.vip, one.announcer));
        self.judgements.sort();
        self.judgements.dedup();
        self
    }
}

/// The other nodes of the cluster, beside the peers of the configuration; and whether this node's object fits.
fn peers(settings: &KubernetesSettings, inventory: &Inventory, sources: &Sources<'_>, result: &mut Composed) {
    let own = &sources.desired.node;
    let judge = |node: &str, message: String| {
        let subject = Subject::Node(node.to_owned());
        Shared::new(Judgement { subject, severity: Severity::Warning, reason: Reason::NodeAddress, message })
    };
    result.judgements.extend(unfit(settings, inventory, &own.addresses).map(|why| judge(&settings.node_name, why)));
    if !settings.peers_from_nodes {
        return;
    }
    let mut taken: HashSet<IpAddr> = own.addresses.iter().copied().collect();
    taken.extend(sources.desired.peers.iter().flat_map(|peer| &peer.addresses));
    taken.extend(result.desired.services.iter().flat_map(|service| &service.vips));
    let mut room = sources.room.clone().beside(sources.desired).peers;
    let written: HashSet<&str> = sources.desired.peers.iter().map(|peer| peer.name.as_str()).collect();
    let is_own = |name: &str| name == settings.node_name || name == own.name;
    for (name, node) in inventory.nodes.iter().filter(|(name, _)| !is_own(name) && !written.contains(name.as_str())) {
        let addresses: Vec<IpAddr> = node.internal.iter().copied().filter(|address| taken.insert(*address)).collect();
        match room.checked_sub(addresses.len() as u64) {
            _ if addresses.is_empty() => {
                let why = "it has no InternalIP of its own, so it is neither a peer nor a backend";
                result.judgements.push(judge(name, why.to_owned()));
            }
            None => {
                let why =
                    "`capacities.peers` has no room for it, so its tunnels are not accepted; raise it on every node";
                result.judgements.push(judge(name, why.to_owned()));
            }
            Some(left) => {
                room = left;
                result.desired.peers.push(Peer { name: name.clone(), addresses });
            }
        }
    }
    result.desired.peers.sort_by(|a, b| a.name.cmp(&b.name));
}

/// Why this node's object does not fit the configuration; `None` if it does.
fn unfit(settings: &KubernetesSettings, inventory: &Inventory, own: &[IpAddr]) -> Option<String> {
    let Some(node) = inventory.nodes.get(&settings.node_name) else {
        let why =
            "the cluster has no such node, though the configuration says that this is it; set `kubernetes.nodeName`";
        return Some(why.to_owned());
    };
    let first = node.internal.first().filter(|address| !own.contains(address))?;
    Some(format!(
        "its first InternalIP {first} is not in `node.addresses`, so this node does not know itself as a backend; add it there"
    ))
}

/// API servers by what is known of them, this node's own first, those that are only written last.
fn api_servers(sources: &Sources<'_>, desired: &DesiredState) -> Vec<SocketAddr> {
    let known = sources.snapshot.map(|snapshot| control_plane::endpoints(&snapshot.inventory)).unwrap_or_default();
    let of_control_plane = sources.control_plane.into_iter().flat_map(|settings| {
        let is_it = |service: &&Shared<Service>| service.vips == settings.vips;
        let backends = desired.services.iter().filter(is_it).flat_map(|service| &service.backends);
        backends.map(|backend| SocketAddr::new(backend.address, backend.port))
    });
    let all: BTreeSet<SocketAddr> = known.into_iter().chain(of_control_plane).collect();
    let (own, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|server| desired.node.addresses.contains(&server.ip()));
    let mut servers: Vec<_> = own.into_iter().chain(others).collect();
    let written = sources.kubernetes.into_iter().flat_map(|settings| &settings.access.servers);
    let more: Vec<_> = written.filter(|server| !servers.contains(server)).copied().collect();
    servers.extend(more);
    servers
}

#[cfg(test)]
#[path = "compose_tests.rs"]
mod tests;
