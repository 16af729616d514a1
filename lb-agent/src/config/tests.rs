//! The whole reading of a file: golden error texts and what a good file becomes.

use std::{fs, net::IpAddr, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::model::{
    AnnounceWhen, Credentials, Delivery, ExpectedStatus, HttpProbe, Interface, InterfaceKind, MacAddr, MssClamp,
    Network, Probe, ProbeKind, Protocol, TlsProbe, Trust, network::InterfaceAddress,
};

/// A file without services; line 5 is the next.
const HEAD: &str = "\
node: {name: n1, addresses: [10.0.1.2]}
interfaces: [{name: eth0}]
secret: 000102030405060708090a0b0c0d0e0f
peers: [{name: n2, addresses: [10.0.2.2]}]
";

fn read(text: &str) -> Result<Config, ConfigErrors> {
    parse("levee.yaml", text, Path::new("."))
}

/// What is said about `HEAD` followed by `rest`.
fn refusal(rest: &str) -> String {
    read(&format!("{HEAD}{rest}")).map_or_else(|errors| errors.to_string(), |_| "accepted".to_owned())
}

/// What is said about one service, `keys` of which follow name, VIP and port on lines 5 and 6.
fn service_refusal(keys: &str) -> String {
    refusal(&format!("services:\n- {{name: s, vips: [192.0.2.1], ports: [80], {keys}}}\n"))
}

fn accepted(rest: &str) -> Config {
    read(&format!("{HEAD}{rest}")).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A folder with a secret file that the sample names.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "000102030405060708090a0b0c0d0e0f\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    dir
}

#[test]
fn the_sample_parses_and_says_the_defaults() {
    let dir = folder();
    let config = parse("sample", SAMPLE, dir.path()).unwrap();
    assert_eq!(config.warnings, []);
    let minimal = accepted("").agent;
    assert_eq!(AgentConfig { ..minimal }, config.agent, "the sample shows another default than there is");
    let service = &config.desired.services[0];
    let bare = &accepted("services: [{name: kubernetes, vips: [192.0.2.10], ports: [6443]}]").desired.services[0];
    assert_eq!(
        (&service.probe, service.ring_size, service.delivery, service.slow_start),
        (&bare.probe, bare.ring_size, bare.delivery, bare.slow_start)
    );
    assert_eq!((service.protocol, service.drop_unmatched), (bare.protocol, bare.drop_unmatched));
    assert_eq!(service.backends.iter().map(|backend| backend.weight).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(config.desired.announcements.len(), 2);
}

/// The sample with its commented probe in place of the one that is there, without the lines that hold `without`.
fn sample_with_probe(without: &[&str]) -> String {
    let probe = |line: &str| line.starts_with("      # ") || line.contains("tcp: {port");
    let line = |line: &str| match line.strip_prefix("      # ") {
        Some(rest) => format!("      {rest}\n"),
        None => format!("{line}\n"),
    };
    let kept = SAMPLE.lines().filter(|line| !(probe(line) && without.iter().any(|text| line.contains(text))));
    kept.map(line).collect()
}

#[test]
fn the_probes_in_the_samples_comments_are_good() {
    let dir = folder();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
    let files = [
        ("ca.crt", authority()),
        ("token", "t".to_owned()),
        ("probe.crt", certificate),
        ("probe.key", key.serialize_pem()),
    ];
    files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
    let question = |without: &[&str]| {
        let config = parse("sample", &sample_with_probe(without), dir.path()).unwrap();
        config.desired.services[0].probe.as_ref().unwrap().question()
    };
    let https = [
        "https:",
        "port: 6443",
        "path: /readyz",
        "host: api",
        "status: [",
        "caFile",
        "insecure",
        "serverName",
        "tokenFile",
        "clientCertFile",
        "clientKeyFile",
    ];
    assert_eq!(question(&["tcp:", "http:", "insecureSkipVerify"]), "https :6443/readyz");
    assert_eq!(question(&["tcp:", "http:", "caFile"]), "https :6443/readyz");
    assert_eq!(question(&[&["tcp:"][..], &https[..]].concat()), "http :8080/healthz");
}

#[test]
fn segment_sizes_are_bounded_by_words_or_bytes() {
    let clamp = |rest: &str| {
        let config =
            accepted(&format!("services: [{{name: s, vips: [192.0.2.1], ports: [80], backends: []{rest}}}]\n"));
        config.desired.services[0].mss_clamp
    };
    assert_eq!((clamp(""), clamp(", mssClamp: auto")), (MssClamp::Auto, MssClamp::Auto));
    assert_eq!((clamp(", mssClamp: off"), clamp(", mssClamp: 1200")), (MssClamp::Off, MssClamp::To(1200)));
}

#[test]
fn a_file_becomes_ordered_values() {
    let config = accepted(
        "services:
- {name: b, vips: [192.0.2.2], ports: [443, 80], backends: [{address: 10.0.2.2}, {address: 10.0.1.2, weight: 0}]}
- {name: a, vips: [192.0.2.1, \"2001:db8::1\"], ports: [53], protocol: udp, delivery: gue, ringSize: 64, dropUnmatched: false}
announcements: [{vips: [192.0.2.2, 192.0.2.1], when: always, lifetime: 1m}]
http: off
",
    );
    let [a, b] = &config.desired.services[..] else { panic!("two services") };
    assert_eq!((a.name.as_str(), a.protocol, a.delivery, &a.probe), ("a", Protocol::Udp, Delivery::Gue, &None));
    assert_eq!((a.ring_size.slots(), a.drop_unmatched), (64, false));
    assert_eq!((&b.ports[..], &b.probe), (&[80, 443][..], &None));
    let backends: Vec<_> = b.backends.iter().map(|backend| (backend.address, backend.port, backend.weight)).collect();
    assert_eq!(backends, [(ip("10.0.1.2"), 0, 0), (ip("10.0.2.2"), 0, 1)]);
    let announced: Vec<_> = config.desired.announcements.iter().map(|entry| (entry.vip, entry.when)).collect();
    assert_eq!(announced, [(ip("192.0.2.1"), AnnounceWhen::Always), (ip("192.0.2.2"), AnnounceWhen::Always)]);
    assert_eq!(config.desired.announcements[0].lifetime, Duration::from_secs(60));
    assert_eq!(config.agent.http, None);
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["levee.yaml:7:3: service `a` has no backends; its packets are dropped until it has some"]);
}

#[test]
fn a_probe_follows_the_service_where_it_says_nothing() {
    let probe = |service: &str| probe_of(service, Path::new("."));
    let default = default_probe();
    assert_eq!(probe("ports: [80]"), Some(default.clone()));
    assert_eq!(probe("ports: [80], probe: none"), None);
    assert_eq!(probe("ports: [0]"), None);
    assert_eq!(probe("ports: [80, 81]"), None);
    assert_eq!(probe("ports: [80], protocol: udp"), None);
    let other_port = Probe { port: 81, ..default.clone() };
    assert_eq!(probe("ports: [80], protocol: udp, probe: {tcp: {port: 81}}"), Some(other_port));
    let (interval, timeout) = (Duration::from_millis(100), Duration::from_millis(100));
    assert_eq!(probe("ports: [80], probe: {interval: 100ms}"), Some(Probe { interval, timeout, ..default.clone() }));
    assert_eq!(probe("ports: [80], probe: {rise: 5, fall: 1}"), Some(Probe { rise: 5, fall: 1, ..default }));
}

fn default_probe() -> Probe {
    let (interval, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
    Probe { kind: ProbeKind::Tcp, port: 80, interval, timeout, rise: 2, fall: 3 }
}

/// The probe of a service with these keys, in a file in `folder`.
fn probe_of(keys: &str, folder: &Path) -> Option<Probe> {
    let text = format!("{HEAD}services: [{{name: s, vips: [192.0.2.1], {keys}}}]");
    let config = parse("levee.yaml", &text, folder).unwrap();
    config.desired.services[0].probe.as_deref().cloned()
}

#[test]
fn an_http_probe_has_its_defaults() {
    let http = HttpProbe { path: "/".to_owned(), host: None, status: ExpectedStatus::of([200..=399]) };
    let expected = |kind, port| Some(Probe { kind, port, ..default_probe() });
    let probe = |probe: &str| probe_of(&format!("ports: [80], probe: {probe}"), Path::new("."));
    assert_eq!(probe("{http: {}}"), expected(ProbeKind::Http(http.clone()), 80));
    let all = HttpProbe {
        path: "/readyz?verbose".to_owned(),
        host: Some("api.example:80".to_owned()),
        status: ExpectedStatus::of([200..=200, 204..=299]),
    };
    let written = "{http: {port: 8080, path: /readyz?verbose, host: \"api.example:80\", status: [200, 204-299]}}";
    assert_eq!(probe(written), expected(ProbeKind::Http(all), 8080));
    let one = HttpProbe { status: ExpectedStatus::of([401..=401]), ..http.clone() };
    assert_eq!(probe("{http: {status: 401}}"), expected(ProbeKind::Http(one), 80));
    let tls = TlsProbe {
        server_name: Some("kubernetes".to_owned()),
        trust: Trust::Anybody,
        credentials: Credentials::default(),
    };
    let https = ProbeKind::Https(http, tls);
    assert_eq!(probe("{https: {serverName: kubernetes, insecureSkipVerify: true}}"), expected(https, 80));
}

/// A new authority's certificate, PEM.
fn authority() -> String {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    parameters.self_signed(&key).unwrap().pem()
}

#[test]
fn the_authorities_are_read_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.crt");
    let read = || match probe_of("ports: [80], probe: {https: {caFile: ca.crt}}", folder.path()).unwrap().kind {
        ProbeKind::Https(_, TlsProbe { trust: Trust::Authorities(certificates), .. }) => certificates,
        other => panic!("{other:?}"),
    };
    fs::write(&path, authority() + &authority()).unwrap();
    let before = read();
    assert_eq!(before.len(), 2);
    fs::write(&path, authority()).unwrap();
    assert_ne!(read()[0], before[0]);
    let text =
        format!("{HEAD}services: [{{name: s, vips: [192.0.2.1], ports: [80], probe: {{https: {{caFile: ca.crt}}}}}}]");
    let files = parse("levee.yaml", &text, folder.path()).unwrap().files;
    assert_eq!(files.iter().map(|file| &file.path).collect::<Vec<_>>(), [&path]);
    assert!(files[0].is_unchanged());
    fs::write(&path, authority()).unwrap();
    assert!(!files[0].is_unchanged());
}

#[test]
fn an_authority_that_is_no_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.crt");
    let refused = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        let text = format!(
            "{HEAD}services:\n- {{name: s, vips: [192.0.2.1], ports: [80], probe: {{https: {{caFile: ca.crt}}}}}}\n"
        );
        let errors = parse("levee.yaml", &text, folder.path()).unwrap_err().to_string();
        errors.replace(&path.display().to_string(), "ca.crt")
    };
    insta::assert_snapshot!(refused(b""), @"levee.yaml:6:69: `caFile` ca.crt has no certificate; write the authority's certificate between BEGIN and END CERTIFICATE");
    insta::assert_snapshot!(refused(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), @"levee.yaml:6:69: certificate 1 in `caFile` ca.crt is no X.509 certificate of an authority (BadEncoding); export it again");
    insta::assert_snapshot!(refused(b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"), @"levee.yaml:6:69: `caFile` ca.crt is not PEM: base64 decode error: InvalidCharacter(33); write the authority's certificate between BEGIN and END CERTIFICATE");
    insta::assert_snapshot!(refused(&vec![b'#'; (1 << 20) + 1]), @"levee.yaml:6:69: `caFile` ca.crt has more than 1048576 bytes; keep only the authorities that sign the servers' certificates");
    insta::assert_snapshot!(service_refusal("probe: {https: {caFile: /nonexistent/ca.crt}}"), @"levee.yaml:6:69: `caFile` /nonexistent/ca.crt can't be read: No such file or directory (os error 2); check the path and its mode");
}

#[test]
fn probes_ask_what_can_be_asked() {
    insta::assert_snapshot!(service_refusal("probe: {http: {path: readyz, host: \"a b\", status: 99, port: 0}, interval: 1ms}"), @"
levee.yaml:6:66: `path` is `readyz`; write a path that begins with `/`, in visible ASCII, other bytes as %XX, at most 1024 bytes
levee.yaml:6:80: `host` is `a b`; write the name (with `:port` if the server wants it) for the Host header
levee.yaml:6:95: `status` is `99`; write a code in 100..=599 as in 200, a range as in 200-299, or a list of them
levee.yaml:6:105: `port` is `0`; write a whole number in 1..=65535
levee.yaml:6:119: `interval` is `1ms`; it has to be within 100ms..=1h
");
    insta::assert_snapshot!(service_refusal("probe: {http: {path: \"/a b\", status: [200-100, 2xx]}}"), @"
levee.yaml:6:66: `path` is `/a b`; write a path that begins with `/`, in visible ASCII, other bytes as %XX, at most 1024 bytes
levee.yaml:6:83: `status` is `200-100`; write a code in 100..=599 as in 200, a range as in 200-299, or a list of them
levee.yaml:6:92: `status` is `2xx`; write a code in 100..=599 as in 200, a range as in 200-299, or a list of them
");
    insta::assert_snapshot!(service_refusal("probe: {http: {path: /a#b, host: \"user@host\", status: []}}"), @"
levee.yaml:6:66: `path` is `/a#b`; write a path that begins with `/`, in visible ASCII, other bytes as %XX, at most 1024 bytes
levee.yaml:6:78: `host` is `user@host`; write the name (with `:port` if the server wants it) for the Host header
levee.yaml:6:99: `status` is empty; name at least one, or leave the key out for 200-399
");
    insta::assert_snapshot!(service_refusal("probe: {http: {caFile: x}}"), @"levee.yaml:6:60: unknown key `caFile` in http; known are port, path, host, status");
    insta::assert_snapshot!(service_refusal("probe: {https: {path: /readyz}}"), @"levee.yaml:6:60: https has no `caFile`; add it, or `insecureSkipVerify: true` to accept any certificate");
    insta::assert_snapshot!(service_refusal("probe: {https: {caFile: x, insecureSkipVerify: true}}"), @"levee.yaml:6:69: both `caFile` and `insecureSkipVerify: true` are there; keep one of them");
    insta::assert_snapshot!(service_refusal("probe: {https: {insecureSkipVerify: yes, serverName: \"a b\"}}"), @"
levee.yaml:6:81: `insecureSkipVerify` is `yes`; write one of true, false
levee.yaml:6:98: `serverName` is `a b`; write the DNS name or address that the servers' certificates are for
");
    insta::assert_snapshot!(service_refusal("probe: {tcp: {}, http: {}}"), @"levee.yaml:6:68: both `tcp` and `http` are there; keep one of them");
    insta::assert_snapshot!(service_refusal("protocol: udp, probe: {https: {insecureSkipVerify: true}}"), @"levee.yaml:6:67: the probe has no port, and the service has not just one TCP port to take; add `https: {port: ...}`");
}

#[test]
fn slow_start_is_off_or_a_while() {
    let slow_start = |value: &str| {
        let text = format!("services: [{{name: s, vips: [192.0.2.1], ports: [80]{value}}}]");
        accepted(&text).desired.services[0].slow_start
    };
    let read = ["", ", slowStart: 0", ", slowStart: 0s", ", slowStart: 30s", ", slowStart: 1h"].map(slow_start);
    assert_eq!(read.map(|read| read.as_secs()), [0, 0, 0, 30, 3600]);
    insta::assert_snapshot!(service_refusal("slowStart: 500ms"), @"levee.yaml:6:56: `slowStart` is `500ms`; it has to be within 1s..=1h");
    insta::assert_snapshot!(service_refusal("slowStart: 30"), @"levee.yaml:6:56: `slowStart` is `30`; write a whole number and a unit (ms, s, m, h), within 1s..=1h");
}

#[test]
fn a_service_can_do_without_second_chances() {
    let of = |key: &str| {
        let text = format!("services: [{{name: s, vips: [192.0.2.1], ports: [80]{key}}}]");
        accepted(&text).desired.services[0].second_chance
    };
    assert_eq!(["", ", secondChance: true", ", secondChance: false"].map(of), [true, true, false]);
    insta::assert_snapshot!(service_refusal("secondChance: off"), @"levee.yaml:6:59: `secondChance` is `off`; write one of true, false");
}

#[test]
fn servers_may_listen_on_another_port() {
    let of = |keys: &str| {
        let text = format!("services: [{{name: s, vips: [192.0.2.1], {keys}, backends: [{{address: 10.0.1.2}}]}}]");
        let service = accepted(&text).desired.services.remove(0);
        (service.backends[0].port, service.probe.as_ref().map(|probe| probe.port), service.connect_translation)
    };
    assert_eq!(of("ports: [8443]"), (8443, Some(8443), false));
    assert_eq!(of("ports: [8443], targetPort: 6443, connectTranslation: on"), (6443, Some(6443), true));
    assert_eq!(of("ports: [8443], targetPort: 6443, probe: {tcp: {port: 1}}"), (6443, Some(1), false));
    assert_eq!(of("ports: [8443], targetPort: 8443, dropUnmatched: false"), (8443, Some(8443), false));
    assert_eq!(of("ports: [53], targetPort: 5353, protocol: udp"), (5353, None, false));
}

#[test]
fn ports_that_cannot_be_rewritten_are_refused() {
    let with = |service: &str| refusal(&format!("services:\n- {{name: s, vips: [192.0.2.1], {service}}}\n"));
    insta::assert_snapshot!(with("ports: [80, 81], targetPort: 8080"), @"levee.yaml:6:61: `targetPort` needs a service with one port that is not 0; make a service for each port");
    insta::assert_snapshot!(with("ports: [0], targetPort: 8080"), @"levee.yaml:6:56: `targetPort` needs a service with one port that is not 0; make a service for each port");
    insta::assert_snapshot!(with("ports: [80], targetPort: 0"), @"levee.yaml:6:57: `targetPort` is `0`; write a whole number in 1..=65535");
    insta::assert_snapshot!(with("ports: [80], targetPort: 81, protocol: sctp"), @"levee.yaml:6:57: `targetPort` is for TCP and UDP; the checksum of SCTP covers the whole packet: let servers listen on the service's port");
    insta::assert_snapshot!(with("ports: [80], connectTranslation: on, protocol: sctp"), @"levee.yaml:6:65: `connectTranslation` is for TCP and connected UDP; the kernel asks no program about SCTP associations");
    insta::assert_snapshot!(with("ports: [80], connectTranslation: yes"), @"levee.yaml:6:65: `connectTranslation` is `yes`; write one of off, on");
    insta::assert_snapshot!(with("ports: [80], targetPort: 81, dropUnmatched: false"), @"levee.yaml:6:57: `targetPort` does not go together with `dropUnmatched: false`: what comes to port 81 of the VIP itself would be answered from the service's port; set `dropUnmatched: true`");
}

#[test]
fn replies_that_do_not_tell_their_service_are_refused() {
    let beside = |other: &str| {
        refusal(&format!(
            "services:\n- {{name: s, vips: [192.0.2.1], ports: [8443], targetPort: 6443}}\n- {{name: t, {other}}}\n"
        ))
    };
    insta::assert_snapshot!(beside("vips: [192.0.2.1], ports: [6443]"), @"levee.yaml:6:59: `targetPort` 6443 of VIP 192.0.2.1 tcp is a port of service `t` (line 7) too: a reply from there does not tell which service it is of; choose another port or VIP");
    insta::assert_snapshot!(beside("vips: [192.0.2.2, 192.0.2.1], ports: [0]"), @"levee.yaml:6:59: `targetPort` 6443 of VIP 192.0.2.1 tcp is a port of service `t` (line 7) too: a reply from there does not tell which service it is of; choose another port or VIP");
    insta::assert_snapshot!(beside("vips: [192.0.2.1], ports: [9443], targetPort: 6443"), @"
levee.yaml:6:59: `targetPort` 6443 of VIP 192.0.2.1 tcp is a port of service `t` (line 7) too: a reply from there does not tell which service it is of; choose another port or VIP
levee.yaml:7:59: `targetPort` 6443 of VIP 192.0.2.1 tcp is a port of service `s` (line 6) too: a reply from there does not tell which service it is of; choose another port or VIP
");
    for other in [
        "vips: [192.0.2.2], ports: [6443]",
        "vips: [192.0.2.1], ports: [6443], protocol: udp",
        "vips: [192.0.2.1], ports: [9443], targetPort: 6444",
        "vips: [192.0.2.2], ports: [9443], targetPort: 6443",
    ] {
        assert_eq!(beside(other), "accepted", "{other}");
    }
}

#[test]
fn another_port_needs_a_kernel_that_rewrites_replies_where_servers_are() {
    let said = |text: &str, can: bool| {
        let checked = check_rewrites(&accepted(text), can, "Linux 6.1");
        checked.map_or_else(|errors| errors.to_string(), |()| "accepted".to_owned())
    };
    let of = |address: &str| {
        format!(
            "services: [{{name: s, vips: [192.0.2.1], ports: [80], targetPort: 81, backends: [{{address: {address}}}]}}]"
        )
    };
    insta::assert_snapshot!(said(&of("10.0.1.2"), false), @"levee.yaml:5:66: `targetPort` needs Linux 6.6 on nodes with servers, to rewrite their replies; this is Linux 6.1: let the server listen on the service's port");
    assert_eq!(said(&of("10.0.1.2"), true), "accepted");
    assert_eq!(said(&of("10.0.2.2"), false), "accepted", "no server here");
}

#[test]
fn the_cgroup_is_everybodys_unless_told_otherwise() {
    assert_eq!(accepted("").agent.cgroup_path, None);
    assert_eq!(accepted("cgroupPath: auto").agent.cgroup_path, None);
    assert_eq!(accepted("cgroupPath: /sys/fs/cgroup/x").agent.cgroup_path, Some("/sys/fs/cgroup/x".into()));
    insta::assert_snapshot!(refusal("cgroupPath: x"), @"levee.yaml:5:13: `cgroupPath` is `x`; write an absolute path");
}

#[test]
fn port_zero_stands_beside_an_exact_port() {
    assert_eq!(
        refusal("services:\n- {name: a, vips: [192.0.2.1], ports: [0]}\n- {name: b, vips: [192.0.2.1], ports: [80]}\n"),
        "accepted"
    );
}

#[test]
fn all_problems_are_reported_together() {
    insta::assert_snapshot!(refusal("\
services:
- name: bad name
  vips: [127.0.0.1, 192.0.2.300]
  port: [80]
  protocol: icmp
  backends:
  - {addres: 10.0.1.2, weight: 1001}
colour: red
log: {level: loud}
"), @"
levee.yaml:6:3: service has no `ports`; add it
levee.yaml:6:9: `name` is `bad name`; write 1..=63 characters of A-Z, a-z, 0-9, `.`, `_`, `-`
levee.yaml:7:10: VIP 127.0.0.1 is a loopback address, which never leaves its host; choose one that others reach
levee.yaml:7:21: VIP `192.0.2.300` is no IP address; write one, IPv6 in quotes
levee.yaml:8:3: unknown key `port` in service; did you mean `ports`?
levee.yaml:9:13: `protocol` is `icmp`; write one of tcp, udp, sctp
levee.yaml:11:5: backend has no `address`; add it
levee.yaml:11:6: unknown key `addres` in backend; did you mean `address`?
levee.yaml:11:32: `weight` is `1001`; write a whole number in 0..=1000
levee.yaml:12:1: unknown key `colour` in the file; known are node, interfaces, secret, secretFile, peers, services, announcements, onTerminate, http, pinPath, socket, log, capacities, membership, kubernetes, controlPlane, cgroupPath
levee.yaml:13:14: `level` is `loud`; write one of error, warn, info, debug, trace
");
}

#[test]
fn what_is_required_is_missed() {
    insta::assert_snapshot!(read("http: off").unwrap_err(), @"
levee.yaml:1:1: the file has no `node`; add it
levee.yaml:1:1: the file has no `interfaces`; add it
levee.yaml:1:1: the file has no `secretFile`; add it (or `secret`), the same secret on every director
");
    insta::assert_snapshot!(read("- 1").unwrap_err(), @"levee.yaml:1:1: the file is a list; write a mapping with the keys node, interfaces, secret, secretFile, peers, services, announcements, onTerminate, http, pinPath, socket, log, capacities, membership, kubernetes, controlPlane, cgroupPath");
    insta::assert_snapshot!(read("node: {name: n1, addresses: []}\ninterfaces:\nsecret: \"\"\n").unwrap_err(), @"
levee.yaml:1:29: `addresses` is empty; name at least one
levee.yaml:2:11: `interfaces` is empty; write a list, `[]` for none
levee.yaml:3:9: `secret` is empty; give it a value or leave the key out
");
}

#[test]
fn secrets_are_refused_without_being_shown() {
    let with = |secret: &str| {
        read(&format!("node: {{name: n, addresses: [10.0.0.1]}}\ninterfaces: [{{name: e}}]\n{secret}\n"))
            .unwrap_err()
            .to_string()
    };
    insta::assert_snapshot!(with("secret: 1234567890"), @r#"levee.yaml:3:9: the secret has 10 characters; write 32 hexadecimal digits, for instance from `od -An -N16 -tx1 /dev/urandom | tr -d ' \n'`"#);
    insta::assert_snapshot!(with("secret: 12345678901234567890123456789012\nsecretFile: x"), @"levee.yaml:3:9: both `secret` and `secretFile` are there; keep one of them");
    insta::assert_snapshot!(with("secretFile: 000102030405060708090a0b0c0d0e0f"), @"levee.yaml:3:13: `secretFile` holds the secret itself; name a file with it, or call the key `secret`");
    insta::assert_snapshot!(with("secret: [abcdef, abc"), @"levee.yaml:3:9: not valid YAML: unclosed bracket '['");
    insta::assert_snapshot!(with("secret: \"hush\nabc: 1"), @"levee.yaml:4:1: not valid YAML: invalid indentation in multiline quoted scalar");
}

#[test]
fn names_and_addresses_belong_to_one() {
    insta::assert_snapshot!(refusal("services:\n- {name: s, vips: [192.0.2.1], ports: [1]}\n- {name: s, vips: [192.0.2.2], ports: [1]}\n"), @"levee.yaml:7:10: service `s` is on line 6 already; services need different names");
    insta::assert_snapshot!(read(&HEAD.replace("{name: n2, addresses: [10.0.2.2]}", "{name: n1, addresses: [10.0.1.2]}, {name: n3, addresses: [10.0.3.3, 10.0.3.3]}")).unwrap_err(), @"
levee.yaml:4:16: `n1` is the name of the node on line 1 already; node and peers need different names
levee.yaml:4:32: address 10.0.1.2 is one of this node `n1` already; an address is one node's, once
levee.yaml:4:77: address 10.0.3.3 is one of peer `n3` already; an address is one node's, once
");
    insta::assert_snapshot!(read(&HEAD.replace("{name: eth0}", "{name: eth0}, {name: eth0}, {name: a/b}, {name: sixteen-bytes-xx}")).unwrap_err(), @"
levee.yaml:2:35: interface `eth0` is on line 2 already; remove one of them
levee.yaml:2:49: `name` is `a/b`; an interface has 1..=15 bytes without `/`, `:` and blanks
levee.yaml:2:62: `name` is `sixteen-bytes-xx`; an interface has 1..=15 bytes without `/`, `:` and blanks
");
}

#[test]
fn vips_are_ordinary_addresses_of_nobody() {
    let vips = [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "169.254.1.1",
        "255.255.255.255",
        "0.1.2.3",
        "\"::\"",
        "\"::1\"",
        "\"ff02::1\"",
        "\"fe80::1\"",
        "\"::ffff:1.2.3.4\"",
        "10.0.1.2",
        "10.0.2.2",
        "192.0.2.1/32",
        "fe80::1%eth0",
    ];
    let vips: String = vips.iter().map(|vip| format!("  - {vip}\n")).collect();
    insta::assert_snapshot!(refusal(&format!("services:\n- name: s\n  ports: [80]\n  vips:\n{vips}")), @"
levee.yaml:9:5: VIP 0.0.0.0 is the unspecified address; choose a unicast address
levee.yaml:10:5: VIP 127.0.0.1 is a loopback address, which never leaves its host; choose one that others reach
levee.yaml:11:5: VIP 224.0.0.1 is a multicast address; choose a unicast address
levee.yaml:12:5: VIP 169.254.1.1 is link-local, which no router forwards; choose another (RFC 3927)
levee.yaml:13:5: VIP 255.255.255.255 is the broadcast address; choose a unicast address
levee.yaml:14:5: VIP 0.1.2.3 lies in 0.0.0.0/8, which is no destination; choose another (RFC 1122)
levee.yaml:15:5: VIP :: is the unspecified address; choose a unicast address
levee.yaml:16:5: VIP ::1 is a loopback address, which never leaves its host; choose one that others reach
levee.yaml:17:5: VIP ff02::1 is a multicast address; choose a unicast address
levee.yaml:18:5: VIP fe80::1 is link-local, which no router forwards; choose another (RFC 4291)
levee.yaml:19:5: VIP ::ffff:1.2.3.4 is an IPv4 address in IPv6 dress; write it as IPv4
levee.yaml:20:5: VIP 10.0.1.2 is an address of this node `n1` itself; choose one that no node has
levee.yaml:21:5: VIP 10.0.2.2 is an address of peer `n2` itself; choose one that no node has
levee.yaml:22:5: VIP `192.0.2.1/32` is no IP address; write one without a prefix length, IPv6 in quotes
levee.yaml:23:5: VIP `fe80::1%eth0` is no IP address; write one, IPv6 in quotes
");
    insta::assert_snapshot!(refusal("services:\n- {name: s, vips: [192.0.2.1, 192.0.2.1], ports: [80, 80]}\n"), @"
levee.yaml:6:31: VIP 192.0.2.1 is on line 6 already; remove one of them
levee.yaml:6:55: port 80 is on line 6 already; remove one of them
");
    insta::assert_snapshot!(refusal("services:\n- name: s\n  ports: [80]\n  vips:\n  - 2001:db8::\n"), @"levee.yaml:9:5: VIP is a mapping to YAML; write IPv6 addresses in quotes");
}

#[test]
fn one_service_takes_a_port_of_a_vip() {
    insta::assert_snapshot!(refusal("services:\n- {name: a, vips: [192.0.2.1], ports: [80, 81]}\n- {name: b, vips: [192.0.2.1], ports: [81]}\n"), @"levee.yaml:7:20: VIP 192.0.2.1 tcp port 81 belongs to service `a` (line 6) already; one service takes it");
    insta::assert_snapshot!(refusal("services:\n- {name: a, vips: [192.0.2.1], ports: [0]}\n- {name: b, vips: [192.0.2.1], ports: [0]}\n"), @"levee.yaml:7:20: VIP 192.0.2.1 tcp every port belongs to service `a` (line 6) already; one service takes it");
    insta::assert_snapshot!(refusal("services:\n- {name: a, vips: [192.0.2.1], ports: [0, 80]}\n"), @"levee.yaml:6:40: port 0 stands for every port and has to be alone; remove it or the others");
    insta::assert_snapshot!(refusal("services:\n- {name: a, vips: [192.0.2.1], ports: [80]}\n- {name: b, vips: [192.0.2.1], ports: [81], dropUnmatched: false}\n"), @"levee.yaml:7:60: `dropUnmatched` is false here and true in service `a` (line 6), which has VIP 192.0.2.1 too; it counts per VIP: make them equal");
}

#[test]
fn backends_fit_their_service() {
    insta::assert_snapshot!(service_refusal("backends: [{address: \"fd00::1\"}]"), @"levee.yaml:6:66: backend fd00::1 takes a tunnel over IPv6 (delivery `auto`), but this node has no IPv6 address to send it from; add one to `node.addresses`");
    insta::assert_snapshot!(service_refusal("delivery: ipip, backends: [{address: \"fd00::1\"}]"), @"levee.yaml:6:82: backend fd00::1 takes a tunnel over IPv6 (delivery `ipip`), but this node has no IPv6 address to send it from; add one to `node.addresses`");
    assert_eq!(service_refusal("delivery: l2, backends: [{address: \"fd00::1\"}]"), "accepted");
    insta::assert_snapshot!(service_refusal("delivery: local, backends: [{address: 10.0.2.2}]"), @"levee.yaml:6:55: service `s` is delivered on this node only (`local`), but none of its backends is an address of this node; add one or choose another delivery");
    insta::assert_snapshot!(service_refusal("backends: [{address: 10.0.2.2}, {address: 10.0.2.2, weight: 2}]"), @"levee.yaml:6:87: backend 10.0.2.2 is on line 6 already; remove one of them");
    insta::assert_snapshot!(service_refusal("backends: [{address: 192.0.2.1}]"), @"levee.yaml:6:66: backend 192.0.2.1 is itself a VIP (line 6); its packets would come back: name the host's own address");
    assert_eq!(service_refusal("backends: [{address: 10.0.2.2, weight: 0}]"), "accepted");
}

#[test]
fn values_stay_within_their_ranges() {
    insta::assert_snapshot!(service_refusal("ringSize: 5000"), @"levee.yaml:6:55: `ringSize` is 5000, which is no power of two; write 4096 or 8192");
    insta::assert_snapshot!(service_refusal("mssClamp: 535"), @"levee.yaml:6:55: `mssClamp` is `535`; write a whole number in 536..=65535");
    insta::assert_snapshot!(service_refusal("ringSize: 32"), @"levee.yaml:6:55: `ringSize` is `32`; write a whole number in 64..=1048576");
    insta::assert_snapshot!(service_refusal("backends: [{address: 10.0.2.2, weight: -1}]"), @"levee.yaml:6:84: `weight` is `-1`; write a whole number in 0..=1000");
    insta::assert_snapshot!(service_refusal("probe: {interval: 99ms, timeout: 5, rise: 0, fall: 101, tcp: {port: 0}}"), @"
levee.yaml:6:63: `interval` is `99ms`; it has to be within 100ms..=1h
levee.yaml:6:78: `timeout` is `5`; write a whole number and a unit (ms, s, m, h), within 10ms..=1h
levee.yaml:6:87: `rise` is `0`; write a whole number in 1..=100
levee.yaml:6:96: `fall` is `101`; write a whole number in 1..=100
levee.yaml:6:113: `port` is `0`; write a whole number in 1..=65535
");
    insta::assert_snapshot!(service_refusal("probe: {interval: 1s, timeout: 1500ms}"), @"levee.yaml:6:76: `timeout` 1500ms is longer than `interval` 1s; probes would overlap: shorten it");
    insta::assert_snapshot!(service_refusal("protocol: udp, probe: {interval: 1s}"), @"levee.yaml:6:67: the probe has no port, and the service has not just one TCP port to take; add `tcp: {port: ...}`");
    insta::assert_snapshot!(service_refusal("probe: off"), @"levee.yaml:6:52: `probe` is a single value; write `none`, or a mapping with the keys tcp, http, https, interval, timeout, rise, fall");
    insta::assert_snapshot!(refusal("http: 9090\npinPath: maps\nsocket: x\nonTerminate: no\ncapacities: {ringSlots: 1e9}\n"), @r#"
levee.yaml:5:7: `http` is `9090`; write an address with its port, as in 127.0.0.1:9090 or "[::1]:9090", or off
levee.yaml:6:10: `pinPath` is `maps`; write an absolute path
levee.yaml:7:9: `socket` is `x`; write an absolute path
levee.yaml:8:14: `onTerminate` is `no`; write one of keep, withdraw
levee.yaml:9:25: `ringSlots` is `1e9`; write a whole number in 64..=268435456
"#);
}

#[test]
fn announcements_are_of_services() {
    let services = "services: [{name: s, vips: [192.0.2.1], ports: [80]}]\n";
    insta::assert_snapshot!(refusal(&format!("{services}announcements: [{{vips: [192.0.2.2]}}]\n")), @"levee.yaml:6:25: announced VIP 192.0.2.2 belongs to no service; add it to one or remove it here");
    insta::assert_snapshot!(refusal(&format!("{services}announcements:\n- vips: [192.0.2.1]\n- vips: [192.0.2.1]\n")), @"levee.yaml:8:10: VIP 192.0.2.1 is announced by `loopback` on line 7 already; remove one of them");
    insta::assert_snapshot!(refusal(&format!("{services}announcements: [{{vips: [192.0.2.1], lifetime: 2s, announcer: bgp, when: never}}]\n")), @"
levee.yaml:6:47: `lifetime` is `2s`; it has to be within 3s..=1h
levee.yaml:6:62: `announcer` is `bgp`; write one of loopback
levee.yaml:6:73: `when` is `never`; write one of localBackend, always
");
    insta::assert_snapshot!(refusal(&format!("{services}announcements: [{{vips: [192.0.2.1], lifetime: 3500ms}}]\n")), @"levee.yaml:6:47: `lifetime` has a fraction of a second, which the kernel can't count; write whole seconds");
}

#[test]
fn what_is_configured_fits_the_capacities() {
    let services = "services: [{name: s, vips: [192.0.2.1, 192.0.2.2], ports: [80, 81], ringSize: 64, backends: [{address: 10.0.2.2}]}]\n";
    assert_eq!(
        refusal(&format!(
            "{services}capacities: {{services: 4, backends: 4, ringSlots: 320, peers: 1, addresses: 2}}\n"
        )),
        "accepted"
    );
    insta::assert_snapshot!(refusal(&format!("{services}capacities:\n  services: 3\n  backends: 3\n  ringSlots: 319\n  addresses: 1\n")), @"
levee.yaml:7:13: 4 (VIP, protocol, port) entries are configured, but `capacities.services` is 3; set `capacities.services` to 4 or more
levee.yaml:8:13: 4 backend entries (one per VIP, protocol, port and backend) are configured, but `capacities.backends` is 3; set `capacities.backends` to 4 or more
levee.yaml:9:14: 320 ring slots (every ring, and the largest once more to swap) are configured, but `capacities.ringSlots` is 319; set `capacities.ringSlots` to 320 or more
levee.yaml:10:14: 2 VIP addresses are configured, but `capacities.addresses` is 1; set `capacities.addresses` to 2 or more
");
    let ports: Vec<String> = (1..=2000).map(|port| port.to_string()).collect();
    let many = format!("services: [{{name: s, vips: [192.0.2.1], ports: [{}]}}]\n", ports.join(", "));
    insta::assert_snapshot!(refusal(&many), @"
levee.yaml:5:12: 2000 (VIP, protocol, port) entries are configured, but `capacities.services` is 1024 by default; set `capacities.services` to 2000 or more
levee.yaml:5:12: 8196096 ring slots (every ring, and the largest once more to swap) are configured, but `capacities.ringSlots` is 4194304 by default; set `capacities.ringSlots` to 8196096 or more
");
}

#[test]
fn source_ranges_are_prefixes_of_either_family() {
    let ranges = |list: &str| {
        let service = format!("{{name: s, vips: [192.0.2.1, \"2001:db8::1\"], ports: [80], sourceRanges: {list}}}");
        accepted(&format!("services: [{service}]")).desired.services[0].source_ranges.clone()
    };
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    assert_eq!(ranges("[]"), []);
    assert_eq!(
        ranges("[\"2001:db8::/32\", 192.168.0.0/16, 10.0.0.0/8]"),
        [net("10.0.0.0/8"), net("192.168.0.0/16"), net("2001:db8::/32")]
    );
    assert_eq!(ranges("[0.0.0.0/0, \"::/0\", 10.0.0.1/32]").len(), 3);
    assert_eq!(accepted("services: [{name: s, vips: [192.0.2.1], ports: [80]}]").desired.services[0].source_ranges, []);
}

#[test]
fn source_ranges_that_say_something_else_than_meant_are_refused() {
    insta::assert_snapshot!(service_refusal("sourceRanges: [10.0.0.1/8, 10.0.0.1, \"2001:db8::1\", 10.0.0.0/33, everybody, \"2001:db8::1/32\", \"::ffff:10.0.0.0/104\"]"), @"
levee.yaml:6:60: source range 10.0.0.1/8 has bits beyond its length; write 10.0.0.0/8
levee.yaml:6:72: source range `10.0.0.1` is no prefix; write 10.0.0.1/32 for it alone
levee.yaml:6:82: source range `2001:db8::1` is no prefix; write 2001:db8::1/128 for it alone
levee.yaml:6:97: source range `10.0.0.0/33` is no prefix; write a prefix as in 10.0.0.0/8, IPv6 in quotes
levee.yaml:6:110: source range `everybody` is no prefix; write a prefix as in 10.0.0.0/8, IPv6 in quotes
levee.yaml:6:121: source range 2001:db8::1/32 has bits beyond its length; write 2001:db8::/32
levee.yaml:6:139: source range ::ffff:10.0.0.0/104 is of IPv4 addresses in IPv6 dress; write it as IPv4
");
    insta::assert_snapshot!(service_refusal("sourceRanges: [10.0.0.0/8, 10.0.0.0/8]"), @"levee.yaml:6:72: source range 10.0.0.0/8 is on line 6 already; remove one of them");
    insta::assert_snapshot!(service_refusal("sourceRanges: 10.0.0.0/8"), @"levee.yaml:6:59: `sourceRanges` is a single value; write a list, `[]` for none");
    insta::assert_snapshot!(service_refusal("sourceRanges: [{2001: db8}]"), @"levee.yaml:6:60: source range is a mapping to YAML; write IPv6 prefixes in quotes");
}

#[test]
fn vips_that_no_source_range_lets_anybody_reach_are_warned_of() {
    let config = accepted(
        "services: [{name: s, vips: [192.0.2.1, \"2001:db8::1\"], ports: [80], backends: [{address: 10.0.1.2}], sourceRanges: [10.0.0.0/8]}]",
    );
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(warnings.join("\n"), @"levee.yaml:5:117: no source range is IPv6, so nobody reaches VIP 2001:db8::1; add one, or remove it");
}

#[test]
fn source_ranges_fit_their_capacity() {
    let services = "services: [{name: s, vips: [192.0.2.1, 192.0.2.2], ports: [80, 81], sourceRanges: [10.0.0.0/8, 11.0.0.0/8]}]\n";
    assert_eq!(refusal(&format!("{services}capacities: {{sourceRanges: 8}}\n")), "accepted");
    insta::assert_snapshot!(refusal(&format!("{services}capacities: {{sourceRanges: 7, fragments: 1000}}\n")), @"
levee.yaml:6:28: 8 source ranges (one per VIP, protocol, port and range) are configured, but `capacities.sourceRanges` is 7; set `capacities.sourceRanges` to 8 or more
levee.yaml:6:42: `fragments` is `1000`; write a whole number in 1024..=1048576
");
    insta::assert_snapshot!(refusal(&format!("{services}capacities: {{sourceRanges: 7}}\n")), @"levee.yaml:6:28: 8 source ranges (one per VIP, protocol, port and range) are configured, but `capacities.sourceRanges` is 7; set `capacities.sourceRanges` to 8 or more");
}

#[test]
fn peers_fit_their_capacity() {
    let text = HEAD.replace("addresses: [10.0.2.2]", "addresses: [10.0.2.2, 10.0.2.3]");
    let errors = read(&format!("{text}capacities: {{peers: 1}}\n")).unwrap_err();
    insta::assert_snapshot!(errors, @"levee.yaml:5:21: 2 addresses of peers are configured, but `capacities.peers` is 1; set `capacities.peers` to 2 or more");
    let addresses: Vec<String> = (0..1025).map(|n| format!("10.9.{}.{}", n >> 8, n & 255)).collect();
    let errors = read(&HEAD.replace("10.0.2.2", &addresses.join(", "))).unwrap_err();
    insta::assert_snapshot!(errors, @"levee.yaml:4:16: 1025 addresses of peers are configured, but `capacities.peers` is 1024 by default; set `capacities.peers` to 1025 or more");
}

#[test]
fn an_absurd_product_of_vips_and_ports_is_refused_quickly() {
    let vips: Vec<String> = (0..60_000).map(|n: u32| format!("100.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255)).collect();
    let ports: Vec<String> = (1..=60_000).map(|port: u32| port.to_string()).collect();
    let text = format!("services: [{{name: s, vips: [{}], ports: [{}]}}]\n", vips.join(","), ports.join(","));
    assert!(refusal(&text).contains("3600000000 (VIP, protocol, port) entries"), "{}", refusal(&text));
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("levee.yaml");
    let message = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        load(&path).unwrap_err().to_string().replace(&path.display().to_string(), "levee.yaml")
    };
    insta::assert_snapshot!(message(b""), @"levee.yaml: the file is empty; `lbctl sample config` shows one to begin with");
    insta::assert_snapshot!(message(b"# only a comment\n"), @"levee.yaml: the file is empty; `lbctl sample config` shows one to begin with");
    insta::assert_snapshot!(message(b"node:\n  name: \xff\n"), @"levee.yaml: line 2 is not UTF-8 (byte 14 of the file); save the file as UTF-8");
    insta::assert_snapshot!(message(&vec![b'#'; 16_000_001]), @"levee.yaml: the file has more than 16000000 bytes; split the services among nodes");
    fs::remove_file(&path).unwrap();
    insta::assert_snapshot!(load(&path).unwrap_err().to_string().replace(&path.display().to_string(), "levee.yaml"), @"levee.yaml: can't be read: No such file or directory (os error 2); check the path and its mode");
    let folder = load(dir.path()).unwrap_err().to_string();
    assert!(folder.contains("can't be read"), "{folder}");
}

#[test]
fn merge_keys_share_settings() {
    let config = accepted(
        "services:\n- &base {name: a, vips: [192.0.2.1], ports: [80], ringSize: 64}\n- {<<: *base, name: b, vips: [192.0.2.2]}\n",
    );
    assert_eq!(config.desired.services[1].ring_size.slots(), 64);
}

/// `lo`, and `eth0` with 10.0.1.2/24 and fd00:1::2/64.
fn host() -> Network {
    let mut network = Network::default();
    for (index, name, kind) in [(1, "lo", InterfaceKind::Loopback), (2, "eth0", InterfaceKind::Ethernet)] {
        let interface = Interface { index, name: name.to_owned(), mac: MacAddr::default(), mtu: 1500, up: true, kind };
        network.interfaces.insert(index, interface);
    }
    for (interface, net) in
        [(1, "127.0.0.1/8"), (1, "192.0.2.9/24"), (2, "10.0.1.2/24"), (2, "fd00:1::2/64"), (2, "198.51.100.1/32")]
    {
        network.addresses.push(InterfaceAddress { interface, net: net.parse::<IpNet>().unwrap() });
    }
    network
}

fn host_refusal(config: &Config) -> String {
    check_against(config, &host()).map_or_else(|errors| errors.to_string(), |()| "accepted".to_owned())
}

#[test]
fn a_config_is_compared_with_the_host() {
    let service = |vips: &str| accepted(&format!("services: [{{name: s, ports: [80], vips: [{vips}]}}]\n"));
    assert_eq!(host_refusal(&service("192.0.2.1, 198.51.100.2, \"2001:db8::1\"")), "accepted");
    insta::assert_snapshot!(host_refusal(&service("10.0.1.9, \"fd00:1::9\"")), @"
levee.yaml:5:42: VIP 10.0.1.9 lies in the connected subnet 10.0.1.0/24 of eth0: hosts there would ask for it by ARP, which this version does not answer; choose an address outside
levee.yaml:5:52: VIP fd00:1::9 lies in the connected subnet fd00:1::/64 of eth0: hosts there would ask for it by NDP, which this version does not answer; choose an address outside
");
    insta::assert_snapshot!(host_refusal(&service("192.0.2.9, 198.51.100.1")), @"
levee.yaml:5:42: VIP 192.0.2.9 is an address of lo on this host already; remove it there or choose another VIP
levee.yaml:5:53: VIP 198.51.100.1 is an address of eth0 on this host already; remove it there or choose another VIP
");
    let elsewhere = read(&HEAD.replace("eth0", "eth1").replace("10.0.1.2", "10.0.1.3")).unwrap();
    insta::assert_snapshot!(host_refusal(&elsewhere), @"
levee.yaml:1:30: node address 10.0.1.3 is on no interface of this host; correct `node.addresses` or add it to one
levee.yaml:2:21: interface `eth1` is absent on this host; there are lo, eth0
");
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".*") {
        let _ = read(&text);
    }

    #[test]
    fn damaged_samples_never_panic(at in 0..SAMPLE.len(), length in 0usize..40, new in "[-\\[\\]{}:,&*\"'#|> a0\n]{0,5}") {
        let mut bytes = SAMPLE.as_bytes().to_vec();
        bytes.splice(at..(at + length).min(SAMPLE.len()), new.bytes());
        let _ = parse("sample", &String::from_utf8_lossy(&bytes), Path::new("/nonexistent"));
    }
}

#[path = "cluster_tests.rs"]
mod cluster;
