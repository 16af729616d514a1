//! The VIP of the API servers: works before the first of them, and goes on while all of them are away.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::names::CONTROL_PLANE;
use crate::model::{
    AnnounceWhen, Announcement, AnnouncerKind, Backend, ControlPlaneSettings, Delivery, HoldWhen, Inventory, Judgement,
    MssClamp, ObjectName, Protocol, Reason, RingSize, ServersFrom, Service, Severity, Shared, Subject,
    inventory::{EndpointSlice, Labels},
};

/// The Service whose slices the API servers write themselves.
const API: (&str, &str) = ("default", "kubernetes");

/// What was learned of API servers: what an empty answer does not undo.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    settings: Option<ControlPlaneSettings>,
    servers: Vec<IpAddr>,
}

/// The service of the control plane's VIP, and what is to be said of it. Without an inventory, or with one that names no
/// server, those that were known last serve on; without any, those of the configuration.
pub fn service(
    settings: &ControlPlaneSettings,
    inventory: Option<&Inventory>,
    remembered: &mut Remembered,
    judgements: &mut Vec<Judgement>,
) -> Service {
    let mut judge = |reason, message: String| {
        judgements.push(Judgement { subject: Subject::ControlPlane, severity: Severity::Warning, reason, message });
    };
    if remembered.settings.as_ref().is_none_or(|before| learns_otherwise(before, settings)) {
        remembered.servers.clear();
    }
    remembered.settings = Some(settings.clone());
    let named = inventory.map(|inventory| without_oddities(settings, named(settings, inventory), &mut judge));
    build(settings, &choose(settings, named, &mut remembered.servers, &mut judge))
}

/// What the API names without what leads back here; says what is odd about it.
fn without_oddities(
    settings: &ControlPlaneSettings,
    mut named: Named,
    judge: &mut impl FnMut(Reason, String),
) -> BTreeSet<IpAddr> {
    for vip in settings.vips.iter().filter(|vip| named.servers.remove(*vip)) {
        let message = format!(
            "an API server gives the VIP {vip} as its own address, which leads back here: set its `--advertise-address` to the node's"
        );
        judge(Reason::NoServers, message);
    }
    for port in &named.other_ports {
        let message = format!(
            "API servers listen on port {port}, but the VIP's packets are given port {}; set `controlPlane.serverPort` to {port}",
            settings.server_port
        );
        judge(Reason::ServerPort, message);
    }
    named.servers
}

/// The servers that serve: those that are named, or that were, or that are written.
fn choose(
    settings: &ControlPlaneSettings,
    named: Option<BTreeSet<IpAddr>>,
    remembered: &mut Vec<IpAddr>,
    judge: &mut impl FnMut(Reason, String),
) -> Vec<IpAddr> {
    let has_answered = named.is_some();
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        *remembered = named.into_iter().collect();
        return remembered.clone();
    }
    if !remembered.is_empty() {
        if has_answered {
            let known: Vec<_> = remembered.iter().map(ToString::to_string).collect();
            let known = known.join(", ");
            judge(
                Reason::NoServers,
                format!("the API names no API server, which is not believed: {known} stay until it does"),
            );
        }
        return remembered.clone();
    }
    if settings.backends.is_empty() {
        let what = if has_answered { "the API names none" } else { "the API has not answered" };
        let message = format!(
            "no API server is known: {what}, and `controlPlane.backends` is empty; write the first servers there"
        );
        judge(Reason::NoServers, message);
    }
    settings.backends.clone()
}

/// Whether servers are learned in another way than before.
fn learns_otherwise(before: &ControlPlaneSettings, now: &ControlPlaneSettings) -> bool {
    (before.from, &before.node_selector) != (now.from, &now.node_selector)
}

/// What the API says of its servers.
struct Named {
    servers: BTreeSet<IpAddr>,
    /// Ports of theirs that are not those of the configuration.
    other_ports: BTreeSet<u16>,
}

fn named(settings: &ControlPlaneSettings, inventory: &Inventory) -> Named {
    match settings.from {
        ServersFrom::Static => {
            Named { servers: settings.backends.iter().copied().collect(), other_ports: BTreeSet::new() }
        }
        ServersFrom::Nodes => {
            let nodes = inventory.nodes.values().filter(|node| matches(&settings.node_selector, &node.labels));
            let servers = nodes.filter_map(|node| node.internal.first().copied()).collect();
            Named { servers, other_ports: BTreeSet::new() }
        }
        ServersFrom::Endpoints => {
            let all = endpoints(inventory);
            Named {
                servers: all.iter().map(SocketAddr::ip).collect(),
                other_ports: all.iter().map(SocketAddr::port).filter(|port| *port != settings.server_port).collect(),
            }
        }
    }
}

/// Whether labels are as selected; an empty value stands for any.
fn matches(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key).is_some_and(|label| value.is_empty() || label == value))
}

/// Address and port of every API server that the cluster names.
pub fn endpoints(inventory: &Inventory) -> BTreeSet<SocketAddr> {
    let slices = inventory.slices.get(&ObjectName::new(API.0, API.1));
    let of_slice = |slice: &Shared<EndpointSlice>| {
        let is_https = |name: &str| name == "https" || name.is_empty();
        let port = slice.ports.iter().find(|port| is_https(&port.name)).map(|port| port.port);
        let serving = slice.endpoints.iter().filter(|endpoint| endpoint.ready || endpoint.serving);
        let addresses = serving.flat_map(|endpoint| endpoint.addresses.iter().copied());
        addresses.filter_map(|address| Some(SocketAddr::new(address, port?))).collect::<Vec<_>>()
    };
    slices.into_iter().flatten().flat_map(of_slice).collect()
}

fn build(settings: &ControlPlaneSettings, servers: &[IpAddr]) -> Service {
    let port = settings.server_port;
    Service {
        name: CONTROL_PLANE.to_owned(),
        vips: settings.vips.clone(),
        ports: vec![settings.port],
        protocol: Protocol::Tcp,
        delivery: Delivery::Auto,
        ring_size: RingSize::DEFAULT,
        backends: servers.iter().map(|address| Backend { address: *address, port, weight: 1 }).collect(),
        flow_timeout: Protocol::Tcp.flow_timeout(),
        affinity: None,
        probe: settings.probe.clone(),
        slow_start: Duration::ZERO,
        drop_unmatched: true,
        source_ranges: Vec::new(),
        mss_clamp: MssClamp::Auto,
        hold: HoldWhen::PortOpen,
        connect_translation: settings.connect_translation,
        second_chance: true,
        local_first: settings.local_first,
    }
}

/// How the VIPs are announced: by nodes with a server of their own.
pub fn announcements(settings: &ControlPlaneSettings) -> impl Iterator<Item = Announcement> {
    settings.announced_for.into_iter().flat_map(|lifetime| {
        settings.vips.iter().map(move |vip| Announcement {
            vip: *vip,
            announcer: AnnouncerKind::Loopback,
            when: AnnounceWhen::LocalBackend,
            lifetime,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::fixtures::{endpoint, ip, node},
        model::inventory::EndpointPort,
    };

    const ROLE: &str = "node-role.kubernetes.io/control-plane";

    fn settings(from: ServersFrom) -> ControlPlaneSettings {
        ControlPlaneSettings {
            vips: vec![ip("192.0.2.10")],
            port: 6443,
            server_port: 6443,
            connect_translation: false,
            local_first: false,
            backends: vec![ip("10.0.0.9")],
            from,
            node_selector: Labels::from([(ROLE.to_owned(), String::new())]),
            probe: None,
            announced_for: Some(Duration::from_secs(30)),
        }
    }

    fn cluster(servers: &[&str], port: u16) -> Inventory {
        let mut inventory = Inventory::default();
        let port = EndpointPort { name: "https".to_owned(), protocol: "TCP".to_owned(), port };
        let endpoints = servers.iter().map(|server| endpoint(server, "")).collect();
        let slices = vec![EndpointSlice { name: "kubernetes".to_owned(), ports: vec![port], endpoints }];
        inventory.slices.insert(ObjectName::new("default", "kubernetes"), slices.into_iter().map(Into::into).collect());
        inventory
    }

    struct World {
        settings: ControlPlaneSettings,
        remembered: Remembered,
    }

    impl World {
        fn new(from: ServersFrom) -> Self {
            Self { settings: settings(from), remembered: Remembered::default() }
        }

        /// Last bytes of the servers' addresses, and the reasons of judgements.
        fn servers(&mut self, inventory: Option<&Inventory>) -> (Vec<String>, Vec<Reason>) {
            let mut judgements = Vec::new();
            let service = service(&self.settings, inventory, &mut self.remembered, &mut judgements);
            let servers = service.backends.iter().map(|backend| backend.address.to_string()).collect();
            (servers, judgements.iter().map(|judgement| judgement.reason).collect())
        }
    }

    fn of(servers: &[&str]) -> Vec<String> {
        servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_configured_servers_serve_until_the_api_names_others() {
        let mut world = World::new(ServersFrom::Endpoints);
        assert_eq!(world.servers(None), (of(&["10.0.0.9"]), vec![]));
        assert_eq!(world.servers(Some(&Inventory::default())), (of(&["10.0.0.9"]), vec![]), "a fresh etcd");
        assert_eq!(
            world.servers(Some(&cluster(&["10.0.0.2", "10.0.0.1"], 6443))),
            (of(&["10.0.0.1", "10.0.0.2"]), vec![])
        );
    }

    #[test]
    fn an_empty_slice_never_removes_the_last_servers() {
        let mut world = World::new(ServersFrom::Endpoints);
        world.servers(Some(&cluster(&["10.0.0.1", "10.0.0.2"], 6443)));
        world.servers(Some(&cluster(&["10.0.0.2"], 6443)));
        for empty in [cluster(&[], 6443), Inventory::default()] {
            assert_eq!(world.servers(Some(&empty)), (of(&["10.0.0.2"]), vec![Reason::NoServers]));
        }
        assert_eq!(world.servers(None), (of(&["10.0.0.2"]), vec![]));
    }

    #[test]
    fn servers_are_the_nodes_of_the_role_if_told() {
        let mut world = World::new(ServersFrom::Nodes);
        let mut inventory = cluster(&["10.0.0.7"], 6443);
        for (name, value) in [("n1", Some("")), ("n2", Some("true")), ("n3", None)] {
            let mut node = node(&[&format!("10.0.0.{}", &name[1..])]);
            node.labels.extend(value.map(|value| (ROLE.to_owned(), value.to_owned())));
            inventory.nodes.insert(name.to_owned(), node);
        }
        assert_eq!(world.servers(Some(&inventory)).0, of(&["10.0.0.1", "10.0.0.2"]));
        world.settings.node_selector = Labels::from([(ROLE.to_owned(), "true".to_owned())]);
        assert_eq!(world.servers(Some(&inventory)).0, of(&["10.0.0.2"]));
        world.settings.from = ServersFrom::Static;
        assert_eq!(world.servers(Some(&inventory)), (of(&["10.0.0.9"]), vec![]));
    }

    #[test]
    fn another_port_and_the_vip_as_server_are_reported() {
        let mut world = World::new(ServersFrom::Endpoints);
        assert_eq!(world.servers(Some(&cluster(&["10.0.0.1"], 8443))), (of(&["10.0.0.1"]), vec![Reason::ServerPort]));
        let looping = cluster(&["10.0.0.1", "192.0.2.10"], 6443);
        assert_eq!(world.servers(Some(&looping)), (of(&["10.0.0.1"]), vec![Reason::NoServers]));
    }

    #[test]
    fn no_server_at_all_is_said() {
        let mut world = World::new(ServersFrom::Endpoints);
        world.settings.backends.clear();
        assert_eq!(world.servers(None), (vec![], vec![Reason::NoServers]));
    }
}
