use super::*;

fn parsed(lines: &str) -> Result<Option<NsxtConfig>, String> {
    let body: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    parse_nsxt("f", &format!("nsxt:\n{body}"), Path::new("/base")).map_err(|errors| errors.to_string())
}

const LEAST: &str = "cluster: c1\nmanagers: [nsx.example.com]\ntier1: t1\nusername: admin\npasswordFile: pw\n\
                     insecureSkipVerify: true";

#[test]
fn defaults_are_as_documented() {
    let config = parsed(LEAST).unwrap().unwrap();
    let expected = NsxtConfig {
        cluster: "c1".to_owned(),
        managers: vec!["https://nsx.example.com".to_owned()],
        tier1: "t1".to_owned(),
        api: NsxtApi::Auto,
        auth: NsxtAuth::Basic(NsxtLogin {
            username: "admin".to_owned(),
            password: PasswordSource::File("/base/pw".into()),
        }),
        trust: NsxtTrust::Anybody,
        max_next_hops: 8,
        admin_distance: 1,
        allow_overwrite: false,
        adopt: false,
        fix_advertisement: false,
        resync: Duration::from_secs(60),
        timeout: Duration::from_secs(5),
        requests_per_second: 5,
    };
    assert_eq!(config, expected);
}

#[test]
fn every_key_is_read() {
    let hash = "AB:".repeat(31) + "cd";
    let config = parsed(&format!(
        "cluster: c1\nmanagers: [\"https://a:8443/\", \"https://[2001:db8::1]\"]\ntier1: /infra/tier-1s/t1/\n\
         api: manager\nauth: certificate\nclientCertificateFile: c.pem\nclientKeyFile: /k.pem\nthumbprint: \"{hash}\"\n\
         maxNextHops: 3\nadminDistance: 7\nallowOverwrite: true\nadopt: true\nfixAdvertisement: true\nresync: 5m\n\
         timeout: 2s\nrequestsPerSecond: 1"
    ));
    let config = config.unwrap().unwrap();
    let mut bytes = [0xab; 32];
    bytes[31] = 0xcd;
    assert_eq!(config.managers, ["https://a:8443", "https://[2001:db8::1]"]);
    assert_eq!((config.tier1.as_str(), config.api), ("/infra/tier-1s/t1", NsxtApi::Manager));
    assert_eq!(config.auth, NsxtAuth::Certificate { certificate: "/base/c.pem".into(), key: "/k.pem".into() });
    assert_eq!(config.trust, NsxtTrust::Thumbprints(vec![bytes]));
    assert_eq!((config.max_next_hops, config.admin_distance, config.requests_per_second), (3, 7, 1));
    assert!(config.allow_overwrite && config.adopt && config.fix_advertisement);
    assert_eq!((config.resync, config.timeout), (Duration::from_secs(300), Duration::from_secs(2)));
}

#[test]
fn mistakes_are_named() {
    let without = |line: &str| LEAST.lines().filter(|kept| !kept.starts_with(line)).collect::<Vec<_>>().join("\n");
    let table = [
        (without("cluster"), "nsxt has no `cluster`; add it"),
        (without("managers"), "nsxt has no `managers`; add it"),
        (without("tier1"), "nsxt has no `tier1`; add it"),
        (without("username"), "nsxt has no `username`; add it"),
        (without("passwordFile"), "nsxt has no password; add `passwordFile` or `passwordEnv`"),
        (without("insecure"), "nsxt does not say which managers to trust"),
        (format!("{LEAST}\npassword: hunter2"), "`password` does not stand in this file"),
        (format!("{LEAST}\npasswordEnv: X"), "both `passwordFile` and `passwordEnv` are there"),
        (format!("{LEAST}\nthumbprint: ab"), "both `thumbprint` and `insecureSkipVerify` are there"),
        (format!("{LEAST}\nauth: certificate"), "`username` does not go with this `auth`"),
        (format!("{LEAST}\nclientKeyFile: k"), "`clientKeyFile` does not go with this `auth`"),
        (format!("{LEAST}\nmaxNextHops: 0"), "`maxNextHops` is `0`; write a whole number in 1..=64"),
        (format!("{LEAST}\nresync: 10s"), "`resync` is `10s`; it has to be within 1m..=24h"),
        (format!("{LEAST}\nadoptt: true"), "unknown key `adoptt` in nsxt; did you mean `adopt`?"),
        (LEAST.replace("nsx.ex", "http://nsx.ex"), "the password would cross the network in the clear"),
        (LEAST.replace("nsx.ex", "https://u:hunter2@nsx.ex"), "a name or password does not stand here"),
        (LEAST.replace(".com", ".com/policy"), "write scheme, name and port only"),
        (LEAST.replace("[nsx.example.com]", "[]"), "`managers` has 0 items; name 1..=16"),
        (LEAST.replace("[nsx.example.com]", "[a, \"https://a\"]"), "manager https://a is there twice"),
        (LEAST.replace("insecureSkipVerify: true", "insecureSkipVerify: false"), "`insecureSkipVerify` is false"),
        (LEAST.replace("insecureSkipVerify: true", "caFile: absent.pem"), "`caFile` /base/absent.pem can't be read"),
        (LEAST.replace("insecureSkipVerify: true", &format!("thumbprint: {}", "a".repeat(40))), "which is SHA-1"),
    ];
    for (text, part) in table {
        let error = parsed(&text).unwrap_err();
        assert!(error.contains(part), "{text}\n{error}");
    }
}

#[test]
fn a_file_without_the_key_has_none() {
    assert_eq!(parse_nsxt("f", "node: {}\n", Path::new("/")), Ok(None));
}

#[test]
fn the_documented_file_is_good_and_has_every_key() {
    let page = include_str!("../../../docs/nsxt.md");
    let text = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(dir.path().join("nsxt-ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let config = parse_nsxt("nsxt.md", text, dir.path()).unwrap().unwrap();
    let default = parsed(LEAST).unwrap().unwrap();
    assert_eq!(config.managers.len(), 2);
    // What it shows of keys with a default is the default.
    let NsxtConfig { managers, tier1, auth, trust, .. } = config.clone();
    assert_eq!(config, NsxtConfig { managers, tier1, auth, trust, ..default });
    for key in KEYS.iter().filter(|key| **key != "password") {
        assert!(text.contains(key), "{key}");
    }
}
