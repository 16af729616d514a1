use super::*;
use crate::model::{ClusterAccess, ControlPlaneSettings, KubernetesSettings, ServersFrom};

/// The sample's commented block of this key.
fn commented(key: &str) -> String {
    let begins = format!("# {key}:");
    let lines = SAMPLE.lines().skip_while(|line| *line != begins);
    let block = lines.take_while(|line| line.starts_with('#')).map(|line| format!("{}\n", &line[2..]));
    block.collect()
}

/// `HEAD` with a probe that needs no file, for a control plane.
const PROBE: &str = "probe: {https: {insecureSkipVerify: true}}";

fn kubernetes(keys: &str) -> KubernetesSettings {
    accepted(&format!("kubernetes: {{{keys}}}\n")).kubernetes.unwrap()
}

fn control_plane(keys: &str, rest: &str) -> ControlPlaneSettings {
    let text = format!("controlPlane: {{vips: [192.0.2.6], {PROBE}, {keys}}}\n{rest}");
    accepted(&text).control_plane.unwrap()
}

#[test]
fn a_cluster_has_its_defaults_and_the_sample_shows_them() {
    let expected = KubernetesSettings {
        access: ClusterAccess {
            kubeconfig: None,
            servers: Vec::new(),
            state_file: "/var/lib/levee/inventory.json".into(),
        },
        max_snapshot_age: Duration::from_secs(24 * 3600),
        class: "levee.dev/levee".to_owned(),
        default_class: false,
        services: true,
        reserved: Vec::new(),
        lifetime: Duration::from_secs(30),
        local_first: false,
        second_chance: false,
        node_name: "n1".to_owned(),
        peers_from_nodes: false, // `HEAD` has peers
    };
    assert_eq!(kubernetes(""), expected);
    let config = read(&format!("{}{}", HEAD.replace("peers:", "#"), commented("kubernetes"))).unwrap();
    let sample = KubernetesSettings {
        access: ClusterAccess {
            kubeconfig: Some("./kubelet.conf".into()),
            servers: vec!["10.0.1.2:6443".parse().unwrap()],
            ..expected.access
        },
        reserved: vec!["10.96.0.0/12".parse().unwrap()],
        node_name: "node-1".to_owned(),
        peers_from_nodes: true,
        ..expected
    };
    assert_eq!((config.kubernetes, config.control_plane), (Some(sample), None));
}

#[test]
fn a_control_plane_has_its_defaults_and_the_sample_shows_them() {
    let dir = folder();
    fs::write(dir.path().join("ca.crt"), authority()).unwrap();
    let bare = control_plane("", "kubernetes: {kubeconfig: /k}");
    let text = format!("{HEAD}kubernetes: {{kubeconfig: /k}}\n{}", commented("controlPlane"));
    let mut sample = parse("sample", &text, dir.path()).unwrap().control_plane.unwrap();
    let https = |settings: &ControlPlaneSettings| {
        let probe = settings.probe.as_deref().unwrap();
        let ProbeKind::Https(http, tls) = &probe.kind else { panic!("{probe:?}") };
        (probe.port, http.path.clone(), tls.server_name.clone(), probe.interval, probe.timeout)
    };
    let second = Duration::from_secs(1);
    let expected = (6443, "/readyz".to_owned(), Some("kubernetes.default.svc".to_owned()), second, second);
    assert_eq!((https(&bare), https(&sample)), (expected.clone(), expected));
    assert_eq!(sample.backends, [ip("10.0.1.2"), ip("10.0.2.2")]);
    sample.backends.clear();
    sample.probe.clone_from(&bare.probe); // they trust differently
    assert_eq!(sample, bare);
    assert_eq!((bare.from, bare.announced_for), (ServersFrom::Endpoints, Some(Duration::from_secs(30))));
}

#[test]
fn a_control_plane_without_a_cluster_is_static() {
    let own = control_plane(
        "port: 443, serverPort: 6443, backends: [10.0.2.2, 10.0.1.2], announcer: none, connectTranslation: on, localFirst: true",
        "",
    );
    assert_eq!((own.from, own.port, own.announced_for), (ServersFrom::Static, 443, None));
    assert_eq!((own.server_port, own.connect_translation, own.local_first), (6443, true, true));
    assert_eq!((own.backends, own.probe.unwrap().port), (vec![ip("10.0.1.2"), ip("10.0.2.2")], 6443));
}

#[test]
fn a_control_plane_behind_a_pods_credentials_is_warned_about() {
    let warnings = |access: &str| {
        let text = format!("controlPlane: {{vips: [192.0.2.6], {PROBE}}}\nkubernetes: {{{access}}}\n");
        accepted(&text).warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let [warning] = &warnings("")[..] else { panic!("one warning") };
    assert!(warning.starts_with("levee.yaml:5:15: ") && warning.contains("power cut"), "{warning}");
    assert_eq!(warnings("kubeconfig: /k"), [""; 0]);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let of = |keys: &str| format!("controlPlane: {{{keys}}}\n");
    for (text, expected) in [
        (
            of("vips: [192.0.2.6], backends: [10.0.1.2]"),
            "levee.yaml:5:15: controlPlane has no `probe`; add `probe: {https: {caFile: /etc/kubernetes/pki/ca.crt}}`, or `insecureSkipVerify: true` in place of the file while there is none yet",
        ),
        (
            of(&format!("vips: [192.0.2.6], {PROBE}")),
            "levee.yaml:5:15: no API server is known: name them in `controlPlane.backends`, or add `kubernetes` to learn them",
        ),
        (
            of(&format!("vips: [192.0.2.6], {PROBE}, from: nodes")),
            "levee.yaml:5:85: `from` learns API servers from the cluster, but there is no `kubernetes`; add it, or write `from: static`",
        ),
        (
            of(&format!("vips: [10.0.2.2], {PROBE}, backends: [10.0.1.2]")),
            "levee.yaml:5:23: VIP 10.0.2.2 is an address of node `n2` itself; choose one that no node has",
        ),
        (
            of(&format!("vips: [192.0.2.6], {PROBE}, backends: [192.0.2.6]")),
            "levee.yaml:5:90: backend 192.0.2.6 is itself the VIP; its packets would come back: name the host's own address",
        ),
        (
            format!(
                "{}services: [{{name: control-plane, vips: [192.0.2.6], ports: [80]}}]\n",
                of(&format!("vips: [192.0.2.6], {PROBE}, backends: [10.0.1.2]"))
            ),
            "levee.yaml:5:23: VIP 192.0.2.6 belongs to service `control-plane` (line 6) already; the control plane needs one of its own\n\
             levee.yaml:6:19: `control-plane` is what the service of `controlPlane` is called; choose another name",
        ),
        (
            "kubernetes: {servers: [nowhere, \":1\", \"a:0\"], reserved: [10.0.0.1/8, x], maxSnapshotAge: 1s}\n"
                .to_owned(),
            "levee.yaml:5:24: `servers` has `nowhere`; write address and port as in 10.0.1.2:6443 or \"[fd00:1::2]:6443\"\n\
             levee.yaml:5:33: `servers` has `:1`; write address and port as in 10.0.1.2:6443 or \"[fd00:1::2]:6443\"\n\
             levee.yaml:5:39: `servers` has `a:0`; write address and port as in 10.0.1.2:6443 or \"[fd00:1::2]:6443\"\n\
             levee.yaml:5:58: reserved 10.0.0.1/8 has bits beyond its length; write 10.0.0.0/8\n\
             levee.yaml:5:70: reserved `x` is no prefix; write one as in 10.96.0.0/12, IPv6 in quotes\n\
             levee.yaml:5:90: `maxSnapshotAge` is `1s`; it has to be within 1m..=720h",
        ),
    ] {
        assert_eq!(refusal(&text), expected, "{text}");
    }
}

#[test]
fn credentials_are_read_with_the_file_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("probe.crt", &certificate.pem());
    write("probe.key", &key.serialize_pem());
    write("token", "s3cr3t\n");
    let probe = |keys: &str| {
        let text = format!(
            "{HEAD}services: [{{name: s, vips: [192.0.2.1], ports: [80], probe: {{https: {{insecureSkipVerify: true, {keys}}}}}}}]"
        );
        parse("levee.yaml", &text, dir.path())
    };
    let config = probe("tokenFile: token, clientCertFile: probe.crt, clientKeyFile: probe.key").unwrap();
    assert!(!format!("{config:?}").contains("s3cr3t") && !format!("{config:?}").contains("PRIVATE"));
    let ProbeKind::Https(_, tls) = &config.desired.services[0].probe.as_ref().unwrap().kind else { panic!("https") };
    assert_eq!(tls.credentials.token.as_deref(), Some("s3cr3t"));
    assert_eq!(tls.credentials.identity.as_ref().unwrap().chain, [certificate.der().to_vec()]);
    assert!(config.files.iter().all(NamedFile::is_unchanged) && config.files.len() == 3);
    write("token", "renewed\n");
    assert!(!config.files.iter().all(NamedFile::is_unchanged));
    write("other.key", &rcgen::KeyPair::generate().unwrap().serialize_pem());
    write("token", "two words");
    for (keys, part) in [
        ("tokenFile: token", "holds no token"),
        ("tokenFile: absent", "can't be read"),
        ("clientCertFile: probe.crt", "go together"),
        ("clientCertFile: probe.crt, clientKeyFile: other.key", "belong together"),
        ("clientCertFile: token, clientKeyFile: probe.key", "belong together"),
    ] {
        let error = probe(keys).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("two words"), "{keys}: {error}");
    }
}
