//! What operators drain: backends and whole nodes that take no new flows until they are undrained.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use super::{BackendAddress, DesiredState};

/// Entries that an error lists.
const LISTED: usize = 20;

/// How a backend is drained.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Since when, seconds of Unix time, at least 1.
    pub since: u64,
    /// When the flows that are left are cut, nanoseconds of `CLOCK_MONOTONIC`, at least 1; `None` for never.
    pub deadline: Option<u64>,
    /// Whether it is drained since its whole node is.
    pub with_node: bool,
}

impl Drain {
    /// Whether its deadline is over at `now`, nanoseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn is_over(&self, now: u64) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// What `lbctl drain` and `lbctl undrain` ask for.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrainRequest {
    /// Address or address and port of a backend, or the name of this node or of a peer.
    pub target: String,
    /// Names of the services that are meant; none for all.
    #[serde(default)]
    pub services: Vec<String>,
    /// Seconds until the flows that are left are cut; none for never.
    #[serde(default)]
    pub deadline_seconds: Option<u64>,
}

/// What was drained or undrained.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainAnswer {
    /// The node, if a whole one is meant.
    pub node: Option<String>,
    /// Whether that is the agent's own, whose announcements are withdrawn while it is drained.
    pub this_node: bool,
    /// The backends.
    pub backends: Vec<NamedBackend>,
    /// What to mind, in words.
    pub warnings: Vec<String>,
}

/// A backend of a service.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedBackend {
    /// Name of the service.
    pub service: String,
    /// Address.
    pub address: IpAddr,
    /// Port, 0 for every port.
    pub port: u16,
}

/// Why nothing was drained or undrained.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DrainError {
    /// No service has this name.
    #[error("there is no service {name}; there are {there}")]
    UnknownService {
        /// The name.
        name: String,
        /// Those that exist.
        there: String,
    },
    /// No backend has this address.
    #[error("no backend {of} is {target}; there are {there}")]
    UnknownBackend {
        /// What was asked for.
        target: String,
        /// Of which services.
        of: String,
        /// Those that exist.
        there: String,
    },
    /// Neither an address nor a node.
    #[error("{target} is neither an address nor a node; nodes are {there}")]
    UnknownNode {
        /// What was asked for.
        target: String,
        /// Those that exist.
        there: String,
    },
    /// The whole node is drained.
    #[error("{backend} is drained with its node {node}; say `lbctl undrain {node}` first")]
    WithNode {
        /// The backend.
        backend: String,
        /// The node.
        node: String,
    },
    /// Nothing to undrain.
    #[error("{target} is not drained; drained are {there}")]
    NotDrained {
        /// What was asked for.
        target: String,
        /// What is drained.
        there: String,
    },
}

/// Everything that is drained.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Drains {
    /// Nodes by name: every backend with an address of theirs is drained, whenever it comes.
    pub nodes: BTreeMap<String, Drain>,
    /// Backends by service.
    pub backends: BTreeMap<(String, BackendAddress), Drain>,
}

/// [`Drains`] with the addresses of the nodes.
pub struct Drained<'a> {
    drains: &'a Drains,
    addresses: BTreeMap<IpAddr, (&'a str, Drain)>,
}

impl Drained<'_> {
    /// How a backend is drained, and with which node.
    #[must_use]
    pub fn of(&self, service: &str, backend: BackendAddress) -> Option<(Drain, Option<&str>)> {
        if let Some((node, drain)) = self.addresses.get(&backend.address) {
            return Some((Drain { with_node: true, ..*drain }, Some(node)));
        }
        if self.drains.backends.is_empty() {
            return None;
        }
        self.drains.backends.get(&(service.to_owned(), backend)).map(|drain| (*drain, None))
    }
}

/// What a request means.
enum Target {
    Node(String),
    Backends(Vec<(String, BackendAddress)>),
}

impl Drains {
    /// What earlier drains left in the maps. `backends` are all that the maps have, drained or not; `this_node` is how
    /// the node itself is drained, which maps that were carried over do not tell: like a peer it is drained if all its backends
    /// are, with their node.
    #[must_use]
    pub fn adopted(
        desired: &DesiredState,
        backends: &[(String, BackendAddress, Option<Drain>)],
        this_node: Option<Drain>,
    ) -> Self {
        let mut drains = Self::default();
        drains.nodes.extend(this_node.map(|drain| (desired.node.name.clone(), drain)));
        let with_node = |drain: &Option<Drain>| drain.is_some_and(|drain| drain.with_node);
        for (name, addresses) in nodes(desired) {
            let of_node = || backends.iter().filter(|(_, backend, _)| addresses.contains(&backend.address));
            if let Some((_, _, Some(drain))) = of_node().next()
                && of_node().all(|(_, _, drain)| with_node(drain))
            {
                drains.nodes.entry(name.to_owned()).or_insert(*drain);
            }
        }
        let others = backends.iter().filter_map(|(service, backend, drain)| Some((service, *backend, (*drain)?)));
        let covered = drains.addresses(desired);
        let others = others.filter(|(_, backend, _)| !covered.contains_key(&backend.address));
        let own = others
            .map(|(service, backend, drain)| ((service.clone(), backend), Drain { with_node: false, ..drain }))
            .collect();
        drop(covered);
        Self { backends: own, ..drains }
    }

    /// Whether nothing is drained.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.backends.is_empty()
    }

    /// The same, for looking up backend by backend.
    #[must_use]
    pub fn drained(&self, desired: &DesiredState) -> Drained<'_> {
        Drained { drains: self, addresses: self.addresses(desired) }
    }

    /// Drains what `request` names, from `now` (nanoseconds of `CLOCK_MONOTONIC`) and `since` (seconds of Unix time) on.
    /// What is drained already stays so, with the new deadline.
    ///
    /// # Errors
    /// [`DrainError`] if it names nothing that exists.
    pub fn drain(
        &mut self,
        desired: &DesiredState,
        request: &DrainRequest,
        since: u64,
        now: u64,
    ) -> Result<DrainAnswer, DrainError> {
        let nanoseconds = request.deadline_seconds.map(|seconds| seconds.saturating_mul(1_000_000_000));
        let deadline = nanoseconds.map(|after| now.saturating_add(after).max(1));
        let drain = Drain { since: since.max(1), deadline, with_node: false };
        let target = target(desired, request)?;
        self.refuse_of_drained_node(desired, &target)?;
        let again = |known: Option<&Drain>| Drain { since: known.map_or(drain.since, |known| known.since), ..drain };
        match &target {
            Target::Node(name) => {
                let all = of_addresses(desired, addresses_of(desired, name));
                self.backends.retain(|backend, _| !all.contains(backend));
                let drain = Drain { with_node: true, ..again(self.nodes.get(name)) };
                self.nodes.insert(name.clone(), drain);
            }
            Target::Backends(backends) => {
                for backend in backends {
                    let drain = again(self.backends.get(backend));
                    self.backends.insert(backend.clone(), drain);
                }
            }
        }
        Ok(answer(desired, target))
    }

    /// Ends the drain of what `request` names. A node that is not drained as a whole ends those of its backends.
    ///
    /// # Errors
    /// [`DrainError`] if it names nothing that exists, or nothing that is drained.
    pub fn undrain(&mut self, desired: &DesiredState, request: &DrainRequest) -> Result<DrainAnswer, DrainError> {
        let mut target = target(desired, request)?;
        self.refuse_of_drained_node(desired, &target)?;
        let not_drained =
            |drains: &Self| DrainError::NotDrained { target: request.target.clone(), there: drains.list() };
        if let Target::Node(name) = &target {
            if self.nodes.remove(name).is_some() {
                return Ok(answer(desired, target));
            }
            target = Target::Backends(of_addresses(desired, addresses_of(desired, name)));
        }
        if let Target::Backends(backends) = &mut target {
            backends.retain(|backend| self.backends.remove(backend).is_some());
            if backends.is_empty() {
                return Err(not_drained(self));
            }
        }
        Ok(answer(desired, target))
    }

    /// Forgets what the configuration has no more.
    pub fn retain(&mut self, desired: &DesiredState) {
        if self.is_empty() {
            return;
        }
        self.nodes.retain(|name, _| nodes(desired).any(|(node, _)| node == name));
        let there: BTreeSet<_> = all(desired).collect();
        self.backends.retain(|backend, _| there.contains(backend));
    }

    fn addresses(&self, desired: &DesiredState) -> BTreeMap<IpAddr, (&str, Drain)> {
        let of_node = |(name, drain): (&'_ String, &Drain)| {
            addresses_of(desired, name).iter().map(|address| (*address, *drain)).collect::<Vec<_>>()
        };
        let mut addresses = BTreeMap::new();
        for (name, drain) in &self.nodes {
            addresses
                .extend(of_node((name, drain)).into_iter().map(|(address, drain)| (address, (name.as_str(), drain))));
        }
        addresses
    }

    /// A backend of a drained node is drained and undrained with it only.
    fn refuse_of_drained_node(&self, desired: &DesiredState, target: &Target) -> Result<(), DrainError> {
        let Target::Backends(backends) = target else { return Ok(()) };
        let addresses = self.addresses(desired);
        let found = backends.iter().find_map(|(_, backend)| Some((backend, addresses.get(&backend.address)?.0)));
        found.map_or(Ok(()), |(backend, node)| {
            Err(DrainError::WithNode { backend: backend.to_string(), node: node.to_owned() })
        })
    }

    fn list(&self) -> String {
        let nodes = self.nodes.keys().map(|name| format!("node {name}"));
        let backends = self.backends.keys().map(|(service, backend)| format!("{backend} of {service}"));
        listed(nodes.chain(backends))
    }
}

/// The names and addresses of this node and its peers.
fn nodes(desired: &DesiredState) -> impl Iterator<Item = (&str, &[IpAddr])> {
    let peers = desired.peers.iter().map(|peer| (peer.name.as_str(), &peer.addresses[..]));
    std::iter::once((desired.node.name.as_str(), &desired.node.addresses[..])).chain(peers)
}

fn addresses_of<'a>(desired: &'a DesiredState, node: &str) -> &'a [IpAddr] {
    nodes(desired).find(|(name, _)| *name == node).map_or(&[], |(_, addresses)| addresses)
}

/// Every backend of every service.
fn all(desired: &DesiredState) -> impl Iterator<Item = (String, BackendAddress)> {
    desired.services.iter().flat_map(|service| {
        let named = |backend: &super::Backend| BackendAddress { address: backend.address, port: backend.port };
        service.backends.iter().map(move |backend| (service.name.clone(), named(backend)))
    })
}

fn of_addresses(desired: &DesiredState, addresses: &[IpAddr]) -> Vec<(String, BackendAddress)> {
    all(desired).filter(|(_, backend)| addresses.contains(&backend.address)).collect()
}

fn target(desired: &DesiredState, request: &DrainRequest) -> Result<Target, DrainError> {
    let text = request.target.as_str();
    for name in &request.services {
        if !desired.services.iter().any(|service| service.name == *name) {
            let there = listed(desired.services.iter().map(|service| service.name.clone()));
            return Err(DrainError::UnknownService { name: name.clone(), there });
        }
    }
    let (addresses, port) = if let Ok(address) = text.parse::<IpAddr>() {
        (vec![address], None)
    } else if let Ok(socket) = text.parse::<SocketAddr>() {
        (vec![socket.ip()], Some(socket.port()))
    } else if let Some((name, addresses)) = nodes(desired).find(|(name, _)| *name == text) {
        if request.services.is_empty() {
            return Ok(Target::Node(name.to_owned()));
        }
        (addresses.to_vec(), None)
    } else {
        let there = listed(nodes(desired).map(|(name, _)| name.to_owned()));
        return Err(DrainError::UnknownNode { target: text.to_owned(), there });
    };
    let meant = |service: &String| request.services.is_empty() || request.services.contains(service);
    let candidates: Vec<_> = all(desired).filter(|(service, _)| meant(service)).collect();
    let fits =
        |backend: &BackendAddress| addresses.contains(&backend.address) && port.is_none_or(|port| port == backend.port);
    let found: Vec<_> = candidates.iter().filter(|(_, backend)| fits(backend)).cloned().collect();
    if found.is_empty() {
        let of = if request.services.is_empty() {
            "of any service".to_owned()
        } else {
            format!("of {}", request.services.join(", "))
        };
        let there: BTreeSet<_> = candidates.iter().map(|(_, backend)| *backend).collect();
        let there = listed(there.iter().map(ToString::to_string));
        return Err(DrainError::UnknownBackend { target: text.to_owned(), of, there });
    }
    Ok(Target::Backends(found))
}

fn answer(desired: &DesiredState, target: Target) -> DrainAnswer {
    let (node, backends) = match target {
        Target::Node(name) => {
            let backends = of_addresses(desired, addresses_of(desired, &name));
            (Some(name), backends)
        }
        Target::Backends(backends) => (None, backends),
    };
    let named = |(service, backend): (String, BackendAddress)| NamedBackend {
        service,
        address: backend.address,
        port: backend.port,
    };
    DrainAnswer {
        this_node: node.as_deref() == Some(&desired.node.name),
        node,
        backends: backends.into_iter().map(named).collect(),
        warnings: Vec::new(),
    }
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    let more = names.len().saturating_sub(LISTED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    names[..names.len().min(LISTED)].join(", ") + &rest
}

#[cfg(test)]
#[path = "drain_tests.rs"]
mod tests;
