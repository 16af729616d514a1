//! `nsxt:`: where the static routes of VIPs are kept in NSX-T, and how its managers are spoken to.
//!
//! The password never stands in the file: it is read from another file or from the environment when it is needed, so that
//! a changed one needs no restart, and a configuration can be shown whole.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    authorities::CaFiles,
    error::{ConfigErrors, Problems},
    nsxt_values::{hash_value, manager},
    read::{Fields, Located, boolean, choice, duration, integer, list, quoted, text},
    read_bytes, text_of,
    yaml::{self, Node, Value},
};

const KEYS: &[&str] = &[
    "cluster",
    "managers",
    "tier1",
    "api",
    "auth",
    "username",
    "passwordFile",
    "passwordEnv",
    "clientCertificateFile",
    "clientKeyFile",
    "caFile",
    "thumbprint",
    "insecureSkipVerify",
    "maxNextHops",
    "adminDistance",
    "allowOverwrite",
    "adopt",
    "fixAdvertisement",
    "resync",
    "timeout",
    "requestsPerSecond",
    // Known, so that it can be refused by name.
    "password",
];
/// The most managers: a cluster of NSX-T has three, and a VIP.
const MAX_MANAGERS: usize = 16;
/// Longest name of a cluster: a tag has at most 256 characters (NSX-T Policy API, `Tag`).
const MAX_CLUSTER: usize = 256;

/// Everything under `nsxt:`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NsxtConfig {
    /// Name of this cluster, in the tag that says which routes are ours; 1..=256 characters. Required.
    pub cluster: String,
    /// Managers as `https://host[:port]`, 1..=16, asked in this order until one answers. Required.
    pub managers: Vec<String>,
    /// Tier-1 gateway: its path, id or display name. Required.
    pub tier1: String,
    /// Which API. Default `auto`.
    pub api: NsxtApi,
    /// How to log in. Default `basic`, or `certificate` where only `clientCertificateFile` is given.
    pub auth: NsxtAuth,
    /// Which managers are believed. Required: one of `caFile`, `thumbprint`, `insecureSkipVerify`.
    pub trust: NsxtTrust,
    /// The most next hops of a route, 1..=64. Default 8, the most equal paths that NSX-T documents for a gateway.
    pub max_next_hops: u8,
    /// Distance of the next hops, 1..=255. Default 1.
    pub admin_distance: u8,
    /// Send `X-Allow-Overwrite: true`, by which an administrator changes protected objects. Default false.
    pub allow_overwrite: bool,
    /// Take over a route of our name or network that lacks our tag. Default false.
    pub adopt: bool,
    /// Switch on the advertisement of static routes at the gateway where it is off. Default false.
    pub fix_advertisement: bool,
    /// Time between two comparisons with the manager when nothing changes, 60 s..=24 h. Default 60 s.
    pub resync: Duration,
    /// The longest that one request may take, 1 s..=60 s. Default 5 s.
    pub timeout: Duration,
    /// The most requests per second, 1..=50. Default 5. A manager refuses more than 100 of one user.
    pub requests_per_second: u8,
}

/// Which API of NSX-T writes the routes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum NsxtApi {
    /// Policy if it knows the gateway, else Manager.
    #[default]
    Auto,
    /// `/policy/api/v1`.
    Policy,
    /// `/api/v1`, for gateways made there; NSX-T 9.0 has it no more.
    Manager,
}

/// How to log in at a manager.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NsxtAuth {
    /// Name and password with every request.
    Basic(NsxtLogin),
    /// Name and password once per manager, then a cookie and a token.
    Session(NsxtLogin),
    /// A client certificate that is registered as a principal identity.
    Certificate {
        /// PEM file with the certificate and what signed it.
        certificate: PathBuf,
        /// PEM file with its key.
        key: PathBuf,
    },
}

/// A name, and where its password is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NsxtLogin {
    /// `admin`, or `user@domain`.
    pub username: String,
    /// Where its password is.
    pub password: PasswordSource,
}

/// Where a password is read from, when it is needed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PasswordSource {
    /// A file; a line end at its end does not belong to it.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
}

/// Which managers are believed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NsxtTrust {
    /// Those with a certificate for their name, signed by one of these; DER.
    Authorities(Vec<Vec<u8>>),
    /// Those whose own certificate has one of these SHA-256 values.
    Thumbprints(Vec<[u8; 32]>),
    /// All. Whoever is in between reads the password.
    Anybody,
}

/// Reads the `nsxt:` of a file; its other keys belong to others. `None` if it has none.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_nsxt(path: &Path) -> Result<Option<NsxtConfig>, ConfigErrors> {
    let name = path.display().to_string();
    let text = text_of(&name, read_bytes(path)?)?;
    parse_nsxt(&name, &text, super::base_dir(path))
}

/// Reads the `nsxt:` of a text. Relative paths in it start from `base_dir`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_nsxt(file_name: &str, text: &str, base_dir: &Path) -> Result<Option<NsxtConfig>, ConfigErrors> {
    let root = yaml::read(file_name, text).map_err(|problem| ConfigErrors { problems: vec![problem] })?;
    let Value::Map(entries) = &root.value else { return Ok(None) };
    let Some((_, node)) = entries.iter().find(|(key, _)| key.name == "nsxt") else { return Ok(None) };
    let mut problems = Problems::of(file_name);
    let config = nsxt(node, base_dir, &mut problems);
    Ok(problems.finish(config)?.0)
}

/// The value of `nsxt:`.
pub(super) fn nsxt(node: &Node, base_dir: &Path, problems: &mut Problems) -> Option<NsxtConfig> {
    let fields = Fields::of(node, "nsxt", KEYS, problems)?;
    let cluster = fields.required("cluster", problems).and_then(|value| cluster(value, problems));
    let managers = managers(&fields, problems);
    let tier1 = fields.required("tier1", problems).and_then(|value| text(value, "tier1", problems));
    let auth = auth(&fields, base_dir, problems);
    let trust = trust(&fields, base_dir, problems);
    let apis = [("auto", NsxtApi::Auto), ("policy", NsxtApi::Policy), ("manager", NsxtApi::Manager)];
    let api = fields.optional("api").and_then(|value| choice(value, "api", &apis, problems));
    let numbers = [("maxNextHops", 1..=64, 8), ("adminDistance", 1..=255, 1), ("requestsPerSecond", 1..=50, 5)];
    let [max_next_hops, admin_distance, requests_per_second] = numbers.map(|(name, range, default)| {
        let read = fields.optional(name).and_then(|value| integer(value, name, &range, problems));
        read.map_or(default, |number| number.value)
    });
    let [allow_overwrite, adopt, fix_advertisement] = ["allowOverwrite", "adopt", "fixAdvertisement"].map(|name| {
        fields.optional(name).and_then(|value| boolean(value, name, problems)).is_some_and(|flag| flag.value)
    });
    let [resync, timeout] = [("resync", 60..=86_400, 60), ("timeout", 1..=60, 5)].map(|(name, range, default)| {
        let range = Duration::from_secs(*range.start())..=Duration::from_secs(*range.end());
        let read = fields.optional(name).and_then(|value| duration(value, name, &range, problems));
        read.map_or(Duration::from_secs(default), |time| time.value)
    });
    Some(NsxtConfig {
        cluster: cluster?,
        managers,
        tier1: tier1?.value.trim_end_matches('/').to_owned(),
        api: api.map_or_else(NsxtApi::default, |api| api.value),
        auth: auth?,
        trust: trust?,
        max_next_hops,
        admin_distance,
        allow_overwrite,
        adopt,
        fix_advertisement,
        resync,
        timeout,
        requests_per_second,
    })
}

fn cluster(node: &Node, problems: &mut Problems) -> Option<String> {
    let Located { place, value } = text(node, "cluster", problems)?;
    if value.len() > MAX_CLUSTER || value.chars().any(char::is_control) {
        let reason = format!("`cluster` is {}; write 1..={MAX_CLUSTER} characters on one line", quoted(value));
        problems.refuse(place, reason);
        return None;
    }
    Some(value.to_owned())
}

fn managers(fields: &Fields<'_>, problems: &mut Problems) -> Vec<String> {
    let Some(node) = fields.required("managers", problems) else { return Vec::new() };
    let items = list(node, "managers", problems);
    if matches!(node.value, Value::List(_)) && !(1..=MAX_MANAGERS).contains(&items.len()) {
        problems.refuse(node.place, format!("`managers` has {} items; name 1..={MAX_MANAGERS}", items.len()));
    }
    let mut managers = Vec::new();
    for item in items {
        let Some(Located { place, value }) = text(item, "managers", problems) else { continue };
        match manager(value) {
            Ok(url) if managers.contains(&url) => {
                problems.refuse(place, format!("manager {url} is there twice; remove one of them"));
            }
            Ok(url) => managers.push(url),
            // What stands before an `@` can be a password.
            Err(reason) if value.contains('@') => problems.refuse(place, format!("a manager: {reason}")),
            Err(reason) => problems.refuse(place, format!("manager {}: {reason}", quoted(value))),
        }
    }
    managers
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Way {
    Basic,
    Session,
    Certificate,
}

fn auth(fields: &Fields<'_>, base_dir: &Path, problems: &mut Problems) -> Option<NsxtAuth> {
    if let Some(node) = fields.optional("password") {
        problems.refuse(node.place, "`password` does not stand in this file; write `passwordFile` or `passwordEnv`");
        return None;
    }
    let ways = [("basic", Way::Basic), ("session", Way::Session), ("certificate", Way::Certificate)];
    let written = match fields.optional("auth") {
        Some(value) => Some(choice(value, "auth", &ways, problems)?.value),
        None => None,
    };
    let by_certificate = fields.optional("clientCertificateFile").is_some() && fields.optional("username").is_none();
    let way = written.unwrap_or(if by_certificate { Way::Certificate } else { Way::Basic });
    let needless: &[&str] = match way {
        Way::Certificate => &["username", "passwordFile", "passwordEnv"],
        Way::Basic | Way::Session => &["clientCertificateFile", "clientKeyFile"],
    };
    let count = problems.count();
    for (name, node) in needless.iter().filter_map(|name| Some((name, fields.optional(name)?))) {
        problems.refuse(node.place, format!("`{name}` does not go with this `auth`; remove it, or change `auth`"));
    }
    if problems.count() > count {
        return None;
    }
    if way == Way::Certificate {
        let mut file = |name| {
            let path = fields.required(name, problems).and_then(|value| text(value, name, problems))?;
            Some(base_dir.join(path.value))
        };
        let (certificate, key) = (file("clientCertificateFile"), file("clientKeyFile"));
        return Some(NsxtAuth::Certificate { certificate: certificate?, key: key? });
    }
    let login = login(fields, base_dir, problems)?;
    Some(if way == Way::Session { NsxtAuth::Session(login) } else { NsxtAuth::Basic(login) })
}

fn login(fields: &Fields<'_>, base_dir: &Path, problems: &mut Problems) -> Option<NsxtLogin> {
    let username = fields.required("username", problems).and_then(|value| text(value, "username", problems));
    let password = match (fields.optional("passwordFile"), fields.optional("passwordEnv")) {
        (Some(file), None) => {
            text(file, "passwordFile", problems).map(|path| PasswordSource::File(base_dir.join(path.value)))
        }
        (None, Some(variable)) => {
            text(variable, "passwordEnv", problems).map(|name| PasswordSource::Env(name.value.to_owned()))
        }
        (Some(_), Some(second)) => {
            problems.refuse(second.place, "both `passwordFile` and `passwordEnv` are there; keep one of them");
            None
        }
        (None, None) => {
            problems.refuse(fields.place, "nsxt has no password; add `passwordFile` or `passwordEnv`");
            None
        }
    };
    Some(NsxtLogin { username: username?.value.to_owned(), password: password? })
}

/// There is just one of them, so that nobody has to know which would win.
fn trust(fields: &Fields<'_>, base_dir: &Path, problems: &mut Problems) -> Option<NsxtTrust> {
    let names = ["caFile", "thumbprint", "insecureSkipVerify"];
    let written: Vec<_> = names.into_iter().filter_map(|name| Some((name, fields.optional(name)?))).collect();
    let choose = "`caFile`, `thumbprint` (SHA-256 of the manager's certificate) or `insecureSkipVerify: true`";
    match written[..] {
        [] => {
            problems.refuse(fields.place, format!("nsxt does not say which managers to trust; add {choose}"));
            None
        }
        [(first, _), (second, node), ..] => {
            problems.refuse(node.place, format!("both `{first}` and `{second}` are there; keep one of them"));
            None
        }
        [("caFile", node)] => {
            let path = text(node, "caFile", problems)?;
            match CaFiles::new(base_dir).certificates(path.value) {
                Ok(certificates) => Some(NsxtTrust::Authorities(certificates)),
                Err(reason) => {
                    problems.refuse(path.place, reason);
                    None
                }
            }
        }
        [("thumbprint", node)] => thumbprints(node, problems),
        [(name, node)] => {
            let flag = boolean(node, name, problems)?;
            if !flag.value {
                problems.refuse(flag.place, format!("`{name}` is false, and nothing else is there; add {choose}"));
            }
            flag.value.then_some(NsxtTrust::Anybody)
        }
    }
}

fn thumbprints(node: &Node, problems: &mut Problems) -> Option<NsxtTrust> {
    let items = if let Value::List(items) = &node.value { items.as_slice() } else { std::slice::from_ref(node) };
    if items.is_empty() {
        problems.refuse(node.place, "`thumbprint` is an empty list; write one per manager");
        return None;
    }
    let mut values = Vec::new();
    for item in items {
        let Some(Located { place, value }) = text(item, "thumbprint", problems) else { continue };
        match hash_value(value) {
            Ok(hash) => values.push(hash),
            Err(reason) => problems.refuse(place, format!("`thumbprint` {reason}")),
        }
    }
    Some(NsxtTrust::Thumbprints(values))
}

#[cfg(test)]
#[path = "nsxt_tests.rs"]
mod tests;
