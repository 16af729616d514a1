//! Configurations to begin with, by name.

use lb_agent::config::SAMPLE;

/// What every configuration needs.
const HEAD: &str = "\
node: {name: n1, addresses: [10.0.1.2, \"fd00:1::2\"]}
interfaces: [{name: eth0, mode: auto}]
secret: 000102030405060708090a0b0c0d0e0f
peers: [{name: n2, addresses: [10.0.2.2]}]
";

const SERVICES: &str = "\
services:
  - name: api
    vips: [192.0.2.10, \"2001:db8::10\"]
    ports: [6443]
    ringSize: 128
    backends: [{address: 10.0.1.2}, {address: 10.0.2.2, weight: 0}]
    probe: {tcp: {port: 6443}, interval: 500ms, timeout: 100ms, rise: 1, fall: 2}
  - name: dns
    vips: [192.0.2.11]
    ports: [53, 853]
    protocol: udp
    delivery: gue
    sessionAffinity: clientIP
    sourceRanges: [10.0.0.0/8, \"2001:db8::/32\"]
    backends:
      - address: 10.0.2.2
";

/// Each with its name.
pub fn texts() -> Vec<(String, Vec<u8>)> {
    let with = |rest: &str| format!("{HEAD}{rest}");
    let texts = [
        ("sample", SAMPLE.to_owned()),
        ("head", HEAD.to_owned()),
        ("services", with(SERVICES)),
        ("services-last", with(&format!("http: off\nlog: {{format: json, level: debug}}\n{SERVICES}"))),
        ("services-between", with(&format!("{SERVICES}onTerminate: withdraw\nhttp: \"[::1]:9090\"\n"))),
        ("services-flow", with("services: [{name: s, vips: [192.0.2.1], ports: [80], probe: none}]\n")),
        ("services-none", with("services: []\n")),
        ("services-twice", with(&format!("{SERVICES}{SERVICES}"))),
        (
            "announcements",
            with(&format!("{SERVICES}announcements: [{{vips: [192.0.2.10], when: always, lifetime: 5s}}]\n")),
        ),
        ("capacities", with("capacities: {services: 1, backends: 1, ringSlots: 64, flows: 64, flowsPerService: 64}\n")),
        ("capacity-short", with(&format!("{SERVICES}capacities: {{ringSlots: 64, backends: 1}}\n"))),
        ("https", with(&SERVICES.replace("tcp: {port: 6443}", "https: {path: /readyz, host: api, skipVerify: true}"))),
        ("unknown-key", with("colour: red\n")),
        (
            "bad-values",
            with(&SERVICES.replace("128", "100").replace("192.0.2.11", "127.0.0.1").replace("[53", "[99999")),
        ),
        ("bad-secret", HEAD.replace("0001", "zz")),
        ("duplicate-key", with("http: off\nhttp: off\n")),
        ("anchors", with("x: &a [1]\nlog: *a\n")),
        ("merge-key", with("log: {<<: {level: info}}\n")),
        ("documents", with("---\nhttp: off\n")),
        ("directive", format!("%YAML 1.2\n---\n{HEAD}...\n")),
        ("windows-lines", with(SERVICES).replace('\n', "\r\n")),
        ("byte-order-mark", format!("\u{feff}{}", with(SERVICES))),
        ("tabs", with("\tservices: []\n")),
        ("block-scalar", HEAD.replace("0001", ">-\n  0001")),
        ("tag", with("http: !!str off\n")),
        ("quoted", with("socket: \"/run/\\u0041\\n\"\n")),
        ("wide-characters", with("services: [{name: \"\u{1f980}\u{e9}\", vips: [\u{1f980}]}]\n")),
        ("deep", with(&format!("log: {}{}\n", "[".repeat(200), "]".repeat(200)))),
        ("open-brace", with("log: {format: text\n")),
        ("open-quote", with("socket: \"/run\n")),
        ("remark", "# nothing\n".to_owned()),
        ("list", "- 1\n- 2\n".to_owned()),
        ("empty", String::new()),
    ];
    texts.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())).collect()
}
