//! All Services, the control plane and the configuration beside each other: one desired state.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    admit::Admission,
    claim::ClassRule,
    control_plane::{self, Remembered},
    endpoints::Nodes,
    forbidden::Forbidden,
    owners::Owners,
    pools::{PoolInForce, PoolSet},
    problem::Problem,
    room::Room,
    service::{Rules, Wish, wish},
};
use crate::model::{
    AnnounceNodes, AnnouncePolicy, AnnounceWhen, Announcement, ClusterNode, ClusterService, ControlPlaneSettings,
    DesiredState, Inventory, Judgement, KubernetesSettings, ObjectName, Origin, Peer, Reason, Service, Severity,
    Snapshot, Subject, network::Subnet,
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
    pub judgements: Vec<Judgement>,
    /// VIPs that this node serves and does not announce, and why.
    pub withheld: BTreeMap<IpAddr, String>,
    /// Services of the cluster of which at least one port is served.
    pub served: usize,
    /// Time after which the result is another though nothing else changed: a saved inventory becomes too old.
    pub changes_in: Option<Duration>,
    /// API servers, this node's own first.
    pub api_servers: Vec<SocketAddr>,
}

/// Puts sources together again and again, and judges of the Services only those that changed.
#[derive(Debug, Default)]
pub struct Composer {
    servers: Remembered,
    pools: PoolSet,
    before: Option<Before>,
}

/// What Services were judged before, and by what.
#[derive(Debug)]
struct Before {
    inventory: Arc<Inventory>,
    settings: KubernetesSettings,
    taken: BTreeSet<IpAddr>,
    pools: BTreeMap<String, PoolInForce>,
    wishes: HashMap<ObjectName, Option<Arc<Wish>>>,
}

impl Composer {
    /// Puts them together.
    pub fn compose(&mut self, sources: &Sources<'_>) -> Composed {
        let inventory = sources.snapshot.map(|snapshot| &snapshot.inventory);
        let mut result = Composed {
            desired: sources.desired.clone(),
            judgements: Vec::new(),
            withheld: BTreeMap::new(),
            served: 0,
            changes_in: None,
            api_servers: Vec::new(),
        };
        if let Some(settings) = sources.control_plane {
            let service =
                control_plane::service(settings, inventory.map(|i| &**i), &mut self.servers, &mut result.judgements);
            result.desired.services.push(service);
            result.desired.announcements.extend(control_plane::announcements(settings));
        }
        result.api_servers = api_servers(sources, &result.desired);
        match (sources.kubernetes, inventory) {
            (Some(settings), Some(inventory)) => {
                peers(settings, inventory, sources, &mut result);
                if settings.services {
                    let wishes = self.wishes(settings, inventory, &result.desired);
                    let owners = Owners::settle(&inventory.services, &wishes);
                    Settlement::new(settings, inventory, sources, owners, &mut result).settle(&wishes);
                }
            }
            _ => self.before = None,
        }
        result.desired.services.sort_by(|a, b| a.name.cmp(&b.name));
        result.desired.announcements.sort_by_key(|one| (one.vip, one.announcer));
        result.judgements.sort();
        result.judgements.dedup();
        result
    }

    /// What each Service that asks for anything asks for, the eldest first.
    fn wishes<'i>(
        &mut self,
        settings: &KubernetesSettings,
        inventory: &'i Arc<Inventory>,
        configured: &DesiredState,
    ) -> Vec<(&'i ObjectName, Arc<Wish>)> {
        let taken: BTreeSet<IpAddr> = configured.services.iter().flat_map(|service| &service.vips).copied().collect();
        let pools = self.pools.follow(&inventory.pools);
        let before = self.before.take().filter(|before| {
            let same = before.inventory.nodes == inventory.nodes && before.pools == pools;
            same && before.settings == *settings && before.taken == taken
        });
        let forbidden = Forbidden::of(&inventory.nodes, [], &settings.reserved);
        let rules = Rules {
            class: ClassRule::of(settings),
            admission: Admission { pools: &pools, forbidden: &forbidden },
            taken: &taken,
            nodes: Nodes::of(inventory),
            local_first: settings.local_first,
        };
        let (mut before, mut known) = (before, HashMap::with_capacity(inventory.services.len()));
        let mut wishes = Vec::with_capacity(inventory.services.len());
        for (name, service) in &inventory.services {
            let judged = before.as_mut().and_then(|before| before.take_if_same(inventory, name, service));
            let (name_kept, judged) = judged.unwrap_or_else(|| {
                let slices = inventory.slices.get(name).map(Vec::as_slice).unwrap_or_default();
                (name.clone(), wish(&rules, name, service, slices).map(Arc::new))
            });
            wishes.extend(judged.iter().map(|wish| (service, name, Arc::clone(wish))));
            known.insert(name_kept, judged);
        }
        wishes.sort_by_key(|(service, name, _)| (service.created, *name));
        let (kept, settings) = (Arc::clone(inventory), settings.clone());
        self.before = Some(Before { inventory: kept, settings, taken, pools, wishes: known });
        wishes.into_iter().map(|(_, name, wish)| (name, wish)).collect()
    }
}

impl Before {
    /// What a Service asked for, if neither it nor its slices are others now.
    fn take_if_same(
        &mut self,
        now: &Arc<Inventory>,
        name: &ObjectName,
        service: &ClusterService,
    ) -> Option<(ObjectName, Option<Arc<Wish>>)> {
        let is_same = Arc::ptr_eq(&self.inventory, now)
            || self.inventory.services.get(name) == Some(service)
                && self.inventory.slices.get(name) == now.slices.get(name);
        if is_same { self.wishes.remove_entry(name) } else { None }
    }
}

/// The settling of what only one can have: addresses, room in the maps.
struct Settlement<'a> {
    /// Cluster addresses of Services: they change too often to judge every Service again by them.
    forbidden: Forbidden<'a>,
    owners: Owners<'a>,
    vips: HashSet<IpAddr>,
    room: Room,
    lifetime: Duration,
    connected: &'a [Subnet],
    /// Labels and standing of this node's object.
    node: Option<&'a ClusterNode>,
    /// Why no VIP of a Service is announced here.
    withheld: Option<String>,
    result: &'a mut Composed,
}

impl<'a> Settlement<'a> {
    fn new(
        settings: &'a KubernetesSettings,
        inventory: &'a Inventory,
        sources: &Sources<'a>,
        owners: Owners<'a>,
        result: &'a mut Composed,
    ) -> Self {
        let node = inventory.nodes.get(&settings.node_name);
        let is_saved = matches!(sources.snapshot, Some(Snapshot { origin: Origin::Saved { .. }, .. }));
        let left = settings.max_snapshot_age.checked_sub(sources.age).filter(|left| !left.is_zero());
        result.changes_in = left.filter(|_| is_saved);
        let withheld = if node.is_some_and(ClusterNode::is_excluded) {
            Some("this node has the label node.kubernetes.io/exclude-from-external-load-balancers")
        } else if is_saved && left.is_none() {
            Some(
                "no API server has answered since the agent started, and the saved inventory is older than `kubernetes.maxSnapshotAge`",
            )
        } else {
            None
        };
        Self {
            forbidden: Forbidden::of([], &inventory.services, &[]),
            owners,
            vips: HashSet::new(),
            room: sources.room.clone().beside(&result.desired),
            lifetime: settings.lifetime,
            connected: sources.connected,
            node,
            withheld: withheld.map(str::to_owned),
            result,
        }
    }

    fn settle(mut self, wishes: &[(&'a ObjectName, Arc<Wish>)]) {
        for (name, wish) in wishes {
            self.result.judgements.extend(wish.judgements.iter().cloned());
            let mut refused = BTreeSet::new();
            let mut is_served = false;
            for service in &wish.services {
                is_served |= self.enter(name, wish, service, &mut refused);
            }
            self.result.served += usize::from(is_served);
            let judgement = |(reason, message)| Judgement::on(name, Severity::Refused, reason, message);
            self.result.judgements.extend(refused.into_iter().map(judgement));
        }
        if let Some(why) = self.withheld.filter(|_| !self.vips.is_empty()) {
            self.result.judgements.push(Judgement {
                subject: Subject::Cluster,
                severity: Severity::Warning,
                reason: Reason::NotAnnounced,
                message: format!("this node announces no VIP of a Service: {why}"),
            });
        }
    }

    /// Enters one port of a Service, without the VIPs that it cannot have; false if none is left.
    fn enter(
        &mut self,
        name: &'a ObjectName,
        wish: &Wish,
        service: &Service,
        refused: &mut BTreeSet<(Reason, String)>,
    ) -> bool {
        let mut service = service.clone();
        service.vips.retain(|vip| match self.objection(name, *vip) {
            None => true,
            Some(objection) => {
                refused.insert(objection);
                false
            }
        });
        if service.vips.is_empty() {
            return false;
        }
        if let Err(key) = self.room.take(&service, &self.vips) {
            let message = format!(
                "`capacities.{key}` has no room for it beside elder Services; raise it on every node, or remove some"
            );
            refused.insert((Reason::NoRoom, message));
            return false;
        }
        for vip in &service.vips {
            if self.vips.insert(*vip)
                && let Some(policy) = wish.vips.get(vip)
            {
                self.announce(name, *vip, policy);
            }
        }
        self.result.desired.services.push(service);
        true
    }

    /// Why a Service cannot have this VIP.
    fn objection(&self, name: &'a ObjectName, vip: IpAddr) -> Option<(Reason, String)> {
        if let Some(owner) = self.forbidden.owner(vip) {
            return Some((Reason::AddressRefused, Problem::Forbidden { address: vip, owner }.to_string()));
        }
        self.owners.objection(name, vip).map(|problem| (Reason::AddressTaken, problem.to_string()))
    }

    fn announce(&mut self, name: &ObjectName, vip: IpAddr, policy: &AnnouncePolicy) {
        let has = |(key, value): (&String, &String)| self.node.is_some_and(|node| node.labels.get(key) == Some(value));
        let not_selected = || {
            let missing = policy.node_selector.iter().find(|label| !has(*label))?;
            Some(format!(
                "its VipPool has nodes with the label {}={} announce it, and this node lacks it",
                missing.0, missing.1
            ))
        };
        if let Some(why) = self.withheld.clone().or_else(not_selected) {
            self.result.withheld.insert(vip, why);
            return;
        }
        if let Some(Subnet { net, interface }) = self.connected.iter().find(|subnet| subnet.net.contains(&vip)) {
            let why = format!(
                "{vip} lies in {net} of {interface}, on a link of this node: hosts there ask for it by ARP or NDP, which nobody answers; take addresses outside the nodes' subnets"
            );
            self.result.judgements.push(Judgement::on(name, Severity::Warning, Reason::AddressOnLink, why.clone()));
            self.result.withheld.insert(vip, why);
            return;
        }
        let when = match policy.nodes {
            AnnounceNodes::All => AnnounceWhen::AnyBackend,
            AnnounceNodes::LocalBackends => AnnounceWhen::LocalBackend,
        };
        let announcers: BTreeSet<_> = policy.announcers.iter().copied().collect();
        let announcement = |announcer| Announcement { vip, announcer, when, lifetime: self.lifetime };
        self.result.desired.announcements.extend(announcers.into_iter().map(announcement));
    }
}

/// The other nodes of the cluster, beside the peers of the configuration; and whether this node's object fits.
fn peers(settings: &KubernetesSettings, inventory: &Inventory, sources: &Sources<'_>, result: &mut Composed) {
    let own = &sources.desired.node;
    let judge = |node: &str, message: String| {
        let subject = Subject::Node(node.to_owned());
        Judgement { subject, severity: Severity::Warning, reason: Reason::NodeAddress, message }
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
        let is_it = |service: &&Service| service.vips == settings.vips;
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
