//! The file as it was written, value by value within its range, with places; nothing compared with anything yet.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    authorities::{CaFiles, NamedFile},
    draft_cluster::{DraftControlPlane, DraftKubernetes, control_plane, kubernetes},
    draft_membership::membership,
    draft_node::{Environment, this_node},
    draft_service::{DraftService, service},
    error::{Place, Problems},
    read::{Fields, Located, address, choice, duration, integer, list, name, quoted, text},
    secret::Secret,
    types::{Capacities, InterfaceSpec, LogConfig, LogFormat, LogLevel, MembershipConfig, OnTerminate, XdpMode},
    yaml::{Node, Value},
};
use crate::model::{AnnounceWhen, AnnouncerKind};

/// Keys at the top of the file.
const KEYS: &[&str] = &[
    "node",
    "interfaces",
    "secret",
    "secretFile",
    "peers",
    "services",
    "announcements",
    "onTerminate",
    "http",
    "pinPath",
    "socket",
    "log",
    "capacities",
    "membership",
    "kubernetes",
    "controlPlane",
    "cgroupPath",
];
/// Longest path of a Unix socket: `sun_path` has 108 bytes, one of them the final zero (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// The whole file.
pub(super) struct Draft {
    pub(super) node: Option<DraftNode>,
    pub(super) interfaces: Vec<Located<InterfaceSpec>>,
    pub(super) secret: Option<Secret>,
    pub(super) peers: Vec<DraftNode>,
    pub(super) services: Vec<DraftService>,
    /// Files whose content became part of this.
    pub(super) files: Vec<NamedFile>,
    pub(super) announcements: Vec<DraftAnnouncement>,
    pub(super) on_terminate: OnTerminate,
    pub(super) http: Option<SocketAddr>,
    pub(super) pin_path: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) log: LogConfig,
    pub(super) capacities: DraftCapacities,
    pub(super) membership: Option<MembershipConfig>,
    pub(super) kubernetes: Option<DraftKubernetes>,
    pub(super) control_plane: Option<DraftControlPlane>,
    pub(super) cgroup_path: Option<PathBuf>,
}

/// This node or a peer.
pub(super) struct DraftNode {
    pub(super) name: Located<String>,
    pub(super) addresses: Vec<Located<IpAddr>>,
}

/// One entry of `announcements`.
pub(super) struct DraftAnnouncement {
    pub(super) vips: Vec<Located<IpAddr>>,
    pub(super) announcer: AnnouncerKind,
    pub(super) when: AnnounceWhen,
    pub(super) lifetime: Duration,
}

/// `capacities`; what is absent has its default.
#[derive(Default)]
pub(super) struct DraftCapacities {
    pub(super) services: Option<Located<u32>>,
    pub(super) backends: Option<Located<u32>>,
    pub(super) ring_slots: Option<Located<u32>>,
    pub(super) flows: Option<Located<u32>>,
    pub(super) flows_per_service: Option<Located<u32>>,
    pub(super) peers: Option<Located<u32>>,
    pub(super) addresses: Option<Located<u32>>,
    pub(super) source_ranges: Option<Located<u32>>,
    pub(super) fragments: Option<Located<u32>>,
}

/// Reads the tree. What is missing in the result was reported.
pub(super) fn draft(root: &Node, base_dir: &Path, problems: &mut Problems) -> Option<Draft> {
    let fields = Fields::of(root, "the file", KEYS, problems)?;
    let items = |key| fields.optional(key);
    let mut ca_files = CaFiles::new(base_dir);
    let services =
        each(items("services"), "services", problems, |item, problems| service(item, &mut ca_files, problems));
    let control_plane = items("controlPlane").and_then(|value| control_plane(value, &mut ca_files, problems));
    Some(Draft {
        kubernetes: items("kubernetes").and_then(|value| kubernetes(value, base_dir, problems)),
        control_plane,
        node: this_node(&fields, &Environment::of_process(), problems),
        interfaces: interfaces(&fields, problems),
        secret: secret(&fields, base_dir, problems),
        peers: each(items("peers"), "peers", problems, |item, problems| node(item, "peer", problems)),
        services,
        files: ca_files.into_files(),
        announcements: each(items("announcements"), "announcements", problems, announcement),
        on_terminate: on_terminate(&fields, problems),
        http: http(&fields, problems),
        pin_path: absolute_path(&fields, "pinPath", "/sys/fs/bpf/levee", problems),
        socket: socket(&fields, problems),
        log: log(&fields, problems),
        capacities: items("capacities").map(|value| capacities(value, problems)).unwrap_or_default(),
        membership: membership(items("membership"), problems),
        cgroup_path: cgroup_path(&fields, problems),
    })
}

/// The items of a list that may be left out, each read by `item`.
pub(super) fn each<T>(
    node: Option<&Node>,
    what: &str,
    problems: &mut Problems,
    mut item: impl FnMut(&Node, &mut Problems) -> Option<T>,
) -> Vec<T> {
    let items = node.map_or(&[][..], |node| list(node, what, problems));
    items.iter().filter_map(|node| item(node, problems)).collect()
}

/// A list that has to be there and has to have items.
pub(super) fn some_of<T>(
    fields: &Fields<'_>,
    key: &str,
    problems: &mut Problems,
    item: impl FnMut(&Node, &mut Problems) -> Option<T>,
) -> Vec<T> {
    let node = fields.required(key, problems);
    if let Some(node) = node
        && matches!(&node.value, Value::List(items) if items.is_empty())
    {
        problems.refuse(node.place, format!("`{key}` is empty; name at least one"));
    }
    each(node, key, problems, item)
}

pub(super) fn node(value: &Node, what: &'static str, problems: &mut Problems) -> Option<DraftNode> {
    let fields = Fields::of(value, what, &["name", "addresses"], problems)?;
    let name = fields.required("name", problems).and_then(|value| name(value, "name", problems));
    let addresses = some_of(&fields, "addresses", problems, |item, problems| address(item, "address", problems));
    Some(DraftNode { name: name.unwrap_or_else(|| nameless(fields.place)), addresses })
}

/// Stands for a name that was refused; checks skip it.
pub(super) const fn nameless(place: Place) -> Located<String> {
    Located::new(place, String::new())
}

fn interfaces(fields: &Fields<'_>, problems: &mut Problems) -> Vec<Located<InterfaceSpec>> {
    some_of(fields, "interfaces", problems, |item, problems| {
        let fields = Fields::of(item, "interface", &["name", "mode"], problems)?;
        let modes = [("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)];
        let mode = fields.optional("mode").and_then(|value| choice(value, "mode", &modes, problems));
        let name = fields.required("name", problems).and_then(|value| text(value, "name", problems))?;
        // The kernel's rules: `dev_valid_name` in net/core/dev.c, IFNAMSIZ 16 with the final zero.
        let valid = name.value.len() <= 15
            && !matches!(name.value, "." | "..")
            && !name.value.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
        if !valid {
            let reason =
                format!("`name` is {}; an interface has 1..=15 bytes without `/`, `:` and blanks", quoted(name.value));
            problems.refuse(name.place, reason);
            return None;
        }
        let mode = mode.map(|mode| mode.value).unwrap_or_default();
        Some(Located::new(name.place, InterfaceSpec { name: name.value.to_owned(), mode }))
    })
}

fn secret(fields: &Fields<'_>, base_dir: &Path, problems: &mut Problems) -> Option<Secret> {
    let (place, read) = match (fields.optional("secret"), fields.optional("secretFile")) {
        (Some(value), None) => {
            let digits = text(value, "secret", problems)?;
            (digits.place, Secret::from_hex(digits.value))
        }
        (None, Some(value)) => {
            let path = text(value, "secretFile", problems)?;
            if Secret::from_hex(path.value).is_ok() {
                let reason = "`secretFile` holds the secret itself; name a file with it, or call the key `secret`";
                problems.refuse(path.place, reason);
                return None;
            }
            (path.place, Secret::from_file(&base_dir.join(path.value)))
        }
        (Some(value), Some(_)) => {
            problems.refuse(value.place, "both `secret` and `secretFile` are there; keep one of them");
            return None;
        }
        (None, None) => {
            let reason = "the file has no `secretFile`; add it (or `secret`), the same secret on every director";
            problems.refuse(fields.place, reason);
            return None;
        }
    };
    read.map_err(|error| problems.refuse(place, error.to_string())).ok()
}

fn announcement(value: &Node, problems: &mut Problems) -> Option<DraftAnnouncement> {
    let fields = Fields::of(value, "announcement", &["vips", "announcer", "when", "lifetime"], problems)?;
    let announcers = [("loopback", AnnouncerKind::Loopback)];
    let whens = [("localBackend", AnnounceWhen::LocalBackend), ("always", AnnounceWhen::Always)];
    let lifetimes = Duration::from_secs(3)..=Duration::from_secs(3600);
    let vips = some_of(&fields, "vips", problems, |item, problems| address(item, "VIP", problems));
    let announcer = fields.optional("announcer").and_then(|value| choice(value, "announcer", &announcers, problems));
    let when = fields.optional("when").and_then(|value| choice(value, "when", &whens, problems));
    let lifetime = fields.optional("lifetime").and_then(|value| duration(value, "lifetime", &lifetimes, problems));
    let lifetime = lifetime.map_or(Duration::from_secs(30), |lifetime| lifetime.value);
    if lifetime.subsec_millis() != 0 {
        let place = fields.optional("lifetime").map_or(fields.place, |value| value.place);
        problems
            .refuse(place, "`lifetime` has a fraction of a second, which the kernel can't count; write whole seconds");
    }
    Some(DraftAnnouncement {
        vips,
        announcer: announcer.map_or(AnnouncerKind::Loopback, |announcer| announcer.value),
        when: when.map(|when| when.value).unwrap_or_default(),
        lifetime,
    })
}

fn on_terminate(fields: &Fields<'_>, problems: &mut Problems) -> OnTerminate {
    let choices = [("keep", OnTerminate::Keep), ("withdraw", OnTerminate::Withdraw)];
    let read = fields.optional("onTerminate").and_then(|value| choice(value, "onTerminate", &choices, problems));
    read.map(|read| read.value).unwrap_or_default()
}

fn http(fields: &Fields<'_>, problems: &mut Problems) -> Option<SocketAddr> {
    let default = SocketAddr::from(([127, 0, 0, 1], 9090));
    let Some(value) = fields.optional("http") else {
        return Some(default);
    };
    let Located { place, value } = text(value, "http", problems)?;
    if value == "off" {
        return None;
    }
    let address = value.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
    if address.is_none() {
        let reason = format!(
            "`http` is {}; write an address with its port, as in 127.0.0.1:9090 or \"[::1]:9090\", or off",
            quoted(value)
        );
        problems.refuse(place, reason);
    }
    address
}

fn socket(fields: &Fields<'_>, problems: &mut Problems) -> PathBuf {
    let path = absolute_path(fields, "socket", "/run/levee/agent.sock", problems);
    let length = path.as_os_str().len();
    if let Some(value) = fields.optional("socket")
        && length > SOCKET_PATH_MAX
    {
        let reason = format!("`socket` has {length} bytes; a Unix socket's path has at most {SOCKET_PATH_MAX}");
        problems.refuse(value.place, reason);
    }
    path
}

fn cgroup_path(fields: &Fields<'_>, problems: &mut Problems) -> Option<PathBuf> {
    let is_auto = |value: &Node| matches!(&value.value, Value::Scalar(text) if text == "auto");
    fields.optional("cgroupPath").filter(|value| !is_auto(value))?;
    Some(absolute_path(fields, "cgroupPath", "/sys/fs/cgroup", problems))
}

pub(super) fn absolute_path(fields: &Fields<'_>, key: &str, default: &str, problems: &mut Problems) -> PathBuf {
    let path = fields.optional(key).and_then(|value| text(value, key, problems));
    if let Some(Located { place, value }) = path
        && (!value.starts_with('/') || value.contains('\0'))
    {
        problems.refuse(place, format!("`{key}` is {}; write an absolute path", quoted(value)));
    }
    PathBuf::from(path.map_or(default, |path| path.value))
}

pub(super) fn log(fields: &Fields<'_>, problems: &mut Problems) -> LogConfig {
    let Some(value) = fields.optional("log") else {
        return LogConfig::default();
    };
    let Some(fields) = Fields::of(value, "log", &["format", "level"], problems) else {
        return LogConfig::default();
    };
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    let levels = levels.map(|level| (level.as_str(), level));
    let format = fields.optional("format").and_then(|value| choice(value, "format", &formats, problems));
    let level = fields.optional("level").and_then(|value| choice(value, "level", &levels, problems));
    LogConfig {
        format: format.map(|format| format.value).unwrap_or_default(),
        level: level.map(|level| level.value).unwrap_or_default(),
    }
}

fn capacities(value: &Node, problems: &mut Problems) -> DraftCapacities {
    let known = [
        "services",
        "backends",
        "ringSlots",
        "flows",
        "flowsPerService",
        "peers",
        "addresses",
        "sourceRanges",
        "fragments",
    ];
    let Some(fields) = Fields::of(value, "capacities", &known, problems) else {
        return DraftCapacities::default();
    };
    let mut read = |key, range| fields.optional(key).and_then(|value| integer(value, key, &range, problems));
    DraftCapacities {
        services: read("services", 1..=Capacities::MAX.services),
        backends: read("backends", 1..=Capacities::MAX.backends),
        ring_slots: read("ringSlots", 64..=Capacities::MAX.ring_slots),
        flows: read("flows", 64..=Capacities::MAX.flows),
        flows_per_service: read("flowsPerService", 1..=Capacities::MAX.flows_per_service),
        peers: read("peers", 1..=Capacities::MAX.peers),
        addresses: read("addresses", 1..=Capacities::MAX.addresses),
        source_ranges: read("sourceRanges", 1..=Capacities::MAX.source_ranges),
        fragments: read("fragments", 1024..=Capacities::MAX.fragments),
    }
}
