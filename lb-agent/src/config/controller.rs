//! The configuration of `lb-agent controller`.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::{
    ConfigErrors, Problem, base_dir,
    controller_routes::{self, RouteConfig},
    draft::{each, log},
    empty,
    error::Problems,
    read::{Fields, Located, boolean, duration, quoted, text},
    read_bytes, text_of,
    types::LogConfig,
    yaml::{self, Node},
};
use crate::{
    cluster::claim::{ClassRule, DEFAULT_CLASS},
    election::Timing,
};

/// Keys at the top of the file.
const KEYS: &[&str] = &[
    "kubeconfig",
    "identity",
    "loadBalancerClass",
    "defaultClass",
    "reserved",
    "http",
    "log",
    "leaderElection",
    "writeTimeout",
    "nodeLeaseGrace",
    "controlPlane",
    "nsxt",
];

/// Times of `leaderElection`.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);

/// A commented configuration that parses: every key with its unit, range and default.
pub const SAMPLE: &str = include_str!("../../../deploy/controller.yaml");

/// Settings of the controller.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ControllerConfig {
    /// How to reach the API server; `None`: by the ServiceAccount of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// Name of this process in the election and in Events. Default: the host's name.
    pub identity: Option<String>,
    /// Which Services are ours.
    pub class: ClassRule,
    /// Networks whose addresses are never given.
    pub reserved: Vec<IpNet>,
    /// Where `/healthz`, `/readyz` and `/metrics` are served; `None` when off. Default 127.0.0.1:9091.
    pub http: Option<SocketAddr>,
    /// Log output.
    pub log: LogConfig,
    /// The election among controllers; `None` when off.
    pub election: Option<LeaderElection>,
    /// How long to wait for the answer to a write, 1..=60 s. Default 10 s.
    pub write_timeout: Duration,
    /// How long a node has to be gone until its Lease is removed, 1 s..=24 h. Default 10 min.
    pub lease_grace: Duration,
    /// The routes to the API servers' VIPs that are kept in NSX-T; `None` if none are.
    pub routes: Option<RouteConfig>,
    /// What was accepted but is hardly meant.
    pub warnings: Vec<Problem>,
}

/// The Lease by which controllers agree on one that writes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeaderElection {
    /// Namespace of the Lease. Default `levee-system`.
    pub namespace: String,
    /// Its name. Default `levee-controller`.
    pub name: String,
    /// How long a lead lasts. Default 3 s, renewed every 500 ms, for 2 s at most without success.
    pub timing: Timing,
}

impl Default for LeaderElection {
    fn default() -> Self {
        Self { namespace: "levee-system".to_owned(), name: "levee-controller".to_owned(), timing: Timing::default() }
    }
}

impl ControllerConfig {
    /// Reads and checks a file. Relative paths in it start from its folder.
    ///
    /// # Errors
    /// Everything that is wrong with the file; one problem if it can't be read at all.
    pub fn load(path: &std::path::Path) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let text = text_of(&name, read_bytes(path)?)?;
        Self::parse(&name, &text, base_dir(path))
    }

    /// Checks a configuration given as text. `file_name` stands in front of every problem.
    ///
    /// # Errors
    /// Everything that is wrong with the text.
    pub fn parse(file_name: &str, text: &str, base_dir: &std::path::Path) -> Result<Self, ConfigErrors> {
        if text.trim().is_empty() {
            return Err(empty(file_name));
        }
        let root = yaml::read(file_name, text).map_err(|problem| ConfigErrors { problems: vec![problem] })?;
        let mut problems = Problems::of(file_name);
        let config = read(&root, base_dir, &mut problems);
        let (config, warnings) = problems.finish(config)?;
        let config = config.ok_or_else(|| ConfigErrors::whole_file(file_name, "the file is incomplete"))?;
        Ok(Self { warnings, ..config })
    }
}

fn read(root: &Node, base_dir: &std::path::Path, problems: &mut Problems) -> Option<ControllerConfig> {
    let fields = Fields::of(root, "the file", KEYS, problems)?;
    let mut words = |key| {
        let value = fields.optional(key).and_then(|value| text(value, key, problems));
        value.map(|value| value.value.to_owned())
    };
    let (kubeconfig, identity, class) = (words("kubeconfig"), words("identity"), words("loadBalancerClass"));
    let default_class = fields.optional("defaultClass").and_then(|value| boolean(value, "defaultClass", problems));
    let mut reserved = each(fields.optional("reserved"), "reserved", problems, network);
    let (vips, routes) = controller_routes::routes(&fields, base_dir, problems);
    reserved.extend(vips.into_iter().map(IpNet::from));
    Some(ControllerConfig {
        kubeconfig: kubeconfig.map(|path| base_dir.join(path)),
        identity,
        class: ClassRule {
            class: class.unwrap_or_else(|| DEFAULT_CLASS.to_owned()),
            default_class: default_class.is_some_and(|value| value.value),
        },
        reserved,
        http: http(&fields, problems),
        log: log(&fields, problems),
        election: election(&fields, problems),
        write_timeout: seconds(&fields, "writeTimeout", 1, 60, Duration::from_secs(10), problems),
        lease_grace: seconds(&fields, "nodeLeaseGrace", 1, 24 * 3600, Duration::from_secs(600), problems),
        routes,
        warnings: Vec::new(),
    })
}

fn network(value: &Node, problems: &mut Problems) -> Option<IpNet> {
    let Located { place, value } = text(value, "reserved", problems)?;
    let network = value.parse().or_else(|_| value.parse().map(|address: std::net::IpAddr| address.into())).ok();
    if network.is_none() {
        let reason = format!("`reserved` has {}; write networks, as in 10.96.0.0/12, or addresses", quoted(value));
        problems.refuse(place, reason);
    }
    network
}

fn http(fields: &Fields<'_>, problems: &mut Problems) -> Option<SocketAddr> {
    let Some(value) = fields.optional("http") else {
        return Some(SocketAddr::from(([127, 0, 0, 1], 9091)));
    };
    let Located { place, value } = text(value, "http", problems)?;
    if value == "off" {
        return None;
    }
    let address = value.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
    if address.is_none() {
        let reason =
            format!("`http` is {}; write an address with its port, as in 127.0.0.1:9091, or off", quoted(value));
        problems.refuse(place, reason);
    }
    address
}

fn election(fields: &Fields<'_>, problems: &mut Problems) -> Option<LeaderElection> {
    let default = LeaderElection::default();
    let Some(value) = fields.optional("leaderElection") else { return Some(default) };
    if matches!(&value.value, yaml::Value::Scalar(word) if word == "off") {
        return None;
    }
    let keys = ["namespace", "name", "leaseDuration", "renewDeadline", "retryPeriod"];
    let fields = Fields::of(value, "leaderElection", &keys, problems)?;
    let mut words = |key, default: &str| {
        let value = fields.optional(key).and_then(|value| text(value, key, problems));
        value.map_or_else(|| default.to_owned(), |value| value.value.to_owned())
    };
    let (namespace, name) = (words("namespace", &default.namespace), words("name", &default.name));
    let mut time = |key, default: Duration| {
        let read = fields.optional(key).and_then(|value| duration(value, key, &TIMES, problems));
        read.map_or(default, |read| read.value)
    };
    let lease_duration = time("leaseDuration", default.timing.lease_duration());
    let renew_deadline = time("renewDeadline", default.timing.renew_deadline());
    let retry_period = time("retryPeriod", default.timing.retry_period());
    match Timing::new(lease_duration, renew_deadline, retry_period) {
        Ok(timing) => Some(LeaderElection { namespace, name, timing }),
        Err(error) => {
            problems.refuse(fields.place, format!("`leaderElection`: {error}"));
            None
        }
    }
}

fn seconds(
    fields: &Fields<'_>,
    key: &str,
    least: u64,
    most: u64,
    default: Duration,
    problems: &mut Problems,
) -> Duration {
    let range = Duration::from_secs(least)..=Duration::from_secs(most);
    let read = fields.optional(key).and_then(|value| duration(value, key, &range, problems));
    read.map_or(default, |read| read.value)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Result<ControllerConfig, String> {
        ControllerConfig::parse("c.yaml", text, Path::new("/etc/levee")).map_err(|errors| errors.to_string())
    }

    #[test]
    fn the_sample_shows_the_defaults() {
        let config = parse(SAMPLE).unwrap();
        let defaults = parse("defaultClass: false").unwrap();
        let reserved = vec!["10.96.0.0/12".parse().unwrap()];
        assert_eq!(config, ControllerConfig { reserved, ..defaults });
        for key in KEYS {
            assert!(SAMPLE.contains(&format!("{key}:")), "{key}");
        }
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(
            "kubeconfig: admin.conf\nidentity: n1\nloadBalancerClass: example.com/lb\ndefaultClass: true\n\
             reserved: [192.0.2.1, \"2001:db8::/64\"]\nhttp: off\nlog: {level: debug}\n\
             leaderElection: {namespace: a, name: b, leaseDuration: 9s, renewDeadline: 6s, retryPeriod: 1s}\nwriteTimeout: 3s\nnodeLeaseGrace: 1h\n",
        );
        let config = config.unwrap();
        assert_eq!(config.kubeconfig.as_deref(), Some(Path::new("/etc/levee/admin.conf")));
        assert_eq!(config.class, ClassRule { class: "example.com/lb".to_owned(), default_class: true });
        assert_eq!(config.reserved, ["192.0.2.1/32".parse().unwrap(), "2001:db8::/64".parse::<IpNet>().unwrap()]);
        assert_eq!((config.http, config.identity.as_deref()), (None, Some("n1")));
        let election = config.election.unwrap();
        assert_eq!((election.namespace.as_str(), election.name.as_str()), ("a", "b"));
        let seconds = Duration::from_secs;
        assert_eq!(election.timing, Timing::new(seconds(9), seconds(6), seconds(1)).unwrap());
        assert_eq!((config.write_timeout, config.lease_grace), (seconds(3), seconds(3600)));
        assert_eq!(parse("leaderElection: off").unwrap().election, None);
    }

    #[test]
    fn mistakes_are_told_with_their_places() {
        let cases = [
            ("", "is empty"),
            ("reserve: []", "c.yaml:1:1: unknown key `reserve` in the file; did you mean `reserved`?"),
            ("reserved: [web]", "c.yaml:1:12: `reserved` has `web`"),
            ("http: 1234", "`http` is `1234`"),
            ("leaderElection: {renewDeadline: 20s}", "c.yaml:1:17: `leaderElection`: the renew deadline is 20s"),
            ("writeTimeout: 2h", "`writeTimeout` is `2h`; it has to be within 1s..=1m"),
        ];
        for (text, reason) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
