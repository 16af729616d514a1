//! `kubernetes` and `controlPlane` as they were written: values within their ranges, with places.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::{
    authorities::CaFiles,
    draft::{absolute_path, each, some_of},
    draft_probe::{self, ProbeDefaults},
    error::{Place, Problems},
    read::{Fields, Located, address, boolean, choice, duration, flag, integer, quoted, text},
    target_port,
    yaml::{Node, Value},
};
use crate::{
    cluster::claim::DEFAULT_CLASS,
    model::{ClusterAccess, ControlPlaneSettings, KubernetesSettings, Probe, ServersFrom, inventory::Labels},
};

const KUBERNETES_KEYS: &[&str] = &[
    "kubeconfig",
    "servers",
    "stateFile",
    "maxSnapshotAge",
    "loadBalancerClass",
    "defaultClass",
    "services",
    "reserved",
    "announceLifetime",
    "nodeName",
    "peersFromNodes",
    "localFirst",
    "secondChance",
];
const CONTROL_PLANE_KEYS: &[&str] = &[
    "vips",
    "port",
    "serverPort",
    "backends",
    "from",
    "nodeSelector",
    "probe",
    "announcer",
    "announceLifetime",
    "connectTranslation",
    "localFirst",
];
/// The label that kubeadm puts on nodes with an API server.
const ROLE: &str = "node-role.kubernetes.io/control-plane";
/// `maxSnapshotAge`.
const AGES: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(720 * 3600);
/// `announceLifetime`, as of announcements.
const LIFETIMES: RangeInclusive<Duration> = Duration::from_secs(3)..=Duration::from_secs(3600);
/// How API servers are asked unless the file says otherwise; every one of them has a certificate for this name.
const PROBE: ProbeDefaults =
    ProbeDefaults { path: "/readyz", server_name: Some("kubernetes.default.svc"), interval: Duration::from_secs(1) };

/// `kubernetes`.
pub(super) struct DraftKubernetes {
    pub(super) access: ClusterAccess,
    max_snapshot_age: Duration,
    class: String,
    default_class: bool,
    services: bool,
    reserved: Vec<IpNet>,
    lifetime: Duration,
    local_first: bool,
    second_chance: bool,
    node_name: Option<String>,
    peers_from_nodes: Option<bool>,
}

/// `controlPlane`.
pub(super) struct DraftControlPlane {
    pub(super) place: Place,
    pub(super) vips: Vec<Located<IpAddr>>,
    pub(super) backends: Vec<Located<IpAddr>>,
    pub(super) from: Option<Located<ServersFrom>>,
    port: u16,
    /// With the place of `serverPort`, or of the whole.
    pub(super) server_port: Located<u16>,
    connect_translation: bool,
    local_first: bool,
    node_selector: Labels,
    probe: Option<Probe>,
    announced_for: Option<Duration>,
}

impl DraftKubernetes {
    /// The settings, on a node of this name, of a file with peers or without.
    pub(super) fn build(self, node: &str, has_peers: bool) -> KubernetesSettings {
        KubernetesSettings {
            access: self.access,
            max_snapshot_age: self.max_snapshot_age,
            class: self.class,
            default_class: self.default_class,
            services: self.services,
            reserved: self.reserved,
            lifetime: self.lifetime,
            local_first: self.local_first,
            second_chance: self.second_chance,
            node_name: self.node_name.unwrap_or_else(|| node.to_owned()),
            peers_from_nodes: self.peers_from_nodes.unwrap_or(!has_peers),
        }
    }
}

impl DraftControlPlane {
    /// Where servers are learned from, in a file with `kubernetes` or without.
    pub(super) fn source(&self, has_kubernetes: bool) -> ServersFrom {
        let default = if has_kubernetes { ServersFrom::Endpoints } else { ServersFrom::Static };
        self.from.map_or(default, |from| from.value)
    }

    pub(super) fn build(self, has_kubernetes: bool) -> ControlPlaneSettings {
        let from = self.source(has_kubernetes);
        let mut backends: Vec<IpAddr> = self.backends.into_iter().map(|backend| backend.value).collect();
        backends.sort_unstable();
        ControlPlaneSettings {
            vips: self.vips.into_iter().map(|vip| vip.value).collect(),
            port: self.port,
            server_port: self.server_port.value,
            connect_translation: self.connect_translation,
            local_first: self.local_first,
            backends,
            from,
            node_selector: self.node_selector,
            probe: self.probe.map(Arc::new),
            announced_for: self.announced_for,
        }
    }
}

/// Reads `kubernetes`.
pub(super) fn kubernetes(value: &Node, base_dir: &Path, problems: &mut Problems) -> Option<DraftKubernetes> {
    let fields = Fields::of(value, "kubernetes", KUBERNETES_KEYS, problems)?;
    let mut flag = |key| fields.optional(key).and_then(|value| boolean(value, key, problems)).map(|flag| flag.value);
    let (default_class, services, peers_from_nodes) = (flag("defaultClass"), flag("services"), flag("peersFromNodes"));
    let local_first = flag("localFirst").unwrap_or(false);
    let second_chance = flag("secondChance").unwrap_or(false);
    let kubeconfig = fields.optional("kubeconfig").and_then(|value| text(value, "kubeconfig", problems));
    let age = fields.optional("maxSnapshotAge").and_then(|value| duration(value, "maxSnapshotAge", &AGES, problems));
    Some(DraftKubernetes {
        access: ClusterAccess {
            kubeconfig: kubeconfig.map(|path| base_dir.join(path.value)),
            servers: each(fields.optional("servers"), "servers", problems, server),
            state_file: state_file(&fields, problems),
        },
        max_snapshot_age: age.map_or(Duration::from_secs(24 * 3600), |age| age.value),
        class: object_name(&fields, "loadBalancerClass", problems).unwrap_or_else(|| DEFAULT_CLASS.to_owned()),
        default_class: default_class.unwrap_or(false),
        services: services.unwrap_or(true),
        reserved: each(fields.optional("reserved"), "reserved", problems, prefix),
        lifetime: lifetime(&fields, problems),
        local_first,
        second_chance,
        node_name: object_name(&fields, "nodeName", problems),
        peers_from_nodes,
    })
}

fn state_file(fields: &Fields<'_>, problems: &mut Problems) -> PathBuf {
    absolute_path(fields, "stateFile", "/var/lib/levee/inventory.json", problems)
}

/// Whole seconds, since the kernel counts no others.
fn lifetime(fields: &Fields<'_>, problems: &mut Problems) -> Duration {
    const KEY: &str = "announceLifetime";
    let written = fields.optional(KEY).and_then(|value| duration(value, KEY, &LIFETIMES, problems));
    if let Some(written) = written.filter(|written| written.value.subsec_millis() != 0) {
        let reason = "`announceLifetime` has a fraction of a second, which the kernel can't count; write whole seconds";
        problems.refuse(written.place, reason);
    }
    written.map_or(Duration::from_secs(30), |written| written.value)
}

/// A name as Kubernetes has them, with a prefix before a slash if need be.
fn object_name(fields: &Fields<'_>, key: &'static str, problems: &mut Problems) -> Option<String> {
    let Located { place, value } = fields.optional(key).and_then(|value| text(value, key, problems))?;
    let fits = value.len() <= 253 && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
    if !fits {
        let reason =
            format!("`{key}` is {}; write 1..=253 characters of A-Z, a-z, 0-9, `.`, `_`, `-`, `/`", quoted(value));
        problems.refuse(place, reason);
    }
    Some(value.to_owned())
}

/// One entry of `servers`.
fn server(value: &Node, problems: &mut Problems) -> Option<SocketAddr> {
    let Located { place, value } = text(value, "servers", problems)?;
    let server = value.parse().ok().filter(|server: &SocketAddr| server.port() != 0);
    if server.is_none() {
        let reason = format!(
            "`servers` has {}; write address and port as in 10.0.1.2:6443 or \"[fd00:1::2]:6443\"",
            quoted(value)
        );
        problems.refuse(place, reason);
    }
    server
}

/// One entry of `reserved`: a prefix, or an address for itself alone.
fn prefix(value: &Node, problems: &mut Problems) -> Option<IpNet> {
    let Located { place, value } = text(value, "reserved", problems)?;
    let net = value.parse::<IpNet>().ok().or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from));
    match net {
        Some(net) if net == net.trunc() => return Some(net),
        Some(net) => {
            problems.refuse(place, format!("reserved {net} has bits beyond its length; write {}", net.trunc()));
        }
        None => {
            let reason =
                format!("reserved {} is no prefix; write one as in 10.96.0.0/12, IPv6 in quotes", quoted(value));
            problems.refuse(place, reason);
        }
    }
    None
}

/// Reads `controlPlane`.
pub(super) fn control_plane(
    value: &Node,
    ca_files: &mut CaFiles,
    problems: &mut Problems,
) -> Option<DraftControlPlane> {
    let fields = Fields::of(value, "controlPlane", CONTROL_PLANE_KEYS, problems)?;
    let sources =
        [("endpoints", ServersFrom::Endpoints), ("nodes", ServersFrom::Nodes), ("static", ServersFrom::Static)];
    let announcers = [("loopback", true), ("none", false)];
    let from = fields.optional("from").and_then(|value| choice(value, "from", &sources, problems));
    let announced = fields.optional("announcer").and_then(|value| choice(value, "announcer", &announcers, problems));
    let lifetime = lifetime(&fields, problems);
    let mut port = |key| fields.optional(key).and_then(|value| integer(value, key, &(1..=u16::MAX), problems));
    let (port, server_port) = (port("port").map_or(6443, |port| port.value), port("serverPort"));
    let server_port = server_port.unwrap_or(Located::new(fields.place, port));
    Some(DraftControlPlane {
        place: fields.place,
        vips: some_of(&fields, "vips", problems, |item, problems| address(item, "VIP", problems)),
        backends: each(fields.optional("backends"), "backends", problems, |item, problems| {
            address(item, "backend address", problems)
        }),
        from,
        port,
        server_port,
        connect_translation: target_port::translation(&fields, problems).value,
        local_first: flag(&fields, "localFirst", problems),
        node_selector: node_selector(&fields, problems),
        probe: probe(&fields, server_port.value, ca_files, problems),
        announced_for: announced.is_none_or(|announced| announced.value).then_some(lifetime),
    })
}

fn node_selector(fields: &Fields<'_>, problems: &mut Problems) -> Labels {
    let Some(value) = fields.optional("nodeSelector") else {
        return Labels::from([(ROLE.to_owned(), String::new())]);
    };
    let Value::Map(entries) = &value.value else {
        problems.refuse(value.place, "`nodeSelector` is no mapping; write labels as in `{example.org/role: api}`");
        return Labels::new();
    };
    if entries.is_empty() {
        problems.refuse(value.place, "`nodeSelector` is empty and would select every node; name at least one label");
    }
    let label = |node: &Node| match &node.value {
        Value::Scalar(text) => Some(text.clone()),
        Value::Null => Some(String::new()),
        _ => None,
    };
    let mut labels = Labels::new();
    for (key, value) in entries {
        match label(value) {
            Some(text) => {
                labels.insert(key.name.clone(), text);
            }
            None => problems.refuse(value.place, "a label is a single value, or empty for any; write it as text"),
        }
    }
    labels
}

fn probe(fields: &Fields<'_>, port: u16, ca_files: &mut CaFiles, problems: &mut Problems) -> Option<Probe> {
    if fields.optional("probe").is_none() {
        let reason = "controlPlane has no `probe`; add `probe: {https: {caFile: /etc/kubernetes/pki/ca.crt}}`, or \
                      `insecureSkipVerify: true` in place of the file while there is none yet";
        problems.refuse(fields.place, reason);
        return None;
    }
    draft_probe::probe(fields, Some(port), &PROBE, ca_files, problems)
}
