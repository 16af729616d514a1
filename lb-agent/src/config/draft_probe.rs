//! `probe` of a service: how its backends are asked whether they serve.

use std::{ops::RangeInclusive, time::Duration};

use rustls::pki_types::ServerName;

use super::{
    authorities::CaFiles,
    draft::each,
    draft_credentials::credentials,
    error::Problems,
    read::{Fields, Located, boolean, duration, integer, quoted, show, text},
    yaml::{Node, Value},
};
use crate::model::{ExpectedStatus, HttpProbe, Probe, ProbeKind, TlsProbe, Trust};

const KEYS: &[&str] = &["tcp", "http", "https", "interval", "timeout", "rise", "fall"];
const HTTP_KEYS: &[&str] = &["port", "path", "host", "status"];
const HTTPS_KEYS: &[&str] = &[
    "port",
    "path",
    "host",
    "status",
    "caFile",
    "insecureSkipVerify",
    "serverName",
    "tokenFile",
    "clientCertFile",
    "clientKeyFile",
];
/// HTTP status codes (RFC 9110 section 15).
const CODES: RangeInclusive<u16> = 100..=599;
/// Longest path and host, in bytes.
const MAX_TEXT: usize = 1024;

/// What a probe is where the file says nothing.
pub(super) struct ProbeDefaults {
    pub(super) path: &'static str,
    pub(super) server_name: Option<&'static str>,
    pub(super) interval: Duration,
}

/// The defaults for services.
pub(super) const PROBE: ProbeDefaults =
    ProbeDefaults { path: "/", server_name: None, interval: Duration::from_secs(2) };

/// The probe of a service: as written, `none`, or a TCP probe of `own_port`, the one TCP port of the service if there is
/// just one.
pub(super) fn probe(
    service: &Fields<'_>,
    own_port: Option<u16>,
    defaults: &ProbeDefaults,
    ca_files: &mut CaFiles,
    problems: &mut Problems,
) -> Option<Probe> {
    let Some(value) = service.optional("probe") else {
        return own_port.map(|port| default_probe(ProbeKind::Tcp, port, defaults));
    };
    if matches!(&value.value, Value::Scalar(text) if text == "none") {
        return None;
    }
    if !matches!(value.value, Value::Map(_)) {
        let reason =
            format!("`probe` is {}; write `none`, or a mapping with the keys {}", value.value.kind(), KEYS.join(", "));
        problems.refuse(value.place, reason);
        return None;
    }
    let fields = Fields::of(value, "probe", KEYS, problems)?;
    let Question { key, port, kind } = question(&fields, defaults, ca_files, problems);
    let port = port.or(own_port);
    // What was refused makes no configuration, so its place can be taken by anything while the reading goes on.
    let mut probe = default_probe(kind.unwrap_or(ProbeKind::Tcp), port.unwrap_or(1), defaults);
    timing(&fields, &mut probe, problems);
    if port.is_none() && service.optional("ports").is_some() {
        let reason = format!(
            "the probe has no port, and the service has not just one TCP port to take; add `{key}: {{port: ...}}`"
        );
        problems.refuse(fields.place, reason);
    }
    port.map(|_| probe)
}

const fn default_probe(kind: ProbeKind, port: u16, defaults: &ProbeDefaults) -> Probe {
    Probe { kind, port, interval: defaults.interval, timeout: Duration::from_secs(1), rise: 2, fall: 3 }
}

/// What is asked, as far as it was good.
struct Question {
    key: &'static str,
    port: Option<u16>,
    /// `None` if something in it was refused.
    kind: Option<ProbeKind>,
}

fn question(probe: &Fields<'_>, defaults: &ProbeDefaults, ca_files: &mut CaFiles, problems: &mut Problems) -> Question {
    let nothing = |key| Question { key, port: None, kind: None };
    let written: Vec<_> =
        ["tcp", "http", "https"].into_iter().filter_map(|key| Some((key, probe.optional(key)?))).collect();
    if let [(first, _), (second, value), ..] = written[..] {
        problems.refuse(value.place, format!("both `{first}` and `{second}` are there; keep one of them"));
        return nothing(first);
    }
    let Some((key, value)) = written.first().copied() else {
        return Question { kind: Some(ProbeKind::Tcp), ..nothing("tcp") };
    };
    let known = match key {
        "tcp" => &["port"],
        "http" => HTTP_KEYS,
        _ => HTTPS_KEYS,
    };
    let Some(fields) = Fields::of(value, key, known, problems) else {
        return nothing(key);
    };
    let port = fields.optional("port").and_then(|value| integer(value, "port", &(1..=u16::MAX), problems));
    let kind = match key {
        "tcp" => Some(ProbeKind::Tcp),
        "http" => http(&fields, defaults, problems).map(ProbeKind::Http),
        _ => {
            let (http, tls) = (http(&fields, defaults, problems), tls(&fields, defaults, ca_files, problems));
            http.zip(tls).map(|(http, tls)| ProbeKind::Https(http, tls))
        }
    };
    Question { key, port: port.map(|port| port.value), kind }
}

fn http(fields: &Fields<'_>, defaults: &ProbeDefaults, problems: &mut Problems) -> Option<HttpProbe> {
    let before = problems.count();
    let path = fields.optional("path").and_then(|value| text(value, "path", problems));
    let path = path.map_or(defaults.path, |path| {
        let is_path = path.value.starts_with('/') && !path.value.contains('#');
        if !(is_path && is_visible(path.value) && path.value.parse::<hyper::Uri>().is_ok()) {
            let reason = format!(
                "`path` is {}; write a path that begins with `/`, in visible ASCII, other bytes as %XX, at most {MAX_TEXT} bytes",
                quoted(path.value)
            );
            problems.refuse(path.place, reason);
        }
        path.value
    });
    let host = fields.optional("host").and_then(|value| text(value, "host", problems));
    if let Some(host) = host.filter(|host| !is_visible(host.value) || host.value.contains(['/', '@'])) {
        let reason = format!(
            "`host` is {}; write the name (with `:port` if the server wants it) for the Host header",
            quoted(host.value)
        );
        problems.refuse(host.place, reason);
    }
    let status = fields.optional("status").map_or_else(ExpectedStatus::default, |value| status(value, problems));
    (problems.count() == before).then(|| HttpProbe {
        path: path.to_owned(),
        host: host.map(|host| host.value.to_owned()),
        status,
    })
}

/// Printable ASCII without blanks, of a bearable length.
fn is_visible(text: &str) -> bool {
    text.len() <= MAX_TEXT && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// One code or range, or a list of them.
fn status(value: &Node, problems: &mut Problems) -> ExpectedStatus {
    if !matches!(value.value, Value::List(_)) {
        return ExpectedStatus::of(codes(value, problems));
    }
    if matches!(&value.value, Value::List(items) if items.is_empty()) {
        problems.refuse(value.place, "`status` is empty; name at least one, or leave the key out for 200-399");
    }
    ExpectedStatus::of(each(Some(value), "status", problems, codes))
}

fn codes(value: &Node, problems: &mut Problems) -> Option<RangeInclusive<u16>> {
    let Located { place, value: text } = text(value, "status", problems)?;
    let code = |text: &str| text.parse().ok().filter(|code| CODES.contains(code) && text.len() == 3);
    let range = match text.split_once('-') {
        Some((first, last)) => code(first).zip(code(last)),
        None => code(text).map(|code| (code, code)),
    };
    let range = range.filter(|(first, last)| first <= last);
    if range.is_none() {
        let reason = format!(
            "`status` is {}; write a code in 100..=599 as in 200, a range as in 200-299, or a list of them",
            quoted(text)
        );
        problems.refuse(place, reason);
    }
    range.map(|(first, last)| first..=last)
}

fn tls(
    fields: &Fields<'_>,
    defaults: &ProbeDefaults,
    ca_files: &mut CaFiles,
    problems: &mut Problems,
) -> Option<TlsProbe> {
    let before = problems.count();
    let server_name = fields.optional("serverName").and_then(|value| text(value, "serverName", problems));
    if let Some(name) = server_name.filter(|name| ServerName::try_from(name.value).is_err()) {
        let reason = format!(
            "`serverName` is {}; write the DNS name or address that the servers' certificates are for",
            quoted(name.value)
        );
        problems.refuse(name.place, reason);
    }
    let skips = fields.optional("insecureSkipVerify").and_then(|value| boolean(value, "insecureSkipVerify", problems));
    let trust = match (fields.optional("caFile"), skips.is_some_and(|skips| skips.value)) {
        (Some(value), false) => authorities(value, ca_files, problems),
        (None, true) => Some(Trust::Anybody),
        (Some(value), true) => {
            let reason = "both `caFile` and `insecureSkipVerify: true` are there; keep one of them";
            problems.refuse(value.place, reason);
            None
        }
        (None, false) => {
            if problems.count() == before {
                let reason = "https has no `caFile`; add it, or `insecureSkipVerify: true` to accept any certificate";
                problems.refuse(fields.place, reason);
            }
            None
        }
    };
    let server_name = server_name.map(|name| name.value).or(defaults.server_name).map(str::to_owned);
    let credentials = credentials(fields, ca_files, problems);
    trust.filter(|_| problems.count() == before).map(|trust| TlsProbe { server_name, trust, credentials })
}

fn authorities(value: &Node, ca_files: &mut CaFiles, problems: &mut Problems) -> Option<Trust> {
    let path = text(value, "caFile", problems)?;
    match ca_files.certificates(path.value) {
        Ok(certificates) => Some(Trust::Authorities(certificates)),
        Err(reason) => {
            problems.refuse(path.place, reason);
            None
        }
    }
}

fn timing(fields: &Fields<'_>, probe: &mut Probe, problems: &mut Problems) {
    let intervals = Duration::from_millis(100)..=Duration::from_secs(3600);
    let timeouts = Duration::from_millis(10)..=Duration::from_secs(3600);
    if let Some(interval) =
        fields.optional("interval").and_then(|value| duration(value, "interval", &intervals, problems))
    {
        probe.interval = interval.value;
        probe.timeout = probe.timeout.min(interval.value);
    }
    if let Some(timeout) = fields.optional("timeout").and_then(|value| duration(value, "timeout", &timeouts, problems))
    {
        probe.timeout = timeout.value;
        if timeout.value > probe.interval {
            let (timeout_text, interval) = (show(timeout.value), show(probe.interval));
            let reason = format!(
                "`timeout` {timeout_text} is longer than `interval` {interval}; probes would overlap: shorten it"
            );
            problems.refuse(timeout.place, reason);
        }
    }
    let mut count = |key| fields.optional(key).and_then(|value| integer(value, key, &(1..=100), problems));
    let (rise, fall) = (count("rise"), count("fall"));
    probe.rise = rise.map_or(probe.rise, |rise| rise.value);
    probe.fall = fall.map_or(probe.fall, |fall| fall.value);
}
